"""Figures of a comparison: curves.png, intervals.png, profile.png. Needs matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, Optional

from hepo_isaac.errors import UserError
from hepo_isaac.runs.compare.analysis import Comparison
from hepo_isaac.runs.compare.stats import Interval

BASELINE_COLOUR = "#4d4d4d"
# Okabe and Ito's palette, told apart in every kind of colour blindness; after seven arms the lines are broken as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A")
DASHES = ("-", "--", ":", "-.")
MAX_COLUMNS = 4
SCORE_NAMES = {
    "final": "J of the last ~100 training episodes",
    "evaluation": "J of the evaluation",
    "auc": "mean J over training",
}
SCALE_NAMES = {
    "scores": "normalised score (0 random, 1 optimal)",
    "baseline": "score (1 is the baseline's mean)",
    "none": "task return J",
}


def draw(comparison: Comparison, out: Path) -> List[Path]:
    """Draw what there is data for into the folder ``out``; returns the files.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401 (only whether it is there)
    except ImportError as error:
        text = "the report's figures need matplotlib (%s); pip install 'hepo-isaac[report]'"
        raise UserError(text % error) from error
    drawn = [
        _curves(comparison, out / "curves.png"),
        _intervals(comparison, out / "intervals.png"),
        _profile(comparison, out / "profile.png"),
    ]
    return [path for path in drawn if path is not None]


def styles(comparison: Comparison) -> Dict[str, Dict[str, Any]]:
    """Arm -> colour and line style, the same in every figure."""
    out: Dict[str, Dict[str, Any]] = {comparison.baseline: {"color": BASELINE_COLOUR, "linestyle": "-"}}
    for number, arm in enumerate(a for a in comparison.arms if a != comparison.baseline):
        dash = DASHES[number // len(PALETTE) % len(DASHES)]
        out[arm] = {"color": PALETTE[number % len(PALETTE)], "linestyle": dash}
    return out


def _faint(comparison: Comparison) -> float:
    """Opacity of a band: many on top of each other must not hide the lines."""
    return 0.18 if len(comparison.arms) <= 5 else 0.08


def _label(comparison: Comparison, arm: str) -> str:
    return arm + "  (baseline)" if arm == comparison.baseline else arm


def _curves(comparison: Comparison, out: Path) -> Optional[Path]:
    """One panel for each problem: J over env steps."""
    from matplotlib.ticker import EngFormatter

    problems = [p for p in comparison.problems if comparison.curves[p]]
    if not problems:
        return None
    columns = min(MAX_COLUMNS, len(problems))
    rows = math.ceil(len(problems) / columns)
    width, height = max(6.4, 3.5 * columns), max(4.4, 2.8 * rows + 1.0)
    figure = _figure(width, height)
    style = styles(comparison)
    for number, problem in enumerate(problems):
        axis = figure.add_subplot(rows, columns, number + 1)
        for arm, curve in comparison.curves[problem].items():
            axis.fill_between(
                curve.steps, curve.low, curve.high, color=style[arm]["color"], alpha=_faint(comparison), linewidth=0
            )
            axis.plot(curve.steps, curve.middle, linewidth=1.8, label=_label(comparison, arm), **style[arm])
        axis.set_title(problem, fontsize=11, fontweight="bold", loc="left")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.locator_params(axis="x", nbins=5)
        axis.margins(x=0.01)
        if number % columns == 0:
            axis.set_ylabel("task return J(π)")
        if number + columns >= len(problems):
            axis.set_xlabel("environment steps")
        _dress(axis)
    note = "line: IQM over seeds    band: 95 % bootstrap interval, pointwise"
    return _finish(figure, "Learning curves", note, out)


def _intervals(comparison: Comparison, out: Path) -> Optional[Path]:
    """IQM of every arm on the left, probability of improvement over the baseline on the right."""
    against = [i for i in comparison.improvements if i.pi is not None]
    if not comparison.aggregates and not against:
        return None
    shown = max(len(comparison.arms), 2)
    figure = _figure(11.0, 1.9 + 0.42 * shown)
    style = styles(comparison)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    # best IQM on top; without any, in the table's order
    order = sorted(comparison.aggregates, key=lambda a: comparison.aggregates[a]["iqm"].value) or comparison.arms[::-1]
    iqms = {a: comparison.aggregates[a]["iqm"] for a in comparison.aggregates}
    _dots(left, order, iqms, style)
    left.set_xlabel("IQM of the " + SCALE_NAMES[comparison.scales.by])
    left.set_title("Interquartile mean", fontsize=11, fontweight="bold", loc="left")
    improvements = {i.arm: i.pi for i in against if i.pi is not None}
    _dots(right, order, improvements, style)
    right.axvline(0.5, color="#4d4d4d", linewidth=1.0, linestyle="--", zorder=1)
    right.set_xlim(-0.03, 1.03)
    right.set_xlabel("P(arm > %s), ties ½, mean over problems" % comparison.baseline)
    right.set_title(
        "Probability of improvement over %s" % comparison.baseline, fontsize=11, fontweight="bold", loc="left"
    )
    verdicts = {i.arm: i.verdict for i in comparison.improvements}
    for row, arm in enumerate(order):
        right.text(
            1.02, row, verdicts.get(arm, "baseline"), transform=right.get_yaxis_transform(), va="center", fontsize=9.5
        )
    note = "bar: 95 %% stratified bootstrap interval, %d resamples" % comparison.reps
    return _finish(figure, "", note, out, legend=False)


def _dots(axis: Any, order: List[str], values: Dict[str, Interval], style: Dict[str, Dict[str, Any]]) -> None:
    """A dot with its interval for each of ``order``, the last one on top."""
    for row, arm in enumerate(order):
        found = values.get(arm)
        if found is None:
            continue
        colour = style[arm]["color"]
        axis.plot([found.low, found.high], [row, row], color=colour, linewidth=7, alpha=0.35, solid_capstyle="butt")
        axis.plot([found.value], [row], "o", color=colour, markersize=7)
    axis.set_yticks(range(len(order)), order)
    axis.set_ylim(-0.6, max(len(order), 1) - 0.4)
    _dress(axis)
    axis.grid(False, axis="y")


def _profile(comparison: Comparison, out: Path) -> Optional[Path]:
    """Share of runs above every score."""
    if not comparison.profile:
        return None
    figure = _figure(7.2, 4.6)
    axis = figure.add_subplot(1, 1, 1)
    style = styles(comparison)
    for arm, (values, ends) in comparison.profile.items():
        axis.fill_between(
            comparison.profile_taus,
            *ends,
            color=style[arm]["color"],
            alpha=_faint(comparison),
            linewidth=0,
            step="post",
        )
        axis.plot(comparison.profile_taus, values, drawstyle="steps-post", label=_label(comparison, arm), **style[arm])
    axis.set_ylim(-0.02, 1.02)
    axis.margins(x=0.01)
    axis.set_xlabel("τ, " + SCALE_NAMES[comparison.scales.by])
    axis.set_ylabel("share of runs with score > τ")
    _dress(axis)
    return _finish(figure, "Performance profile", "band: 95 % bootstrap interval, pointwise", out)


def _figure(width: float, height: float) -> Any:
    """A figure that needs no display and touches no global state of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _dress(axis: Any) -> None:
    axis.grid(True, alpha=0.25)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _finish(figure: Any, title: str, note: str, out: Path, legend: bool = True) -> Path:
    """Title, the note and one legend below all panels, write the file."""
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    entries: Dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if legend and entries:
        # a legend's columns are as wide as its longest label, unless there is one row
        widths = [0.75 + 0.085 * len(label) for label in entries]
        one_row = sum(widths) < figure.get_figwidth()
        columns = len(entries) if one_row else max(1, int(figure.get_figwidth() / max(widths)))
        box = figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncol=columns, frameon=False, title=note
        )
        box.get_title().set(fontsize=9, color="#555555")
    else:
        figure.supxlabel(note, fontsize=9, color="#555555", x=0.99, ha="right")
    figure.savefig(str(out))
    return out
