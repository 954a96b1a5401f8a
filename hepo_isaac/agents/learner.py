"""The learner: policies, critics, normalisers, multiplier and the update, along the policy axis.

S runs of a method with Q policies each are P = S * Q stacked policies; policy p belongs to run p // Q. A run's rows
(S, R) are what its policies produced, owner by owner; each policy has its own view of them (P, R).
Nothing here reads a tensor's value on the host.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.experience import Experience, Progress
from hepo_isaac.agents.graph import CapturedStep
from hepo_isaac.agents.network import PolicyStack
from hepo_isaac.agents.normalizer import RunningMeanStd, ValueNormalizer
from hepo_isaac.agents.optimizer import StackedAdam
from hepo_isaac.agents.potential import LearnedPotential
from hepo_isaac.agents.rollout import Batch, RolloutBuffer
from hepo_isaac.agents.rows import RowPlan
from hepo_isaac.agents.turns_experience import TurnsExperience
from hepo_isaac.methods.advantages import constrained_weights, lagrangian_weights
from hepo_isaac.methods.losses import (
    adapt_learning_rate,
    clipped_value_loss,
    dual_clipped_surrogate,
    effective_sample_fraction,
    gaussian_kl,
    gaussian_log_prob,
    mean_bound_loss,
    probability_ratio,
)
from hepo_isaac.methods.method import MethodConfig
from hepo_isaac.methods.multiplier import Multiplier

# Per-policy statistics of an update, in the order they are summed.
UPDATE_STATS = (
    "loss_actor",
    "loss_critic",
    "kl",
    "clip_fraction_own",
    "clip_fraction_foreign",
    "ess_foreign",
    "grad_norm",
)


class Learner:
    """All learnable state of S runs of one method.

    Args:
        method, train: what and how.  num_envs: N of all runs together.  num_obs, num_actions: O, A.
        num_states: how many of the O only the critics see, the last ones.
        generators: one per run, on ``device``; the only source of randomness.
    """

    def __init__(
        self,
        method: MethodConfig,
        train: TrainConfig,
        num_envs: int,
        num_obs: int,
        num_actions: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
        num_states: int = 0,
    ) -> None:
        self.method, self.train, self.device = method, train, device
        self.num_runs, self.generators = len(generators), list(generators)
        self.num_policies = p = self.num_runs * method.num_policies
        self.num_obs, self.num_actions = num_obs, num_actions
        self.rows = RowPlan(method, train, num_envs, self.generators, device)
        trunk = (train.units, train.activation, generators, device)
        self.net = PolicyStack(p, num_obs, num_actions, 2, *trunk, num_states, train.critic_units)
        self.optimizer = StackedAdam(self.net.flat, torch.full((p,), train.learning_rate, device=device))
        self.obs_norm = RunningMeanStd(self.num_runs, num_obs, device)
        self.value_norm = ValueNormalizer(p, 2, device)
        self.multiplier = Multiplier(method.multiplier, self.num_runs, device)
        self.potential: Optional[LearnedPotential] = None
        if method.shaping.kind == "potential" and method.shaping.potential == "learned":
            self.potential = LearnedPotential(
                p, num_obs, num_actions, train.units, train.activation, self.obs_norm, generators, device
            )
        self.partner = torch.arange(p, device=device).view(-1, method.num_policies).flip(1).reshape(-1)
        critics = torch.tensor(method.critic_channels(), dtype=torch.float32, device=device)
        self._critic_channels = critics.repeat(self.num_runs, 1)
        self.experience = TurnsExperience(self) if method.collection == "alternating" else Experience(self)
        self._gradient_mask: Optional[Tensor] = None
        self._adapts = torch.ones(p, dtype=torch.bool, device=device)  # whose learning rate follows its KL
        self._stats = torch.zeros(p, len(UPDATE_STATS), device=device)
        self.optimizer.zero_grad()  # the gradient exists before anything is captured
        self.minibatch_step = CapturedStep(self._minibatch_step, train.graph_update, device)

    def freeze_reference(self, flat: Tensor, obs_norm: Dict[str, Tensor]) -> None:
        """Make the second policy of every run a trained one (D,) that never changes but for its value heads.

        Both policies then see observations as it does: the normaliser of its training is taken over and stands still.
        """
        with torch.no_grad():
            self.net.flat[1::2] = flat.to(self.device)
        for name, value in obs_norm.items():
            getattr(self.obs_norm, name).copy_(value[:1].expand_as(getattr(self.obs_norm, name)))
        self.obs_norm.frozen = True
        self._gradient_mask = torch.ones_like(self.net.flat, requires_grad=False)
        self._gradient_mask[1::2] = self.net.value_head_mask()
        self._adapts[1::2] = False  # its KL is 0, which would drive the rate of its critics to the maximum

    # -- acting ------------------------------------------------------------------------------------------------
    def normalize_obs(self, obs: Tensor) -> Tensor:
        """(P or S, B, O) -> normalised with the statistics of each policy's run (its policies share one set)."""
        if not self.train.normalize_input:
            return obs
        return self.obs_norm.normalize(obs.reshape(self.num_runs, -1, self.num_obs)).view_as(obs)

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each policy acts on its own envs.

        Args:
            obs: (P, n, O) raw.  noise: (P, n, A) standard normal.

        Returns:
            actions (P, n, A) unclamped, log_prob (P, n), mean (P, n, A), values (P, n, 2) in reward units.
        """
        mean, value, log_std = self.net(self.normalize_obs(obs))
        log_std = log_std.unsqueeze(1)
        actions = mean + log_std.exp() * noise
        return actions, gaussian_log_prob(actions, mean, log_std), mean, self.value_norm.denormalize(value)

    @torch.no_grad()
    def act_blocks(self, obs: Tensor, noise: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """As ``act`` on blocks (B, n, .) of envs: each with its own policy, or with whose turn it is."""
        if not isinstance(self.experience, TurnsExperience):
            return self.act(obs, noise)
        acting = self.experience.turns.acting
        both = self.act(obs.repeat_interleave(2, 0), noise.repeat_interleave(2, 0))
        chosen = torch.arange(self.num_runs, device=self.device) * 2 + acting
        actions, log_prob, mean, values = (x.index_select(0, chosen) for x in both)
        return actions, log_prob, mean, values

    @torch.no_grad()
    def evaluate(self, obs: Tensor) -> Tuple[Tensor, Tensor]:
        """(P, B, O) raw -> mean action (P, B, A) and values (P, B, 2) in reward units."""
        mean, values, _ = self.net(self.normalize_obs(obs))
        return mean, self.value_norm.denormalize(values)

    def values(self, obs: Tensor) -> Tensor:
        """(P, B, O) raw -> (P, B, 2) values in reward units."""
        return self.evaluate(obs)[1]

    def values_of_blocks(self, obs: Tensor) -> Tensor:
        """(T, P, n, O) raw -> (T, P, n, 2)."""
        horizon, policies, n, _ = obs.shape
        flat = obs.transpose(0, 1).reshape(policies, horizon * n, -1)
        return self.values(flat).view(policies, horizon, n, 2).transpose(0, 1)

    @torch.no_grad()
    def act_deterministic(self, obs: Tensor, policy: int) -> Tensor:
        """(B, O) raw -> (B, A) mean action of one policy."""
        return self.net(self.normalize_obs(obs.unsqueeze(0).expand(self.num_policies, -1, -1)))[0][policy]

    def policy_weights(self, heuristic_weight: Optional[float] = None) -> Tensor:
        """(P, 2) weight of each channel's advantage in each policy's objective; lambda as given or configured."""
        m = self.method
        lam = m.heuristic_weight if heuristic_weight is None else heuristic_weight
        alpha = self.multiplier.value
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        rows: List[Tensor] = []
        for objective in m.objectives:
            if objective == "constrained":
                rows.append(constrained_weights(alpha, lam, m.unit_norm, m.mixing))
            elif objective == "lagrangian":
                rows.append(lagrangian_weights(alpha))
            elif objective == "task":
                rows.append(torch.stack((one, zero), -1))
            elif objective == "heuristic" or m.sum_reward:
                rows.append(torch.stack((zero, one), -1))
            else:
                rows.append(torch.stack((one, lam * one), -1))
        return torch.stack(rows, 1).view(self.num_policies, 2)

    # -- one iteration -----------------------------------------------------------------------------------------
    def learn(self, buffer: RolloutBuffer, last_obs: Tensor, progress: Progress) -> Dict[str, Tensor]:
        """Everything between two rollouts; returns per-policy statistics (P,) by name.

        Args:
            buffer: a full rollout.  last_obs: (B, n, O) observation after its last step.
        """
        batch = self.prepare(buffer, last_obs, progress)
        stats = self.update(batch)
        if self.method.reference_noise > 0.0:
            self._disturb_reference()
        if self.method.contrast_after_update:
            self.experience.record_after_update(buffer, last_obs, progress)
        moving = self.experience.after_update(batch)
        if self.method.constraint != "none":
            self.multiplier.update(moving)
        self.experience.finish_iteration()
        if self.train.normalize_input:  # only now, so that it stood still while ratios were taken
            self.obs_norm.update(buffer.rows(buffer.obs).reshape(self.num_runs, -1, self.num_obs))
        return stats

    @torch.no_grad()
    def _disturb_reference(self) -> None:
        """Let every run's second policy stray by a random step, drawn from that run's stream."""
        acts = 1.0 - self.net.value_head_mask()
        for run, generator in enumerate(self.generators):
            noise = torch.randn(acts.shape, generator=generator, device=self.device)
            self.net.flat[2 * run + 1].add_(self.method.reference_noise * noise * acts)

    def prepare(self, buffer: RolloutBuffer, last_obs: Tensor, progress: Optional[Progress] = None) -> Batch:
        """Advantages, targets, alpha's record; moves the value statistics."""
        return self.experience.batch(buffer, last_obs, progress or Progress())

    @torch.no_grad()
    def move_value_norm(self, returns: Tensor, groups: Optional[Tensor] = None) -> None:
        """Move the value statistics (targets only) and rescale the heads so that no prediction changes.

        A channel whose spread was or is still zero has nothing to preserve.

        Args:
            returns: (P, B, 2).  groups: (P,) bool, the policies to move; None is all.
        """
        norm = self.value_norm
        old_mean, old_std = norm.mean.to(torch.float32), norm.std(0.0)
        norm.update(returns, groups)
        mean, std = norm.mean.to(torch.float32), norm.std(0.0)
        known = (old_std > 0) & (std > 0)
        safe = std.clamp_min(1e-12)
        scale = torch.where(known, old_std / safe, torch.ones_like(std))
        shift = torch.where(known, (old_mean - mean) / safe, torch.zeros_like(std))
        self.net.rescale_values(scale, shift)

    # -- update ------------------------------------------------------------------------------------------------
    def update(self, batch: Batch) -> Dict[str, Tensor]:
        """Mini-epochs of minibatch steps; returns per-policy statistics (P,) by name."""
        shared, mine = batch.packed()
        old_log_std = self.net.log_std.detach().clone()
        weights = self.rows.loss_weights(batch.on_policy)
        self._stats.zero_()
        c = self.train
        steps = 0
        for _ in range(c.mini_epochs):
            epoch_kl = torch.zeros(self.num_policies, device=self.device)
            for in_shared, in_mine in self.rows.minibatches_of_epoch():
                shape = (self.num_policies, in_mine.shape[1], -1)
                rows = shared.index_select(0, in_shared.flatten()).view(shape)
                own = mine.index_select(0, in_mine.flatten()).view(shape)
                kl = self.minibatch_step(rows, own, weights, old_log_std)
                epoch_kl += kl
                steps += 1
                if c.lr_schedule == "minibatch":
                    self._adapt(kl)
            if c.lr_schedule == "mini_epoch":
                self._adapt(epoch_kl / self.rows.minibatches)
        mean = self._stats / steps
        stats = {name: mean[:, i] for i, name in enumerate(UPDATE_STATS)}
        if c.lr_schedule == "iteration":
            self._adapt(stats["kl"])
        return stats

    def _adapt(self, kl: Tensor) -> None:
        rate = self.optimizer.learning_rate
        new = adapt_learning_rate(rate, kl, self.train.kl_threshold, (self.train.min_lr, self.train.max_lr))
        rate.copy_(torch.where(self._adapts, new, rate))

    def _minibatch_step(self, rows: Tensor, mine: Tensor, weights: Tensor, old_log_std: Tensor) -> Tensor:
        """One gradient step on (P, m, .) rows, see Batch.packed; returns KL (P,).

        weights: (P, 6), see RowPlan.loss_weights.
        """
        c, actions_end = self.train, self.num_obs + self.num_actions
        obs, actions = rows[..., : self.num_obs], rows[..., self.num_obs : actions_end]
        old_mean, old_values, targets, rest = mine.split((self.num_actions, 2, 2, 2), -1)
        advantage, on_policy = rest.unbind(-1)
        own, foreign = weights.unsqueeze(1)[..., 0::2], weights.unsqueeze(1)[..., 1::2]
        per_row = foreign + on_policy.unsqueeze(-1) * (own - foreign)  # (P, m, 3) in actor, critic, KL
        in_actor, in_critic, in_kl = per_row.unbind(-1)
        self.optimizer.zero_grad()
        mean, values, log_std = self.net(obs)
        log_prob = gaussian_log_prob(actions, mean, log_std.unsqueeze(1))
        ratio = probability_ratio(log_prob, rows[..., actions_end])
        actor_rows = dual_clipped_surrogate(ratio, advantage, c.e_clip, self.method.dual_clip, on_policy)
        actor = (actor_rows * in_actor).sum(1)
        clip = c.e_clip if c.clip_value else float("inf")
        critic_rows = clipped_value_loss(values, old_values, targets, clip)
        critic = ((critic_rows * in_critic.unsqueeze(-1)).sum(1) * self._critic_channels).sum(-1)
        bound = (mean_bound_loss(mean) * in_kl).sum(1)
        entropy = log_std.sum(-1)  # up to a constant
        loss = actor + 0.5 * c.critic_coef * critic + c.bounds_loss_coef * bound - c.entropy_coef * entropy
        loss.sum().backward()
        if self._gradient_mask is not None and self.net.flat.grad is not None:
            self.net.flat.grad.mul_(self._gradient_mask)
        with torch.no_grad():
            # Before the step: log_std is a view of the parameters.
            kl = gaussian_kl(old_mean, old_log_std.unsqueeze(1), mean, log_std.unsqueeze(1))
            kl = (kl * in_kl).sum(1)
            norm = self.optimizer.step(c.grad_norm)
            self._collect(ratio, on_policy, actor, critic, kl, norm)
        return kl

    def _collect(
        self, ratio: Tensor, on_policy: Tensor, actor: Tensor, critic: Tensor, kl: Tensor, norm: Tensor
    ) -> None:
        clipped = ((ratio - 1.0).abs() > self.train.e_clip).to(ratio.dtype)
        off_policy = 1.0 - on_policy
        own = (clipped * on_policy).sum(1) / on_policy.sum(1).clamp_min(1.0)
        foreign = (clipped * off_policy).sum(1) / off_policy.sum(1).clamp_min(1.0)
        ess = effective_sample_fraction(ratio, off_policy)
        self._stats += torch.stack((actor, critic, kl, own, foreign, ess, norm), 1)

    @torch.no_grad()
    def ratio(self, batch: Batch) -> Tensor:
        """(P, R) probability of every row's action under each policy now, over that under who acted."""
        obs = batch.obs.repeat_interleave(self.method.num_policies, 0)
        actions = batch.actions.repeat_interleave(self.method.num_policies, 0)
        mean, _, log_std = self.net(obs)
        log_prob = gaussian_log_prob(actions, mean, log_std.unsqueeze(1))
        return probability_ratio(log_prob, batch.log_prob.repeat_interleave(self.method.num_policies, 0))

    # -- checkpoints -------------------------------------------------------------------------------------------
    def state_dict(self) -> Dict[str, Any]:
        """Everything that learning changes, including the random state. Every tensor has a row per policy or run."""
        state = {
            "flat": self.net.flat.detach().clone(),
            "optimizer": self.optimizer.state_dict(),
            "obs_norm": self.obs_norm.state_dict(),
            "value_norm": self.value_norm.state_dict(),
            "multiplier": self.multiplier.state_dict(),
            "experience": self.experience.state_dict(),
            "generators": [g.get_state() for g in self.generators],
        }
        if self.potential is not None:
            state["potential"] = self.potential.state_dict()
        return state

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned; ValueError if the networks have another size."""
        flat = state["flat"]
        if flat.shape != self.net.flat.shape:
            raise ValueError(
                "the checkpoint's networks have %s parameters, this run's %s: task, algo or train.network differ"
                % (tuple(flat.shape), tuple(self.net.flat.shape))
            )
        with torch.no_grad():
            self.net.flat.copy_(flat)
        for name in ("optimizer", "obs_norm", "value_norm", "multiplier", "experience"):
            getattr(self, name).load_state_dict(state[name])
        if self.potential is not None:
            self.potential.load_state_dict(state["potential"])
        for generator, saved in zip(self.generators, state["generators"]):
            generator.set_state(saved)
