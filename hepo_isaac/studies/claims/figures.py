"""Figures of docs/claims.md, from the committed CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from hepo_isaac.runs.compare.analysis import compare
from hepo_isaac.runs.compare.figures import BASELINE_COLOUR, PALETTE, draw
from hepo_isaac.runs.compare.stats import curve_band
from hepo_isaac.runs.compare.table import Run, RunTable
from hepo_isaac.studies.claims.alpha_claims import logistic, no_worse
from hepo_isaac.studies.claims.experiments import GROUPS, HACKABLE, QUALITY, SUITE, WRITTEN, WRITTEN_ARMS
from hepo_isaac.studies.claims.table import Table, TooFewError, scale

COLOURS = {"hepo": PALETTE[0], "hepo_alternating": PALETTE[1], "eipo": PALETTE[2], "ppo_h": BASELINE_COLOUR}
COLOURS.update({"ppo_jh_decoupled": PALETTE[2], "pbrs": PALETTE[3], "J_ref": PALETTE[1]})
METHODS: Tuple[str, ...] = (
    "ppo_h",
    "ppo_j",
    "ppo_jh",
    "ppo_jh_decoupled",
    "pbrs",
    "hurl",
    "eipo",
    "hepo",
    "hepo_alternating",
)
METHODS += ("hepo_release", "hepo_release2")
Curves = Dict[Tuple[str, str, str], np.ndarray]  # (arm, problem, quantity) -> (4, points): steps, middle, low, high


def bands(rows: Sequence[Mapping[str, Any]]) -> Curves:
    """IQM over the seeds with its interval, from the current rows of curves.csv."""
    steps: Dict[Tuple[str, str, str], np.ndarray] = {}
    tables: Dict[Tuple[str, str, str], Dict[int, np.ndarray]] = {}
    for row in rows:
        name = row["arm"], row["problem"], row["quantity"]
        values = np.array(row["values"].split(), dtype=float)
        steps[name] = np.linspace(float(row["first"]), float(row["last"]), len(values))
        tables.setdefault(name, {})[int(row["seed"])] = values
    return {k: np.stack((steps[k], *curve_band(np.stack(list(v.values()))))) for k, v in tables.items()}


def all_figures(table: Table, curves: Curves, out: Path) -> List[str]:
    """Draw what there is data for; returns the names of the files."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = []
    ways = {"intervals": _suite, "alpha": _alpha, "joint": _joint, "quality": _quality, "written": _written}
    for name, function in ways.items():
        file = out / (name + ".png")
        try:
            if function(table, curves, file):
                drawn.append(file.name)
        except TooFewError:
            file.unlink(missing_ok=True)
    return drawn


def _axes(rows: int, columns: int, width: float, height: float) -> Tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


def _band(axis: Any, curve: np.ndarray, colour: str, label: str) -> None:
    axis.fill_between(curve[0] / 1e3, curve[2], curve[3], color=colour, alpha=0.18, linewidth=0)
    axis.plot(curve[0] / 1e3, curve[1], color=colour, linewidth=1.7, label=label)


# ---- the suite, drawn by hepo-isaac compare -----------------------------------------------------------------------


def _suite(table: Table, curves: Curves, file: Path) -> bool:
    """Intervals and profiles of the methods that have runs on the whole suite."""
    arms = [a for a in METHODS if all(len(table.seeds(a, p)) >= 5 for p in SUITE)]
    if "ppo_h" not in arms or len(arms) < 2:
        return False
    runs = tuple(_run(table, a, p, s) for a in arms for p in SUITE for s in table.seeds(a, p))
    draw(compare(RunTable(runs), baseline="ppo_h", score="evaluation"), file.parent)
    return True


def _run(table: Table, arm: str, problem: str, seed: int) -> Run:
    """A row of the table as hepo-isaac compare knows runs."""
    j, h, steps = (float(table.values(arm, problem, c, [seed])[0]) for c in ("J", "H", "env_steps"))
    span = scale(problem)
    none = np.empty(0)
    scores, heuristic = {"evaluation": j}, {"evaluation": h}
    commit = (table.rows[arm, problem][seed]["commit"],)
    ends = (span.zero, span.zero + span.unit)
    return Run(Path("."), arm, problem, seed, scores, heuristic, none, none, int(steps), {}, ends, commit, "")


# ---- alpha --------------------------------------------------------------------------------------------------------


def _alpha(table: Table, curves: Curves, file: Path) -> bool:
    """Alpha, its gradient, and J of both policies on the hackable tasks."""
    problems = [p for p in HACKABLE if ("hepo", p, "alpha") in curves]
    if not problems:
        return False
    figure, axes = _axes(3, len(problems), 2.9 * len(problems) + 0.6, 7.2)
    for column, problem in enumerate(problems):
        top, middle, bottom = axes[:, column]
        _band(top, curves["hepo", problem, "J"], COLOURS["hepo"], "π")
        _band(top, curves["hepo", problem, "J_ref"], COLOURS["J_ref"], "π_H")
        _band(middle, curves["hepo", problem, "gradient"], COLOURS["eipo"], "estimate of J(π) − J(π_H)")
        middle.axhline(0.0, color="#4d4d4d", linewidth=0.8, linestyle="--")
        _band(bottom, curves["hepo", problem, "alpha"], COLOURS["pbrs"], "α")
        top.set_title(problem.replace("+honey", ", r at the start"), fontsize=10, fontweight="bold", loc="left")
        bottom.set_xlabel("thousand env steps", fontsize=9)
    for axis, label in zip(axes[:, 0], ("task return J", "estimated gap (its spread = 1)", "α")):
        axis.set_ylabel(label, fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(
        "hepo: J of both policies, the estimate of their gap that α follows, and α (IQM over seeds, 95 % band)",
        fontsize=11,
    )
    figure.savefig(file)
    return True


def _joint(table: Table, curves: Curves, file: Path) -> bool:
    """Learning curves of joint and alternating collection, and of EIPO."""
    arms = [a for a in ("hepo", "hepo_alternating", "eipo") if all((a, p, "J") in curves for p in SUITE)]
    if len(arms) < 2:
        return False
    figure, axes = _axes(3, 4, 12.0, 8.0)
    for group, row in zip(GROUPS, axes):
        for problem, axis in zip(GROUPS[group], row):
            for arm in arms:
                _band(axis, curves[arm, problem, "J"], COLOURS[arm], arm)
            axis.set_title("%s (%s)" % (problem, group), fontsize=9, fontweight="bold", loc="left")
        row[0].set_ylabel("task return J(π)", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("thousand env steps", fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle("Joint and alternating collection (IQM over seeds, 95 % band)", fontsize=11)
    figure.savefig(file)
    return True


# ---- quality ------------------------------------------------------------------------------------------------------


def _quality(table: Table, curves: Curves, file: Path) -> bool:
    """J over the quality of the heuristic, and the chance of being no worse than H-only and J-only."""
    figure, axes = _axes(1, 2, 11.0, 4.2)
    left, right = axes[0]
    q = np.arange(11) / 10.0
    for arm in ("ppo_h", "pbrs", "ppo_jh_decoupled", "hepo"):
        if all(len(table.seeds(arm, p)) >= 5 for p in QUALITY):
            scores = [table.scores(arm, [p], table.seeds(arm, p))[p] for p in QUALITY]
            middle = [float(np.mean(s)) for s in scores]
            left.fill_between(q, [s.min() for s in scores], [s.max() for s in scores], color=COLOURS[arm], alpha=0.1)
            left.plot(q, middle, color=COLOURS[arm], marker="o", markersize=4, label=arm)
    _, seeds = table.common(("ppo_j",), ("Push2D",))
    level = table.scores("ppo_j", ["Push2D"], seeds)["Push2D"].mean()
    left.axhline(level, color="#4d4d4d", linestyle=":", linewidth=1.2, label="ppo_j (does not see h)")
    left.set_ylabel("normalised J (mean; band: lowest to highest seed)", fontsize=9)
    _rates(right, q, table)
    for axis in (left, right):
        axis.set_xlabel("q of h = q · good + (1 − q) · bad", fontsize=9)
        axis.legend(fontsize=8, frameon=False)
    figure.suptitle("Push2D: how good the heuristic must be", fontsize=11)
    figure.savefig(file)
    return True


def _rates(axis: Any, q: np.ndarray, table: Table) -> None:
    fine = np.linspace(0.0, 1.0, 200)
    for other, colour in (("ppo_h", COLOURS["hepo"]), ("ppo_j", COLOURS["J_ref"])):
        success = no_worse(table, "hepo", other)
        at = np.array([int(p.split("/q")[1]) / 10.0 for p in success])
        rate = np.array([v.mean() for v in success.values()])
        offset, slope = logistic(at, rate, len(next(iter(success.values()))))
        axis.plot(fine, 1.0 / (1.0 + np.exp(-(offset + slope * fine))), color=colour, linewidth=1.4)
        axis.plot(at, rate, "o", color=colour, markersize=5, label="hepo no worse than " + other)
    axis.axhline(0.5, color="#4d4d4d", linewidth=0.8, linestyle="--")
    axis.set_ylim(-0.05, 1.05)
    axis.set_ylabel("share of seeds, and logistic fit", fontsize=9)


# ---- heuristics that people wrote ---------------------------------------------------------------------------------


def _written(table: Table, curves: Curves, file: Path) -> bool:
    """J under each heuristic, and J of hepo over J of the heuristic alone."""
    there = [p for p in WRITTEN if table.seeds("ppo_h", p) and table.seeds("hepo", p)]
    if len(there) < 3:
        return False
    figure, axes = _axes(1, 2, 12.0, 4.4)
    left, right = axes[0]
    arms = [a for a in WRITTEN_ARMS if any(table.seeds(a, p) for p in there)]
    for k, arm in enumerate(arms):
        for i, problem in enumerate(there):
            seeds = table.seeds(arm, problem)
            if seeds:
                values = table.values(arm, problem, "J", seeds)
                x = i + 0.7 * ((k + 0.5) / len(arms) - 0.5)
                label = arm if problem == next(p for p in there if table.seeds(arm, p)) else None
                left.plot([x, x], [values.min(), values.max()], color=PALETTE[k], linewidth=1.2, alpha=0.6)
                left.plot(x, values.mean(), "o", color=PALETTE[k], markersize=4.5, label=label)
    left.set_xticks(range(len(there)), [p.split("/")[1].partition("@")[0] for p in there])
    left.set_xlabel("heuristic", fontsize=9)
    left.set_ylabel("J: mean, lowest and highest seed", fontsize=9)
    left.set_ylim(-0.03, 1.0)
    left.legend(fontsize=7, frameon=False, ncol=3, loc="upper center")
    means = {a: [table.values(a, p, "J", table.seeds(a, p)).mean() for p in there] for a in ("ppo_h", "hepo")}
    right.plot([0, 1], [0, 1], color="#4d4d4d", linewidth=0.8, linestyle="--")
    right.plot(means["ppo_h"], means["hepo"], "o", color=COLOURS["hepo"], markersize=6)
    points: Dict[Tuple[float, float], List[str]] = {}
    for problem, x, y in zip(there, means["ppo_h"], means["hepo"]):
        near = next((p for p in points if np.hypot(p[0] - x, p[1] - y) < 0.03), (x, y))
        points.setdefault(near, []).append(problem.split("/")[1].partition("@")[0])
    for (x, y), names in points.items():  # one label where points lie on each other
        right.annotate(", ".join(names), (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    right.set_xlabel("J of ppo_h, the heuristic alone", fontsize=9)
    right.set_ylabel("J of hepo", fontsize=9)
    right.set_xlim(-0.03, 1.0)
    right.set_ylim(-0.03, 1.0)
    figure.suptitle("FrankaCabinet: heuristics that people wrote", fontsize=11)
    figure.savefig(file)
    return True
