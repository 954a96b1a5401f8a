"""hepo_plus against every baseline on the suite, and the suite of robots."""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import numpy as np

from hepo_isaac.runs.compare import stats
from hepo_isaac.studies.claims.experiments import (
    GROUPS,
    HASTY,
    HASTY_ARMS,
    PORTFOLIO,
    ROBOT_ARMS,
    ROBOT_PROBLEMS,
    SUITE,
    WRITTEN,
    WRITTEN_ARMS,
)
from hepo_isaac.studies.claims.presets import signed
from hepo_isaac.studies.claims.table import Scores, Table, TooFewError

BASELINES = ("ppo_h", "ppo_j", "ppo_jh_decoupled", "hurl", "hepo")
PLUS = "hepo_plus"
NAMED = "portfolio"
HEAD = ("over", "seeds × tasks", "PI", "IQM − its", *(name + ": PI (Δ mean)" for name in GROUPS), "furthest behind")


def rows(table: Table) -> List[Sequence[str]]:
    """One line per baseline that has runs, and the portfolio's."""
    return [r for r in (_row(table, other) for other in (*BASELINES, NAMED)) if r]


def portfolio(table: Table, seeds: Sequence[int]) -> Scores:
    """The best of three policies trained apart on the shares that hepo_plus gives its members, per task and seed."""
    parts = [table.scores(arm, SUITE, seeds) for arm in PORTFOLIO]
    return {p: np.max([part[p] for part in parts], 0) for p in SUITE}


def _row(table: Table, other: str) -> Sequence[str]:
    arms = (PLUS, *(PORTFOLIO if other == NAMED else (other,)))
    try:
        problems, seeds = table.common(arms, SUITE)
    except TooFewError:
        return ()
    if len(problems) < len(SUITE):
        return ()
    mine = table.scores(PLUS, SUITE, seeds)
    theirs = portfolio(table, seeds) if other == NAMED else table.scores(other, SUITE, seeds)
    groups = []
    for tasks in GROUPS.values():
        x, y = ({p: scores[p] for p in tasks} for scores in (mine, theirs))
        change = np.mean([x[p].mean() - y[p].mean() for p in tasks])
        groups.append("%.2f (%+.3f)" % (stats.probability_of_improvement(x, y).value, change))
    worst = min(SUITE, key=lambda p: float(mine[p].mean() - theirs[p].mean()))
    behind = "%s %+.3f" % (worst, mine[worst].mean() - theirs[worst].mean())
    pi, difference = stats.probability_of_improvement(mine, theirs), stats.difference(mine, theirs)
    return ("`%s`" % other, "%d × %d" % (len(seeds), len(SUITE)), str(pi), signed(difference), *groups, behind)


def against_the_best(table: Table) -> str:
    """Tasks on which hepo_plus is more than .02 below the best baseline's mean."""
    means: Dict[str, Dict[str, float]] = {}
    for arm in (PLUS, *BASELINES):  # each with all the seeds it has
        if not all(table.seeds(arm, p) for p in SUITE):
            return ""
        means[arm] = {p: float(table.scores(arm, [p], table.seeds(arm, p))[p].mean()) for p in SUITE}
    behind = {p: max(means[b][p] for b in BASELINES) - means[PLUS][p] for p in SUITE}
    named = ["%s (%.3f)" % (p, d) for p, d in sorted(behind.items(), key=lambda item: -item[1]) if d > 0.02]
    return "More than .02 below the best baseline of a task: %s.\n" % (", ".join(named) or "nowhere")


def robots(table: Table) -> Tuple[List[str], List[List[str]]]:
    """Head and lines: normalised J of every arm on every robot, seeds in brackets, and the IQM over those that every
    arm has been on."""
    lines, everything = _by_task(table, ROBOT_ARMS, ROBOT_PROBLEMS)
    common = _common(everything)
    if len(common) > 1:
        scores = [{p: everything[arm][p] for p in common} for arm in ROBOT_ARMS]
        lines.append(["**IQM**, %d tasks" % len(common), *(str(stats.aggregate(s)) for s in scores)])
    return ["task", *ROBOT_ARMS], lines


def robots_against(table: Table) -> List[List[str]]:
    """A line per constrained arm and baseline: PI and the difference of IQMs, on the tasks that both were on."""
    everything = _by_task(table, ROBOT_ARMS, ROBOT_PROBLEMS)[1]
    lines = []
    for arm in ("hepo", PLUS):
        for other in ROBOT_ARMS:
            common = _common({a: everything[a] for a in (arm, other)})
            if other in ("hepo", PLUS) and (arm, other) != (PLUS, "hepo") or len(common) < 2:
                continue
            mine, theirs = ({p: everything[a][p] for p in common} for a in (arm, other))
            pi, difference = stats.probability_of_improvement(mine, theirs), stats.difference(mine, theirs)
            lines.append(["`%s`" % arm, "`%s`" % other, str(len(common)), str(pi), signed(difference)])
    return lines


def hasty(table: Table) -> Tuple[List[str], List[List[str]]]:
    """Head and lines: normalised J under the robots' heuristics that invite hacking."""
    return ["task/heuristic", *HASTY_ARMS], _by_task(table, HASTY_ARMS, HASTY)[0]


def _by_task(table: Table, arms: Sequence[str], problems: Sequence[str]) -> Tuple[List[List[str]], Dict[str, Scores]]:
    """A line per problem that has runs, and the normalised J of every arm's."""
    lines: List[List[str]] = []
    everything: Dict[str, Scores] = {arm: {} for arm in arms}
    for problem in problems:
        line = [problem.split("@")[0]]
        for arm in arms:
            seeds = table.seeds(arm, problem)
            if not seeds:
                line.append("–")
                continue
            values = table.scores(arm, [problem], seeds)[problem]
            everything[arm][problem] = values
            line.append("%.2f (%s)" % (values.mean(), " ".join("%.2f" % v for v in values)))
        if any(problem in found for found in everything.values()):
            lines.append(line)
    return lines, everything


def _common(everything: Dict[str, Scores]) -> List[str]:
    """Problems that every arm has the same number of runs on."""
    first, *others = everything.values()
    return [p for p in first if all(p in o and len(o[p]) == len(first[p]) for o in others)]


def written(table: Table) -> Tuple[List[str], List[List[str]], str]:
    """Head and lines: mean J per heuristic that a person wrote, and what the paper's experiment asks of them."""
    means: Dict[str, Dict[str, float]] = {arm: {} for arm in WRITTEN_ARMS}
    for arm in WRITTEN_ARMS:
        for problem in WRITTEN:
            seeds = table.seeds(arm, problem)
            if seeds:
                means[arm][problem] = float(table.values(arm, problem, "J", seeds).mean())
    lines = [
        [p.split("/")[1].partition("@")[0], *("%.2f" % means[a][p] if p in means[a] else "–" for a in WRITTEN_ARMS)]
        for p in WRITTEN
        if any(p in means[a] for a in WRITTEN_ARMS)
    ]
    alone, sentences = means["ppo_h"], []
    for arm in WRITTEN_ARMS[1:]:
        both = [p for p in WRITTEN if p in means[arm] and p in alone]
        if not both:
            continue
        above = sum(means[arm][p] > alone[p] for p in both)
        high = sum(means[arm][p] > 0.6 for p in both)
        text = "`%s`: %d of %d above the heuristic alone, %d above 0.6" % (arm, above, len(both), high)
        if len(both) > 2:
            x, y = ([m[p] for p in both] for m in (alone, means[arm]))
            if np.std(x) > 0 and np.std(y) > 0:
                text += ", correlation with ppo_h %.2f" % np.corrcoef(x, y)[0, 1]
        sentences.append(text)
    return ["heuristic", *WRITTEN_ARMS], lines, "; ".join(sentences) + ".\n" if sentences else ""
