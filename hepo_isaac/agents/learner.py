"""The learner: policies, critics, normalisers, multiplier and the update, along the policy axis.

S runs of a method with Q policies each are P = S * Q stacked policies; policy p belongs to run p // Q. Rows are
(P, M): policy p's own experience. Its partner (the other policy of its run) acted on the foreign rows.
Nothing here reads a tensor's value on the host.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.graph import CapturedStep
from hepo_isaac.agents.network import PolicyStack
from hepo_isaac.agents.normalizer import RunningMeanStd, ValueNormalizer
from hepo_isaac.agents.optimizer import StackedAdam
from hepo_isaac.agents.rollout import Batch, RolloutBuffer
from hepo_isaac.methods.advantages import constrained_weights, contrast, gae, standardize
from hepo_isaac.methods.losses import (
    adapt_learning_rate,
    clipped_surrogate,
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
    ) -> None:
        self.method, self.train, self.device = method, train, device
        self.num_runs, self.generators = len(generators), list(generators)
        self.num_policies = p = self.num_runs * method.num_policies
        self.num_obs, self.num_actions = num_obs, num_actions
        self.minibatches = train.minibatches(num_envs)
        self.rows = num_envs // p * train.horizon_length
        if num_envs % p or self.rows % self.minibatches:
            raise ValueError(
                "num_envs=%d with %d policies gives %d rows per policy, which %d minibatches do not divide"
                % (num_envs, p, self.rows, self.minibatches)
            )
        self.net = PolicyStack(p, num_obs, num_actions, 2, train.units, train.activation, generators, device)
        self.optimizer = StackedAdam(self.net.flat, torch.full((p,), train.learning_rate, device=device))
        self.obs_norm = RunningMeanStd(self.num_runs, num_obs, device)
        self.value_norm = ValueNormalizer(p, 2, device)
        self.multiplier = Multiplier(method.multiplier, self.num_runs, device)
        self._partner = torch.arange(p, device=device).view(-1, method.num_policies).flip(1).reshape(-1)
        critics = torch.tensor(method.critic_channels(), dtype=torch.float32, device=device)
        self._critic_channels = critics.repeat(self.num_runs, 1)
        self._policy_rows = torch.arange(p, device=device).unsqueeze(1) * self.rows
        self._stats = torch.zeros(p, len(UPDATE_STATS), device=device)
        self._widths: Tuple[int, ...] = ()
        self.optimizer.zero_grad()  # the gradient exists before anything is captured
        self.minibatch_step = CapturedStep(self._minibatch_step, train.graph_update, device)

    # -- acting ------------------------------------------------------------------------------------------------
    def normalize_obs(self, obs: Tensor) -> Tensor:
        """(P, B, O) -> normalised with the statistics of each policy's run (both policies share one set)."""
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
    def values(self, obs: Tensor) -> Tensor:
        """(P, B, O) raw -> (P, B, 2) values in reward units."""
        return self.value_norm.denormalize(self.net(self.normalize_obs(obs))[1])

    @torch.no_grad()
    def act_deterministic(self, obs: Tensor, policy: int) -> Tensor:
        """(B, O) raw -> (B, A) mean action of one policy."""
        return self.net(self.normalize_obs(obs.unsqueeze(0).expand(self.num_policies, -1, -1)))[0][policy]

    def channels(self, rewards: Tensor) -> Tensor:
        """(..., 2) [r, h] -> the two value channels: [r, h], or [r, r + lambda h] for a critic on the sum."""
        if not self.method.sum_reward:
            return rewards
        task, heuristic = rewards.unbind(-1)
        return torch.stack((task, task + self.method.heuristic_weight * heuristic), -1)

    def policy_weights(self) -> Tensor:
        """(P, 2) weight of each standardised channel advantage in each policy's objective."""
        m = self.method
        alpha = self.multiplier.value
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        rows: List[Tensor] = []
        for objective in m.objectives:
            if objective == "constrained":
                rows.append(constrained_weights(alpha, m.heuristic_weight, m.unit_norm))
            elif objective == "task":
                rows.append(torch.stack((one, zero), -1))
            elif objective == "heuristic" or m.sum_reward:
                rows.append(torch.stack((zero, one), -1))
            else:
                rows.append(torch.stack((one, m.heuristic_weight * one), -1))
        return torch.stack(rows, 1).view(self.num_policies, 2)

    # -- from a rollout to rows --------------------------------------------------------------------------------
    @torch.no_grad()
    def prepare(self, buffer: RolloutBuffer, last_obs: Tensor, episode_gap: Optional[Tensor] = None) -> Batch:
        """Advantages, targets, alpha's record; updates the value normaliser.

        Args:
            buffer: a full rollout.  last_obs: (P, n, O) observation after its last step.
            episode_gap: (S,) difference of episode returns J(pi) - J(pi_H), for contrast="episode_return".
        """
        rewards = self.channels(buffer.rewards)
        last, final = self._bootstrap(buffer, last_obs, flip=False)
        c = self.train
        advantages = gae(rewards, buffer.values, last, buffer.terminated, buffer.time_out, final, c.gamma, c.tau)
        returns = buffer.rows(advantages + buffer.values)
        rows = buffer.rows(advantages)
        if self.method.constraint:
            self._record_gap(buffer, rewards, last_obs, rows, episode_gap)
        self._update_value_norm(returns)
        obs = buffer.rows(buffer.obs)
        return Batch(
            obs=self.normalize_obs(obs),
            actions=buffer.rows(buffer.actions),
            log_prob=buffer.rows(buffer.log_prob),
            mean=buffer.rows(buffer.mean),
            advantages=self._standardized(rows),
            values=self.value_norm.normalize_targets(buffer.rows(buffer.values)),
            targets=self.value_norm.normalize_targets(returns),
        )

    def _update_value_norm(self, returns: Tensor) -> None:
        """Move the value statistics (targets only) and rescale the heads so that no prediction changes.

        A channel whose spread was or is still zero has nothing to preserve.
        """
        norm = self.value_norm
        old_mean, old_std = norm.mean.to(torch.float32), norm.std(0.0)
        norm.update(returns)
        mean, std = norm.mean.to(torch.float32), norm.std(0.0)
        known = (old_std > 0) & (std > 0)
        safe = std.clamp_min(1e-12)
        scale = torch.where(known, old_std / safe, torch.ones_like(std))
        shift = torch.where(known, (old_mean - mean) / safe, torch.zeros_like(std))
        self.net.rescale_values(scale, shift)

    def _bootstrap(self, buffer: RolloutBuffer, last_obs: Tensor, flip: bool) -> Tuple[Tensor, Tensor]:
        """Values of the last observation (P, n, 2) and of each step's time-out observation (T, P, n, 2).

        With ``flip`` the partner's critic evaluates the owner's rows.
        """
        slots = buffer.timeout_obs.shape[0]
        obs = torch.cat((last_obs.unsqueeze(0), buffer.timeout_obs), 0).transpose(0, 1).flatten(1, 2)
        values = self.values(obs[self._partner])[self._partner] if flip else self.values(obs)
        values = values.view(self.num_policies, slots + 1, -1, 2).transpose(0, 1)
        index = buffer.timeout_slot.unsqueeze(-1).expand(*buffer.timeout_slot.shape, 2)
        return values[0], values[1:].gather(0, index)

    def _standardized(self, rows: Tensor) -> Tensor:
        """(P, M, 2): spread taken over the rows of the policy that acted, or over both policies' rows."""
        if self.method.standardize_per_owner:
            return standardize(rows, dim=(1,))
        joint = rows.view(self.num_runs, -1, 2)
        return standardize(joint, dim=(1,)).view_as(rows)

    def _record_gap(
        self, buffer: RolloutBuffer, rewards: Tensor, last_obs: Tensor, own: Tensor, episode_gap: Optional[Tensor]
    ) -> None:
        if self.method.contrast == "episode_return":
            assert episode_gap is not None
            self.multiplier.record(episode_gap)
            return
        # The partner's critic on every owner's rows; (P, ...) stays owner-major.
        obs = buffer.rows(buffer.obs)
        cross_values = self.values(obs[self._partner])[self._partner]
        shape = (self.num_policies, buffer.horizon, buffer.envs_per_policy, 2)
        cross_values = cross_values.view(shape).transpose(0, 1)
        last, final = self._bootstrap(buffer, last_obs, flip=True)
        c = self.train
        cross = gae(
            rewards[..., :1],
            cross_values[..., :1],
            last[..., :1],
            buffer.terminated,
            buffer.time_out,
            final[..., :1],
            c.gamma,
            c.tau,
        )
        by_owner = buffer.rows(cross).view(self.num_runs, 2, -1)
        # contrast() wants cross[:, 0] = pi's critic on pi_H's rows.
        gap = contrast(own[..., 0].view(self.num_runs, 2, -1), by_owner.flip(1), self.method.contrast)
        self.multiplier.record(gap)

    # -- update ------------------------------------------------------------------------------------------------
    def update(self, batch: Batch) -> Dict[str, Tensor]:
        """Mini-epochs of minibatch steps, then alpha; returns per-policy statistics (P,) by name."""
        packed, self._widths = batch.packed(), batch.widths()
        old_log_std = self.net.log_std.detach().clone()
        weights = self.policy_weights()
        self._stats.zero_()
        c = self.train
        steps = 0
        for _ in range(c.mini_epochs):
            epoch_kl = torch.zeros(self.num_policies, device=self.device)
            for own, foreign in self._minibatch_indices():
                rows = own if foreign is None else torch.cat((own, foreign), 1)
                data = packed.index_select(0, rows.flatten()).view(self.num_policies, rows.shape[1], -1)
                kl = self.minibatch_step(data, weights, old_log_std)
                epoch_kl += kl
                steps += 1
                if c.lr_schedule == "minibatch":
                    self._adapt(kl)
            if c.lr_schedule == "mini_epoch":
                self._adapt(epoch_kl / self.minibatches)
        mean = self._stats / steps
        stats = {name: mean[:, i] for i, name in enumerate(UPDATE_STATS)}
        if c.lr_schedule == "iteration":
            self._adapt(stats["kl"])
        if self.method.constraint:
            self.multiplier.update()
        return stats

    def _adapt(self, kl: Tensor) -> None:
        rate = self.optimizer.learning_rate
        rate.copy_(adapt_learning_rate(rate, kl, self.train.kl_threshold, (self.train.min_lr, self.train.max_lr)))

    def _permutation(self) -> Tensor:
        """(P, M) a shuffle of the rows per run, from that run's generator; partners share it."""
        runs = [torch.randperm(self.rows, generator=g, device=self.device) for g in self.generators]
        return torch.stack(runs).repeat_interleave(self.method.num_policies, 0)

    def _minibatch_indices(self) -> List[Tuple[Tensor, Optional[Tensor]]]:
        """Flat row indices per minibatch: (P, m) own rows and (P, m_f) rows of the partner, a fixed count of each."""
        size = self.rows // self.minibatches
        own = (self._permutation() + self._policy_rows).split(size, 1)
        if not self.method.share_data:
            return [(rows, None) for rows in own]
        share = max(1, int(size * self.method.off_policy_fraction))
        partner = (self._permutation() + self._policy_rows[self._partner]).split(size, 1)
        return [(mine, theirs[:, :share]) for mine, theirs in zip(own, partner)]

    def _minibatch_step(self, data: Tensor, weights: Tensor, old_log_std: Tensor) -> Tensor:
        """One gradient step on (P, m, W) packed rows, on-policy ones first; returns KL (P,) on those."""
        c = self.train
        num_own = self.rows // self.minibatches
        obs, actions, old_log_prob, old_mean, advantages, old_values, targets = data.split(self._widths, -1)
        advantage = (advantages * weights.unsqueeze(1)).sum(-1)
        self.optimizer.zero_grad()
        mean, values, log_std = self.net(obs)
        log_prob = gaussian_log_prob(actions, mean, log_std.unsqueeze(1))
        ratio = probability_ratio(log_prob, old_log_prob.squeeze(-1))
        own = slice(0, num_own)
        actor = clipped_surrogate(ratio[:, own], advantage[:, own], c.e_clip).mean(1)
        if num_own < data.shape[1]:
            rest = slice(num_own, None)
            off = dual_clipped_surrogate(ratio[:, rest], advantage[:, rest], c.e_clip, self.method.dual_clip)
            actor = 0.5 * (actor + off.mean(1))
        clip = c.e_clip if c.clip_value else float("inf")
        critic = clipped_value_loss(values[:, own], old_values[:, own], targets[:, own], clip).mean(1)
        critic = (critic * self._critic_channels).sum(-1)
        bound = mean_bound_loss(mean[:, own]).mean(1)
        entropy = log_std.sum(-1)  # up to a constant
        loss = actor + 0.5 * c.critic_coef * critic + c.bounds_loss_coef * bound - c.entropy_coef * entropy
        loss.sum().backward()
        norm = self.optimizer.step(c.grad_norm)
        with torch.no_grad():
            kl = gaussian_kl(old_mean[:, own], old_log_std.unsqueeze(1), mean[:, own], log_std.unsqueeze(1)).mean(1)
            self._collect(ratio, num_own, actor, critic, kl, norm)
        return kl

    def _collect(self, ratio: Tensor, num_own: int, actor: Tensor, critic: Tensor, kl: Tensor, norm: Tensor) -> None:
        clipped = ((ratio - 1.0).abs() > self.train.e_clip).to(ratio.dtype)
        own, foreign = clipped[:, :num_own].mean(1), torch.zeros_like(kl)
        ess = torch.ones_like(kl)
        if num_own < ratio.shape[1]:
            foreign = clipped[:, num_own:].mean(1)
            ess = effective_sample_fraction(ratio[:, num_own:])
        self._stats += torch.stack((actor, critic, kl, own, foreign, ess, norm), 1)

    def finish_iteration(self, buffer: RolloutBuffer) -> None:
        """Move the observation normaliser; only now, so that it stood still while ratios were taken."""
        if self.train.normalize_input:
            self.obs_norm.update(buffer.rows(buffer.obs).reshape(self.num_runs, -1, self.num_obs))

    # -- checkpoints -------------------------------------------------------------------------------------------
    def state_dict(self) -> Dict[str, Any]:
        """Everything that learning changes, including the random state."""
        return {
            "flat": self.net.flat.detach().clone(),
            "optimizer": self.optimizer.state_dict(),
            "obs_norm": self.obs_norm.state_dict(),
            "value_norm": self.value_norm.state_dict(),
            "multiplier": self.multiplier.state_dict(),
            "generators": [g.get_state() for g in self.generators],
        }

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
        for name in ("optimizer", "obs_norm", "value_norm", "multiplier"):
            getattr(self, name).load_state_dict(state[name])
        for generator, saved in zip(self.generators, state["generators"]):
            generator.set_state(saved)
