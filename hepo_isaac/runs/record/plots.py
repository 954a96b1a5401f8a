"""returns.png: what a run did, at a glance. Needs matplotlib (``pip install 'hepo-isaac[report]'``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from hepo_isaac.errors import one_line
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.metrics_csv import read_metrics
from hepo_isaac.runs.record.running import POLICY_LABELS, RunningMeans, policy_of, success_metric

Columns = Dict[str, np.ndarray]
Band = Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
COLOURS = {"pi": "#0b6fb8", "pi_h": "#d9730d", "pi_j": "#2a9d4a"}
EXPLAINED = {"pi_h": "(trained on the heuristic alone)", "pi_j": "(trained on the task reward alone)"}
BAND_NOTE = "line: mean of the seeds    band: lowest to highest seed"
NO_EPISODE = "no episode has ended yet"
NOTE = "bold: mean of the last 100 episodes    faint: single iterations"
CYCLE = ("#0b6fb8", "#d9730d", "#2a9d4a", "#b5387a", "#7a5cc4", "#8c6d1f", "#444444")


def plot_run(folder: Union[str, Path], out: Optional[Path] = None, success: Optional[str] = None) -> Path:
    """Draw task return, heuristic return and α (or a success metric) of one run over env steps.

    Args:
        folder: run folder with metrics.csv.  out: where to; returns.png in the folder by default.
        success: metric of the third panel where there is no α.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the run has recorded nothing yet.
    """
    run = RunFolder(Path(folder))
    columns = read_metrics(run.metrics_file)
    if not columns or columns["env_steps"].size == 0:
        raise ValueError("nothing recorded in %s" % run.metrics_file)
    figure, axes = _figure(3)
    _panel_policies(axes[0], columns, "return_task/", "Task return J", "episode sum of r")
    _marks(axes[0], columns)
    _panel_policies(axes[1], columns, "return_heuristic/", "Heuristic return H", "episode sum of h")
    third = third_panel(columns, success)
    if third == "alpha":
        axes[2].plot(columns["env_steps"], columns["alpha"], color="#2a9d4a", linewidth=1.8)
        _dress(axes[2], "Multiplier α", "α in  (1 + α) r + h")
        axes[2].set_ylim(*_alpha_limits(columns["alpha"]))
    elif third is not None:
        prefix = "/".join(third.split("/")[:-1]) + "/"
        _panel_policies(axes[2], columns, prefix, third.split("/")[1], "mean at episode end")
    else:
        _panel_policies(axes[2], columns, "episode_length/", "Episode length", "control steps")
    return _finish(figure, axes, _title(run), out or run.plot_file, NOTE)


def third_panel(columns: Columns, success: Optional[str] = None) -> Optional[str]:
    """What the right panel shows: "alpha", the key of a success metric, or None."""
    if "alpha" in columns and np.isfinite(columns["alpha"]).any():
        return "alpha"
    return success_metric(columns, success)


def _alpha_limits(alpha: np.ndarray) -> Tuple[float, float]:
    """Range that keeps a constant α visible as a flat line and zero in view."""
    known = alpha[np.isfinite(alpha)]
    low, high = min(0.0, float(known.min())), float(known.max())
    room = 0.08 * max(high - low, 1e-3)
    return low - room, high + room


def _panel_policies(axis: Any, columns: Columns, prefix: str, title: str, unit: str) -> None:
    """One curve per policy: the running mean bold, single iterations faint behind it; where there is none, why."""
    drawn = False
    for key in [k for k in columns if k.startswith(prefix) and "/" not in k[len(prefix) :]]:
        policy = policy_of(key)
        colour = COLOURS.get(policy, CYCLE[3])
        known = np.isfinite(columns[key])
        if not known.any():
            continue
        drawn = True
        axis.plot(columns["env_steps"][known], columns[key][known], color=colour, alpha=0.22, linewidth=0.8)
        label = "  ".join(filter(None, (POLICY_LABELS.get(policy, policy), EXPLAINED.get(policy, ""))))
        axis.plot(columns["env_steps"], smooth(columns, key), color=colour, linewidth=2.0, label=label)
    if not drawn:
        _say_why_empty(axis, columns["env_steps"])
    _dress(axis, title, unit)


def _say_why_empty(axis: Any, steps: np.ndarray) -> None:
    """In place of curves; over the env steps that there are, so that the axis says how far the run is."""
    axis.text(0.5, 0.5, NO_EPISODE, transform=axis.transAxes, ha="center", va="center", color="#777777", fontsize=12)
    axis.set_yticks([])
    known = steps[np.isfinite(steps)]
    axis.set_xlim(0.0, max(1.0, float(known.max()) if known.size else 1.0))


def _marks(axis: Any, columns: Columns) -> None:
    """Where a policy took over another's weights: counters that rise."""
    for name, style, label in (
        ("projections", "-", "π takes over a reference that is ahead"),
        ("reseeds", ":", "π_J starts anew from π"),
    ):
        counter = columns.get(name)
        if counter is None:
            continue
        rises = np.flatnonzero(np.diff(counter, prepend=0.0) > 0)
        for k, row in enumerate(rises):
            at = columns["env_steps"][row]
            axis.axvline(at, color="#444444", linewidth=0.9, linestyle=style, alpha=0.7, label="_" if k else label)


def smooth(columns: Columns, key: str, window: int = 100) -> np.ndarray:
    """Running mean of an episode metric over about the last ``window`` episodes: the value the display showed."""
    counts = columns.get("episodes/" + policy_of(key))
    if counts is None:
        counts = np.isfinite(columns[key]).astype(float)
    biased = columns.get("length_biased", np.zeros(columns[key].size))
    running = RunningMeans(window)
    out = np.empty(columns[key].size)
    for row in range(out.size):
        given = {key: columns[key][row], "episodes/" + policy_of(key): counts[row]}
        running.update({**given, "length_biased": biased[row]})
        out[row] = running.mean(key)
    return out


def plot_runs(
    folders_by_label: Mapping[str, Sequence[Union[str, Path]]],
    out: Path,
    title: str = "",
    success: Optional[str] = None,
) -> Path:
    """Overlay methods, each with several seeds: mean as a line, smallest to largest seed as a band, of policy π.

    Args:
        folders_by_label: legend label -> run folders of its seeds.
        out: image to write.  success: metric of the third panel; guessed by default.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: a run has recorded nothing.
    """
    runs = {label: [_recorded(Path(f)) for f in folders] for label, folders in folders_by_label.items()}
    everything = [columns for group in runs.values() for columns in group]
    keys = {key: None for columns in everything for key in columns}
    metric = success_metric(list(keys), success)
    panels = [
        ("return_task/pi", "Task return J(π)", "episode sum of r"),
        ("return_heuristic/pi", "Heuristic return H(π)", "episode sum of h"),
    ]
    if metric is not None:
        panels.append((metric, metric.split("/")[1] + " (π)", "mean at episode end"))
    figure, axes = _figure(len(panels))
    for number, (label, group) in enumerate(runs.items()):
        for axis, (key, _, _) in zip(axes, panels):
            _draw_band(
                axis,
                group,
                key,
                "%s  (%d seed%s)" % (label, len(group), "" if len(group) == 1 else "s"),
                CYCLE[number % len(CYCLE)],
            )
    for axis, (key, name, unit) in zip(axes, panels):
        if not any(np.isfinite(columns.get(key, np.empty(0))).any() for columns in everything):
            _say_why_empty(axis, np.concatenate([columns["env_steps"] for columns in everything]))
        _dress(axis, name, unit)
    return _finish(figure, axes, title, out, BAND_NOTE)


def _recorded(folder: Path) -> Columns:
    columns = read_metrics(RunFolder(folder).metrics_file)
    if not columns or columns["env_steps"].size == 0:
        raise ValueError("nothing recorded in %s" % folder)
    return columns


def _draw_band(axis: Any, group: List[Columns], key: str, label: str, colour: str) -> None:
    found = band(group, key)
    if found is None:
        return
    steps, mean, low, high = found
    axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(steps, mean, color=colour, linewidth=2.0, label=label)


def band(group: List[Columns], key: str, points: int = 300) -> Optional[Band]:
    """Env steps, mean, smallest and largest seed of the smoothed ``key``.

    Only where every seed has data: a mean over the seeds that happened to get further would jump where one ends.
    """
    curves = []
    for columns in group:
        if key in columns:
            values = smooth(columns, key)
            known = np.isfinite(values)
            if known.any():
                curves.append((columns["env_steps"][known], values[known]))
    if not curves or len(curves) < len(group):
        return None
    first, last = max(c[0][0] for c in curves), min(c[0][-1] for c in curves)
    if last < first:
        return None
    steps = np.linspace(first, last, points)
    table = np.stack([np.interp(steps, x, y) for x, y in curves])
    return steps, table.mean(0), table.min(0), table.max(0)


def _figure(panels: int) -> Tuple[Any, Any]:
    """A figure that needs no display and touches no global state of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * panels, 4.6), dpi=120)
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, i + 1) for i in range(panels)]


def _dress(axis: Any, title: str, unit: str) -> None:
    """Title, units, light grid."""
    axis.set_title(title, fontsize=12, fontweight="bold", loc="left")
    axis.set_ylabel(unit)
    axis.set_xlabel("environment steps")
    axis.grid(True, alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _finish(figure: Any, axes: Any, title: str, out: Path, note: str = "") -> Path:
    """One legend for all panels, engineering units on x, write the file."""
    from matplotlib.ticker import EngFormatter

    handles, labels = [], []
    for axis in axes:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.margins(x=0.01)
        for handle, label in zip(*axis.get_legend_handles_labels()):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    figure.text(0.99, 0.95, note, ha="right", fontsize=9, color="#555555")
    if handles:
        figure.legend(handles, labels, loc="lower center", ncol=min(len(labels), 5), frameon=False, fontsize=11)
    figure.tight_layout(rect=(0, 0.07, 1, 0.97 if title else 1.0))
    figure.savefig(str(out))
    return out


def _title(run: RunFolder) -> str:
    """What was run, and whether the picture is of a finished run."""
    about = run.metadata
    parts = [str(about.get(k)) for k in ("task", "algo") if about.get(k)]
    if about.get("seed") is not None:
        parts.append("seed %s" % about["seed"])
    return one_line(" · ".join(parts) or run.path.name).replace("$", r"\$")  # no formula, whoever wrote it
