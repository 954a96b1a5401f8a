"""Batches where both policies of a run act in all its envs by turns: EIPO, and HEPO with alternating collection.

Both policies learn from the rows of the one that acted. Shapes: S runs, Q = 2 policies each, P = S Q, E envs of a
run, R = T E rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.experience import Experience, Progress
from hepo_isaac.agents.rollout import Batch, RolloutBuffer
from hepo_isaac.agents.turns import Turns
from hepo_isaac.methods.advantages import standardize
from hepo_isaac.methods.contrast import pooled_gap
from hepo_isaac.methods.eipo import constraint_gap, max_stage_utility, min_stage_utility

if TYPE_CHECKING:
    from hepo_isaac.agents.learner import Learner


class TurnsExperience(Experience):
    """See Experience. ``turns`` says who acts."""

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        self.turns = Turns(self.method, learner.num_runs, learner.device)
        self._reference_advantage: Optional[Tensor] = None

    @torch.no_grad()
    def batch(self, buffer: RolloutBuffer, last_obs: Tensor, progress: Progress) -> Batch:
        learner = self.learner
        mean, values = learner.evaluate(self._for_both(buffer.rows(buffer.obs)))
        advantages = self._all_advantages(buffer, last_obs, values, progress)
        acting = self.turns.is_acting().view(-1)
        returns = advantages + values
        own = acting.to(values.dtype).unsqueeze(1).expand(values.shape[:2])
        advantage = self._eipo(buffer, advantages, progress) if self._is_eipo else self._shared(advantages, progress)
        learner.move_value_norm(returns, acting)
        return self._rows(
            buffer,
            mean=mean,
            advantage=advantage,
            values=learner.value_norm.normalize_targets(values),
            targets=learner.value_norm.normalize_targets(returns),
            on_policy=own,
        )

    @property
    def _is_eipo(self) -> bool:
        return self.method.constraint == "eipo"

    def _for_both(self, rows: Tensor) -> Tensor:
        """(S, ...) -> (P, ...), both policies of a run see the same."""
        return rows.repeat_interleave(2, 0)

    def _all_advantages(self, buffer: RolloutBuffer, last_obs: Tensor, values: Tensor, progress: Progress) -> Tensor:
        """(P, R, 2) GAE of every critic on the rows of its run."""
        horizon, runs, envs = buffer.terminated.shape
        by_step = values.view(runs, 2, horizon, envs, 2).permute(2, 0, 1, 3, 4)
        slots = buffer.timeout_obs.shape[0]
        obs = torch.cat((last_obs.unsqueeze(0), buffer.timeout_obs), 0).transpose(0, 1).flatten(1, 2)
        ends = self.learner.values(self._for_both(obs)).view(runs, 2, slots + 1, envs, 2).permute(2, 0, 1, 3, 4)
        index = buffer.timeout_slot[:, :, None, :, None].expand(horizon, runs, 2, envs, 2)
        final = ends[1:].gather(0, index)
        rewards = self.channels(buffer, progress).unsqueeze(2).expand(horizon, runs, 2, envs, 2)
        found = self._gae(buffer, rewards, by_step, ends[0], final, self.discount(progress))
        return found.permute(1, 2, 0, 3, 4).reshape(values.shape)

    def _shared(self, advantages: Tensor, progress: Progress) -> Tensor:
        """(P, R): the acting policy's advantages, standardised, with each policy's own weights (HEPO)."""
        by_critic = advantages.view(-1, 2, *advantages.shape[1:])
        acting = self.turns.is_acting()
        mine = torch.where(acting[:, :1, None], by_critic[:, 0], by_critic[:, 1])
        if self.method.constraint == "reference":
            self._record_side(by_critic[..., 0], acting, progress)
        z = mine if self.method.whitening == "none" else standardize(mine, dim=(1,))
        weights = self.learner.policy_weights(self.heuristic_weight(progress))
        return (self._for_both(z) * weights.unsqueeze(1)).sum(-1)

    def _record_side(self, task_advantages: Tensor, acting: Tensor, progress: Progress) -> None:
        """Keep the cross mean of whoever acted; a gap can be recorded once both have acted.

        Args:
            task_advantages: (S, 2, R) by critic.
        """
        turns, multiplier = self.turns, self.learner.multiplier
        if self.method.contrast == "episode_return":
            mean, count = self._episodes(progress)
            self._recorded = turns.keep_cross(mean, acting & (count > 0))
            multiplier.record(turns.last_cross[:, 0] - turns.last_cross[:, 1], self._recorded)
            return
        # column p: policy p's rows by the other's critic
        valid = turns.keep_cross(task_advantages.mean(-1).flip(1), acting)
        multiplier.record(pooled_gap(turns.last_cross[:, 0], turns.last_cross[:, 1], task_advantages), valid)

    def _eipo(self, buffer: RolloutBuffer, advantages: Tensor, progress: Progress) -> Tensor:
        """(P, R): utilities of the stage each run is in, standardised; the auxiliary objectives too (in the rlpyt
        release those are not, and so depend on the scale of the rewards)."""
        by_critic = advantages.view(-1, 2, *advantages.shape[1:])
        rewards = buffer.rows(self.channels(buffer, progress))
        weight = self.heuristic_weight(progress)
        r, h = rewards[..., 0], weight * rewards[..., 1]
        alpha = self.learner.multiplier.value.unsqueeze(1)
        of_reference = by_critic[:, 1, :, 0]
        task, heuristic = by_critic[:, 0, :, 0], weight * by_critic[:, 0, :, 1]
        u_max = max_stage_utility(r, h, of_reference, alpha)
        u_min = min_stage_utility(r, h, task, heuristic, alpha)
        in_max = (self.turns.acting == 1).unsqueeze(1)
        self.turns.utility.copy_(torch.where(in_max, u_max, u_min).mean(1))
        # The mean of A^{pi_J} on pi_J's own rows is 0 but for its critic's error, which would otherwise drive alpha.
        self._reference_advantage = standardize(of_reference, dim=(1,))
        pi = torch.where(in_max, u_max, task + heuristic)
        reference = torch.where(in_max, of_reference, u_min)
        return standardize(torch.stack((pi, reference), 1).flatten(0, 1), dim=(1,))

    @torch.no_grad()
    def after_update(self, batch: Batch) -> Optional[Tensor]:
        """EIPO's gap, measured on pi_J's rows with the updated pi; alpha moves only in max stages."""
        if not self._is_eipo:
            return self._recorded
        assert self._reference_advantage is not None
        in_max = self.turns.acting == 1
        ratio = self.learner.ratio(batch)[::2]
        gap = constraint_gap(ratio, self._reference_advantage, self.train.e_clip)
        self.learner.multiplier.record(gap, in_max)
        return in_max

    def finish_iteration(self) -> None:
        self.turns.finish()

    def state_dict(self) -> Dict[str, Any]:
        return self.turns.state_dict()

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.turns.load_state_dict(state)

    def _bootstrap(self, buffer: RolloutBuffer, last_obs: Tensor, flip: bool) -> Tuple[Tensor, Tensor]:
        raise NotImplementedError("blocks have no partner where policies take turns")
