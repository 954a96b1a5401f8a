"""What a reader of a comparison must know before believing it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

import numpy as np

from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.table import DUPLICATE, NO_SCORE, Run, RunTable

# Of what makes a run another one: what tells the repeats of an arm apart, and what has a note of its own.
REPEATS: Tuple[str, ...] = ("seed", "seeds", "budget")
BUDGET: Tuple[str, ...] = ("num_envs", "train.max_iterations")
SHOWN = 6  # settings named in one note


@dataclass(frozen=True)
class Note:
    """One thing to know. kind: short, the same words in every report; text: one sentence with the names in it."""

    kind: str
    text: str


def check(table: RunTable, baseline: str, score: str) -> List[Note]:
    """Every note on ``table``, which holds only the runs that are compared."""
    found: List[Note] = []
    for kind, finder in (
        ("too few runs", _too_few),
        ("missing runs", _missing),
        ("excluded runs", _excluded),
        ("NaN scores", _without_score),
        ("duplicate runs", _duplicates),
        ("unequal budgets", _budgets),
        ("different settings", _settings),
        ("different code", _commits),
        ("no learning curve", _curveless),
    ):
        found += [Note(kind, text) for text in finder(table)]
    return found + [Note("no variance", text) for text in _constant(table, baseline, score)]


def _too_few(table: RunTable) -> List[str]:
    out = []
    for arm in table.arms:
        few = {p: len(s) for p, s in table.seeds(arm).items() if len(s) < stats.MIN_SEEDS}
        if few:
            listed = ", ".join("%s %d" % pair for pair in few.items())
            out.append(
                "%s has fewer than %d seeds a problem (%s), so it gets no verdict" % (arm, stats.MIN_SEEDS, listed)
            )
    runs = Counter(r.arm for r in table.runs)
    least = min(runs.values())
    if least < stats.runs_needed(0.62) and len(runs) > 1:
        out.append(
            "with %d runs an arm a PI below %.2f goes unnoticed in more than one experiment in five "
            "(standard error about %.2f); noticing 0.62 takes about %d runs an arm"
            % (least, stats.detectable(least), stats.standard_error(least), stats.runs_needed(0.62))
        )
    return out


def _missing(table: RunTable) -> List[str]:
    """Arm × problem × seed combinations that another arm has."""
    found: Dict[str, Set[int]] = {}
    for run in table.runs:
        found.setdefault(run.problem, set()).add(run.seed)
    for entry in table.excluded:
        if entry.seed is not None:
            found.setdefault(entry.problem, set()).add(entry.seed)
    out = []
    for arm in table.arms:
        seeds = table.seeds(arm)
        holes = {p: found[p] - set(seeds.get(p, ())) for p in table.problems}
        lacking = [
            "all of %s" % p if p not in seeds else "%s seed%s %s" % (p, "s" * (len(missing) > 1), numbers(missing))
            for p, missing in holes.items()
            if missing
        ]
        if lacking:
            out.append("%s lacks %s" % (arm, "; ".join(lacking)))
    return out


def _excluded(table: RunTable) -> List[str]:
    """Runs that did not make it: their scores might have been the bad ones."""
    counts: Dict[str, Counter[str]] = {}
    for entry in table.excluded:
        if entry.kind not in (DUPLICATE, NO_SCORE):
            counts.setdefault(entry.arm, Counter())[entry.kind] += 1
    kept = Counter(r.arm for r in table.runs)
    return [
        "%s: %s left out, %d used; if runs stop because they go badly, the used ones flatter it"
        % ("runs with an unreadable config.yaml" if arm == "?" else arm, _counted(kinds), kept[arm])
        for arm, kinds in sorted(counts.items())
    ]


def _without_score(table: RunTable) -> List[str]:
    bad = [e for e in table.excluded if e.kind == NO_SCORE]
    counts = Counter(e.arm for e in bad)
    return ["%s: %d finished run%s left out, %s" % (a, n, "s" * (n > 1), _named(bad, a)) for a, n in counts.items()]


def _named(entries: Sequence[Any], arm: str) -> str:
    return "; ".join(
        "seed %s on %s (%s, %s)" % (e.seed, e.problem, e.folder, e.reason) for e in entries if e.arm == arm
    )


def _duplicates(table: RunTable) -> List[str]:
    return [
        "%s on %s, seed %s: %s is left out, the newest finished run is kept" % (e.arm, e.problem, e.seed, e.folder)
        for e in table.excluded
        if e.kind == DUPLICATE
    ]


def _budgets(table: RunTable) -> List[str]:
    out = []
    for problem in table.problems:
        parts = []
        for name in ("env steps",) + BUDGET:
            by_arm = {a: {_budget(r, name) for r in table.of(a, problem)} for a in table.arms}
            if len(set().union(*by_arm.values())) > 1:
                parts.append("%s %s" % (name, ", ".join("%s %s" % (a, _values(v)) for a, v in by_arm.items() if v)))
        if parts:
            out.append("%s: %s" % (problem, "; ".join(parts)))
    return out


def _budget(run: Run, name: str) -> Any:
    return run.env_steps if name == "env steps" else run.config.get(name, "?")


def _settings(table: RunTable) -> List[str]:
    """Settings that differ within one arm on one problem, and those beside algo.* that differ between arms."""
    within: Dict[str, List[str]] = {}
    between: Dict[str, List[str]] = {}
    for problem in table.problems:
        by_arm = {a: _by_key(table.of(a, problem)) for a in table.arms}
        for arm, keys in by_arm.items():
            differing = ["%s %s" % (k, _values(v)) for k, v in keys.items() if len(v) > 1 and k not in BUDGET]
            if differing:
                within.setdefault("%s differs in %s" % (arm, _some(differing)), []).append(problem)
        shared = sorted({k for keys in by_arm.values() for k in keys if not _under(k, ("algo",) + BUDGET)})
        present = {a: keys for a, keys in by_arm.items() if keys}
        unlike = [k for k in shared if len({frozenset(keys.get(k, ())) for keys in present.values()}) > 1]
        if unlike:
            shown = [
                "%s (%s)" % (k, ", ".join("%s %s" % (a, _values(keys.get(k, {"–"}))) for a, keys in present.items()))
                for k in unlike
            ]
            between.setdefault("the arms differ beside algo.* in %s" % _some(shown), []).append(problem)
    return ["%s: %s" % (", ".join(problems), text) for text, problems in [*within.items(), *between.items()]]


def _by_key(runs: Iterable[Run]) -> Dict[str, Set[str]]:
    """Setting -> its values among ``runs``."""
    out: Dict[str, Set[str]] = {}
    runs = list(runs)
    for key in sorted({k for r in runs for k in r.config if not _under(k, REPEATS)}):
        out[key] = {str(r.config.get(key, "–")) for r in runs}
    return out


def _under(key: str, roots: Iterable[str]) -> bool:
    return any(key == root or key.startswith(root + ".") for root in roots)


def _commits(table: RunTable) -> List[str]:
    by_commit: Dict[str, Counter[str]] = {}
    for run in table.runs:
        for commit in run.commits:
            by_commit.setdefault(commit, Counter())[run.arm] += 1
    if len(by_commit) > 1:
        listed = "; ".join("%s (%s)" % (commit, _counted(arms)) for commit, arms in sorted(by_commit.items()))
        return ["runs come from %d states of the code: %s" % (len(by_commit), listed)]
    return ["the code is not known: %s" % c for c in by_commit if c.startswith("unknown") or "uncommitted" in c]


def _curveless(table: RunTable) -> List[str]:
    bare = [r for r in table.runs if r.steps.size == 0]
    return ["metrics.csv is missing or has no %s: %s" % ("return_task/pi", r) for r in bare]


def _constant(table: RunTable, baseline: str, score: str) -> List[str]:
    """Problems where all runs of an arm score exactly the same."""
    out = []
    for arm in table.arms:
        same = [p for p, v in table.scores(arm, score).items() if v.size > 1 and np.ptp(v) == 0.0]
        if same:
            who = "the baseline %s" % arm if arm == baseline else arm
            out.append(
                "all runs of %s score the same on each of %s: no spread to resample there" % (who, ", ".join(same))
            )
    return out


# ---- words --------------------------------------------------------------------------------------------------------


def numbers(values: Iterable[int]) -> str:
    """1, 2, 3, 7 as "1–3, 7"."""
    spans: List[List[int]] = []
    for value in sorted(set(values)):
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ", ".join(str(a) if a == b else "%d–%d" % (a, b) if b > a + 1 else "%d, %d" % (a, b) for a, b in spans)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join("%d %s" % (n, name) for name, n in sorted(counts.items()))


def _values(values: Iterable[Any]) -> str:
    return " or ".join(sorted(map(_short, values)))


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _some(items: Sequence[str]) -> str:
    rest = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + ("; and %d more" % rest if rest > 0 else "")
