"""The table of runs that the claims are tested on, the current rows of docs/claims/runs.csv."""

from __future__ import annotations

import math
from typing import Dict, Iterable, List, Mapping, Sequence, Set, Tuple

import numpy as np
import yaml

from hepo_isaac.locate import cfg_dir
from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.scale import Scale
from hepo_isaac.studies.claims.experiments import PROBLEMS, ROBOT_SCORES

Scores = Dict[str, np.ndarray]


class TooFewError(Exception):
    """The runs for a statistic are not there (yet)."""


def scale(problem: str) -> Scale:
    """(J - random) / (optimal - random) by the task's scores, or by ROBOT_SCORES where it names none."""
    given = ROBOT_SCORES.get(PROBLEMS[problem].task)
    if given is not None:
        return Scale(given[0], given[1] - given[0])
    task = yaml.safe_load((cfg_dir() / "task" / (PROBLEMS[problem].task + ".yaml")).read_text(encoding="utf-8"))
    low, high = (float(task["task"]["scores"][k]) for k in ("random", "optimal"))
    return Scale(low, high - low)


class Table:
    """Rows of runs.csv: words as they are, everything else as a number, NaN where there is none."""

    def __init__(self, rows: Iterable[Mapping[str, str]]) -> None:
        self.rows: Dict[Tuple[str, str], Dict[int, Mapping[str, str]]] = {}
        for row in rows:
            self.rows.setdefault((row["arm"], row["problem"]), {})[int(row["seed"])] = row
        self._scales: Dict[str, Scale] = {}

    def seeds(self, arm: str, problem: str) -> List[int]:
        """Seeds of the runs there are."""
        return sorted(self.rows.get((arm, problem), {}))

    def count(self) -> int:
        """Rows."""
        return sum(map(len, self.rows.values()))

    def words(self, column: str) -> Set[str]:
        """All values of a column, "" of rows from before there was one."""
        return {row.get(column, "") for runs in self.rows.values() for row in runs.values()}

    def same(self, x: str, y: str) -> bool:
        """Whether two arms have the same settings wherever both have runs, and are one under two names."""
        shared = [p for (a, p) in self.rows if a == x and (y, p) in self.rows]
        first = [[next(iter(self.rows[arm, p].values()))["key"] for p in shared] for arm in (x, y)]
        return bool(shared) and first[0] == first[1]

    def values(self, arm: str, problem: str, column: str, seeds: Sequence[int]) -> np.ndarray:
        """(n,) numbers of ``column``, one per seed."""
        found = [self.rows[arm, problem][s][column] for s in seeds]
        return np.array([float(v) if v else math.nan for v in found])

    def common(
        self, arms: Sequence[str], problems: Sequence[str], least: int = stats.MIN_SEEDS
    ) -> Tuple[List[str], List[int]]:
        """Problems on which every arm has at least ``least`` runs, and the seeds that all arms have on all of them.

        Raises:
            TooFewError: there is no such problem, or they share too few seeds.
        """
        usable = [p for p in problems if all(len(self.seeds(a, p)) >= least for a in arms)]
        shared = [set(self.seeds(a, p)) for a in arms for p in usable]
        seeds = sorted(set.intersection(*shared)) if shared else []
        if len(seeds) < least:
            raise TooFewError("fewer than %d seeds of %s" % (least, ", ".join(arms)))
        return usable, seeds

    def scores(self, arm: str, problems: Sequence[str], seeds: Sequence[int], column: str = "J") -> Scores:
        """Problem -> (n,) numbers on the scale where 0 is the untrained policy and 1 the optimum."""
        return {p: self._scale(p)(self.values(arm, p, column, seeds)) for p in problems}

    def raw(self, arm: str, problems: Sequence[str], seeds: Sequence[int], column: str) -> Scores:
        """Problem -> (n,) numbers as they are."""
        return {p: self.values(arm, p, column, seeds) for p in problems}

    def unit(self, problem: str) -> float:
        """J between the untrained policy and the optimum."""
        return self._scale(problem).unit

    def _scale(self, problem: str) -> Scale:
        if problem not in self._scales:
            self._scales[problem] = scale(problem)
        return self._scales[problem]
