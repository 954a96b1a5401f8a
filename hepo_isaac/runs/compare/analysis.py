"""Compare trained runs: which arm is better, by how much, how sure that is, and what to distrust about it.

    table = collect(["runs/"])
    comparison = compare(table, baseline="ppo_h")
    write_report(comparison, Path("report"))

docs/compare.md says what the numbers mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

import numpy as np

from hepo_isaac.errors import UserError, unknown
from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.checks import Note, check, numbers
from hepo_isaac.runs.compare.curves import Curve, band
from hepo_isaac.runs.compare.scale import NORMALISATIONS, Scales, scales
from hepo_isaac.runs.compare.stats import Interval
from hepo_isaac.runs.compare.table import SCORES, RunTable

CURVE_REPS = 500  # a band is drawn, not read off to the third digit
DEFAULT_BASELINE = "ppo_h"


@dataclass(frozen=True)
class Improvement:
    """An arm against the baseline.

    pi: probability of improvement over the problems both have; None if they share none.  per_problem: of each.
    seeds: problem -> numbers of seeds (arm, baseline).  iqm_difference: normalised, arm minus baseline.
    verdict: "better", "worse", "no difference shown" or "too few runs".
    """

    arm: str
    pi: Optional[Interval]
    per_problem: Mapping[str, float]
    seeds: Mapping[str, Tuple[int, int]]
    iqm_difference: Optional[Interval]
    verdict: str


@dataclass(frozen=True)
class ProblemRow:
    """One arm on one problem: raw J over its n seeds (mean, IQM, lowest, highest) and mean H."""

    problem: str
    arm: str
    n: int
    mean: float
    iqm: float
    low: float
    high: float
    heuristic: float


@dataclass(frozen=True)
class Comparison:
    """Everything a report says, as plain numbers.

    table: the runs compared, and those left out.  arms: the baseline first.  score: "final", "evaluation" or "auc".
    aggregates: arm -> statistic -> interval, over ``aggregate_seeds`` (problem -> seeds) of each arm; empty where no
        problem has runs of every arm. "iqm_tasks" is the IQM with the problems resampled too.
    profile_taus (K,), profile: arm -> share of runs above each tau (K,) and its interval (2, K).
    curves: problem -> arm -> curve.
    """

    table: RunTable
    arms: List[str]
    problems: List[str]
    baseline: str
    score: str
    scales: Scales
    reps: int
    seed: int
    improvements: List[Improvement]
    aggregates: Dict[str, Dict[str, Interval]]
    aggregate_seeds: Dict[str, Dict[str, List[int]]]
    rows: List[ProblemRow]
    profile_taus: np.ndarray
    profile: Dict[str, Tuple[np.ndarray, np.ndarray]]
    curves: Dict[str, Dict[str, Curve]]
    notes: List[Note]


def compare(
    table: RunTable,
    baseline: Optional[str] = None,
    score: Optional[str] = None,
    normalise: str = "scores",
    reps: int = stats.REPS,
    arms: Optional[Iterable[str]] = None,
    tasks: Optional[Iterable[str]] = None,
    seed: int = 0,
) -> Comparison:
    """Compare every arm of ``table`` with ``baseline``; see docs/compare.md.

    Args:
        baseline: an arm; ppo_h by default, or the first where there is no ppo_h.
        score: "final", "evaluation" or "auc"; by default evaluation if every run has one, else final.
        normalise: "scores", "baseline" or "none" (compare_scale).
        reps, seed: of the bootstrap; the same ones give the same report.
        arms, tasks: only these.

    Raises:
        UserError: an unknown name, too few ``reps``, or nothing left to compare.
    """
    for name, value, valid in (("score", score or SCORES[0], SCORES), ("normalisation", normalise, NORMALISATIONS)):
        if value not in valid:
            raise unknown(name, value, valid)
    if reps < 100:
        raise UserError("reps=%d is too few for a 95 %% interval; at least 100, 2000 is usual" % reps)
    table = table.select(arms, tasks)
    evaluated = sum("evaluation" in r.scores for r in table.runs)
    fell_back = score is None and 0 < evaluated < len(table.runs)
    if score is None:
        score = "evaluation" if evaluated == len(table.runs) else "final"
    if baseline is None:
        baseline = DEFAULT_BASELINE if DEFAULT_BASELINE in table.arms else table.arms[0]
    if baseline not in table.arms:
        raise unknown("baseline", baseline, table.arms)
    chosen = table.scored(score)
    if baseline not in chosen.arms:
        raise UserError("no run of the baseline %s has a finite %s score; choose another baseline" % (baseline, score))
    found = scales(chosen, normalise, baseline, score)
    ordered = [baseline] + [a for a in chosen.arms if a != baseline]
    seeds = _aggregate_seeds(chosen, list(found.of))
    rectangles = {a: _normalised(chosen, a, score, seeds[a], found) for a in seeds}
    improvements = [_improvement(chosen, a, baseline, score, rectangles, reps, seed) for a in ordered[1:]]
    notes = _notes(table, chosen, baseline, score, found, seeds, improvements)
    if fell_back:
        text = "only %d of %d runs have an evaluation, so the final training returns of all are compared"
        notes.append(Note("score", text % (evaluated, len(table.runs))))
    taus, profile = _profile({a: rectangles[a] for a in ordered if a in rectangles}, reps, seed)
    return Comparison(
        chosen,
        ordered,
        chosen.problems,
        baseline,
        score,
        found,
        reps,
        seed,
        improvements,
        {a: _aggregates(rectangles[a], found.has_target, reps, seed) for a in ordered if a in rectangles},
        seeds,
        [_row(chosen, a, p, score) for p in chosen.problems for a in ordered if chosen.of(a, p)],
        taus,
        profile,
        {p: _curves(chosen, ordered, p, min(reps, CURVE_REPS), seed) for p in chosen.problems},
        notes,
    )


def _aggregate_seeds(table: RunTable, problems: List[str]) -> Dict[str, Dict[str, List[int]]]:
    """For every arm, equally many seeds of each problem that all arms have; {} where there is no such problem."""
    shared = [p for p in problems if all(table.of(a, p) for a in table.arms)]
    if not shared:
        return {}
    return {a: stats.common_seeds({p: s for p, s in table.seeds(a).items() if p in shared}) for a in table.arms}


def _normalised(
    table: RunTable, arm: str, score: str, seeds: Mapping[str, List[int]], found: Scales
) -> Dict[str, np.ndarray]:
    """Problem -> normalised scores of exactly these seeds."""
    return {p: found.of[p]([r.scores[score] for r in table.of(arm, p) if r.seed in seeds[p]]) for p in seeds}


def _aggregates(rectangle: stats.Scores, has_target: bool, reps: int, seed: int) -> Dict[str, Interval]:
    names = [s for s in stats.STATISTICS if has_target or s != "optimality_gap"]
    out = {name: stats.aggregate(rectangle, name, reps, seed) for name in names}
    if len(rectangle) > 1:
        out["iqm_tasks"] = stats.aggregate(rectangle, "iqm", reps, seed, task_bootstrap=True)
    return out


def _improvement(
    table: RunTable,
    arm: str,
    baseline: str,
    score: str,
    rectangles: Mapping[str, stats.Scores],
    reps: int,
    seed: int,
) -> Improvement:
    x, y = table.scores(arm, score), table.scores(baseline, score)
    each = stats.improvement_per_problem(x, y)
    sizes = {p: (int(x[p].size), int(y[p].size)) for p in each}
    gap = stats.difference(rectangles[arm], rectangles[baseline], "iqm", reps, seed) if arm in rectangles else None
    if not each:
        return Improvement(arm, None, each, sizes, gap, stats.TOO_FEW)
    pi = stats.probability_of_improvement(x, y, reps, seed)
    return Improvement(arm, pi, each, sizes, gap, stats.verdict(pi, min(min(pair) for pair in sizes.values())))


def _profile(
    rectangles: Mapping[str, stats.Scores], reps: int, seed: int
) -> Tuple[np.ndarray, Dict[str, Tuple[np.ndarray, np.ndarray]]]:
    """Thresholds over the whole range of scores, and every arm's profile at them."""
    if not rectangles:
        return np.empty(0), {}
    values = np.concatenate([v for arm in rectangles.values() for v in arm.values()])
    room = 0.02 * max(float(np.ptp(values)), 1e-9)
    taus = np.linspace(values.min() - room, values.max() + room, 201)
    return taus, {arm: stats.profile(scores, taus, reps, seed) for arm, scores in rectangles.items()}


def _row(table: RunTable, arm: str, problem: str, score: str) -> ProblemRow:
    runs = table.of(arm, problem)
    values = np.array([r.scores[score] for r in runs])
    heuristic = np.array([r.heuristic_returns.get(score, math.nan) for r in runs])
    iqm = stats.point(values, "iqm")
    return ProblemRow(
        problem, arm, len(runs), *map(float, (values.mean(), iqm, values.min(), values.max(), heuristic.mean()))
    )


def _curves(table: RunTable, arms: List[str], problem: str, reps: int, seed: int) -> Dict[str, Curve]:
    found = {a: band(table.of(a, problem), reps, seed) for a in arms}
    return {a: curve for a, curve in found.items() if curve is not None}


def _notes(
    table: RunTable,
    chosen: RunTable,
    baseline: str,
    score: str,
    found: Scales,
    seeds: Mapping[str, Mapping[str, List[int]]],
    improvements: List[Improvement],
) -> List[Note]:
    """What the checks say, and what this comparison itself did."""
    notes = check(chosen, baseline, score)
    lost = [a for a in table.arms if a not in chosen.arms]
    if lost:
        notes.append(Note("missing runs", "no run of %s has a %s score" % (", ".join(lost), score)))
    shared = list(next(iter(seeds.values()), {}))
    outside = [p for p in found.of if p not in shared]
    if not shared:
        notes.append(Note("aggregates", "no problem has runs of every arm, so nothing is aggregated"))
    elif outside:
        notes.append(Note("aggregates", "not in any aggregate, as an arm is missing: %s" % ", ".join(outside)))
    for arm, by_problem in seeds.items():
        unused = {p: set(s) - set(by_problem[p]) for p, s in chosen.seeds(arm).items() if p in by_problem}
        listed = "; ".join("%s seeds %s" % (p, numbers(s)) for p, s in unused.items() if s)
        if listed:
            text = "%s has unequal numbers of seeds: its aggregates leave out %s (PI uses every run)" % (arm, listed)
            notes.append(Note("unequal seeds", text))
    for one in improvements:
        if one.pi is None:
            notes.append(Note("missing runs", "%s shares no problem with the baseline %s" % (one.arm, baseline)))
    flat = [i.arm for i in improvements if i.pi is not None and i.pi.low == i.pi.high]
    if flat:
        text = "the PI of %s has an interval without width, as no resample of these runs differs; it is not certain"
        notes.append(Note("bootstrap", text % ", ".join(flat)))
    verdicts = [i for i in improvements if i.verdict != stats.TOO_FEW]
    if len(verdicts) > 1:
        chance = 1.0 - 0.95 ** len(verdicts)
        text = (
            "%d arms are tested at 5 %% each: were all the same, up to %.0f %% of reports would still show a difference"
        )
        notes.append(Note("many comparisons", text % (len(verdicts), 100.0 * chance)))
    return notes + [Note("normalisation", text) for text in found.remarks]
