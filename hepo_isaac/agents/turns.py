"""Collection by turns: both policies of a run act in all its envs, one at a time. EIPO, and HEPO's alternating form.

Both policies learn from the rows of the one that acted. Shapes: S runs, Q = 2 policies each, P = S Q, E envs of a
run, R = T E rows. The sibling, where each policy has envs of its own, is agents/halves.py.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.agents.collection import Collection
from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.minibatch import Batch
from hepo_isaac.agents.policies import Acted, Policies
from hepo_isaac.agents.rewards import IterationFacts, RewardChannels
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.agents.turn_schedule import TurnSchedule
from hepo_isaac.methods.advantages import standardize
from hepo_isaac.methods.contrast import pooled_gap
from hepo_isaac.methods.eipo import constraint_gap, max_stage_utility, min_stage_utility
from hepo_isaac.methods.method import MethodConfig
from hepo_isaac.methods.multiplier import Multiplier


class Turns(Collection):
    """One policy at a time in all envs of its run; ``schedule`` says who. Arguments as Collection's."""

    def __init__(
        self,
        method: MethodConfig,
        train: TrainConfig,
        policies: Policies,
        rewards: RewardChannels,
        multiplier: Multiplier,
    ) -> None:
        super().__init__(method, train, policies, rewards, multiplier)
        self.schedule = TurnSchedule(method, policies.num_runs, policies.net.flat.device)
        self._reference_advantage: Optional[Tensor] = None

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor) -> Acted:
        """The envs (S, E, .) of each run by the policy whose turn it is, see Policies.act."""
        both = self.policies.act(self._for_both(obs), self._for_both(noise))
        chosen = torch.arange(self.policies.num_runs, device=obs.device) * 2 + self.schedule.acting
        actions, log_prob, mean, values = (x.index_select(0, chosen) for x in both)
        return actions, log_prob, mean, values

    def acting(self) -> Optional[Tensor]:
        """See Collection.acting."""
        return self.schedule.acting

    # -- rows --------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def batch(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> Batch:
        """See Collection.batch; here there is one block of envs per run."""
        mean, values = self.policies.mean_and_values(self._for_both(buffer.rows(buffer.obs)))
        channels = self.rewards.channels(buffer, facts)
        advantages = self._all_advantages(buffer, last_obs, values, channels, facts)
        acting = self.schedule.is_acting().view(-1)
        returns = advantages + values
        own = acting.to(values.dtype).unsqueeze(1).expand(values.shape[:2])
        if self._is_eipo:
            advantage = self._eipo(advantages, buffer.rows(channels), facts)
        else:
            advantage = self._shared(advantages, facts)
        self.policies.move_value_norm(returns, acting)
        norm = self.policies.value_norm.normalize_targets
        return Batch.from_rollout(
            buffer,
            self.policies,
            mean=mean,
            advantage=advantage,
            old_values=norm(values),
            returns=norm(returns),
            on_policy=own,
        )

    @property
    def _is_eipo(self) -> bool:
        return self.method.constraint == "eipo"

    def _for_both(self, rows: Tensor) -> Tensor:
        """(S, ...) -> (P, ...), both policies of a run see the same."""
        return rows.repeat_interleave(2, 0)

    def _all_advantages(
        self, buffer: RolloutBuffer, last_obs: Tensor, values: Tensor, channels: Tensor, facts: IterationFacts
    ) -> Tensor:
        """(P, R, 2) GAE of every critic on the rows of its run."""
        horizon, runs, envs = buffer.terminated.shape
        by_step = values.view(runs, 2, horizon, envs, 2).permute(2, 0, 1, 3, 4)
        slots = buffer.timeout_obs.shape[0]
        obs = torch.cat((last_obs.unsqueeze(0), buffer.timeout_obs), 0).transpose(0, 1).flatten(1, 2)
        ends = self.policies.values(self._for_both(obs)).view(runs, 2, slots + 1, envs, 2).permute(2, 0, 1, 3, 4)
        index = buffer.timeout_slot[:, :, None, :, None].expand(horizon, runs, 2, envs, 2)
        final = ends[1:].gather(0, index)
        rewards = channels.unsqueeze(2).expand(horizon, runs, 2, envs, 2)
        gamma = self.rewards.discount(facts)
        found = self.rewards.advantages(buffer, rewards, by_step, ends[0], final, gamma)
        return found.permute(1, 2, 0, 3, 4).reshape(values.shape)

    # -- what is maximised -------------------------------------------------------------------------------------
    def _shared(self, advantages: Tensor, facts: IterationFacts) -> Tensor:
        """(P, R): the acting policy's advantages, standardised, with each policy's own weights (HEPO)."""
        by_critic = advantages.view(-1, 2, *advantages.shape[1:])
        acting = self.schedule.is_acting()
        mine = torch.where(acting[:, :1, None], by_critic[:, 0], by_critic[:, 1])
        if self.method.constraint == "reference":
            self._record_side(by_critic[..., 0], acting, facts)
        z = mine if self.method.whitening == "none" else standardize(mine, dim=(1,))
        weights = self.rewards.objective_weights(facts)
        return (self._for_both(z) * weights.unsqueeze(1)).sum(-1)

    def _record_side(self, task_advantages: Tensor, acting: Tensor, facts: IterationFacts) -> None:
        """Keep the cross mean of whoever acted; a gap can be recorded once both have acted.

        Args:
            task_advantages: (S, 2, R) by critic.
        """
        schedule = self.schedule
        if self.method.contrast == "episode_return":
            assert facts.episode_return is not None and facts.episode_count is not None
            self._recorded = schedule.keep_cross(facts.episode_return, acting & (facts.episode_count > 0))
            self.multiplier.record(schedule.last_cross[:, 0] - schedule.last_cross[:, 1], self._recorded)
            return
        # column p: policy p's rows by the other's critic
        valid = schedule.keep_cross(ranks.mean(task_advantages.mean(-1)).flip(1), acting)
        gap = pooled_gap(schedule.last_cross[:, 0], schedule.last_cross[:, 1], task_advantages)
        self.multiplier.record(gap, valid)

    def _eipo(self, advantages: Tensor, rewards: Tensor, facts: IterationFacts) -> Tensor:
        """(P, R): utilities of the stage each run is in, standardised; the auxiliary objectives too (in the rlpyt
        release those are not, and so depend on the scale of the rewards)."""
        by_critic = advantages.view(-1, 2, *advantages.shape[1:])
        weight = self.rewards.heuristic_weight(facts)
        r, h = rewards[..., 0], weight * rewards[..., 1]
        alpha = self.multiplier.value.unsqueeze(1)
        of_reference = by_critic[:, 1, :, 0]
        task, heuristic = by_critic[:, 0, :, 0], weight * by_critic[:, 0, :, 1]
        u_max = max_stage_utility(r, h, of_reference, alpha)
        u_min = min_stage_utility(r, h, task, heuristic, alpha)
        in_max = (self.schedule.acting == 1).unsqueeze(1)
        self.schedule.utility.copy_(ranks.mean(torch.where(in_max, u_max, u_min).mean(1)))
        # The mean of A^{pi_J} on pi_J's own rows is 0 but for its critic's error, which would otherwise drive alpha.
        self._reference_advantage = standardize(of_reference, dim=(1,))
        pi = torch.where(in_max, u_max, task + heuristic)
        reference = torch.where(in_max, of_reference, u_min)
        return standardize(torch.stack((pi, reference), 1).flatten(0, 1), dim=(1,))

    # -- between iterations ------------------------------------------------------------------------------------
    def record_after_update(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> None:
        """No method that takes turns measures a contrast of critics after the update."""
        raise NotImplementedError("contrast_after_update needs collection=halves")

    @torch.no_grad()
    def after_update(self, batch: Batch) -> Optional[Tensor]:
        """(S,) bool runs whose multiplier may move. EIPO's gap is measured on pi_J's rows with the updated pi; its
        alpha moves only in max stages."""
        if not self._is_eipo:
            return self._recorded
        assert self._reference_advantage is not None
        in_max = self.schedule.acting == 1
        ratio = self.policies.ratio(batch.obs, batch.actions, batch.log_prob)[::2]
        gap = constraint_gap(ratio, self._reference_advantage, self.train.e_clip)
        self.multiplier.record(gap, in_max)
        return in_max

    def finish_iteration(self) -> None:
        """Change turns where it is time."""
        self.schedule.finish()

    def state_dict(self) -> Dict[str, Any]:
        """Whose turn it is and what is kept in between."""
        return self.schedule.state_dict()

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        self.schedule.load_state_dict(state)
