"""Statistics of a comparison, through rliable (Agarwal et al. 2021). Needs ``pip install 'hepo-isaac[report]'``.

Everything here works on scores of one arm as ``{problem: array of one score per seed}``. Confidence intervals are 95 %
percentile intervals of the stratified bootstrap: runs are resampled within each problem, never across problems.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from hepo_isaac.errors import UserError

Scores = Mapping[str, np.ndarray]
REPS = 2000
MIN_SEEDS = 5  # per problem and arm: fewer carry no verdict
STATISTICS = ("iqm", "median", "mean", "optimality_gap")
BETTER, WORSE, NO_DIFFERENCE, TOO_FEW = "better", "worse", "no difference shown", "too few runs"


@dataclass(frozen=True)
class Interval:
    """A point estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return "%.3f [%.3f, %.3f]" % (self.value, self.low, self.high)


def rliable() -> Tuple[Any, Any]:
    """rliable's ``library`` and ``metrics``.

    Raises:
        UserError: rliable is not installed.
    """
    try:
        from rliable import library, metrics
    except ImportError as error:
        raise UserError(
            "comparing runs needs rliable, which cannot be imported (%s); pip install 'hepo-isaac[report]'" % error
        ) from error
    return library, metrics


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator and put it back: rliable 1.2 draws from it and ignores its ``random_state``."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def _bootstrap(
    arrays: Any, func: Callable[..., np.ndarray], reps: int, seed: int, task_bootstrap: bool = False
) -> Tuple[np.ndarray, np.ndarray]:
    """Point estimates (k,) and intervals (2, k) of ``func``.

    Args:
        arrays: one (runs, problems, …) array, or a list of such that are resampled independently of each other.
    """
    library, _ = rliable()
    with _seeded(seed):
        points, intervals = library.get_interval_estimates(
            {"": arrays}, func, reps=reps, task_bootstrap=task_bootstrap, confidence_interval_size=0.95
        )
    return points[""], intervals[""]


def _interval(arrays: Any, func: Callable[..., float], reps: int, seed: int, task_bootstrap: bool = False) -> Interval:
    """``_bootstrap`` of one number."""
    point, ends = _bootstrap(arrays, lambda *a: np.array([func(*a)]), reps, seed, task_bootstrap)
    return Interval(float(point[0]), float(ends[0, 0]), float(ends[1, 0]))


# ---- probability of improvement ----------------------------------------------------------------------------------


def improvement_per_problem(x: Scores, y: Scores) -> Dict[str, float]:
    """P(X > Y) + P(X = Y) / 2 for each problem that both have, by rliable's metric."""
    _, metrics = rliable()
    out = {}
    for problem in [p for p in x if p in y]:
        a, b = _column(x[problem], problem), _column(y[problem], problem)
        # rliable sets only arrays that are equal entry by entry to ½; others without any spread divide by 0 in the
        # p-value that it throws away
        with np.errstate(all="ignore"):
            out[problem] = float(metrics.probability_of_improvement(a, b))
    return out


def probability_of_improvement(x: Scores, y: Scores, reps: int = REPS, seed: int = 0) -> Interval:
    """Mean over the shared problems of P(a run of X scores more than one of Y), ties counting ½.

    Numbers of seeds may differ between arms and between problems: each (arm, problem) is a stratum of its own.

    Raises:
        ValueError: no problem is shared, or a problem has no or non-finite scores.
    """
    shared = improvement_per_problem(x, y)
    if not shared:
        raise ValueError("the two arms share no problem: %s; %s" % (sorted(x), sorted(y)))
    columns = [_column(x[p], p) for p in shared] + [_column(y[p], p) for p in shared]
    found = _interval(columns, _mean_win_rate, reps, seed)
    return Interval(float(np.mean(list(shared.values()))), found.low, found.high)


def _mean_win_rate(*columns: np.ndarray) -> float:
    """What rliable's probability_of_improvement returns, 300 times faster: that one also computes a p-value.

    Args:
        columns: the (n, 1) scores of X on each problem, then those of Y.
    """
    half = len(columns) // 2
    rates = [np.sign(a - b.T).mean() for a, b in zip(columns[:half], columns[half:])]
    return float(0.5 + 0.5 * np.mean(rates))


def standard_error(runs: float) -> float:
    """Standard error of PI where there is no difference and each arm has ``runs`` = seeds × problems, about."""
    return 1.0 / math.sqrt(6.0 * runs)


def detectable(runs: float) -> float:
    """The PI that ``runs`` runs an arm show in 80 % of experiments (two-sided 5 %): 0.62 needs about 90."""
    return min(1.0, 0.5 + 2.8 * standard_error(runs))


def runs_needed(improvement: float) -> int:
    """Runs an arm (seeds × problems) for a PI of ``improvement`` to show in 80 % of experiments."""
    return math.ceil((2.8 / (improvement - 0.5)) ** 2 / 6.0)


def verdict(improvement: Interval, fewest_seeds: int) -> str:
    """Better, worse, no difference shown, or too few runs; never better or worse on fewer than 5 seeds a problem."""
    if fewest_seeds < MIN_SEEDS:
        return TOO_FEW
    if improvement.low > 0.5:
        return BETTER
    return WORSE if improvement.high < 0.5 else NO_DIFFERENCE


# ---- aggregates --------------------------------------------------------------------------------------------------


def rectangle(scores: Scores) -> np.ndarray:
    """The (runs, problems) array rliable takes, problems in the order of ``scores``.

    Raises:
        ValueError: the problems have different numbers of seeds; ``common_seeds`` chooses among them openly.
    """
    sizes = {p: int(np.size(v)) for p, v in scores.items()}
    if not sizes or len(set(sizes.values())) > 1:
        raise ValueError("one number of runs per problem is needed, got %s" % (sizes or "no problem"))
    return np.concatenate([_column(v, p) for p, v in scores.items()], axis=1)


def common_seeds(seeds: Mapping[str, Sequence[int]]) -> Dict[str, List[int]]:
    """Choose equally many seeds of every problem: those that all problems have first, then the lowest of the others."""
    if not seeds:
        return {}
    fewest = min(len(set(s)) for s in seeds.values())
    shared = set.intersection(*(set(s) for s in seeds.values()))
    return {p: sorted(sorted(set(s), key=lambda k: (k not in shared, k))[:fewest]) for p, s in seeds.items()}


def _statistic(name: str) -> Callable[[np.ndarray], float]:
    """rliable's metric called ``name``: (runs, problems) -> number."""
    _, metrics = rliable()
    return getattr(metrics, "aggregate_" + name)


def point(values: np.ndarray, statistic: str = "iqm") -> float:
    """``statistic`` of the (n,) scores of one problem, without an interval."""
    return float(_statistic(statistic)(_column(values, "this problem")))


def aggregate(
    scores: Scores, statistic: str = "iqm", reps: int = REPS, seed: int = 0, task_bootstrap: bool = False
) -> Interval:
    """IQM, median, mean or optimality gap (STATISTICS) over the runs of all problems.

    Args:
        task_bootstrap: also resample the problems: what a new set of problems would give.

    Raises:
        ValueError: the problems have different numbers of seeds.
    """
    return _interval(rectangle(scores), _statistic(statistic), reps, seed, task_bootstrap)


def difference(x: Scores, y: Scores, statistic: str = "iqm", reps: int = REPS, seed: int = 0) -> Interval:
    """``statistic`` of X minus that of Y over the shared problems, the two resampled independently.

    Raises:
        ValueError: no problem is shared, or an arm has different numbers of seeds on them.
    """
    shared = [p for p in x if p in y]
    a, b = rectangle({p: x[p] for p in shared}), rectangle({p: y[p] for p in shared})
    func = _statistic(statistic)
    return _interval([a, b], lambda s, t: func(s) - func(t), reps, seed)


def paired_difference(x: Scores, y: Scores, statistic: str = "mean", reps: int = REPS, seed: int = 0) -> Interval:
    """``statistic`` of X − Y run by run, where entry i of a problem is the same seed in both.

    Raises:
        ValueError: no problem is shared, or the shapes differ.
    """
    shared = [p for p in x if p in y]
    a, b = rectangle({p: x[p] for p in shared}), rectangle({p: y[p] for p in shared})
    if a.shape != b.shape:
        raise ValueError("pairs need equally many runs, got %d and %d a problem" % (a.shape[0], b.shape[0]))
    return _interval(a - b, _statistic(statistic), reps, seed)


def profile(scores: Scores, taus: np.ndarray, reps: int = REPS, seed: int = 0) -> Tuple[np.ndarray, np.ndarray]:
    """Performance profile: share of runs above each of ``taus`` (K,), and its intervals (2, K)."""
    library, _ = rliable()
    with _seeded(seed):
        values, ends = library.create_performance_profile(
            {"": rectangle(scores)},
            taus,
            custom_profile_func=lambda s, t: (s[..., None] > t).mean(axis=(0, 1)),  # rliable's own loops over t
            reps=reps,
        )
    return values[""], ends[""]


def curve_band(curves: np.ndarray, reps: int = 500, seed: int = 0) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IQM over the seeds at every point of (seeds, points) curves, and the ends of its interval: three (points,).

    Whole seeds are resampled, so the band is pointwise, not for the curve as a whole.
    """
    from scipy.stats import trim_mean  # what rliable's IQM is, but that one has no axis

    middle, ends = _bootstrap(curves[:, None, :], lambda c: trim_mean(c[:, 0], 0.25, axis=0), reps, seed)
    return middle, ends[0], ends[1]


def _column(values: Any, problem: str) -> np.ndarray:
    """Scores of one problem as a finite (n, 1) array."""
    found = np.asarray(values, dtype=float).reshape(-1, 1)
    if found.size == 0 or not np.isfinite(found).all():
        raise ValueError("scores of %s must be finite and at least one, got %s" % (problem, found.ravel().tolist()))
    return found
