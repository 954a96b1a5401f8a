"""Scores of different tasks on one scale, so that they can be averaged; and where that is not possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from hepo_isaac.runs.compare.table import RunTable

NORMALISATIONS = ("scores", "baseline", "none")
SMALLEST_RANGE = 1e-9


@dataclass(frozen=True)
class Scale:
    """A normalised score is (J - zero) / unit."""

    zero: float = 0.0
    unit: float = 1.0

    def __call__(self, values: Any) -> np.ndarray:
        return (np.asarray(values, dtype=float) - self.zero) / self.unit


@dataclass(frozen=True)
class Scales:
    """One scale for each problem that has one.

    by: what 0 and 1 mean: "scores" (random, optimal), "baseline" (1 is its mean) or "none" (raw returns).
    remarks: what the reader must know about them.
    """

    by: str
    of: Dict[str, Scale]
    remarks: Tuple[str, ...]

    @property
    def has_target(self) -> bool:
        """Whether 1 means something, as the optimality gap needs."""
        return self.by != "none"


def scales(table: RunTable, normalise: str, baseline: str, score: str) -> Scales:
    """Choose the scale of every problem of ``table``."""
    remarks: List[str] = []
    if normalise == "scores":
        found = {p: _by_task(table, p, remarks) for p in table.problems}
        known = {p: s for p, s in found.items() if s is not None}
        without = [p for p in found if p not in known]
        if known:
            if without:
                remarks.append("left out of every aggregate for want of task.scores: %s" % ", ".join(without))
            return Scales("scores", known, tuple(remarks))
        remarks.append("no task.scores, so nothing is normalised: %s" % ", ".join(without))
    elif normalise == "baseline":
        by_baseline = {p: _by_baseline(table, p, baseline, score, remarks) for p in table.problems}
        return Scales("baseline", {p: s for p, s in by_baseline.items() if s is not None}, tuple(remarks))
    if len(table.problems) > 1:
        remarks.append("aggregates are over raw returns; the problem with the largest ones weighs most in them")
    return Scales("none", {p: Scale() for p in table.problems}, tuple(remarks))


def _by_task(table: RunTable, problem: str, remarks: List[str]) -> Optional[Scale]:
    """(J - random) / (optimal - random)."""
    pairs = sorted({r.task_scores for r in table.runs if r.problem == problem and r.task_scores is not None})
    if not pairs:
        return None
    low, high = pairs[0]
    if len(pairs) > 1:
        remarks.append("%s: runs disagree on task.scores %s; %s is used for all" % (problem, pairs, pairs[0]))
    if abs(high - low) < SMALLEST_RANGE:
        remarks.append("%s: random and optimal score are the same (%g); its score is J - %g" % (problem, low, low))
        return Scale(low)
    return Scale(low, high - low)


def _by_baseline(table: RunTable, problem: str, baseline: str, score: str, remarks: List[str]) -> Optional[Scale]:
    """J over the baseline's mean J, as 1 + (J - mean) / |mean| so that more stays better where returns are negative."""
    values = table.scores(baseline, score).get(problem)
    if values is None:
        remarks.append("left out of every aggregate, since the baseline has no run there: %s" % problem)
        return None
    mean = float(values.mean())
    if abs(mean) < SMALLEST_RANGE:
        remarks.append("%s: the baseline's mean J is 0; its score is 1 + J - mean" % problem)
        return Scale(mean - 1.0)
    return Scale(mean - abs(mean), abs(mean))
