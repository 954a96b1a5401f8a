"""The table of runs that a comparison works on: one run for each arm, problem and seed, and what was left out.

An arm is a configured algorithm (algo.name); a problem is a task, with its heuristic where that is not the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

import numpy as np

from hepo_isaac.errors import UserError, unknown

SCORES = ("final", "evaluation", "auc")
UNREADABLE, NO_SUMMARY, DUPLICATE, NO_SCORE = "unreadable", "no summary", "duplicate", "no score"


@dataclass(frozen=True)
class Run:
    """One finished run.

    scores, heuristic_returns: "final", "evaluation", "auc" -> J, or H, of π; "evaluation" only where the run has one.
    steps, curve: env steps and the running mean of J over about 100 episodes, (rows,) each; empty without metrics.
    config: dotted key -> value.  task_scores: (random, optimal) of the task, where it says so.
    """

    folder: Path
    arm: str
    problem: str
    seed: int
    scores: Mapping[str, float]
    heuristic_returns: Mapping[str, float]
    steps: np.ndarray = field(repr=False)
    curve: np.ndarray = field(repr=False)
    env_steps: int
    config: Mapping[str, Any] = field(repr=False)
    task_scores: Optional[Tuple[float, float]]
    commits: Tuple[str, ...]
    started: str

    def __str__(self) -> str:
        return "%s on %s, seed %d (%s)" % (self.arm, self.problem, self.seed, self.folder)


@dataclass(frozen=True)
class Excluded:
    """A run that was found and is not used. kind: its status, or one of the words above; arm may be unknown ("?")."""

    folder: Path
    arm: str
    problem: str
    seed: Optional[int]
    kind: str
    reason: str

    def __str__(self) -> str:
        seed = "?" if self.seed is None else str(self.seed)
        return "%s on %s, seed %s (%s): %s" % (self.arm, self.problem, seed, self.folder, self.reason)


@dataclass(frozen=True)
class RunTable:
    """Runs, at most one for each (arm, problem, seed), and what was left out."""

    runs: Tuple[Run, ...]
    excluded: Tuple[Excluded, ...] = ()

    @property
    def arms(self) -> List[str]:
        return sorted({r.arm for r in self.runs})

    @property
    def problems(self) -> List[str]:
        return sorted({r.problem for r in self.runs})

    def of(self, arm: str, problem: str) -> List[Run]:
        """Runs of one arm on one problem, by seed."""
        return sorted((r for r in self.runs if r.arm == arm and r.problem == problem), key=lambda r: r.seed)

    def seeds(self, arm: str) -> Dict[str, List[int]]:
        """Problem -> seeds of ``arm`` there; problems it has no run on are missing."""
        found = {p: [r.seed for r in self.of(arm, p)] for p in self.problems}
        return {p: s for p, s in found.items() if s}

    def scores(self, arm: str, score: str = "final") -> Dict[str, np.ndarray]:
        """Problem -> (n,) scores of ``arm`` in the order of ``seeds``."""
        return {p: np.array([r.scores.get(score, np.nan) for r in self.of(arm, p)]) for p in self.seeds(arm)}

    def paired(self, x: str, y: str, score: str = "final") -> Tuple[Dict[str, np.ndarray], Dict[str, np.ndarray]]:
        """Scores of arms x and y on the seeds both have: two {problem: (n,)} whose entries i are of the same seed."""
        out: Tuple[Dict[str, np.ndarray], Dict[str, np.ndarray]] = ({}, {})
        for problem in self.problems:
            by_seed = [{r.seed: r.scores.get(score, np.nan) for r in self.of(arm, problem)} for arm in (x, y)]
            seeds = sorted(set(by_seed[0]) & set(by_seed[1]))
            if seeds:
                for found, scores in zip(out, by_seed):
                    found[problem] = np.array([scores[s] for s in seeds])
        return out

    def select(self, arms: Optional[Iterable[str]] = None, tasks: Optional[Iterable[str]] = None) -> RunTable:
        """Only these arms and tasks (a task's name takes all its heuristics, "task/heuristic" one).

        Raises:
            UserError: an arm or a task that no usable run has.
        """
        arms, tasks = list(arms or []), list(tasks or [])
        for arm in arms:
            if arm not in self.arms:
                raise unknown("arm", arm, self.arms)
        valid = set(self.problems) | {p.split("/")[0] for p in self.problems}
        for task in tasks:
            if task not in valid:
                raise unknown("task", task, valid)

        def wanted(arm: str, problem: str) -> bool:
            right_task = not tasks or problem in tasks or problem.split("/")[0] in tasks
            return right_task and (not arms or arm in arms)

        chosen = RunTable(
            tuple(r for r in self.runs if wanted(r.arm, r.problem)),
            tuple(e for e in self.excluded if e.arm == "?" or wanted(e.arm, e.problem)),
        )
        if not chosen.runs:
            raise UserError(
                "no finished run of arms %s on tasks %s; leave out --arms or --tasks, or train them first"
                % (", ".join(arms) or "(any)", ", ".join(tasks) or "(any)")
            )
        return chosen

    def scored(self, score: str) -> RunTable:
        """Without the runs whose ``score`` is missing or not finite; those are listed, never averaged.

        Raises:
            UserError: no run is left.
        """
        bad = [r for r in self.runs if not np.isfinite(r.scores.get(score, np.nan))]
        out = tuple(exclude(r, NO_SCORE, "its %s score is %s" % (score, r.scores.get(score, "missing"))) for r in bad)
        kept = tuple(r for r in self.runs if np.isfinite(r.scores.get(score, np.nan)))
        if not kept:
            raise UserError(
                "none of the %d finished runs has a finite %s score; try another --score" % (len(bad), score)
            )
        return replace(self, runs=kept, excluded=self.excluded + out)


def exclude(run: Run, kind: str, reason: str) -> Excluded:
    """The entry for a run that could be read but is not used."""
    return Excluded(run.folder, run.arm, run.problem, run.seed, kind, reason)
