"""Policies that take turns in all envs of their run: who acts, when that changes, and what is kept in between."""

from __future__ import annotations

from typing import Dict

import torch
from torch import Tensor

from hepo_isaac.methods.eipo import leave_stage
from hepo_isaac.methods.method import MethodConfig


class TurnSchedule:
    """State of S runs with collection=alternating, (S,) tensors; without it, constants that nothing reads.

    acting: index of the policy that acts. In EIPO, 1 (pi_J acts) is the max stage, which comes first.
    """

    def __init__(self, method: MethodConfig, num_runs: int, device: torch.device) -> None:
        self._rule, self._most = method.switching, method.max_stage_iterations
        first = 1 if method.constraint == "eipo" else 0
        self.acting = torch.full((num_runs,), first, dtype=torch.int64, device=device)
        self.utility = torch.zeros(num_runs, device=device)
        # Per run and policy: the last mean utility and the last mean cross advantage (or return) while it acted.
        self.last_utility = torch.zeros(num_runs, 2, device=device)
        self.last_cross = torch.zeros(num_runs, 2, device=device)
        self.has_cross = torch.zeros(num_runs, 2, dtype=torch.bool, device=device)
        self.seen = torch.zeros(num_runs, 2, dtype=torch.bool, device=device)
        self.in_stage = torch.zeros(num_runs, dtype=torch.int64, device=device)

    def is_acting(self) -> Tensor:
        """(S, 2) bool."""
        return torch.stack((self.acting == 0, self.acting == 1), 1)

    def keep_cross(self, mean: Tensor, measured: Tensor) -> Tensor:
        """Keep what was measured now, both (S, 2); (S,) bool, whether there is something new to compare of both."""
        self.last_cross.copy_(torch.where(measured, mean, self.last_cross))
        self.has_cross.logical_or_(measured)
        return self.has_cross.all(1) & measured.any(1)

    def finish(self) -> None:
        """An iteration is over: remember its utility and let the runs that leave their stage change it."""
        mine = self.acting.unsqueeze(1)
        before, seen = self.last_utility.gather(1, mine).squeeze(1), self.seen.gather(1, mine).squeeze(1)
        self.in_stage += 1
        leave = leave_stage(self.utility, before, seen, self.in_stage, self._rule, self._most)
        acting = self.is_acting()
        self.last_utility.copy_(torch.where(acting, self.utility.unsqueeze(1), self.last_utility))
        self.seen.logical_or_(acting)
        self.acting.copy_(torch.where(leave, 1 - self.acting, self.acting))
        self.in_stage.masked_fill_(leave, 0)

    _STATE = ("acting", "utility", "last_utility", "last_cross", "has_cross", "seen", "in_stage")

    def state_dict(self) -> Dict[str, Tensor]:
        """All tensors, one row per run."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Restore what state_dict returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])
