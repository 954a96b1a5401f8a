"""Which preset is the default: every candidate against the current one, over the suite and by group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.stats import Interval
from hepo_isaac.studies.claims.experiments import ARMS, FRANKA, FRANKA_ARMS, GROUPS, NOISES, SUITE
from hepo_isaac.studies.claims.table import Table, TooFewError

_OTHER = ("hepo_ref_j", "hepo_k1", *("hepo_noise_" + n for n in NOISES))
CANDIDATES = tuple(a for a in ARMS if a.startswith("hepo") and a not in _OTHER) + (
    "ppo_jh_decoupled",
    "ppo_jh_half",
    "ppo_h",
    "ppo_j",
)
COLUMNS = ("J", "auc")


@dataclass(frozen=True)
class Candidate:
    """One arm against hepo on the problems and seeds that both have. by_group: IQM of the arm there."""

    arm: str
    n: str
    iqm: Interval
    difference: Interval
    improvement: Interval
    training: Interval
    by_group: Dict[str, str]
    verdict: str


def candidates(table: Table) -> List[Candidate]:
    """Everything that has runs, the best first."""
    found = [c for c in (_candidate(table, arm) for arm in CANDIDATES) if c is not None]
    return sorted(found, key=lambda c: -c.difference.value)


def _candidate(table: Table, arm: str) -> Optional[Candidate]:
    if arm != "hepo" and table.same(arm, "hepo"):
        return None  # the preset under another name
    try:
        problems, seeds = table.common((arm, "hepo"), SUITE)
    except TooFewError:
        return None
    x, y = (table.scores(a, problems, seeds) for a in (arm, "hepo"))
    area = stats.difference(table.scores(arm, problems, seeds, "auc"), table.scores("hepo", problems, seeds, "auc"))
    pi = stats.probability_of_improvement(x, y)
    groups = {}
    for name, tasks in GROUPS.items():
        mine = {p: x[p] for p in problems if p in tasks}
        change = stats.difference(mine, y) if mine else None
        groups[name] = "–" if change is None else "%.3f (%s)" % (stats.aggregate(mine).value, signed(change))
    if arm == "hepo":
        verdict = "the preset"
    elif len(problems) < len(SUITE):
        verdict = "%d of %d tasks" % (len(problems), len(SUITE))
    else:
        verdict = "better" if pi.low > 0.5 else "worse" if pi.high < 0.5 else "no difference shown"
    n = "%d × %d" % (len(seeds), len(problems))
    return Candidate(arm, n, stats.aggregate(x), stats.difference(x, y), pi, area, groups, verdict)


def signed(interval: Interval) -> str:
    """With signs, as a difference is written."""
    return "%+.3f [%+.3f, %+.3f]" % (interval.value, interval.low, interval.high)


def best(found: List[Candidate]) -> str:
    """One sentence: whether a candidate beats the preset by the rule, an interval of PI above ½ on the whole suite."""
    better = [c for c in found if c.verdict == "better"]
    ours = [c for c in better if c.arm.startswith("hepo")]
    first = "No variant of `hepo` is shown to be better than it by this rule."
    if ours:
        first = "Variants better than `hepo` by this rule: %s." % _named(ours)
    others = [c for c in better if c not in ours]
    return "%s Other methods that are: %s." % (first, _named(others)) if others else first


def _named(found: List[Candidate]) -> str:
    return ", ".join("`%s` (PI %s)" % (c.arm, c.improvement) for c in found)


def franka(table: Table) -> List[Tuple[str, ...]]:
    """Arm, n, mean J, IQM, PI over ppo_h and commits on FrankaCabinet; fewer than five seeds without an interval."""
    rows: List[Tuple[str, ...]] = []
    for arm in FRANKA_ARMS:
        seeds = table.seeds(arm, FRANKA)
        if not seeds:
            continue
        x = {FRANKA: table.values(arm, FRANKA, "J", seeds)}
        iqm, pi = "–", "–"
        commits = sorted({table.rows[arm, FRANKA][s]["commit"] for s in seeds})
        if len(seeds) >= stats.MIN_SEEDS:
            iqm = str(stats.aggregate(x))
            others = table.seeds("ppo_h", FRANKA)
            if arm != "ppo_h" and len(others) >= stats.MIN_SEEDS:
                pi = str(stats.probability_of_improvement(x, {FRANKA: table.values("ppo_h", FRANKA, "J", others)}))
        values = " ".join("%.2f" % v for v in x[FRANKA])
        rows.append(
            (arm, str(len(seeds)), "%.3f" % x[FRANKA].mean() + " (" + values + ")", iqm, pi, ", ".join(commits))
        )
    return rows
