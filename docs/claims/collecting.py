"""From run folders to docs/claims/runs.csv, one row per run, and curves.csv, what the figures draw."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

import numpy as np

from docs.claims import training
from docs.claims.experiments import EXPERIMENTS, HACKABLE, SUITE
from hepo_isaac.runs.compare_data import auc
from hepo_isaac.runs.compare_stats import curve_band
from hepo_isaac.runs.metrics_csv import read_metrics
from hepo_isaac.runs.plots import smooth

HERE = Path(__file__).resolve().parent
RUNS, CURVES = HERE / "runs.csv", HERE / "curves.csv"
WINDOW = 10  # iterations in which the sign of the gap is looked at
POINTS = 40  # of a committed curve
# Quantity of a figure -> column of metrics.csv.
QUANTITIES = {
    "J": "return_task/pi",
    "J_ref": "return_task/pi_h",
    "alpha": "alpha",
    "gradient": "alpha_gradient",
}
DRAWN: Tuple[Tuple[str, Tuple[str, ...], Tuple[str, ...]], ...] = (
    ("hepo", HACKABLE, tuple(QUANTITIES)),
    ("hepo", SUITE, ("J",)),
    ("hepo_alternating", SUITE, ("J",)),
    ("eipo", SUITE, ("J",)),
)
Row = Dict[str, Any]
Columns = Mapping[str, np.ndarray]


def collect(roots: Sequence[Path], trusted: Sequence[Path]) -> None:
    """Write both files from the finished runs that have the settings they would have now (training.index)."""
    names, there = training.keys(EXPERIMENTS), training.index(roots, trusted)
    runs = {(a, p, seed): run for (a, p), k in names.items() for (found, seed), run in there.items() if found == k}
    rows = [{**_row(a, p, seed, run), "key": names[a, p]} for (a, p, seed), run in sorted(runs.items())]
    _write(RUNS, rows)
    curves: Dict[Tuple[str, str, str], List[Row]] = {}
    for arm, problems, quantities in DRAWN:
        for problem in problems:
            files = [run / "metrics.csv" for (a, p, _), run in sorted(runs.items()) if (a, p) == (arm, problem)]
            for quantity in quantities:
                curves[arm, problem, quantity] = list(_curve(arm, problem, quantity, files))
    _write(CURVES, [row for part in curves.values() for row in part])


def _write(file: Path, rows: Sequence[Row]) -> None:
    if not rows:
        raise SystemExit("no finished run has the settings of an experiment: nothing to write to %s" % file)
    with open(file, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: _text(v) for k, v in row.items()} for row in rows])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else "%.6g" % value
    return str(value)


# ---- a run --------------------------------------------------------------------------------------------------------


def _row(arm: str, problem: str, seed: int, run: Path) -> Row:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    about = json.loads((run / "metadata.json").read_text(encoding="utf-8"))
    columns = read_metrics(run / "metrics.csv")
    other = summary["policies"][1] if len(summary["policies"]) > 1 else ""
    git = about.get("git") or {}
    return {
        "arm": arm,
        "problem": problem,
        "seed": seed,
        **_score(summary, "pi", ""),
        **_score(summary, other, "_ref"),
        "auc": auc(columns),
        "alpha": _last(columns, "alpha"),
        "alpha_max": float(np.nanmax(columns["alpha"])) if _known(columns, "alpha") else math.nan,
        "alpha_step_var": float(np.nanvar(np.diff(columns["alpha"]))) if _known(columns, "alpha") else math.nan,
        "ess": _mean(columns, "ess_foreign/pi"),
        "clip_foreign": _mean(columns, "clip_fraction_foreign/pi"),
        **_gap(columns, "return_task/" + other),
        "env_steps": int(summary["env_steps"]),
        "seconds": float(summary["wall_time_s"]),
        "commit": str(git.get("commit"))[:10] + ("+" if git.get("dirty") else ""),
        "date": str(about.get("started", ""))[:10],
    }


def _score(summary: Mapping[str, Any], policy: str, suffix: str) -> Row:
    """J, H and their standard errors of one policy: of the evaluation, or of the last 100 episodes without one."""
    nothing = {"J" + suffix: math.nan, "J_se" + suffix: math.nan, "H" + suffix: math.nan}
    found = (summary.get("evaluation") or {}).get(policy)
    if found:
        values = found["return_task"], found["return_task_se"], found["return_heuristic"]
        return dict(zip(nothing, map(_number, values)))
    final = summary.get("final") or {}
    values = final.get("return_task/" + policy), None, final.get("return_heuristic/" + policy)
    return dict(zip(nothing, map(_number, values)))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _known(columns: Columns, name: str) -> bool:
    return name in columns and bool(np.isfinite(columns[name]).any())


def _last(columns: Columns, name: str) -> float:
    return float(columns[name][-1]) if _known(columns, name) else math.nan


def _mean(columns: Columns, name: str) -> float:
    return float(np.nanmean(columns[name])) if _known(columns, name) else math.nan


def _gap(columns: Columns, other: str) -> Row:
    """How far J(pi) was below the reference's, and whether alpha's gradient has the sign of the episodic gap.

    violation: mean over training of max(0, J(reference) - J(pi)), both smoothed over about 100 episodes. In windows of
    WINDOW iterations whose episodic gap is beyond 2 standard errors: ahead or behind, those where the mean gradient has
    the gap's sign (agree), and those where alpha rose.
    """
    names = ("violation", "ahead", "ahead_agree", "ahead_rise", "behind", "behind_agree", "behind_rise")
    if not _known(columns, other) or not _known(columns, "alpha"):
        return dict.fromkeys(names, math.nan)
    below = smooth(dict(columns), other) - smooth(dict(columns), "return_task/pi")
    counts = dict.fromkeys(names, 0.0)
    counts["violation"] = float(np.nanmean(np.maximum(below, 0.0)))
    for start in range(0, len(columns["alpha"]) - WINDOW + 1, WINDOW):
        part = slice(start, start + WINDOW)
        mine, my_error = _window(columns["return_task/pi"][part])
        its, its_error = _window(columns[other][part])
        if not abs(mine - its) > 2.0 * math.hypot(my_error, its_error):
            continue
        side = "ahead" if mine > its else "behind"
        gradient = float(np.nanmean(columns["alpha_gradient"][part]))
        counts[side] += 1
        counts[side + "_agree"] += float(gradient * (mine - its) > 0.0)
        counts[side + "_rise"] += float(columns["alpha"][part][-1] > columns["alpha"][part][0])
    return counts


def _window(values: np.ndarray) -> Tuple[float, float]:
    """Mean over the iterations that had episodes, and its standard error; NaN from fewer than five."""
    known = values[np.isfinite(values)]
    if known.size < 5:
        return math.nan, math.nan
    return float(known.mean()), float(known.std(ddof=1) / math.sqrt(known.size))


# ---- a curve ------------------------------------------------------------------------------------------------------


def _curve(arm: str, problem: str, quantity: str, files: Sequence[Path]) -> Iterable[Row]:
    """IQM over the seeds with its interval, at POINTS env steps."""
    steps, table = np.empty(0), []
    for file in files:
        columns = read_metrics(file)
        column = QUANTITIES[quantity]
        values = smooth(dict(columns), column) if column.startswith("return") else columns.get(column)
        if values is None or not np.isfinite(values).any():
            return
        known = np.isfinite(values)
        steps = columns["env_steps"]
        table.append(np.interp(steps, steps[known], values[known]))
    if not table or len({len(t) for t in table}) > 1:
        return
    at = np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(int))
    middle, low, high = curve_band(np.stack(table)[:, at])
    for k, row in enumerate(at):
        yield {
            "arm": arm,
            "problem": problem,
            "quantity": quantity,
            "n": len(table),
            "env_steps": int(steps[row]),
            "middle": float(middle[k]),
            "low": float(low[k]),
            "high": float(high[k]),
        }
