"""Collection by halves: block p of the envs belongs to policy p, and each policy may learn from its partner's rows.

One policy alone is the case without a partner. The sibling, where policies take turns, is agents/turns.py.
Nothing here reads a tensor's value on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.agents.collection import Collection
from hepo_isaac.agents.minibatch import Batch
from hepo_isaac.agents.policies import Acted
from hepo_isaac.agents.rewards import IterationFacts
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.methods.advantages import MIN_ADVANTAGE_STD, standardize, vtrace
from hepo_isaac.methods.contrast import (
    ADVANTAGE_CONTRASTS,
    advantage_contrast,
    start_value_gap,
    whitened_per_critic,
)
from hepo_isaac.methods.losses import gaussian_log_prob, probability_ratio


@dataclass
class Estimates:
    """What one policy and its critics make of rows: mean (P, M, A); values and advantages (P, M, 2) in reward units."""

    mean: Tensor
    values: Tensor
    advantages: Tensor


@dataclass
class PartnerEstimates:
    """What each policy and its critics make of its partner's rows: mean (P, M, A), values (P, M, 2)."""

    mean: Tensor
    values: Tensor


class Halves(Collection):
    """Every policy in envs of its own. Arguments as Collection's."""

    @property
    def _needs_cross_advantages(self) -> bool:
        """Whether a rollout's rows need the GAE of the partner's critics."""
        m = self.method
        by_critics = m.constraint == "reference" and m.contrast != "episode_return"
        return by_critics or m.whitening == "critic" or m.critic_data == "both"

    @property
    def _needs_partner(self) -> bool:
        """Whether they need what the partner's networks say of them."""
        m = self.method
        asks = self._needs_cross_advantages or m.minibatch_order != "stratified" or m.foreign_advantage == "vtrace"
        return asks and m.num_policies > 1

    def act(self, obs: Tensor, noise: Tensor) -> Acted:
        """Each block (B, n, .) of envs by its own policy, see Policies.act."""
        return self.policies.act(obs, noise)

    # -- rows --------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def batch(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> Batch:
        """See Collection.batch."""
        channels = self.rewards.channels(buffer, facts)
        own = self.own_estimates(buffer, last_obs, channels, facts)
        partner = self.partner_estimates(buffer) if self._needs_partner else None
        cross = None
        if partner is not None and self._needs_cross_advantages:
            cross = self.cross_advantages(buffer, last_obs, partner, channels, facts)
        self._record(buffer, own, partner, cross, channels, facts)
        returns = own.advantages + own.values
        partner_returns = None
        if self.method.critic_data == "both" and partner is not None and cross is not None:
            partner_returns = cross + partner.values
        both = returns if partner_returns is None else torch.cat((returns, partner_returns), 1)
        self.policies.move_value_norm(both)
        norm = self.policies.value_norm.normalize_targets
        partner_values = None if partner is None or partner_returns is None else norm(partner.values)
        ones = torch.ones_like(own.values[..., 0])
        return Batch.from_rollout(
            buffer,
            self.policies,
            mean=self._spread(own.mean, None if partner is None else partner.mean),
            advantage=self._objective(buffer, last_obs, own, partner, cross, channels, facts),
            old_values=self._spread(norm(own.values), partner_values),
            returns=self._spread(norm(returns), None if partner_returns is None else norm(partner_returns)),
            on_policy=self._spread(ones, torch.zeros_like(ones)),
        )

    def _spread(self, own: Tensor, partner: Optional[Tensor]) -> Tensor:
        """(P, M, ...) about each policy's own rows and about its partner's -> (P, R, ...) over all rows of the run."""
        if self.method.num_policies == 1:
            return own
        other = torch.zeros_like(own) if partner is None else partner
        mine, theirs = (x.view(-1, 2, *x.shape[1:]) for x in (own, other))
        first = torch.cat((mine[:, 0], theirs[:, 0]), 1)
        second = torch.cat((theirs[:, 1], mine[:, 1]), 1)
        return torch.stack((first, second), 1).flatten(0, 1)

    # -- estimates ---------------------------------------------------------------------------------------------
    def own_estimates(
        self, buffer: RolloutBuffer, last_obs: Tensor, channels: Tensor, facts: IterationFacts, fresh: bool = False
    ) -> Estimates:
        """Each policy's critics on its own rows; ``fresh`` evaluates them again, after an update."""
        values = self.policies.values_of_blocks(buffer.obs) if fresh else buffer.values
        last, final = self._bootstrap(buffer, last_obs, by_partner=False)
        gamma = self.rewards.discount(facts)
        advantages = self.rewards.advantages(buffer, channels, values, last, final, gamma)
        return Estimates(buffer.rows(buffer.mean), buffer.rows(values), buffer.rows(advantages))

    def partner_estimates(self, buffer: RolloutBuffer) -> PartnerEstimates:
        """Each policy and its critics on its partner's rows."""
        return PartnerEstimates(*self.policies.mean_and_values(buffer.rows(buffer.obs)[self.policies.partner]))

    def _by_owner(self, rows: Tensor, buffer: RolloutBuffer) -> Tensor:
        """(P, M, ...) about each policy's partner's rows -> (T, B, n, ...), ordered by who owns the rows."""
        shape = (rows.shape[0], buffer.horizon, -1, *rows.shape[2:])
        return rows[self.policies.partner].view(shape).transpose(0, 1)

    def cross_advantages(
        self, buffer: RolloutBuffer, last_obs: Tensor, of: PartnerEstimates, channels: Tensor, facts: IterationFacts
    ) -> Tensor:
        """(P, M, 2) GAE of each policy's critics on its partner's rows."""
        gamma = self.rewards.discount(facts)
        values = self._by_owner(of.values, buffer)
        last, final = self._bootstrap(buffer, last_obs, by_partner=True)
        found = self.rewards.advantages(buffer, channels, values, last, final, gamma)
        return buffer.rows(found)[self.policies.partner]

    def _bootstrap(self, buffer: RolloutBuffer, last_obs: Tensor, by_partner: bool) -> Tuple[Tensor, Tensor]:
        """Values of the last observation (B, n, 2) and of each step's time-out observation (T, B, n, 2), by the
        critics of the rows' owner or of its partner."""
        slots, partner = buffer.timeout_obs.shape[0], self.policies.partner
        obs = torch.cat((last_obs.unsqueeze(0), buffer.timeout_obs), 0).transpose(0, 1).flatten(1, 2)
        values = self.policies.values(obs[partner])[partner] if by_partner else self.policies.values(obs)
        values = values.view(len(values), slots + 1, -1, 2).transpose(0, 1)
        index = buffer.timeout_slot.unsqueeze(-1).expand(*buffer.timeout_slot.shape, 2)
        return values[0], values[1:].gather(0, index)

    # -- what is maximised -------------------------------------------------------------------------------------
    def standardized(self, own: Estimates, cross: Optional[Tensor]) -> Tensor:
        """(P, M, 2) whitened [r, h] advantages of the rows each policy produced, by its own critics."""
        mode, rows = self.method.whitening, own.advantages
        if mode == "none":
            return rows
        if mode == "critic" and cross is not None:
            z = whitened_per_critic(rows.transpose(1, 2), cross.transpose(1, 2))
            return z[..., : rows.shape[1]].transpose(1, 2)
        # a step without a reward of its own (look-ahead shaping) stays out
        looks_ahead = self.method.shaping.kind == "potential" and self.method.shaping.potential != "state"
        used = rows.shape[1] - int(looks_ahead) * (rows.shape[1] // self.train.horizon_length)
        if mode == "joint":
            z = standardize(rows.reshape(self.policies.num_runs, -1, 2), dim=(1,)).view_as(rows)
        else:
            z = standardize(rows[:, :used], dim=(1,))
        return torch.cat((z, torch.zeros_like(rows[:, z.shape[1] :])), 1)

    def _objective(
        self,
        buffer: RolloutBuffer,
        last_obs: Tensor,
        own: Estimates,
        partner: Optional[PartnerEstimates],
        cross: Optional[Tensor],
        channels: Tensor,
        facts: IterationFacts,
    ) -> Tensor:
        """(P, R) what each policy maximises, on all rows of its run, with its own weights."""
        z = self.standardized(own, cross)
        weights = self.rewards.objective_weights(facts).unsqueeze(1)
        if self.method.foreign_advantage == "vtrace" and partner is not None:
            corrected = self._vtrace(buffer, last_obs, own, partner, channels, facts)
            return (self._spread(z, corrected) * weights).sum(-1)
        shared = z.reshape(self.policies.num_runs, -1, 2)
        return (shared.repeat_interleave(self.method.num_policies, 0) * weights).sum(-1)

    def _vtrace(
        self,
        buffer: RolloutBuffer,
        last_obs: Tensor,
        own: Estimates,
        of: PartnerEstimates,
        channels: Tensor,
        facts: IterationFacts,
    ) -> Tensor:
        """(P, M, 2) each policy's own corrected advantages on its partner's rows, in units of its own rows'."""
        partner, gamma = self.policies.partner, self.rewards.discount(facts)
        actions, behaviour = buffer.rows(buffer.actions)[partner], buffer.rows(buffer.log_prob)[partner]
        log_prob = gaussian_log_prob(actions, of.mean, self.policies.net.log_std.unsqueeze(1))
        ratio = self._by_owner(probability_ratio(log_prob, behaviour), buffer)
        values = self._by_owner(of.values, buffer)
        last, final = self._bootstrap(buffer, last_obs, by_partner=True)
        ends = self.rewards.time_limits(buffer.terminated, buffer.time_out, final, values)
        found = vtrace(channels, values, last, *ends, ratio, gamma, self.train.tau)
        rows = buffer.rows(found)[partner]
        if self.method.whitening == "none":
            return rows
        std, mean = ranks.std_mean(own.advantages, dim=1, keepdim=True)
        return torch.where(std > MIN_ADVANTAGE_STD, (rows - mean) / (std + 1e-8), torch.zeros_like(rows))

    # -- alpha -------------------------------------------------------------------------------------------------
    def _record(
        self,
        buffer: RolloutBuffer,
        own: Estimates,
        partner: Optional[PartnerEstimates],
        cross: Optional[Tensor],
        channels: Tensor,
        facts: IterationFacts,
    ) -> None:
        """Append this rollout's estimate of the gap to the multiplier, where there is one."""
        m = self.method
        if m.constraint == "threshold":
            mean, count = self._episodes(facts)
            self._recorded = count[:, 0] > 0
            self.multiplier.record(mean[:, 0] - float(m.threshold or 0.0), self._recorded)
        elif m.constraint == "reference" and m.contrast == "episode_return":
            mean, count = self._episodes(facts)
            self._recorded = (count > 0).all(1)
            self.multiplier.record(mean[:, 0] - mean[:, 1], self._recorded)
        elif m.constraint == "reference" and not m.contrast_after_update:
            assert partner is not None and cross is not None
            self._record_contrast(buffer, own, partner, cross, channels, facts)

    def _episodes(self, facts: IterationFacts) -> Tuple[Tensor, Tensor]:
        assert facts.episode_return is not None and facts.episode_count is not None
        return facts.episode_return, facts.episode_count

    def record_after_update(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> None:
        """See Collection.record_after_update."""
        channels = self.rewards.channels(buffer, facts)
        own = self.own_estimates(buffer, last_obs, channels, facts, fresh=True)
        partner = self.partner_estimates(buffer)
        cross = self.cross_advantages(buffer, last_obs, partner, channels, facts)
        self._record_contrast(buffer, own, partner, cross, channels, facts)

    def _record_contrast(
        self,
        buffer: RolloutBuffer,
        own: Estimates,
        partner: PartnerEstimates,
        cross: Tensor,
        channels: Tensor,
        facts: IterationFacts,
    ) -> None:
        runs = self.policies.num_runs
        if self.method.contrast in ADVANTAGE_CONTRASTS:
            a, b = own.advantages[..., 0].view(runs, 2, -1), cross[..., 0].view(runs, 2, -1)
            self.multiplier.record(advantage_contrast(a, b, self.method.contrast))
            return
        done = buffer.terminated | buffer.time_out
        starts = torch.cat((torch.zeros_like(done[:1]), done[:-1]), 0).to(own.values.dtype)
        values = self._spread(own.values[..., 0], partner.values[..., 0])
        gap, self._recorded = start_value_gap(values.view(runs, 2, -1), buffer.rows(starts).reshape(runs, -1))
        if self.method.contrast == "doubly_robust":
            gap = gap + self._mean_td_error_gap(buffer, channels, facts)
        self.multiplier.record(gap, self._recorded)

    def _mean_td_error_gap(self, buffer: RolloutBuffer, channels: Tensor, facts: IterationFacts) -> Tensor:
        """(S,) difference of mean one-step TD errors on own rows over 1 - gamma: what a start value leaves out, with
        the rows standing for the discounted visitation."""
        # the bootstrap of the last row is its own value: one row in T then has a small error of its own
        last, final = buffer.values[-1], buffer.values
        gamma = self.rewards.discount(facts)
        error = self.rewards.advantages(buffer, channels, buffer.values, last, final, gamma, gae_lambda=0.0)
        mean = ranks.mean(buffer.rows(error)[..., 0].mean(1)).view(-1, 2)
        return (mean[:, 0] - mean[:, 1]) / max(1.0 - gamma, 1e-6)
