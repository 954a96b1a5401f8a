"""From run folders to docs/claims/runs.csv, one row per run, and curves.csv, what the figures draw.

New rows join those that are committed: the files outlive the folders. ``key`` (training.keys) says what a row is of;
its arm is only a name, and a row that no arm has the key of today is stale: it stays in the file and is in no table.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hepo_isaac.runs.compare.data import auc
from hepo_isaac.runs.record.metrics_csv import read_metrics
from hepo_isaac.runs.record.plots import smooth
from hepo_isaac.studies.claims import training
from hepo_isaac.studies.claims.experiments import ARMS, EXPERIMENTS, HACKABLE, SUITE
from hepo_isaac.studies.places import DOCS

HERE = DOCS / "claims"
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
Pairs = Dict[str, List[Tuple[str, str]]]
Columns = Mapping[str, np.ndarray]


def collect(roots: Sequence[Path], trusted: Sequence[Path]) -> None:
    """Add the finished runs of the folders that some arm has the key of to both files; the newest run wins."""
    pairs = by_key(training.keys(EXPERIMENTS))
    folders = {k: run for k, run in training.index(roots, trusted).items() if k[0] in pairs}
    runs, curves = committed(RUNS), committed(CURVES, "quantity")
    for (key, seed), run in sorted(folders.items()):
        arm, problem = pairs[key][0]
        row = {**_row(arm, problem, seed, run), "key": key}
        if row["date"] >= runs.get((key, seed), row)["date"]:
            runs[key, seed] = row
            columns = read_metrics(run / "metrics.csv")
            for quantity in sorted({q for pair in pairs[key] for q in drawn(*pair)}):
                about = {"arm": arm, "problem": problem, "seed": seed, "key": key, "quantity": quantity}
                curve = _curve(columns, QUANTITIES[quantity])
                curves.update({(key, seed, quantity): {**about, **curve}} if curve else {})
    _write(RUNS, list(runs.values()))
    _write(CURVES, list(curves.values()))


def by_key(names: training.Keys) -> Pairs:
    """Key -> the (arm, problem) whose runs have it, those with the first arm of experiments.py first."""
    order, found = list(ARMS), {}  # type: List[str], Pairs
    for pair in sorted(names, key=lambda pair: order.index(pair[0])):
        for key in names[pair]:
            found.setdefault(key, []).append(pair)
    return found


def committed(file: Path, *more: str) -> Dict[Any, Row]:
    """Rows of a file by their (key, seed) and the columns in ``more``."""
    if not file.exists():
        return {}
    with open(file, newline="", encoding="utf-8") as lines:
        return {(r["key"], int(r["seed"]), *(r[c] for c in more)): dict(r) for r in csv.DictReader(lines)}


def current(rows: Iterable[Row], pairs: Pairs) -> Tuple[List[Row], int]:
    """Every row under each (arm, problem) that it is a run of today, and how many are of none. Kept runs come first."""
    every = sorted(rows, key=lambda row: not row["key"].startswith(training.KEPT))
    named = [{**row, "arm": a, "problem": p} for row in every for a, p in pairs.get(row["key"], ())]
    return named, sum(row["key"] not in pairs for row in every)


def drawn(arm: str, problem: str) -> Tuple[str, ...]:
    """Quantities of which the figures show curves."""
    return tuple(q for a, problems, quantities in DRAWN if a == arm and problem in problems for q in quantities)


def _write(file: Path, rows: Sequence[Row]) -> None:
    if not rows:
        return
    rows = sorted(rows, key=lambda row: (row["arm"], row["problem"], row["key"], row.get("quantity"), int(row["seed"])))
    with open(file, "w", newline="", encoding="utf-8") as out:
        # rows of before a column was added lack it
        writer = csv.DictWriter(out, list(dict.fromkeys(c for row in rows for c in row)), lineterminator="\n")
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
        "cpu": str((about.get("hardware") or {}).get("cpu") or ""),
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

    violation: mean over training of max(0, J(reference) - J(pi)), both smoothed over about 100 episodes. windows: of
    WINDOW iterations, those in which both had episodes in five. Of these, where the episodic gap is beyond 2 standard
    errors: ahead or behind, and of a method whose alpha has a gradient those where its mean has the gap's sign (agree),
    and those where alpha rose.
    """
    names = ("violation", "windows", "ahead", "ahead_agree", "ahead_rise", "behind", "behind_agree", "behind_rise")
    if not _known(columns, other):
        return dict.fromkeys(names, math.nan)
    below = smooth(dict(columns), other) - smooth(dict(columns), "return_task/pi")
    counts = dict.fromkeys(names, 0.0)
    counts["violation"] = float(np.nanmean(np.maximum(below, 0.0)))
    climbs = _known(columns, "alpha") and _known(columns, "alpha_gradient")
    for start in range(0, len(columns[other]) - WINDOW + 1, WINDOW):
        part = slice(start, start + WINDOW)
        mine, my_error = _window(columns["return_task/pi"][part])
        its, its_error = _window(columns[other][part])
        counts["windows"] += float(math.isfinite(my_error) and math.isfinite(its_error))
        if not abs(mine - its) > 2.0 * math.hypot(my_error, its_error):
            continue
        side = "ahead" if mine > its else "behind"
        counts[side] += 1
        if climbs:
            gradient = float(np.nanmean(columns["alpha_gradient"][part]))
            counts[side + "_agree"] += float(gradient * (mine - its) > 0.0)
            counts[side + "_rise"] += float(columns["alpha"][part][-1] > columns["alpha"][part][0])
    if not climbs:
        counts.update({name: math.nan for name in names if name.endswith(("_agree", "_rise"))})
    return counts


def _window(values: np.ndarray) -> Tuple[float, float]:
    """Mean over the iterations that had episodes, and its standard error; NaN from fewer than five."""
    known = values[np.isfinite(values)]
    if known.size < 5:
        return math.nan, math.nan
    return float(known.mean()), float(known.std(ddof=1) / math.sqrt(known.size))


# ---- a curve ------------------------------------------------------------------------------------------------------


def _curve(columns: Columns, name: str) -> Optional[Row]:
    """A column at POINTS env steps between the first and the last, evenly spaced; None without numbers."""
    if not _known(columns, name):
        return None
    values = smooth(dict(columns), name) if name.startswith("return") else columns[name]
    steps, known = columns["env_steps"], np.isfinite(values)
    points = np.interp(np.linspace(steps[0], steps[-1], POINTS), steps[known], values[known])
    return {"first": int(steps[0]), "last": int(steps[-1]), "values": " ".join("%.5g" % v for v in points)}
