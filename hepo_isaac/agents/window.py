"""Windows of whole episodes: the same number in every environment of every policy, and none that began before."""

from __future__ import annotations

from typing import Dict, Sequence

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.methods.references import Window


class ReturnWindow:
    """Sums of J over the first episodes of every environment since a run's last window.

    Every environment counts as often as any other, so that neither short episodes nor those that happen to end first
    weigh more: without that the first windows of a task with early terminations would be made of failures alone.

    Args:
        shares: blocks of envs of each policy of a run.  num_runs: S.  num_envs: N of all runs, run by run.
        window_episodes: of each policy, at least.

    Attributes:
        total, square, count: (N,) float64 sums over the episodes of the running window: J may be thousands and its
            spread tens.
        stale: (N,) bool, the running episode began under other weights.
    """

    def __init__(
        self, shares: Sequence[int], num_runs: int, num_envs: int, window_episodes: int, device: torch.device
    ) -> None:
        self.num_runs = num_runs
        members, per_block = len(shares), num_envs // (num_runs * sum(shares))
        envs = [share * per_block for share in shares]
        whose = [member for member, count in enumerate(envs) for _ in range(count)]
        owner = torch.tensor(whose, device=device)  # (E,) in a run
        self._mine = (owner == torch.arange(members, device=device).unsqueeze(1)).to(torch.float64)  # (Q, E)
        of_all = [n * ranks.size() for n in envs]
        wanted = torch.tensor([float(-(-window_episodes // n)) for n in of_all], dtype=torch.float64, device=device)
        self._wanted = wanted[owner].repeat(num_runs)  # (N,) episodes of each env
        run = torch.arange(num_runs, device=device).unsqueeze(1)
        self._owners = (run * members + owner).flatten()  # (N,) the policy whose an env is
        self.total, self.square, self.count = (
            torch.zeros(num_envs, dtype=torch.float64, device=device) for _ in range(3)
        )
        self.stale = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def update(self, returns: Tensor, done: Tensor, counted: Tensor) -> None:
        """Add one control step.

        Args:
            returns: (N,) J of the running episodes.  done: (N,) bool, they end here.  counted: (N,) bool, see
                EpisodeMeter.update.
        """
        ended = done & counted & ~self.stale & (self.count < self._wanted)
        found = returns.to(torch.float64) * ended
        self.total += found
        self.square += found * found
        self.count += ended
        self.stale &= ~done

    def look(self) -> Window:
        """What the windows say now; the runs that are ready start new ones."""
        runs = self.num_runs
        missing = (self.count < self._wanted).view(runs, -1).any(1, keepdim=True).expand(-1, len(self._mine))
        sums = [(x.view(runs, 1, -1) * self._mine).sum(2) for x in (self.count, self.total, self.square)]
        n, total, squares, missed = ranks.total(torch.stack((*sums, missing.to(torch.float64)))).unbind()
        mean, square = total / n.clamp_min(1.0), squares / n.clamp_min(1.0)
        error = ((square - mean * mean).clamp_min(0.0) / (n - 1.0).clamp_min(1.0)).sqrt()
        ready = missed[:, 0] == 0
        over = ready.repeat_interleave(len(self.count) // runs)
        for tensor in (self.total, self.square, self.count):
            tensor.masked_fill_(over, 0.0)
        return Window(mean.float(), error.float(), ready)

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
