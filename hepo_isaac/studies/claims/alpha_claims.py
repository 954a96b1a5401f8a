"""Claims about the constraint, alpha and the heuristic's quality: C3, C8, C11, C14, C15, C17, C19, C21, E2, N3."""

from __future__ import annotations

import json
import math
from typing import Dict, List, Tuple

import numpy as np
import torch

from hepo_isaac.methods.multiplier import Multiplier, MultiplierConfig
from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.stats import Interval
from hepo_isaac.studies.claims.experiments import (
    HACKABLE,
    HASTY,
    HUMAN,
    NOISES,
    NOISY,
    OTHERS,
    QUALITY,
    ROBOT_PROBLEMS,
    SPARSE,
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
    claim,
    complete,
    counted,
    share,
    whether,
)
from hepo_isaac.studies.claims.table import Table, TooFewError
from hepo_isaac.studies.places import DOCS

Found = Tuple[str, str, str]
TIMING = DOCS / "claims" / "timing.json"
IDLE = 0.1  # an alpha below this changes little
FLOOR = 1e-12  # instead of the variance of an alpha that never moves
FALL = 0.1  # of J, that noise may cost
FAR = 0.1  # an ESS below this, and the other policy is too far away to learn from
EPSILON = 0.02  # of the distance between random and optimal: what counts as no worse


@claim(
    "C3",
    "The constraint J(π) ≥ J(π_H) holds in practice",
    "share of evaluations (100 episodes) with J(π) ≥ J(π_H) − 2 SE at least 0.9; mean violation during training, "
    "normalised, smaller than with α = 0",
)
def c3(table: Table) -> Found:
    """Final evaluations, and the violation during training against alpha = 0."""
    found, seeds = table.common(("hepo", "hepo_alpha0"), SUITE)
    kept = {}
    for p in found:
        mine, its, error, its_error = (table.values("hepo", p, c, seeds) for c in ("J", "J_ref", "J_se", "J_se_ref"))
        kept[p] = (mine >= its - 2.0 * np.hypot(error, its_error)).astype(float)
    held = stats.aggregate(kept, "mean")
    violation = {
        arm: {p: table.values(arm, p, "violation", seeds) / table.unit(p) for p in found}
        for arm in ("hepo", "hepo_alpha0")
    }
    less = stats.difference(violation["hepo"], violation["hepo_alpha0"], "mean")
    value = "share %s; violation hepo − α = 0: %s" % (held, less)
    verdict = FAILS if held.value < 0.9 else whether(less.value < 0.0) if less.high < 0.0 or less.low > 0.0 else TOO_FEW
    return counted(found, len(seeds)), value, complete(found, SUITE, verdict)


@claim(
    "C8",
    "HEPO's J follows that of its heuristic",
    "Pearson correlation over Push2D's heuristics of mean J(ppo_h) and mean J(hepo): its interval contains 0.9",
)
def c8(table: Table) -> Found:
    """Over Push2D's heuristics."""
    return _follows(table, ("Push2D", *HUMAN, *QUALITY, *OTHERS), stats.MIN_SEEDS)


@claim(
    "C21",
    "HEPO's J follows that of its heuristic on FrankaCabinet",
    "Pearson correlation over twelve human heuristics of mean J(ppo_h) and mean J(hepo): its interval contains 0.9",
)
def c21(table: Table) -> Found:
    """Over FrankaCabinet's heuristics that people wrote."""
    return _follows(table, WRITTEN, FEW_SEEDS)


def _follows(table: Table, problems: Tuple[str, ...], least: int) -> Found:
    """Correlation over problems of mean J of ppo_h and hepo.

    Args:
        least: seeds that an arm must have on a problem.
    """
    from scipy.stats import pearsonr, spearmanr

    found, seeds = table.common(("hepo", "ppo_h"), problems, least)
    if len(found) < 12:
        raise TooFewError("%d of at least 12 heuristics" % len(found))
    x, y = (np.array([v.mean() for v in table.scores(a, found, seeds).values()]) for a in ("ppo_h", "hepo"))
    linear = pearsonr(x, y)
    ends = linear.confidence_interval(0.95)
    value = "Pearson %.2f [%.2f, %.2f], Spearman %.2f" % (linear.statistic, ends.low, ends.high, spearmanr(x, y)[0])
    verdict = complete(found, problems, whether(ends.low <= 0.9 <= ends.high))
    return "%d heuristics × %d seeds" % (len(found), len(seeds)), value, verdict


def _counts(table: Table, arm: str, problems: List[str], top: Tuple[str, ...], bottom: Tuple[str, ...]) -> Interval:
    """Sum of the columns ``top`` over the sum of ``bottom``."""
    rows = {}
    for p in problems:
        columns = [sum(table.values(arm, p, c, table.seeds(arm, p)) for c in part) for part in (top, bottom)]
        rows[p] = np.nan_to_num(np.stack(np.broadcast_arrays(*columns), 1))
    return share(rows)


@claim(
    "C11",
    "α's gradient has the sign of J(π) − J(π_H)",
    "share of windows of 10 iterations, of those whose episodic gap is beyond 2 SE, in which the mean gradient has the "
    "gap's sign; ≥ 0.95",
)
def c11(table: Table) -> Found:
    """Windows of the suite's runs."""
    found, _ = table.common(("hepo",), SUITE)
    held = _counts(table, "hepo", found, ("ahead_agree", "behind_agree"), ("ahead", "behind"))
    ahead = _counts(table, "hepo", found, ("ahead_agree",), ("ahead",))
    behind = _counts(table, "hepo", found, ("behind_agree",), ("behind",))
    windows = sum(
        float(np.nansum(table.values("hepo", p, c, table.seeds("hepo", p)))) for p in found for c in ("ahead", "behind")
    )
    value = "%s; where π is ahead %s, behind %s" % (held, ahead, behind)
    verdict = HOLDS if held.value >= 0.95 else FAILS if held.high < 0.95 else TOO_FEW
    return "%d windows, %d problems" % (windows, len(found)), value, complete(found, SUITE, verdict)


@claim(
    "C19",
    "π is hardly ever behind π_H while it learns",
    "share of windows (as C11) in which J(π) ≥ J(π_H) − 2 SE, of those in which both finished episodes; hepo on the "
    "suite and on the robots, ≥ 0.95 each",
)
def c19(table: Table) -> Found:
    """Windows of all runs that tell how many there were; of hepo_plus too, and under the robots' other heuristics."""
    groups = {"suite": SUITE, "robots": ROBOT_PROBLEMS, "hasty heuristics": HASTY, "human heuristics": WRITTEN}
    whole: List[Interval] = []  # of hepo, where every task has runs
    told: List[str] = []
    runs = 0
    for arm in ("hepo", "hepo_plus"):
        for name, problems in groups.items():
            counts = {p: _not_behind(table, arm, p) for p in problems}
            found = {p: v for p, v in counts.items() if v[:, 1].any()}
            if not found:
                continue
            held = share(found)
            runs += sum(int((v[:, 1] > 0).sum()) for v in found.values())
            windows = sum(v[:, 1].sum() for v in found.values())
            told.append("%s, %s: %s of %d windows" % (arm, name, held, windows))
            if arm == "hepo" and name in ("suite", "robots") and len(found) == len(problems):
                whole.append(held)
    if not told:
        raise TooFewError("no run that tells its windows")
    verdict = TOO_FEW if len(whole) < 2 else whether(all(s.value >= 0.95 for s in whole))
    return "%d runs" % runs, "; ".join(told), verdict


def _not_behind(table: Table, arm: str, problem: str) -> np.ndarray:
    """(seeds, 2) windows in which pi was not behind by 2 standard errors, and all of them; 0 where it is not known."""
    seeds = table.seeds(arm, problem)
    windows, behind = (table.values(arm, problem, c, seeds) for c in ("windows", "behind"))
    return np.nan_to_num(np.stack((windows - behind, windows), 1)).reshape(-1, 2)


@claim(
    "E2",
    "α rises while π is behind π_H, on hackable tasks",
    "share of windows (as C11) in which α rises: where π is behind minus where it is ahead > 0",
)
def e2(table: Table) -> Found:
    """Windows of the hackable tasks' runs."""
    found, seeds = table.common(("hepo",), HACKABLE)
    behind = _counts(table, "hepo", found, ("behind_rise",), ("behind",))
    ahead = _counts(table, "hepo", found, ("ahead_rise",), ("ahead",))
    if math.isnan(behind.value) or math.isnan(ahead.value):
        raise TooFewError("no window in which π is behind")
    verdict = HOLDS if behind.low > ahead.high else FAILS if behind.high < ahead.low else TOO_FEW
    value = "behind %s, ahead %s" % (behind, ahead)
    return counted(found, len(seeds)), value, complete(found, HACKABLE, verdict)


@claim(
    "E2 drift",
    "α does not rise without cause",
    "of the suite's runs in which no window shows π behind by 2 SE: share whose greatest α is below %g; ≥ 0.9" % IDLE,
)
def e2_drift(table: Table) -> Found:
    """Runs that give no reason to raise alpha, of the preset and of two estimators."""
    found, _ = table.common(("hepo",), SUITE)
    shares = {}
    for arm in ("hepo", "hepo_raw_gae", "hepo_episode_return"):
        rows = {}
        for p in (p for p in found if table.seeds(arm, p)):
            behind, top = (table.values(arm, p, c, table.seeds(arm, p)) for c in ("behind", "alpha_max"))
            rows[p] = np.stack(((behind == 0) & (top < IDLE), behind == 0), 1).astype(float)
        shares[arm] = share(rows) if rows else None
    mine = shares["hepo"]
    if mine is None or math.isnan(mine.value):
        raise TooFewError("no run without a window in which π is behind")
    runs = int(sum((table.values("hepo", p, "behind", table.seeds("hepo", p)) == 0).sum() for p in found))
    others = [(a, shares["hepo_" + a]) for a in ("raw_gae", "episode_return")]
    value = "; ".join([str(mine), *("with contrast=%s %s" % (a, v) for a, v in others if v is not None)])
    verdict = HOLDS if mine.value >= 0.9 else FAILS if mine.high < 0.9 else TOO_FEW
    return "%d runs" % runs, value, complete(found, SUITE, verdict)


@claim(
    "C14",
    "The median over K = 8 steadies α",
    "variance of α's steps, K = 1 over K = 8, geometric mean ≥ 2; |mean α| < 0.02 after 3000 updates on noise",
)
def c14(table: Table) -> Found:
    """Runs with K = 1 and K = 8, and the multiplier alone on pure noise."""
    found, seeds = table.common(("hepo", "hepo_k1"), SPARSE)
    eight, one = (table.raw(a, found, seeds, "alpha_step_var") for a in ("hepo", "hepo_k1"))
    logs = {p: np.log(np.maximum(one[p], FLOOR) / np.maximum(eight[p], FLOOR)) for p in found}
    mean = stats.aggregate(logs, "mean")
    ratio = Interval(*(math.exp(v) for v in (mean.value, mean.low, mean.high)))
    drift = {m: null_drift(m) for m in ("midpoint", "lower")}
    value = "ratio %s; drift %+.3f with the midpoint median, %+.3f with the released one" % (
        ratio,
        drift["midpoint"],
        drift["lower"],
    )
    verdict = HOLDS if ratio.low >= 2.0 else FAILS if ratio.high < 2.0 else TOO_FEW
    verdict = verdict if abs(drift["midpoint"]) < 0.02 else FAILS
    return counted(found, len(seeds)), value, complete(found, SPARSE, verdict)


def null_drift(median: str, updates: int = 3000, runs: int = 2000) -> float:
    """Mean alpha of Adam at 1e-4 after ``updates`` of a gap that is pure noise."""
    config = MultiplierConfig(lr=1e-4, minimum=-0.99, allow_negative=True, median=median)
    multiplier = Multiplier(config, runs, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        multiplier.record(torch.randn(runs, generator=generator))
        multiplier.update()
    return float(multiplier.value.mean())


@claim(
    "C15",
    "HEPO costs at most 1.6 PPO",
    "time of an iteration and of an update, HEPO over PPO in turns in one process; iteration ≤ 1.6",
)
def c15(table: Table) -> Found:
    """What ``measure`` of timing.py wrote."""
    if not TIMING.exists():
        raise TooFewError("docs/claims/timing.json is missing")
    timing = json.loads(TIMING.read_text(encoding="utf-8"))
    values, verdicts = [], []
    for task, ratios in timing["tasks"].items():
        whole, update = ratios["HEPO iteration / PPO"], ratios["HEPO update / PPO"]
        values.append(
            "%s: iteration %.2f (quartiles %.2f – %.2f), update %.2f"
            % (task, whole["median"], whole["q25"], whole["q75"], update["median"])
        )
        verdicts.append(whole["median"] <= 1.6)
    if "memory" in timing:
        memory, idle = timing["memory"], timing["memory"]["peak_mb"]["idle"]
        ours, theirs = (memory["peak_mb"][a] - idle for a in ("hepo", "ppo_h"))
        values.append(
            "peak memory beyond the libraries, %s with %d envs: %.2f (%.0f over %.0f MB)"
            % (memory["task"], memory["num_envs"], ours / theirs, ours, theirs)
        )
    n = "%d turns" % min(r["HEPO iteration / PPO"]["n"] for r in timing["tasks"].values())
    return n, "; ".join(values), whether(all(verdicts))


@claim(
    "C17",
    "HEPO stands a π_H that is far away",
    "Gaussian noise of spread σ on π_H's weights after every update: mean normalised J falls by less than %.0f %% at "
    "every σ whose mean ESS of foreign rows is at least %g" % (100.0 * FALL, FAR),
)
def c17(table: Table) -> Found:
    """Every spread of noise against none, on the same tasks and seeds."""
    arms = {n: "hepo_noise_" + n for n in NOISES}
    found, seeds = table.common(("hepo", *arms.values()), NOISY)
    still = table.scores("hepo", found, seeds)
    level = stats.aggregate(still, "mean").value
    steps = table.raw("hepo", found, seeds, "alpha_step_var")
    values, near = ["σ = 0: J %.3f, ESS %.2f" % (level, _mean(table, "hepo", found, seeds, "ess"))], []
    if level < 0.2:
        return counted(found, len(seeds)), values[0] + "; nothing is learned that could be lost", NOT_TESTED
    for sigma, arm in arms.items():
        change = stats.difference(table.scores(arm, found, seeds), still, "mean")
        ess = _mean(table, arm, found, seeds, "ess")
        noisy = table.raw(arm, found, seeds, "alpha_step_var")
        logs = [np.log(np.maximum(noisy[p], FLOOR) / np.maximum(steps[p], FLOOR)).mean() for p in found]
        values.append("σ = %s: ΔJ %s, ESS %.2f, variance of α's steps × %.2g" % (sigma, change, ess, _exp(logs)))
        near += [change] if ess >= FAR else []
    least = -FALL * level
    verdict = HOLDS if all(c.low > least for c in near) else TOO_FEW
    verdict = FAILS if any(c.high < least for c in near) else verdict
    return counted(found, len(seeds)), "; ".join(values), complete(found, NOISY, verdict if near else NOT_TESTED)


def _mean(table: Table, arm: str, problems: List[str], seeds: List[int], column: str) -> float:
    """Over problems and seeds."""
    return stats.aggregate(table.raw(arm, problems, seeds, column), "mean").value


def _exp(logs: List[float]) -> float:
    return math.exp(float(np.mean(logs)))


# ---- the quality of the heuristic ---------------------------------------------------------------------------------


def no_worse(table: Table, arm: str, other: str) -> Dict[str, np.ndarray]:
    """q problem -> 1 for every seed whose J is no worse than the other arm's mean by more than EPSILON.

    ppo_j does not look at h, so its runs on Push2D serve every q.
    """
    found, seeds = table.common((arm,), QUALITY)
    out = {}
    for p in found:
        rival = "Push2D" if other == "ppo_j" else p
        _, its = table.common((other,), (rival,))
        bar = table.scores(other, [rival], its)[rival].mean() - EPSILON
        out[p] = (table.scores(arm, [p], seeds)[p] >= bar).astype(float)
    return out


def threshold(success: Dict[str, np.ndarray]) -> Tuple[Interval, Tuple[float, float]]:
    """q at which a logistic fit of P(no worse) crosses ½, with its interval, and the fit's offset and slope."""
    q = np.array([int(p.split("/q")[1]) / 10.0 for p in success])
    columns = [v[:, None] for v in success.values()]

    def crossing(*parts: np.ndarray) -> float:
        offset, slope = logistic(q, np.array([p.mean() for p in parts]), parts[0].shape[0])
        return float(np.clip(-offset / slope, 0.0, 1.0)) if slope > 0.0 else (0.0 if offset > 0.0 else 1.0)

    fit = logistic(q, np.array([c.mean() for c in columns]), columns[0].shape[0])
    return stats._interval(columns, crossing, 500, 0), fit


def logistic(x: np.ndarray, rate: np.ndarray, n: int) -> Tuple[float, float]:
    """Offset and slope by Newton's method, with a weak prior (slope of standard deviation 20) against separation."""
    design = np.stack((np.ones_like(x), x), 1)
    beta, prior = np.zeros(2), np.eye(2) / 400.0
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -30.0, 30.0)))
        gradient = n * design.T @ (rate - p) - prior @ beta
        hessian = (design * (n * p * (1.0 - p))[:, None]).T @ design + prior
        step = np.linalg.solve(hessian, gradient)
        beta = beta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    return float(beta[0]), float(beta[1])


@claim(
    "N3",
    "How good a heuristic must be",
    "h_q = q good + (1 − q) bad on Push2D: logistic fit of P(J(hepo) ≥ J(other) − %.2f), q where it is ½; no pass rule"
    % EPSILON,
)
def n3(table: Table) -> Found:
    """Thresholds against H-only and J-only."""
    parts, n = [], "–"
    for other in ("ppo_h", "ppo_j"):
        success = no_worse(table, "hepo", other)
        crossing, _ = threshold(success)
        rates = [float(v.mean()) for v in success.values()]
        parts.append("no worse than %s from q = %s (share over all q %.2f)" % (other, crossing, float(np.mean(rates))))
        n = counted(list(success), len(next(iter(success.values()))))
        if len(success) < len(QUALITY):
            return n, "; ".join(parts), TOO_FEW
    return n, "; ".join(parts), NO_RULE
