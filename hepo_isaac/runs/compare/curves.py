"""Learning curves of several seeds on common env steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

from hepo_isaac.runs.compare.stats import curve_band
from hepo_isaac.runs.compare.table import Run

POINTS = 100


@dataclass(frozen=True)
class Curve:
    """IQM over ``seeds`` runs and its 95 % interval at each of the env steps; all arrays (points,)."""

    steps: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def curve_table(runs: Sequence[Run], points: int = POINTS) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Env steps (points,) and smoothed J (runs, points) where all ``runs`` have data; None if there is no such place.

    Only there: a mean over the runs that happened to get further would jump where one ends.
    """
    if not runs or any(r.steps.size == 0 for r in runs):
        return None
    first, last = max(r.steps[0] for r in runs), min(r.steps[-1] for r in runs)
    if last < first:
        return None
    steps = np.linspace(first, last, points)
    return steps, np.stack([np.interp(steps, r.steps, r.curve) for r in runs])


def paired_curves(
    x: Sequence[Run], y: Sequence[Run], points: int = POINTS
) -> Optional[Tuple[List[int], np.ndarray, np.ndarray, np.ndarray]]:
    """Seeds (n) that both have, env steps (points,), and the J of x and of y at them, (n, points) each.

    None where no seed is shared or no step is covered by all.
    """
    by_seed_x, by_seed_y = ({r.seed: r for r in runs if r.steps.size} for runs in (x, y))
    seeds = sorted(set(by_seed_x) & set(by_seed_y))
    found = curve_table([by_seed_x[s] for s in seeds] + [by_seed_y[s] for s in seeds], points)
    if found is None:
        return None
    steps, table = found
    return seeds, steps, table[: len(seeds)], table[len(seeds) :]


def band(runs: Sequence[Run], reps: int, seed: int) -> Optional[Curve]:
    """The curve of one arm on one problem, of the runs that have recorded one."""
    recorded = [r for r in runs if r.steps.size]
    found = curve_table(recorded)
    if found is None:
        return None
    return Curve(found[0], *curve_band(found[1], reps, seed), len(recorded))
