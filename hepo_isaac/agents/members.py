"""Collection by members: any number of policies, each in its share of the envs, learning from the rows that the method
lets it see. PPO is one member, HEPO two, HEPO with two references three.

Nothing here reads a tensor's value on the host. S runs of Q members, P = S Q policies; B blocks of n envs, so many of
a run's blocks belonging to each member as its share says; R = T E rows of a run, block by block and step by step in it.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.agents.collection import Collection
from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.minibatch import Batch
from hepo_isaac.agents.policies import Acted, Policies
from hepo_isaac.agents.rewards import IterationFacts, RewardChannels
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.methods.advantages import MIN_ADVANTAGE_STD, vtrace
from hepo_isaac.methods.losses import gaussian_log_prob, probability_ratio
from hepo_isaac.methods.method import MethodConfig
from hepo_isaac.methods.multiplier import Multiplier
from hepo_isaac.methods.references import References


class Members(Collection):
    """Policies in shares of the envs. Arguments as Collection's."""

    def __init__(
        self,
        method: MethodConfig,
        train: TrainConfig,
        policies: Policies,
        rewards: RewardChannels,
        multiplier: Multiplier,
    ) -> None:
        super().__init__(method, train, policies, rewards, multiplier)
        device = policies.net.flat.device
        runs, members = policies.num_runs, policies.policies_per_run
        self._first = [sum(policies.shares[:q]) for q in range(members)]
        owners = [q for q, share in enumerate(policies.shares) for _ in range(share)]  # of each block of a run
        owner = torch.tensor(owners, device=device)
        self._owns = owner == torch.arange(members, device=device).unsqueeze(1)  # (Q, blocks of a run)
        self._blocks = len(owner)
        # Pairs of a policy and a block of another's whose rows it learns from, run by run: (K,) each.
        pairs = [(q, k) for q, used in enumerate(method.uses) for k, o in enumerate(owners) if o in used]
        learner = torch.tensor([q for q, _ in pairs], dtype=torch.int64, device=device)
        block = torch.tensor([k for _, k in pairs], dtype=torch.int64, device=device)
        run = torch.arange(runs, device=device).unsqueeze(1)
        self._learner, self._block = (run * members + learner).flatten(), (run * len(owner) + block).flatten()
        self._place = (self._learner, block.repeat(runs))  # of a pair in (P, blocks of a run)
        self._pulls = (owner[block], learner)  # whose rows, and who learns from them
        # Rows of who maximises r alone never pull: they count as far as the learner would have acted so.
        task = [method.objectives[owners[k]] == "task" for _, k in pairs]
        apart = torch.tensor(task, dtype=torch.bool, device=device)
        alike = torch.full_like(apart, method.ratio_anchor == "old_policy")
        self._anchored = (apart | alike).repeat(runs).unsqueeze(1)
        self._learns = self._learner == torch.arange(runs * members, device=device).unsqueeze(1)  # (P, K)
        self.evidence = References(method.references, method.objectives, multiplier.value, runs, device)

    def act(self, obs: Tensor, noise: Tensor) -> Acted:
        """Each block (B, n, .) of envs by its owner, see Policies.act."""
        return self.policies.act(obs, noise)

    # -- rows --------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def batch(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> Batch:
        """See Collection.batch."""
        runs, members = self.policies.num_runs, self.policies.policies_per_run
        channels = self.rewards.channels(buffer, facts)
        found = self._own_advantages(buffer, last_obs, channels, facts)
        advantages, values = (buffer.rows(x).reshape(runs, -1, 2) for x in (found, buffer.values))
        self._record(facts)
        own = [self._of_member(advantages, q) for q in range(members)]
        moments = [ranks.std_mean(rows, dim=1, keepdim=True) for rows in own]
        std, mean = (torch.stack(parts, 1).flatten(0, 1) for parts in zip(*moments))  # (P, 1, 2)
        returns = advantages + values
        mine = self._mine(buffer.block_rows)
        behaviour = self._everyone(buffer.rows(buffer.log_prob).reshape(runs, -1))
        weights = self.rewards.objective_weights(facts).unsqueeze(1)
        objective = (self._standardized(self._everyone(advantages), std, mean) * weights).sum(-1)
        means = self._everyone(buffer.rows(buffer.mean).reshape(runs, -1, self.policies.num_actions))
        log_prob = behaviour
        if len(self._learner):
            others = self._of_others(buffer, last_obs, channels, facts, std, mean)
            means, log_prob, objective = (self._put(x, y) for x, y in zip((means, log_prob, objective), others))
        # Last: it changes what networks say of a channel that has never varied before.
        self.policies.move_value_norm([self._of_member(returns, q) for q in range(members)])
        norm = self.policies.value_norm.normalize_targets
        return Batch.from_rollout(
            buffer,
            self.policies,
            mean=means,
            advantage=objective,
            old_values=norm(self._everyone(values)) * mine.unsqueeze(-1),
            returns=norm(self._everyone(returns)) * mine.unsqueeze(-1),
            on_policy=mine,
            log_prob=log_prob,
        )

    def _of_member(self, rows: Tensor, member: int) -> Tensor:
        """(S, R, .) -> (S, R_q, .), the rows that a member of each run acted for."""
        each = rows.shape[1] // self._blocks
        first = self._first[member] * each
        return rows[:, first : first + self.policies.shares[member] * each]

    def _everyone(self, rows: Tensor) -> Tensor:
        """(S, R, .) -> (P, R, .), every member of a run sees the same."""
        return rows.repeat_interleave(self.policies.policies_per_run, 0)

    def _mine(self, block_rows: int) -> Tensor:
        """(P, R) 1 where a policy acted itself."""
        rows = self._owns.repeat_interleave(block_rows, 1).to(torch.float32)
        return rows.repeat(self.policies.num_runs, 1)

    def _standardized(self, advantages: Tensor, std: Tensor, mean: Tensor) -> Tensor:
        """(P, R, 2) in units of ``std`` and ``mean``; 0 where those say nothing."""
        if self.method.whitening == "none":
            return advantages
        known = std > MIN_ADVANTAGE_STD
        return torch.where(known, (advantages - mean) / (std + 1e-8), torch.zeros_like(advantages))

    # -- estimates ---------------------------------------------------------------------------------------------
    def _own_advantages(
        self, buffer: RolloutBuffer, last_obs: Tensor, channels: Tensor, facts: IterationFacts
    ) -> Tensor:
        """(T, B, n, 2) GAE of each block's owner's critics."""
        owners = self.policies.owners
        obs = self._ends(buffer, last_obs)
        values = self.policies.values(obs, owners).view(len(obs), -1, buffer.envs_per_block, 2).transpose(0, 1)
        index = buffer.timeout_slot.unsqueeze(-1).expand(*buffer.timeout_slot.shape, 2)
        final = values[1:].gather(0, index)
        gamma = self.rewards.discount(facts)
        return self.rewards.advantages(buffer, channels, buffer.values, values[0], final, gamma)

    def _ends(self, buffer: RolloutBuffer, last_obs: Tensor) -> Tensor:
        """(B, (1 + slots) n, O) the observation after the last step, and those that time limits cut off."""
        return torch.cat((last_obs.unsqueeze(0), buffer.timeout_obs), 0).transpose(0, 1).flatten(1, 2)

    def _put(self, rows: Tensor, found: Tensor) -> Tensor:
        """(P, R, .) with what was found of the pairs' rows (K, R / blocks, .) in their places."""
        by_block = rows.reshape(len(rows), self._blocks, -1, *rows.shape[2:]).clone()
        by_block[self._place] = found
        return by_block.view(rows.shape)

    def _of_others(
        self,
        buffer: RolloutBuffer,
        last_obs: Tensor,
        channels: Tensor,
        facts: IterationFacts,
        std: Tensor,
        mean: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """(K, R / blocks, .) of every pair: the learner's means there, what its ratios are taken against, and what the
        rows are worth to it by its own critics.

        Args:
            std, mean: (P, 1, 2) of the advantages on each policy's own rows.
        """
        fields = (buffer.obs, buffer.actions, buffer.log_prob)
        obs, actions, anchor = (buffer.rows(x).index_select(0, self._block) for x in fields)
        means, values = self.policies.mean_and_values(obs, self._learner)
        now = gaussian_log_prob(actions, means, self.policies.net.log_std[self._learner].unsqueeze(1))
        ratio = probability_ratio(now, anchor)
        corrected = self._corrected(buffer, last_obs, channels, facts, values, ratio)
        weights = self.rewards.objective_weights(facts)[self._learner].unsqueeze(1)
        worth = (self._in_own_units(corrected, std, mean) * weights).sum(-1)
        worth = torch.where(self._anchored, worth * ratio.clamp(max=1.0), worth)
        anchor = torch.where(self._anchored, now, anchor)
        if self.method.partner_pull > 0.0:
            worth = worth + self.method.partner_pull * self._ahead().unsqueeze(1)
        return means, anchor, worth

    def _corrected(
        self,
        buffer: RolloutBuffer,
        last_obs: Tensor,
        channels: Tensor,
        facts: IterationFacts,
        values: Tensor,
        ratio: Tensor,
    ) -> Tensor:
        """(K, R / blocks, 2) V-trace of each learner's critics on its pair's rows, with the method's time limits."""
        pairs, n, horizon = len(self._learner), buffer.envs_per_block, buffer.horizon

        def by_step(rows: Tensor) -> Tensor:  # (K, T n, ...) -> (T, K, n, ...)
            return rows.view(pairs, horizon, n, *rows.shape[2:]).transpose(0, 1)

        def of_pairs(field: Tensor) -> Tensor:  # (T, B, n, ...) -> (T, K, n, ...)
            return field.index_select(1, self._block)

        ends = self._ends(buffer, last_obs).index_select(0, self._block)
        judged = self.policies.values(ends, self._learner).view(pairs, -1, n, 2).transpose(0, 1)
        slots = of_pairs(buffer.timeout_slot)
        final = judged[1:].gather(0, slots.unsqueeze(-1).expand(*slots.shape, 2))
        ours = by_step(values)
        ended = self.rewards.time_limits(of_pairs(buffer.terminated), of_pairs(buffer.time_out), final, ours)
        gamma = self.rewards.discount(facts)
        found = vtrace(of_pairs(channels), ours, judged[0], *ended, by_step(ratio), gamma, self.train.tau)
        return found.transpose(0, 1).reshape(values.shape)

    def _in_own_units(self, corrected: Tensor, std: Tensor, mean: Tensor) -> Tensor:
        """(K, R / blocks, 2) standardised by the learner's own rows, or by all of these where their spread is larger:
        who has not earned a reward yet must still see that another did."""
        if self.method.whitening == "none":
            return corrected
        learns = self._learns.unsqueeze(-1).to(corrected.dtype)  # (P, K, 1)
        count = learns.sum(1).clamp_min(1.0)
        centre = (learns * ranks.mean(corrected.mean(1))).sum(1) / count
        square = ranks.mean((corrected - centre[self._learner].unsqueeze(1)).square().mean(1))
        spread = ((learns * square).sum(1) / count).sqrt().unsqueeze(1)  # (P, 1, 2)
        return self._standardized(corrected, torch.maximum(std, spread)[self._learner], mean[self._learner])

    def _ahead(self) -> Tensor:
        """(K,) 0 to 1, the evidence that a pair's owner is ahead of the first member, which alone imitates."""
        owner, learner = self._pulls
        return (self.evidence.ahead[:, owner] * (learner == 0)).flatten()

    # -- evidence ----------------------------------------------------------------------------------------------
    def _record(self, facts: IterationFacts) -> None:
        m = self.method
        if m.constraint not in ("threshold", "reference"):
            return
        if m.contrast == "episode_window":
            assert facts.window is not None
            gap, error = -facts.window.gap()[:, 1], facts.window.gap_error()[:, 1]
            self._recorded = facts.window.ready
            self.multiplier.record(gap / error.clamp_min(1e-12), self._recorded)
            return
        assert facts.episode_return is not None and facts.episode_count is not None
        mean, count = facts.episode_return, facts.episode_count
        if m.constraint == "threshold":
            self._recorded = count[:, 0] > 0
            self.multiplier.record(mean[:, 0] - float(m.threshold or 0.0), self._recorded)
        else:
            self._recorded = (count > 0).all(1)
            self.multiplier.record(mean[:, 0] - mean[:, 1], self._recorded)

    def record_after_update(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> None:
        """Members are compared by episodes alone."""
        raise NotImplementedError("contrast_after_update needs collection=halves")

    def look(self, facts: IterationFacts) -> Optional[Tensor]:
        """See Collection.look."""
        if facts.window is None:
            return None
        source = self.evidence.look(facts.window)
        if self.method.constraint != "references":
            return None
        runs, members = source.shape
        first = torch.arange(runs, device=source.device).unsqueeze(1) * members
        self.replaced = (source != torch.arange(members, device=source.device)).flatten()
        return (source + first).flatten()

    def state_dict(self) -> Dict[str, Any]:
        """What windows have said."""
        return self.evidence.state_dict() if self.method.compares_windows else {}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        if self.method.compares_windows:
            self.evidence.load_state_dict(state)

    def metrics(self) -> Dict[str, Tensor]:
        """See Collection.metrics."""
        if not self.method.compares_windows:
            return {}
        e = self.evidence
        names: List[Tuple[str, Tensor]] = [("gap", e.gap), ("gap_error", e.gap_error), ("windows", e.windows)]
        names.append(("violations", e.violations))
        if self.method.constraint == "references":
            names += [("projections", e.projections), ("reseeds", e.reseeds)]
        return dict(names)

    def policy_metrics(self) -> Dict[str, Tensor]:
        """J and its standard error in the last complete window; NaN before the first."""
        if not self.method.compares_windows:
            return {}
        e = self.evidence
        known = e.mean.isfinite()
        pairs = (("window_return_task", e.mean), ("window_return_task_error", e.error))
        return {name: torch.where(known, x, torch.full_like(x, float("nan"))).flatten() for name, x in pairs}
