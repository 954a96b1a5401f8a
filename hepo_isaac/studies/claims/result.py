"""What a tested claim is, and the rules by which its verdict is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Tuple

import numpy as np

from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.stats import Interval
from hepo_isaac.studies.claims.table import Scores, Table, TooFewError

HOLDS, FAILS, TOO_FEW, NOT_TESTED, NO_RULE = "holds", "does not hold", "too few", "not tested", "no rule"
VERDICTS = (HOLDS, FAILS, TOO_FEW, NOT_TESTED, NO_RULE)
FEW_SEEDS = 3  # enough of an arm on a robot, where a run takes minutes
EFFECT = 0.62  # the probability of improvement that an experiment must be able to notice before it says "no"


@dataclass(frozen=True)
class Result:
    """One row of the page. n: what the value rests on.  value: with its 95 % interval."""

    claim: str
    statement: str
    statistic: str
    n: str
    value: str
    verdict: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError("unknown verdict %r; valid: %s" % (self.verdict, ", ".join(VERDICTS)))


Test = Callable[[Table], Tuple[str, str, str]]  # (n, value, verdict)
REGISTRY: Dict[str, Tuple[str, str, Test]] = {}  # claim -> (statement, statistic and rule, its test)


def claim(name: str, statement: str, statistic: str) -> Callable[[Test], Test]:
    """Register the test of a claim."""

    def register(test: Test) -> Test:
        REGISTRY[name] = (statement, statistic, test)
        return test

    return register


def judge(name: str, table: Table) -> Result:
    """Test one claim; too few where its runs are missing."""
    statement, statistic, test = REGISTRY[name]
    try:
        n, value, verdict = test(table)
    except TooFewError as error:
        n, value, verdict = str(error), "–", TOO_FEW
    return Result(name, statement, statistic, n, value, verdict)


# ---- rules --------------------------------------------------------------------------------------------------------


def whether(passed: bool) -> str:
    """Holds or not."""
    return HOLDS if passed else FAILS


def complete(found: List[str], wanted: Tuple[str, ...], verdict: str) -> str:
    """No verdict as long as problems are missing."""
    return verdict if len(found) == len(wanted) else TOO_FEW


def improvement(pi: Interval, runs: int, least: float = 0.5) -> str:
    """Better by a probability of improvement whose interval is above ½ and whose value is at least ``least``."""
    if pi.low > 0.5 and pi.value >= least:
        return HOLDS
    return FAILS if pi.high < 0.5 or runs >= stats.runs_needed(EFFECT) else TOO_FEW


def above(interval: Interval, threshold: float = 0.0) -> str:
    """The whole interval is above the threshold, or below it; else the runs do not decide."""
    if interval.low > threshold:
        return HOLDS
    return FAILS if interval.high <= threshold else TOO_FEW


# ---- statistics on tables, all of them through compare_stats ------------------------------------------------------


def versus(
    table: Table, x: str, y: str, problems: Tuple[str, ...], column: str = "J", least: int = stats.MIN_SEEDS
) -> Tuple[List[str], int, Interval, Interval]:
    """Problems, seeds, probability of improvement of arm x over y, and difference of their IQMs."""
    found, seeds = table.common((x, y), problems, least)
    a, b = (table.scores(arm, found, seeds, column) for arm in (x, y))
    return found, len(seeds), stats.probability_of_improvement(a, b), stats.difference(a, b)


def share(rows: Scores) -> Interval:
    """Sum of the first column over that of the second of (n, 2) counts; what is resampled are runs that count some."""
    # rliable resamples the entries of a row on their own; as one complex number the pair stays together
    some = [v[v[:, 1] > 0] for v in (np.asarray(v, dtype=float) for v in rows.values())]
    columns = [v[:, :1] + 1j * v[:, 1:] for v in some if v.size]
    if not columns:
        return Interval(float("nan"), float("nan"), float("nan"))

    def ratio(*parts: np.ndarray) -> float:
        total = complex(sum(p.sum() for p in parts))
        return total.real / total.imag

    return stats._interval(columns, ratio, stats.REPS, 0)


def counted(problems: List[str], seeds: int) -> str:
    """5 seeds × 12 problems."""
    return "%d seeds × %d problem%s" % (seeds, len(problems), "s" * (len(problems) > 1))
