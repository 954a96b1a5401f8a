"""One iteration's experience: buffers that are allocated once and written in place."""

from __future__ import annotations

import torch
from torch import Tensor


class RolloutBuffer:
    """Experience of T steps of N envs seen as B blocks of n = N / B envs, each acted in by one policy at a time.

    Fields are (T, B, n, .). ``timeout_obs`` keeps, per env, the true final observation of the
    episodes that hit the time limit in this rollout; ``timeout_slot`` says in which of its few slots a step's is.
    ``potential`` and ``final_potential`` hold Phi of the state acted on and of the state the step led to.
    """

    def __init__(
        self,
        horizon: int,
        num_blocks: int,
        num_envs: int,
        num_obs: int,
        num_actions: int,
        num_values: int,
        timeout_slots: int,
        device: torch.device,
    ) -> None:
        if num_envs % num_blocks:
            raise ValueError(
                "num_envs=%d cannot be split evenly among %d policies; use a multiple of %d"
                % (num_envs, num_blocks, num_blocks)
            )
        shape = (horizon, num_blocks, num_envs // num_blocks)
        self.horizon, self.num_blocks, self.envs_per_block = shape
        self.block_rows = horizon * self.envs_per_block
        self.obs = torch.zeros(*shape, num_obs, device=device)
        self.actions = torch.zeros(*shape, num_actions, device=device)
        self.mean = torch.zeros(*shape, num_actions, device=device)
        self.log_prob = torch.zeros(*shape, device=device)
        self.values = torch.zeros(*shape, num_values, device=device)
        self.rewards = torch.zeros(*shape, 2, device=device)
        self.terminated = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.time_out = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.potential = torch.zeros(*shape, device=device)
        self.final_potential = torch.zeros(*shape, device=device)
        self.timeout_obs = torch.zeros(timeout_slots, *shape[1:], num_obs, device=device)
        self.timeout_slot = torch.zeros(*shape, dtype=torch.int64, device=device)
        self._next_slot = torch.zeros(*shape[1:], dtype=torch.int64, device=device)

    def start(self) -> None:
        """Begin a new rollout."""
        self._next_slot.zero_()

    def keep_final_obs(self, t: int, final_obs: Tensor) -> None:
        """Store (B, n, O) final observations where step t timed out; ``time_out[t]`` must be written already."""
        timed_out = self.time_out[t]
        slots = self.timeout_obs.shape[0]
        slot = self._next_slot.clamp(max=slots - 1)
        self.timeout_slot[t] = slot
        for s in range(slots):
            here = (timed_out & (slot == s)).unsqueeze(-1)
            self.timeout_obs[s] = torch.where(here, final_obs, self.timeout_obs[s])
        self._next_slot += timed_out

    def rows(self, field: Tensor) -> Tensor:
        """(T, B, n, ...) -> (B, T n, ...), block-major rows."""
        return field.transpose(0, 1).reshape(self.num_blocks, -1, *field.shape[3:])
