"""Evidence about J(pi) against its references, and what follows from it: projection, the weight of h, reseeding.

maximise J(pi) + w H(pi) subject to J(pi) >= J(k) for every other member k, w = 1 / (1 + alpha). A multiplier alone
cannot leave a local optimum, so a violated constraint is mended by projection: pi takes over the better reference's
weights. w moves with it: it falls where who maximises r alone is ahead (h is in the way), and rises where who maximises
h is (h knows more). A gap counts where it is ``z`` standard errors wide, over windows of whole episodes that do not
overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Sequence

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReferencesConfig:
    """When a gap between J of two members is evidence, and what follows; read where J is compared by windows.

    window_episodes: episodes of each member in a window, rounded up to the same number in each of its environments.
    z: standard errors by which a gap has to exceed 0.
    projection: pi takes over the weights of the best reference that is ahead of it.
    factor: by which 1 + alpha is multiplied, or divided, at a projection; 1: h keeps its weight.
    maximum: upper bound of alpha.
    reseed_windows: a member that maximises r alone takes over pi's weights after so many windows in a row in which it
        is behind and does not rise; 0: never.
    """

    window_episodes: int = 64
    z: float = 2.0
    projection: bool = True
    factor: float = 2.0
    maximum: float = 100.0
    reseed_windows: int = 2

    def __post_init__(self) -> None:
        for name, least in (
            ("window_episodes", 2),
            ("z", 0.0),
            ("factor", 1.0),
            ("maximum", 0.0),
            ("reseed_windows", 0),
        ):
            if not getattr(self, name) >= least:
                raise ValueError("algo.references.%s must be >= %g, got %r" % (name, least, getattr(self, name)))


@dataclass(frozen=True)
class Window:
    """What a window says of the members of every run.

    mean, error: (S, Q) mean J and its standard error.  ready: (S,) bool, the runs whose window is complete; what the
    others' rows hold means nothing.
    """

    mean: Tensor
    error: Tensor
    ready: Tensor

    def gap(self) -> Tensor:
        """(S, Q) how far each member is ahead of the first."""
        return self.mean - self.mean[:, :1]

    def gap_error(self) -> Tensor:
        """(S, Q) standard errors of the gaps."""
        return (self.error.square() + self.error[:, :1].square()).sqrt()


class References:
    """What S runs have learned from their windows; nothing here reads a value on the host.

    Args:
        objectives: of the Q members; the first is pi.  alpha: (S,), changed in place.

    Attributes:
        seeded: (Q,) bool, members that maximise r alone, which pi may help to a start.
        mean, error: (S, Q) of the last complete window; infinite before the first.
        gap, gap_error: (S,) of the best reference over pi in the last complete window.
        projections, reseeds, violations, windows: (S,) counted since the start.
    """

    def __init__(
        self, config: ReferencesConfig, objectives: Sequence[str], alpha: Tensor, num_runs: int, device: torch.device
    ) -> None:
        self.config, self.alpha = config, alpha
        members = len(objectives)
        # Who is ahead of pi says whether h is in the way (+1: alpha rises) or knows more (-1).
        signs = {"task": 1.0, "heuristic": -1.0}
        self._direction = torch.tensor([signs.get(o, 0.0) for o in objectives], device=device)
        self.seeded = torch.tensor([k > 0 and o == "task" for k, o in enumerate(objectives)], device=device)
        self.mean = torch.full((num_runs, members), float("inf"), device=device)
        self.error = torch.zeros(num_runs, members, device=device)
        self._stuck = torch.zeros(num_runs, members, device=device)
        self.ahead = torch.zeros(num_runs, members, device=device)
        self.gap, self.gap_error = torch.zeros(num_runs, device=device), torch.zeros(num_runs, device=device)
        self.projections, self.reseeds = torch.zeros(num_runs, device=device), torch.zeros(num_runs, device=device)
        self.violations, self.windows = torch.zeros(num_runs, device=device), torch.zeros(num_runs, device=device)

    def look(self, window: Window) -> Tensor:
        """Act on a window; returns (S, Q) int64, from which member of its run each one goes on (itself: as it is)."""
        c, ready = self.config, window.ready
        gap, error = window.gap(), window.gap_error()
        members = torch.arange(gap.shape[1], device=gap.device)
        ahead = (gap > c.z * error) & (members > 0) & ready.unsqueeze(1)
        best = torch.where(ahead, gap, torch.full_like(gap, -float("inf"))).argmax(1)
        violated = ahead.any(1)
        source = members.expand_as(gap).clone()
        projected = violated & c.projection
        source[:, 0] = torch.where(projected, best, source[:, 0])
        self._weigh(projected, best)
        reseeded = self._reseed(window, -gap > c.z * error)
        source = torch.where(reseeded, torch.zeros_like(source), source)
        self._remember(window, violated, projected, reseeded)
        return source

    def _weigh(self, projected: Tensor, best: Tensor) -> None:
        direction = self._direction[best]
        moved = ((1.0 + self.alpha) * self.config.factor**direction - 1.0).clamp(0.0, self.config.maximum)
        self.alpha.copy_(torch.where(projected, moved, self.alpha))

    def _reseed(self, window: Window, behind: Tensor) -> Tensor:
        """(S, Q) bool, the members that start anew from pi."""
        c, ready = self.config, window.ready.unsqueeze(1)
        error = (window.error.square() + self.error.square()).sqrt()
        risen = window.mean - self.mean > c.z * error
        stuck = torch.where(behind & ~risen & self.seeded, self._stuck + 1.0, torch.zeros_like(self._stuck))
        reseeded = ready & (stuck >= c.reseed_windows) & self.seeded & (c.reseed_windows > 0)
        self._stuck.copy_(torch.where(ready, stuck.masked_fill(reseeded, 0.0), self._stuck))
        return reseeded

    def _remember(self, window: Window, violated: Tensor, projected: Tensor, reseeded: Tensor) -> None:
        ready = window.ready
        gap, error = window.gap(), window.gap_error()
        for old, new in ((self.mean, window.mean), (self.error, window.error)):
            old.copy_(torch.where(ready.unsqueeze(1), new, old))
        # From 0, no evidence, to 1, as much as a projection asks for.
        evidence = (gap / (self.config.z * error).clamp_min(1e-12)).clamp(0.0, 1.0)
        self.ahead.copy_(torch.where(ready.unsqueeze(1), evidence, self.ahead))
        if gap.shape[1] > 1:
            best, of = gap[:, 1:].max(1)
            chosen = error[:, 1:].gather(1, of.unsqueeze(1)).squeeze(1)
            self.gap.copy_(torch.where(ready, best, self.gap))
            self.gap_error.copy_(torch.where(ready, chosen, self.gap_error))
        self.windows += ready
        self.violations += violated
        self.projections += projected
        self.reseeds += reseeded.sum(1)

    _STATE = ("mean", "error", "_stuck", "ahead", "gap", "gap_error")
    _COUNTS = ("projections", "reseeds", "violations", "windows")

    def state_dict(self) -> Dict[str, Tensor]:
        """All tensors, each with one row per run; alpha is its owner's to save."""
        return {name.strip("_"): getattr(self, name).clone() for name in (*self._STATE, *self._COUNTS)}

    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Restore what state_dict returned."""
        for name in (*self._STATE, *self._COUNTS):
            getattr(self, name).copy_(state[name.strip("_")])
