"""From a rollout to the rows of an update: shaped rewards, advantages, what each policy maximises, critic targets.

Block p of envs belongs to policy p here; where policies take turns, see agents/turns_experience.py.
Nothing here reads a tensor's value on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.rollout import Batch, RolloutBuffer
from hepo_isaac.methods import shaping
from hepo_isaac.methods.advantages import MIN_ADVANTAGE_STD, gae, standardize, vtrace
from hepo_isaac.methods.contrast import (
    ADVANTAGE_CONTRASTS,
    advantage_contrast,
    start_value_gap,
    whitened_per_critic,
)
from hepo_isaac.methods.losses import gaussian_log_prob, probability_ratio
from hepo_isaac.methods.schedules import anneal, horizon_lambda

if TYPE_CHECKING:
    from hepo_isaac.agents.learner import Learner


@dataclass(frozen=True)
class Progress:
    """What an iteration knows besides its rollout.

    iteration: finished ones.  total: of the whole run.
    episode_return, episode_count: (S, Q) mean J and number of the episodes that ended in this rollout, per policy.
    """

    iteration: int = 0
    total: int = 1
    episode_return: Optional[Tensor] = None
    episode_count: Optional[Tensor] = None


@dataclass
class View:
    """One critic's or policy's look at rows: mean (P, M, A), values and advantages (P, M, 2) in reward units."""

    mean: Tensor
    values: Tensor
    advantages: Tensor


class Experience:
    """Turns rollouts of one learner into batches, and feeds its multiplier.

    Args:
        learner: owner of networks, normalisers and multiplier.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner, self.method, self.train = learner, learner.method, learner.train
        m = self.method
        self._needs_cross = (
            (m.constraint == "reference" and m.contrast != "episode_return")
            or m.whitening == "critic"
            or m.critic_data == "both"
            or m.minibatch_order != "stratified"
            or m.foreign_advantage == "vtrace"
        )
        # (S,) bool: whether this rollout told of the gap, where that depends on episodes; None: it always does.
        self._recorded: Optional[Tensor] = None

    # -- what the reward is ------------------------------------------------------------------------------------
    def heuristic_weight(self, progress: Progress) -> float:
        """lambda, annealed."""
        s = self.method.shaping
        if s.annealing == "none":
            return self.method.heuristic_weight
        factor = anneal(progress.iteration, progress.total, s.annealing, s.annealing_fraction)
        return self.method.heuristic_weight * factor

    def discount(self, progress: Progress) -> float:
        """gamma, or HuRL's shorter one."""
        return self.train.gamma * self._horizon_lambda(progress)

    def _horizon_lambda(self, progress: Progress) -> float:
        s = self.method.shaping
        if s.kind != "horizon":
            return 1.0
        return horizon_lambda(progress.iteration, progress.total, s.horizon_initial, s.horizon_rate, s.schedule)

    def channels(self, buffer: RolloutBuffer, progress: Progress) -> Tensor:
        """(T', B, n, 2) rewards of the two value channels, [r, h] or [r, shaped]; T' = T - 1 where the shaping looks
        one step ahead."""
        kind, weight, gamma = self.method.shaping.kind, self.heuristic_weight(progress), self.train.gamma
        if kind == "none":
            return buffer.rewards
        r, h = buffer.rewards[..., 0], weight * buffer.rewards[..., 1]
        if kind == "sum":
            shaped = r + h
        elif kind == "horizon":
            shaped = shaping.horizon_reward(r, h, buffer.terminated, gamma, self._horizon_lambda(progress))
        else:
            extra = self._potential_difference(buffer, h, weight, gamma)
            shaped = r[: len(extra)] + extra
        return torch.stack((r[: len(shaped)], shaped), -1)

    def _potential_difference(self, buffer: RolloutBuffer, h: Tensor, weight: float, gamma: float) -> Tensor:
        """F of potential-based shaping with lambda h (or lambda Phi)."""
        s = self.method.shaping
        if s.potential == "state":
            scale = weight * s.potential_scale
            return shaping.state_potential(
                scale * buffer.potential, scale * buffer.final_potential, buffer.terminated, gamma
            )
        if s.potential == "learned":
            assert self.learner.potential is not None
            return s.potential_scale * self.learner.potential.shaping(buffer, h, gamma)
        return shaping.look_ahead_potential(h, buffer.terminated, buffer.time_out, gamma, s.potential_scale)

    # -- rows --------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def batch(self, buffer: RolloutBuffer, last_obs: Tensor, progress: Progress) -> Batch:
        """Advantages, targets and alpha's record of a full rollout; moves the value statistics.

        Args:
            last_obs: (B, n, O) observation after the last step.
        """
        own = self._own(buffer, last_obs, progress)
        cross = self._cross(buffer, last_obs, progress) if self._needs_cross else None
        self._record(buffer, own, cross, progress)
        returns = own.advantages + own.values
        foreign_returns = None
        if self.method.critic_data == "both" and cross is not None:
            foreign_returns = cross.advantages + cross.values
        self.learner.move_value_norm(returns if foreign_returns is None else torch.cat((returns, foreign_returns), 1))
        norm = self.learner.value_norm.normalize_targets
        both = cross if foreign_returns is not None else None
        ones = torch.ones_like(own.values[..., 0])
        return self._rows(
            buffer,
            mean=self._spread(own.mean, None if cross is None else cross.mean),
            advantage=self._mixed(buffer, last_obs, own, cross, progress),
            values=self._spread(norm(own.values), None if both is None else norm(both.values)),
            targets=self._spread(norm(returns), None if foreign_returns is None else norm(foreign_returns)),
            on_policy=self._spread(ones, torch.zeros_like(ones)),
        )

    def _rows(self, buffer: RolloutBuffer, **per_policy: Tensor) -> Batch:
        runs = self.learner.num_runs
        obs = self.learner.normalize_obs(buffer.rows(buffer.obs))
        return Batch(
            obs=obs.reshape(runs, -1, obs.shape[-1]),
            actions=buffer.rows(buffer.actions).reshape(runs, -1, self.learner.num_actions),
            log_prob=buffer.rows(buffer.log_prob).reshape(runs, -1),
            **per_policy,
        )

    def _spread(self, own: Tensor, foreign: Optional[Tensor]) -> Tensor:
        """(P, M, ...) about each policy's own rows and about its partner's -> (P, R, ...) over all rows of the run."""
        if self.method.num_policies == 1:
            return own
        other = torch.zeros_like(own) if foreign is None else foreign
        mine, theirs = (x.view(-1, 2, *x.shape[1:]) for x in (own, other))
        first = torch.cat((mine[:, 0], theirs[:, 0]), 1)
        second = torch.cat((theirs[:, 1], mine[:, 1]), 1)
        return torch.stack((first, second), 1).flatten(0, 1)

    # -- advantages --------------------------------------------------------------------------------------------
    def _gae(
        self,
        buffer: RolloutBuffer,
        rewards: Tensor,
        values: Tensor,
        last: Tensor,
        final: Tensor,
        gamma: float,
        gae_lambda: Optional[float] = None,
    ) -> Tensor:
        """GAE (T, ..., 2) with the method's treatment of time limits; a last step without a reward gets 0."""
        steps = len(rewards)
        if steps < len(values):
            last = values[steps]
        flags = [buffer.terminated[:steps], buffer.time_out[:steps]]
        if values.dim() == 5:  # policies that take turns share the flags: (T, S, 1, n)
            flags = [f.unsqueeze(2) for f in flags]
        if self.method.timeout_bootstrap == "none":
            flags = [flags[0] | flags[1], torch.zeros_like(flags[1])]
        elif self.method.timeout_bootstrap == "rl_games":
            final = values
        lam = self.train.tau if gae_lambda is None else gae_lambda
        found = gae(rewards, values[:steps], last, flags[0], flags[1], final[:steps], gamma, lam)
        return torch.cat((found, torch.zeros_like(values[steps:])), 0)

    def _own(self, buffer: RolloutBuffer, last_obs: Tensor, progress: Progress, fresh: bool = False) -> View:
        """Each policy's critic on its own rows; ``fresh`` evaluates it again, after an update."""
        values = self.learner.values_of_blocks(buffer.obs) if fresh else buffer.values
        last, final = self._bootstrap(buffer, last_obs, flip=False)
        rewards = self.channels(buffer, progress)
        advantages = self._gae(buffer, rewards, values, last, final, self.discount(progress))
        return View(buffer.rows(buffer.mean), buffer.rows(values), buffer.rows(advantages))

    def _cross(self, buffer: RolloutBuffer, last_obs: Tensor, progress: Progress) -> View:
        """Each policy on its partner's rows."""
        learner, partner = self.learner, self.learner.partner
        mean, values = learner.evaluate(buffer.rows(buffer.obs)[partner])
        by_owner = values[partner].view(*values.shape[:1], buffer.horizon, -1, 2).transpose(0, 1)
        last, final = self._bootstrap(buffer, last_obs, flip=True)
        rewards = self.channels(buffer, progress)
        advantages = self._gae(buffer, rewards, by_owner, last, final, self.discount(progress))
        return View(mean, values, buffer.rows(advantages)[partner])

    def _bootstrap(self, buffer: RolloutBuffer, last_obs: Tensor, flip: bool) -> Tuple[Tensor, Tensor]:
        """Values of the last observation (B, n, 2) and of each step's time-out observation (T, B, n, 2).

        With ``flip`` the partner's critic evaluates the owner's rows.
        """
        slots, partner = buffer.timeout_obs.shape[0], self.learner.partner
        obs = torch.cat((last_obs.unsqueeze(0), buffer.timeout_obs), 0).transpose(0, 1).flatten(1, 2)
        values = self.learner.values(obs[partner])[partner] if flip else self.learner.values(obs)
        values = values.view(len(values), slots + 1, -1, 2).transpose(0, 1)
        index = buffer.timeout_slot.unsqueeze(-1).expand(*buffer.timeout_slot.shape, 2)
        return values[0], values[1:].gather(0, index)

    def channel_advantages(self, own: View, cross: Optional[View]) -> Tensor:
        """(P, M, 2) whitened [r, h] advantages of the rows each policy produced, by its own critics."""
        mode, rows = self.method.whitening, own.advantages
        if mode == "none":
            return rows
        if mode == "critic" and cross is not None:
            z = whitened_per_critic(rows.transpose(1, 2), cross.advantages.transpose(1, 2))
            return z[..., : rows.shape[1]].transpose(1, 2)
        # a step without a reward of its own (look-ahead shaping) stays out
        valid = int(bool(self.method.shaping.kind == "potential" and self.method.shaping.potential != "state"))
        used = rows.shape[1] - valid * (rows.shape[1] // self.train.horizon_length)
        if mode == "joint":
            z = standardize(rows.reshape(self.learner.num_runs, -1, 2), dim=(1,)).view_as(rows)
        else:
            z = standardize(rows[:, :used], dim=(1,))
        return torch.cat((z, torch.zeros_like(rows[:, z.shape[1] :])), 1)

    def _mixed(
        self, buffer: RolloutBuffer, last_obs: Tensor, own: View, cross: Optional[View], progress: Progress
    ) -> Tensor:
        """(P, R) what each policy maximises, on all rows of its run, with its own weights."""
        z = self.channel_advantages(own, cross)
        weights = self.learner.policy_weights(self.heuristic_weight(progress)).unsqueeze(1)
        if self.method.foreign_advantage == "vtrace" and cross is not None:
            foreign = self._vtrace(buffer, last_obs, own, cross, progress)
            return (self._spread(z, foreign) * weights).sum(-1)
        shared = z.reshape(self.learner.num_runs, -1, 2)
        return (shared.repeat_interleave(self.method.num_policies, 0) * weights).sum(-1)

    def _vtrace(self, buffer: RolloutBuffer, last_obs: Tensor, own: View, cross: View, progress: Progress) -> Tensor:
        """(P, M, 2) each policy's own corrected advantages on its partner's rows, in units of its own rows'."""
        partner, shape = self.learner.partner, (-1, buffer.horizon, buffer.envs_per_block)
        actions, behaviour = buffer.rows(buffer.actions)[partner], buffer.rows(buffer.log_prob)[partner]
        log_prob = gaussian_log_prob(actions, cross.mean, self.learner.net.log_std.unsqueeze(1))
        ratio = probability_ratio(log_prob, behaviour)[partner].view(shape).transpose(0, 1)  # by owner
        values = cross.values[partner].view(*shape, 2).transpose(0, 1)
        last, final = self._bootstrap(buffer, last_obs, flip=True)
        rewards, gamma = self.channels(buffer, progress), self.discount(progress)
        found = vtrace(rewards, values, last, buffer.terminated, buffer.time_out, final, ratio, gamma, self.train.tau)
        rows = buffer.rows(found)[partner]
        if self.method.whitening == "none":
            return rows
        std, mean = torch.std_mean(own.advantages, dim=1, correction=0, keepdim=True)
        return torch.where(std > MIN_ADVANTAGE_STD, (rows - mean) / (std + 1e-8), torch.zeros_like(rows))

    # -- alpha -------------------------------------------------------------------------------------------------
    def _record(self, buffer: RolloutBuffer, own: View, cross: Optional[View], progress: Progress) -> None:
        """Append this rollout's estimate of the gap to the multiplier, where there is one."""
        m, multiplier = self.method, self.learner.multiplier
        if m.constraint == "threshold":
            mean, count = self._episodes(progress)
            self._recorded = count[:, 0] > 0
            multiplier.record(mean[:, 0] - float(m.threshold or 0.0), self._recorded)
        elif m.constraint == "reference" and m.contrast == "episode_return":
            mean, count = self._episodes(progress)
            self._recorded = (count > 0).all(1)
            multiplier.record(mean[:, 0] - mean[:, 1], self._recorded)
        elif m.constraint == "reference" and not m.contrast_after_update:
            assert cross is not None
            self._record_contrast(buffer, own, cross, progress)

    def _episodes(self, progress: Progress) -> Tuple[Tensor, Tensor]:
        assert progress.episode_return is not None and progress.episode_count is not None
        return progress.episode_return, progress.episode_count

    def record_after_update(self, buffer: RolloutBuffer, last_obs: Tensor, progress: Progress) -> None:
        """The second release's record: the contrast measured with the critics the update left behind."""
        own = self._own(buffer, last_obs, progress, fresh=True)
        self._record_contrast(buffer, own, self._cross(buffer, last_obs, progress), progress)

    def _record_contrast(self, buffer: RolloutBuffer, own: View, cross: View, progress: Progress) -> None:
        runs, multiplier = self.learner.num_runs, self.learner.multiplier
        if self.method.contrast in ADVANTAGE_CONTRASTS:
            a, b = own.advantages[..., 0].view(runs, 2, -1), cross.advantages[..., 0].view(runs, 2, -1)
            multiplier.record(advantage_contrast(a, b, self.method.contrast))
            return
        done = buffer.terminated | buffer.time_out
        starts = torch.cat((torch.zeros_like(done[:1]), done[:-1]), 0).to(own.values.dtype)
        values = self._spread(own.values[..., 0], cross.values[..., 0])
        gap, self._recorded = start_value_gap(values.view(runs, 2, -1), buffer.rows(starts).reshape(runs, -1))
        if self.method.contrast == "doubly_robust":
            gap = gap + self._mean_td_error_gap(buffer, progress)
        multiplier.record(gap, self._recorded)

    def _mean_td_error_gap(self, buffer: RolloutBuffer, progress: Progress) -> Tensor:
        """(S,) difference of mean one-step TD errors on own rows over 1 - gamma: what a start value leaves out, with
        the rows standing for the discounted visitation."""
        # the bootstrap of the last row is its own value: one row in T then has a small error of its own
        last, final = buffer.values[-1], buffer.values
        rewards, gamma = self.channels(buffer, progress), self.discount(progress)
        error = buffer.rows(self._gae(buffer, rewards, buffer.values, last, final, gamma, gae_lambda=0.0))[..., 0]
        mean = error.mean(1).view(-1, 2)
        return (mean[:, 0] - mean[:, 1]) / max(1.0 - gamma, 1e-6)

    # -- between iterations ------------------------------------------------------------------------------------
    def after_update(self, batch: Batch) -> Optional[Tensor]:
        """Called between the policy update and the multiplier's; (S,) bool runs whose multiplier may move, or None.

        It stands still in an iteration that says nothing about the gap: no episode ended, or none began.
        """
        return self._recorded

    def finish_iteration(self) -> None:
        """Called last."""

    def state_dict(self) -> Dict[str, Any]:
        """State kept across iterations: none here."""
        return {}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned."""
