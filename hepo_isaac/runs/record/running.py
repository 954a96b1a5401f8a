"""Means over the last finished episodes: what is shown, and what decides which checkpoint is the best."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, Optional, Tuple

# How a policy is written where people read.
POLICY_LABELS = {"pi": "π", "pi_h": "π_H", "pi_j": "π_J", "pi_sum": "π_S"}
EPISODE_PREFIXES = ("return_task/", "return_heuristic/", "episode_length/", "episode/", "terms/")


def policy_of(key: str) -> str:
    """The policy a metric key speaks of: "pi" in "episode/drawer_open/pi"."""
    return key.rsplit("/", 1)[-1]


class RunningMeans:
    """Mean of every per-episode metric over about the last ``window`` finished episodes of its policy.

    One entry is one iteration's mean and how many episodes it stands for; entries are kept whole, the oldest one
    going as soon as the rest holds ``window`` episodes. NaN (no episode finished) is not an entry.
    """

    def __init__(self, window: int = 100) -> None:
        self.window = window
        self._entries: Dict[str, Deque[Tuple[float, float]]] = {}

    def update(self, metrics: Mapping[str, float]) -> None:
        """Take in one iteration, unless its episodes were short because no long one can have ended yet."""
        if metrics.get("length_biased", 0.0) > 0:
            return
        for key, value in metrics.items():
            if not key.startswith(EPISODE_PREFIXES):
                continue
            count = float(metrics.get("episodes/" + policy_of(key), 0.0))
            # not (count > 0) also refuses NaN
            if not count > 0 or math.isnan(value):
                continue
            entries = self._entries.setdefault(key, deque())
            entries.append((float(value), count))
            total = sum(c for _, c in entries)
            while total - entries[0][1] >= self.window:
                total -= entries.popleft()[1]

    def mean(self, key: str) -> float:
        """Mean over the window; NaN while no episode has finished."""
        entries = self._entries.get(key)
        if not entries:
            return float("nan")
        return sum(v * c for v, c in entries) / sum(c for _, c in entries)

    def episodes(self, key: str) -> float:
        """How many episodes ``mean`` stands for."""
        return sum(c for _, c in self._entries.get(key, ()))

    def all(self) -> Dict[str, float]:
        """Every mean by its key."""
        return {key: self.mean(key) for key in self._entries}

    def get_state(self) -> Dict[str, List[List[float]]]:
        """Plain lists, for a checkpoint."""
        return {key: [[v, c] for v, c in entries] for key, entries in self._entries.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what get_state returned."""
        self._entries = {k: deque((float(v), float(c)) for v, c in rows) for k, rows in state.items()}


def success_metric(keys: Any, wanted: Optional[str] = None) -> Optional[str]:
    """Pick the one per-episode metric of "pi" worth a place in the display: its key, or None where there is none.

    ``wanted`` names it; otherwise it is the one called success, one whose name contains success, or the first.
    """
    found = [k for k in keys if k.startswith("episode/") and policy_of(k) == "pi"]
    names = {k.split("/", 1)[1].rsplit("/", 1)[0]: k for k in found}
    if wanted is not None:
        return names.get(wanted)
    for name, key in names.items():
        if name == "success":
            return key
    for name, key in names.items():
        if "success" in name:
            return key
    return found[0] if found else None
