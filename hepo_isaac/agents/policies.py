"""The policies and critics of S runs along the policy axis, with the statistics that normalise what they see and say.

S runs of a method with Q policies each are P = S * Q stacked policies; policy p belongs to run p // Q. Nothing here
reads a tensor's value on the host, and nothing learns: who trains them is agents/learner.py.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.network import PolicyStack
from hepo_isaac.agents.normalizer import RunningMeanStd, ValueNormalizer
from hepo_isaac.methods.losses import gaussian_log_prob, probability_ratio

# Rows of each policy that a CPU judges at once: the hidden layers of a whole rollout of 16,384 envs would take hundreds
# of megabytes, which it has to fetch from memory besides. A GPU is better off with one large product.
ROWS_AT_ONCE = 8192

# An actor-critic's answer to rows of observations: actions, log probabilities, means, values.
Acted = Tuple[Tensor, Tensor, Tensor, Tensor]


class Policies:
    """P actor-critics with their normalisers.

    Args:
        policies_per_run: Q.  train: widths, activation, and whether observations are normalised.
        num_obs, num_actions: O, A.  num_states: how many of the O only the critics see, the last ones.
        generators: one per run, on ``device``; they draw the initial weights.
        shares: how many of a run's blocks of envs each policy acts in; empty: one.

    Attributes:
        owners: (B,) which policy acts in each block of envs, or None where block p is policy p's.
    """

    def __init__(
        self,
        policies_per_run: int,
        train: TrainConfig,
        num_obs: int,
        num_actions: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
        num_states: int = 0,
        shares: Sequence[int] = (),
    ) -> None:
        self.num_runs, self.policies_per_run = len(generators), policies_per_run
        self.num_policies = p = self.num_runs * policies_per_run
        self.num_obs, self.num_actions = num_obs, num_actions
        self._normalize_input = train.normalize_input
        trunk = (train.units, train.activation, generators, device)
        self.net = PolicyStack(p, num_obs, num_actions, 2, *trunk, num_states, train.critic_units)
        self.obs_norm = RunningMeanStd(self.num_runs, num_obs, device)
        self.value_norm = ValueNormalizer(p, 2, device, train.value_target_clip)
        # Policy p's partner is the other one of its run; where there is one policy, itself.
        self.partner = torch.arange(p, device=device).view(-1, policies_per_run).flip(1).reshape(-1)
        self.shares = tuple(shares) or (1,) * policies_per_run
        alike = set(self.shares) == {1}
        each = [policy for policy in range(p) for _ in range(self.shares[policy % policies_per_run])]
        self.owners: Optional[Tensor] = None if alike else torch.tensor(each, device=device)

    # -- acting ------------------------------------------------------------------------------------------------
    def normalize_obs(self, obs: Tensor) -> Tensor:
        """(P or S, B, O) -> normalised with the statistics of each policy's run (its policies share one set)."""
        if not self._normalize_input:
            return obs
        return self.obs_norm.normalize(obs.reshape(self.num_runs, -1, self.num_obs)).view_as(obs)

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor) -> Acted:
        """Each policy acts on its own envs.

        Args:
            obs: (P, n, O) raw, or with ``owners`` a block of envs each.  noise: (P, n, A) standard normal.

        Returns:
            actions (P, n, A) unclamped, log_prob (P, n), mean (P, n, A), values (P, n, 2) in reward units.
        """
        mean, value, log_std = self.net(self.normalize_obs(obs), self.owners)
        log_std = log_std.unsqueeze(1)
        actions = mean + log_std.exp() * noise
        values = self.value_norm.denormalize(value, self.owners)
        return actions, gaussian_log_prob(actions, mean, log_std), mean, values

    @torch.no_grad()
    def act_deterministic(self, obs: Tensor, policy: int) -> Tensor:
        """(B, O) raw -> (B, A) mean action of one policy."""
        return self.net(self.normalize_obs(obs.unsqueeze(0).expand(self.num_policies, -1, -1)))[0][policy]

    # -- judging -----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def mean_and_values(self, obs: Tensor, owners: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """(P, B, O) raw -> mean action (P, B, A) and values (P, B, 2) in reward units; of ``owners`` where blocks and
        policies are not the same."""
        pieces = obs.split(ROWS_AT_ONCE, 1) if obs.device.type == "cpu" else (obs,)
        found = [self.net(self.normalize_obs(rows), owners)[:2] for rows in pieces]
        mean, values = found[0] if len(found) == 1 else (torch.cat(parts, 1) for parts in zip(*found))
        return mean, self.value_norm.denormalize(values, owners)

    def values(self, obs: Tensor, owners: Optional[Tensor] = None) -> Tensor:
        """(P, B, O) raw -> (P, B, 2) values in reward units."""
        return self.mean_and_values(obs, owners)[1]

    def values_of_blocks(self, obs: Tensor) -> Tensor:
        """(T, P, n, O) raw -> (T, P, n, 2)."""
        horizon, policies, n, _ = obs.shape
        flat = obs.transpose(0, 1).reshape(policies, horizon * n, -1)
        return self.values(flat).view(policies, horizon, n, 2).transpose(0, 1)

    @torch.no_grad()
    def ratio(self, normalized_obs: Tensor, actions: Tensor, log_prob: Tensor) -> Tensor:
        """(P, R) probability of every action of a run under each policy now, over that under who acted.

        Args:
            normalized_obs: (S, R, O).  actions: (S, R, A).  log_prob: (P, R) of who acted.
        """
        every = self.policies_per_run
        mean, _, log_std = self.net(normalized_obs.repeat_interleave(every, 0))
        now = gaussian_log_prob(actions.repeat_interleave(every, 0), mean, log_std.unsqueeze(1))
        return probability_ratio(now, log_prob)

    # -- statistics --------------------------------------------------------------------------------------------
    @torch.no_grad()
    def move_value_norm(self, returns: Union[Tensor, Sequence[Tensor]], groups: Optional[Tensor] = None) -> None:
        """Move the value statistics (targets only) and rescale the heads so that no prediction changes.

        A channel whose spread was or is still zero has nothing to preserve.

        Args:
            returns: (P, B, 2), or one (S, B_q, 2) for each policy of a run.
            groups: (P,) bool, the policies to move; None is all.
        """
        norm = self.value_norm
        old_mean, old_std = norm.mean.to(torch.float32), norm.std(0.0)
        if isinstance(returns, Tensor):
            norm.update(returns, groups)
        else:
            norm.update_ragged(returns)
        mean, std = norm.mean.to(torch.float32), norm.std(0.0)
        known = (old_std > 0) & (std > 0)
        safe = std.clamp_min(1e-12)
        scale = torch.where(known, old_std / safe, torch.ones_like(std))
        shift = torch.where(known, (old_mean - mean) / safe, torch.zeros_like(std))
        self.net.rescale_values(scale, shift)

    def observe(self, obs: Tensor) -> None:
        """Move the observation statistics with raw rows (S, R, O)."""
        if self._normalize_input:
            self.obs_norm.update(obs.reshape(self.num_runs, -1, self.num_obs))

    # -- members -----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def take(self, source: Tensor) -> None:
        """Policy p goes on with the weights and value statistics of policy ``source[p]``, (P,) int64."""
        norm = self.value_norm
        for tensor in (self.net.flat, norm.mean, norm.var, norm.count):
            tensor.copy_(tensor.index_select(0, source))

    # -- checkpoints -------------------------------------------------------------------------------------------
    def state_dict(self) -> Dict[str, Any]:
        """Weights and statistics; every tensor has a row per policy or run."""
        return {
            "flat": self.net.flat.detach().clone(),
            "obs_norm": self.obs_norm.state_dict(),
            "value_norm": self.value_norm.state_dict(),
        }

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned, or a learner's, which holds it; ValueError if the networks differ."""
        flat = state["flat"]
        if flat.shape != self.net.flat.shape:
            raise ValueError(
                "the checkpoint's networks have %s parameters, this run's %s: task, algo or train.network differ"
                % (tuple(flat.shape), tuple(self.net.flat.shape))
            )
        with torch.no_grad():
            self.net.flat.copy_(flat)
        self.obs_norm.load_state_dict(state["obs_norm"])
        self.value_norm.load_state_dict(state["value_norm"])
