"""Claims that compare arms by J: C1, C2, C4 to C7, C9, C10, C12, C13, C16, C18, C20, E1."""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np
import torch

from hepo_isaac.methods.advantages import gae
from hepo_isaac.methods.shaping import state_potential
from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.stats import Interval
from hepo_isaac.studies.claims.experiments import (
    DENSE_REVERSED,
    GROUPS,
    HUMAN,
    SCALE_TASKS,
    SCALES,
    SPARSE,
    SPARSE_REVERSED,
    SUITE,
    WRITTEN,
)
from hepo_isaac.studies.claims.result import (
    FAILS,
    FEW_SEEDS,
    HOLDS,
    NO_RULE,
    NOT_TESTED,
    TOO_FEW,
    above,
    claim,
    complete,
    counted,
    improvement,
    versus,
    whether,
)
from hepo_isaac.studies.claims.table import Scores, Table, TooFewError

Found = Tuple[str, str, str]
LEARNED = 0.2  # J-only has learned a task if it is that far between the untrained policy and the optimum


@claim("C1", "HEPO beats H-only", "PI(hepo, ppo_h) over the suite; lower bound > ½ and value ≥ 0.6")
def c1(table: Table) -> Found:
    """PI over the suite."""
    found, n, pi, gap = versus(table, "hepo", "ppo_h", SUITE)
    value = "PI %s; IQM difference %s" % (pi, gap)
    return counted(found, n), value, complete(found, SUITE, improvement(pi, n * len(found), 0.6))


@claim(
    "C2",
    "HEPO has the highest IQM",
    "lower bound of hepo's IQM above the IQM of ppo_h, ppo_j, ppo_jh, pbrs, hurl, eipo, and PI > ½ over at least 5",
)
def c2(table: Table) -> Found:
    """IQMs and pairwise PI."""
    others = ("ppo_h", "ppo_j", "ppo_jh", "pbrs", "hurl", "eipo")
    found, seeds = table.common(("hepo", *others), SUITE)
    scores = {arm: table.scores(arm, found, seeds) for arm in ("hepo", *others)}
    iqm = {arm: stats.aggregate(s) for arm, s in scores.items()}
    pi = {arm: stats.probability_of_improvement(scores["hepo"], scores[arm]) for arm in others}
    top = all(iqm["hepo"].low > iqm[arm].value for arm in others)
    won = sum(p.value > 0.5 for p in pi.values())
    listed = ", ".join("%s %.3f (PI %s)" % (arm, iqm[arm].value, pi[arm]) for arm in others)
    value = "hepo %s; %s; PI > ½ over %d of 6" % (iqm["hepo"], listed, won)
    return counted(found, len(seeds)), value, complete(found, SUITE, whether(top and won >= 5))


@claim(
    "C4",
    "Joint collection is at least as good as alternating",
    "PI(hepo, hepo_alternating) lower bound > ½, or IQM difference of the mean J over training > 0; equal env steps",
)
def c4(table: Table) -> Found:
    """PI of the final J, IQM difference of the area under the curve."""
    found, n, pi, _ = versus(table, "hepo", "hepo_alternating", SUITE)
    _, _, _, area = versus(table, "hepo", "hepo_alternating", SUITE, "auc")
    passed = HOLDS if pi.low > 0.5 or area.low > 0.0 else improvement(pi, n * len(found))
    value = "PI %s; over training %s" % (pi, area)
    try:
        tasks, _, plain, _ = versus(table, "hepo_owner", "hepo_alternating", SUITE)
        value += "; hepo_owner, which differs in the collection alone: PI %s on %d tasks" % (plain, len(tasks))
    except TooFewError:
        pass
    return counted(found, n), value, complete(found, SUITE, passed)


@claim(
    "C7 half",
    "With as many environments of its own, π gains from π_H",
    "PI(hepo, J+H with two critics on half of the environments) over the suite; lower bound > ½",
)
def c7_half(table: Table) -> Found:
    """The plain sum on π's share of the environments, and what the other half is worth to it."""
    found, n, pi, gap = versus(table, "hepo", "ppo_jh_half", SUITE)
    value = "PI %s; IQM difference %s" % (pi, gap)
    try:
        _, _, whole, more = versus(table, "ppo_jh_decoupled", "ppo_jh_half", SUITE)
        value += "; all environments over half of them: PI %s, IQM difference %s" % (whole, more)
    except TooFewError:
        pass
    return counted(found, n), value, complete(found, SUITE, improvement(pi, n * len(found)))


@claim("E1", "Joint HEPO learns faster than EIPO", "IQM difference of the mean J over training, hepo − eipo; > 0")
def e1(table: Table) -> Found:
    """Area under the curve against EIPO."""
    found, n, pi, area = versus(table, "hepo", "eipo", SUITE, "auc")
    return counted(found, n), "%s; PI %s" % (area, pi), complete(found, SUITE, above(area))


@claim(
    "C5",
    "π_H is a better reference than π_J where r is sparse",
    "PI(hepo, hepo_ref_j) lower bound > ½, and greatest α higher with π_J in ≥ 80 % of runs",
)
def c5(table: Table) -> Found:
    """PI on tasks of sparse r, and the greatest α run by run."""
    found, seeds = table.common(("hepo", "hepo_ref_j"), SPARSE)
    _, n, pi, _ = versus(table, "hepo", "hepo_ref_j", SPARSE)
    mine, its = (table.raw(a, found, seeds, "alpha_max") for a in ("hepo", "hepo_ref_j"))
    higher = stats.aggregate({p: (its[p] > mine[p]).astype(float) for p in found}, "mean")
    verdict = improvement(pi, n * len(found))
    verdict = verdict if verdict != HOLDS else whether(higher.value >= 0.8)
    return counted(found, n), "PI %s; α higher in %s" % (pi, higher), complete(found, SPARSE, verdict)


@claim(
    "C6",
    "PBRS keeps the optimum and does not help",
    "PI(pbrs, ppo_j) and PI(pbrs, ppo_h) not above ½; greatest change of an advantage with a matched critic < 1e-6",
)
def c6(table: Table) -> Found:
    """PI over H-only, and the identity computed afresh."""
    found, n, pi, _ = versus(table, "pbrs", "ppo_h", SUITE)
    other = versus(table, "pbrs", "ppo_j", SUITE)[2]
    change = shaped_change()
    passed = not pi.low > 0.5 and change < 1e-6
    value = "over ppo_h %s, over ppo_j %s; identity to %.0e" % (pi, other, change)
    return counted(found, n), value, complete(found, SUITE, whether(passed))


def shaped_change() -> float:
    """Greatest |A - A'| with r + F and V - Phi in place of r and V, on random numbers with ends of both kinds."""
    generator = torch.Generator().manual_seed(0)
    shape = (50, 200)
    r, v, phi, final_v, final_phi = torch.randn((5, *shape), generator=generator, dtype=torch.float64)
    ends = torch.rand(shape, generator=generator)
    terminated, time_out = ends < 0.05, (ends >= 0.05) & (ends < 0.1)
    last_v, last_phi = torch.randn((2, shape[1]), generator=generator, dtype=torch.float64)
    successor = torch.cat((phi[1:], last_phi[None]))
    shaped = r + state_potential(phi, torch.where(time_out, final_phi, successor), terminated, 0.99)
    plain = gae(r[..., None], v[..., None], last_v[:, None], terminated, time_out, final_v[..., None], 0.99, 0.95)
    moved = [x[..., None] for x in (shaped, v - phi, last_v - last_phi, final_v - final_phi)]
    return float((gae(moved[0], moved[1], moved[2], terminated, time_out, moved[3], 0.99, 0.95) - plain).abs().max())


def _hacking(table: Table, rival: str) -> Found:
    problems = GROUPS["deceptive"]
    found, seeds = table.common(("hepo", rival), problems, 10)
    gain = stats.difference(table.scores("hepo", found, seeds), table.scores(rival, found, seeds), "mean")
    mine, its = (table.raw(a, found, seeds, "H") for a in ("hepo", rival))
    unit = {p: max(float(np.abs(its[p]).mean()), 1e-9) for p in found}
    less = stats.difference({p: mine[p] / unit[p] for p in found}, {p: its[p] / unit[p] for p in found}, "mean")
    verdict = HOLDS if gain.low > 0.0 and less.high < 0.0 else FAILS if gain.high <= 0.0 or less.low >= 0.0 else TOO_FEW
    value = "ΔJ %s; ΔH %s of |H|" % (gain, less)
    return counted(found, len(seeds)), value, complete(found, problems, verdict)


HACKING = "mean over the deceptive tasks: J(hepo) − J(%s) > 0 and H(hepo) − H(%s) < 0, both intervals"


@claim("C7", "HEPO mitigates reward hacking, against J+H with one critic", HACKING % ("ppo_jh", "ppo_jh"))
def c7(table: Table) -> Found:
    """Against the sum of rewards."""
    return _hacking(table, "ppo_jh")


@claim(
    "C7 decoupled",
    "… and against J+H with two critics",
    HACKING % ("ppo_jh_decoupled", "ppo_jh_decoupled"),
)
def c7_decoupled(table: Table) -> Found:
    """Against separately standardised advantages."""
    return _hacking(table, "ppo_jh_decoupled")


@claim(
    "C9",
    "A heuristic of the wrong sign breaks HEPO where r is sparse",
    "h = −h_good: J(hepo) < ½ J(J-only) on sparse r, J(hepo) ≥ J(J-only) − 2 SE on dense r (normalised)",
)
def c9(table: Table) -> Found:
    """Both regimes."""
    values: Dict[str, Tuple[Interval, Interval]] = {}
    counts = []
    for problem in (SPARSE_REVERSED, DENSE_REVERSED):
        task = problem.split("/")[0]
        _, seeds = table.common(("hepo",), (problem,))
        _, other = table.common(("ppo_j",), (task,))
        values[problem] = (
            stats.aggregate(table.scores("hepo", [problem], seeds), "mean"),
            stats.aggregate(table.scores("ppo_j", [task], other), "mean"),
        )
        counts.append("%d and %d seeds" % (len(seeds), len(other)))
    (sparse, sparse_j), (dense, dense_j) = values[SPARSE_REVERSED], values[DENSE_REVERSED]
    error = ((dense.high - dense.low) ** 2 + (dense_j.high - dense_j.low) ** 2) ** 0.5 / 4.0  # about 1 SE
    value = "%s: %s against %s; %s: %s against %s" % (
        *(SPARSE_REVERSED, sparse, sparse_j),
        *(DENSE_REVERSED, dense, dense_j),
    )
    if sparse_j.value < LEARNED:
        return "; ".join(counts), value + "; J-only does not learn the sparse task", NOT_TESTED
    broken, kept = sparse.value < 0.5 * sparse_j.value, dense.value >= dense_j.value - 2.0 * error
    return "; ".join(counts), value, whether(broken and kept)


@claim("C10", "HEPO improves on at least 10 of 12 human heuristics", "mean J of hepo above that of ppo_h; ≥ 10 of 12")
def c10(table: Table) -> Found:
    """Sign test over h1 … h12 of Push2D."""
    return _improved(table, HUMAN, stats.MIN_SEEDS, 10)


@claim(
    "C20",
    "HEPO improves on at least 8 of 12 human heuristics on FrankaCabinet",
    "mean J of hepo above that of ppo_h; ≥ 8 of 12",
)
def c20(table: Table) -> Found:
    """Sign test over FrankaCabinet's heuristics that people wrote."""
    return _improved(table, WRITTEN, FEW_SEEDS, 8)


def _improved(table: Table, problems: Tuple[str, ...], least: int, wanted: int) -> Found:
    """On how many problems the mean J of hepo is above ppo_h's, and whether those are as many as wanted.

    Args:
        least: seeds that an arm must have on a problem.
    """
    from scipy.stats import binomtest

    found, seeds = table.common(("hepo", "ppo_h"), problems, least)
    x, y = (table.scores(a, found, seeds) for a in ("hepo", "ppo_h"))
    better = [p.split("/")[1].partition("@")[0] for p in found if x[p].mean() > y[p].mean()]
    test = binomtest(len(better), len(found), alternative="greater")
    ends = test.proportion_ci(method="wilson")
    value = "%d of %d (p = %.3f, share [%.2f, 1]): %s" % (
        len(better),
        len(found),
        test.pvalue,
        ends.low,
        ", ".join(better) or "none",
    )
    return counted(found, len(seeds)), value, complete(found, problems, whether(len(better) >= wanted))


@claim(
    "C12",
    "α is not what drives short runs",
    "PI(α's step 1e-4, α = 0) contains ½, and PI(the preset's 1e-2, α = 0) is greater",
)
def c12(table: Table) -> Found:
    """Against α held at 0."""
    found, n, slow, _ = versus(table, "hepo_lr1e-4", "hepo_alpha0", SUITE)
    _, _, fast, _ = versus(table, "hepo", "hepo_alpha0", SUITE)
    contains = slow.low <= 0.5 <= slow.high
    enough = n * len(found) >= stats.runs_needed(0.65)
    verdict = FAILS if not contains else whether(fast.value > slow.value) if enough else TOO_FEW
    return counted(found, n), "1e-4: PI %s; 1e-2: PI %s" % (slow, fast), complete(found, SUITE, verdict)


@claim(
    "C13",
    "Separate normalisation explains part of the gain",
    "h × 1000: PI(ppo_jh_decoupled, ppo_jh) > ½; h × 0.01, 100, 1000: hepo's J changes by less than 2 SE",
)
def c13(table: Table) -> Found:
    """PI where h is a thousand times larger, and HEPO's change under rescaling."""
    big = tuple("%s*1000" % t for t in SCALE_TASKS)
    found, n, pi, _ = versus(table, "ppo_jh_decoupled", "ppo_jh", big)
    changes, inside = [], True
    for c in SCALES:
        scaled = ["%s*%s" % (t, c) for t in SCALE_TASKS]
        _, seeds = table.common(("hepo",), [*scaled, *SCALE_TASKS])
        x = table.scores("hepo", scaled, seeds)
        y = table.scores("hepo", SCALE_TASKS, seeds)
        change = stats.difference({p.split("*")[0]: v for p, v in x.items()}, y, "mean")
        inside &= change.low <= 0.0 <= change.high
        changes.append("×%s %s" % (c, change))
    verdict = FAILS if pi.high < 0.5 or not inside else whether(pi.low > 0.5)
    return counted(found, n), "PI %s; hepo %s" % (pi, ", ".join(changes)), complete(found, big, verdict)


@claim(
    "C16",
    "Sharing experience helps",
    "PI(hepo, hepo_no_sharing) of the mean J over training, lower bound > ½; ESS and clipped share of foreign rows",
)
def c16(table: Table) -> Found:
    """Area under the curve against HEPO whose policies learn from their own rows alone."""
    found, n, pi, _ = versus(table, "hepo", "hepo_no_sharing", SUITE, "auc")
    final = versus(table, "hepo", "hepo_no_sharing", SUITE)[2]
    _, seeds = table.common(("hepo",), found)
    ess, clip = (stats.aggregate(table.raw("hepo", found, seeds, c), "mean") for c in ("ess", "clip_foreign"))
    value = "over training PI %s; at the end %s; ESS %s; clipped %s" % (pi, final, ess, clip)
    return counted(found, n), value, complete(found, SUITE, improvement(pi, n * len(found)))


@claim("C18", "Worst case of HEPO against the better of H-only and J-only", "per task, means; no pass rule")
def c18(table: Table) -> Found:
    """Distribution over tasks of mean J(hepo) - max(mean J(ppo_h), mean J(ppo_j))."""
    found, seeds = table.common(("hepo", "ppo_h", "ppo_j"), SUITE)
    means = {a: {p: float(v.mean()) for p, v in scores.items()} for a, scores in _three(table, found, seeds).items()}
    gaps = sorted((means["hepo"][p] - max(means["ppo_h"][p], means["ppo_j"][p]), p) for p in found)
    value = ", ".join("%s %+.3f" % (p, gap) for gap, p in gaps)
    return counted(found, len(seeds)), value, complete(found, SUITE, NO_RULE)


def _three(table: Table, found: List[str], seeds: List[int]) -> Dict[str, Scores]:
    return {arm: table.scores(arm, found, seeds) for arm in ("hepo", "ppo_h", "ppo_j")}
