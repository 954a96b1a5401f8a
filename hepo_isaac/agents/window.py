"""Windows of whole episodes: the same number in every environment of every policy, and none that began before."""

from __future__ import annotations

from typing import Dict

import torch
from torch import Tensor

from hepo_isaac.methods.references import Window


class ReturnWindow:
    """Sums of J over the first episodes of every environment since a run's last window.

    Every environment counts as often as any other, so that neither short episodes nor those that happen to end first
    weigh more: without that the first windows of a task with early terminations would be made of failures alone.

    Args:
        owners: (B,) which of the P policies acts in a block.  num_envs: N of all runs, N / B in a block.
        num_runs: S.  window_episodes: of each policy, at least.
    """

    def __init__(
        self,
        owners: Tensor,
        num_policies: int,
        num_envs: int,
        num_runs: int,
        window_episodes: int,
        device: torch.device,
    ) -> None:
        self.num_runs = num_runs
        per_block = num_envs // len(owners)
        envs = torch.stack([(owners == p).sum() * per_block for p in range(num_policies)])
        self._episodes = -(-window_episodes // envs.cpu()).to(torch.float32)  # of each env of a policy, (P,)
        self._episodes = self._episodes.to(device)
        self._owners = owners.repeat_interleave(per_block).to(device)
        self._wanted = self._episodes[self._owners]
        # (P, S E) would be wasteful: a policy's envs are in its own run.
        members = torch.arange(num_policies, device=device).view(num_runs, -1, 1)
        self._mine = (self._owners.view(num_runs, 1, -1) == members).to(torch.float32)  # (S, Q, E)
        self.total = torch.zeros(num_envs, device=device)
        self.square = torch.zeros(num_envs, device=device)
        self.count = torch.zeros(num_envs, device=device)
        self.stale = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def update(self, returns: Tensor, done: Tensor, counted: Tensor) -> None:
        """Add one control step.

        Args:
            returns: (N,) J of the running episodes.  done: (N,) bool, they end here.  counted: (N,) bool, see
                EpisodeMeter.update.
        """
        ended = done & counted & ~self.stale & (self.count < self._wanted)
        found = returns * ended
        self.total += found
        self.square += found * found
        self.count += ended
        self.stale &= ~done

    def look(self) -> Window:
        """What the windows say now; the runs that are ready start new ones."""
        runs = self.num_runs
        n = (self.count.view(runs, 1, -1) * self._mine).sum(2)
        mean = (self.total.view(runs, 1, -1) * self._mine).sum(2) / n.clamp_min(1.0)
        square = (self.square.view(runs, 1, -1) * self._mine).sum(2) / n.clamp_min(1.0)
        error = ((square - mean * mean).clamp_min(0.0) / (n - 1.0).clamp_min(1.0)).sqrt()
        ready = (self.count >= self._wanted).view(runs, -1).all(1)
        over = ready.repeat_interleave(len(self.count) // runs)
        for tensor in (self.total, self.square, self.count):
            tensor.masked_fill_(over, 0.0)
        return Window(mean, error, ready)

    def discard(self, changed: Tensor) -> None:
        """Leave out the running episodes of policies that became others: (P,) bool ``changed``."""
        self.stale |= changed[self._owners]

    _STATE = ("total", "square", "count", "stale")

    def state_dict(self) -> Dict[str, Tensor]:
        """Everything that is counted, a row per env."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Restore what state_dict returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])
