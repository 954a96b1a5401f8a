"""One iteration's experience, by policy: buffers that are allocated once and written in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import torch
from torch import Tensor


class RolloutBuffer:
    """Experience of T steps of N envs seen as P policies with N/P envs each.

    Fields are (T, P, n, .) with n = N / P. ``timeout_obs`` keeps, per env, the true final observation of the
    episodes that hit the time limit in this rollout; ``timeout_slot`` says in which of its few slots a step's is.
    """

    def __init__(
        self,
        horizon: int,
        num_policies: int,
        num_envs: int,
        num_obs: int,
        num_actions: int,
        num_values: int,
        timeout_slots: int,
        device: torch.device,
    ) -> None:
        if num_envs % num_policies:
            raise ValueError(
                "num_envs=%d cannot be split evenly among %d policies; use a multiple of %d"
                % (num_envs, num_policies, num_policies)
            )
        shape = (horizon, num_policies, num_envs // num_policies)
        self.horizon, self.num_policies, self.envs_per_policy = shape
        self.obs = torch.zeros(*shape, num_obs, device=device)
        self.actions = torch.zeros(*shape, num_actions, device=device)
        self.mean = torch.zeros(*shape, num_actions, device=device)
        self.log_prob = torch.zeros(*shape, device=device)
        self.values = torch.zeros(*shape, num_values, device=device)
        self.rewards = torch.zeros(*shape, 2, device=device)
        self.terminated = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.time_out = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.timeout_obs = torch.zeros(timeout_slots, *shape[1:], num_obs, device=device)
        self.timeout_slot = torch.zeros(*shape, dtype=torch.int64, device=device)
        self._next_slot = torch.zeros(*shape[1:], dtype=torch.int64, device=device)

    def start(self) -> None:
        """Begin a new rollout."""
        self._next_slot.zero_()

    def keep_final_obs(self, t: int, final_obs: Tensor) -> None:
        """Store (P, n, O) final observations where step t timed out; ``time_out[t]`` must be written already."""
        timed_out = self.time_out[t]
        slots = self.timeout_obs.shape[0]
        slot = self._next_slot.clamp(max=slots - 1)
        self.timeout_slot[t] = slot
        for s in range(slots):
            here = (timed_out & (slot == s)).unsqueeze(-1)
            self.timeout_obs[s] = torch.where(here, final_obs, self.timeout_obs[s])
        self._next_slot += timed_out

    def rows(self, field: Tensor) -> Tensor:
        """(T, P, n, ...) -> (P, T n, ...), policy-major rows."""
        return field.transpose(0, 1).reshape(self.num_policies, self.horizon * self.envs_per_policy, *field.shape[3:])


@dataclass
class Batch:
    """Rows for the update, all (P, M, .), owner-major: row p holds what policy p's envs produced.

    advantages: standardised [r, h] channel advantages by the owner's critics.
    values, targets: the owner's critic in normalised units.
    """

    obs: Tensor
    actions: Tensor
    log_prob: Tensor
    mean: Tensor
    advantages: Tensor
    values: Tensor
    targets: Tensor

    def packed(self) -> Tensor:
        """(P * M, W) all fields side by side, so that a minibatch is one gather."""
        parts = (
            self.obs,
            self.actions,
            self.log_prob.unsqueeze(-1),
            self.mean,
            self.advantages,
            self.values,
            self.targets,
        )
        return torch.cat(parts, -1).flatten(0, 1)

    def widths(self) -> Tuple[int, ...]:
        """Column counts of ``packed`` in order."""
        return (
            self.obs.shape[-1],
            self.actions.shape[-1],
            1,
            self.mean.shape[-1],
            self.advantages.shape[-1],
            self.values.shape[-1],
            self.targets.shape[-1],
        )
