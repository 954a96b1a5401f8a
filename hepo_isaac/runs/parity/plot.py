"""trajectories.png: what two engines did under the same actions. Needs matplotlib (the extra [report])."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from hepo_isaac.runs.parity.recording import Recording, positions

JOINTS = 4  # those that move most
CYCLE = ("#0b6fb8", "#d9730d", "#2a9d4a", "#b5387a", "#7a5cc4")
# the first engine broad and pale, the second on top of it: both are seen where they agree
STYLES: Tuple[Dict[str, Any], ...] = (
    {"linestyle": "-", "linewidth": 3.2, "alpha": 0.4},
    {"linestyle": "--", "linewidth": 1.4},
)
Series = Tuple[str, List[np.ndarray]]  # label, (T,) values of both engines


def plot_rollouts(first: Recording, second: Recording, out: Path) -> Path:
    """Draw joint positions and root heights of environment 0, and r and h averaged over environments.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    sides = (first, second)
    panels = [
        ("Joint positions, environment 0", "rad or m", _joints(sides)),
        ("Height of free roots, environment 0", "m", _heights(sides)),
        ("Task reward r, mean of environments", "per step", _reward(sides, 0)),
        ("Heuristic reward h, mean of environments", "per step", _reward(sides, 1)),
    ]
    panels = [panel for panel in panels if panel[2]]
    figure = Figure(figsize=(12.0, 3.9 * ((len(panels) + 1) // 2) + 0.6), dpi=110)
    FigureCanvasAgg(figure)
    times = first.meta["control_dt"] * np.arange(1, first.meta["steps"] + 1)
    for place, (title, unit, series) in enumerate(panels):
        axis: Any = figure.add_subplot((len(panels) + 1) // 2, 2, place + 1)
        for k, (label, values) in enumerate(series):
            for y, style in zip(values, STYLES):
                name = label if style is STYLES[0] else None
                axis.plot(times, y, color=CYCLE[k % len(CYCLE)], label=name, **style)
        _dress(axis, title, unit, "environment 0" in title)
    handles = [Line2D([], [], color="#444444", label=r.meta["engine"], **s) for s, r in zip(STYLES, sides)]
    figure.suptitle(first.meta["task"], x=0.01, ha="left", fontsize=14, fontweight="bold")
    figure.legend(handles=handles, loc="upper right", ncol=2, frameon=False, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(str(out))
    return out


def _dress(axis: Any, title: str, unit: str, legend: bool) -> None:
    axis.set_title(title, fontsize=11, loc="left")
    axis.set_xlabel("time [s]")
    axis.set_ylabel(unit)
    axis.grid(True, alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if legend:
        axis.legend(frameon=False, fontsize=8, loc="best")


def _joints(sides: Sequence[Recording]) -> List[Series]:
    """The joints of environment 0 that move most on the first engine."""
    names = sides[0].meta["names"]["dof"]
    values = [_seen(side, side.arrays["free/dof_pos"])[:, 0] for side in sides]
    values[1] = values[1][:, positions(names, sides[1].meta["names"]["dof"], "joint")]
    if not names:
        return []
    known = values[0][np.isfinite(values[0]).all(1)]
    moves = np.ptp(known, axis=0) if len(known) else np.zeros(len(names))
    chosen = np.argsort(-moves, kind="stable")[:JOINTS]
    return [(names[k], [v[:, k] for v in values]) for k in sorted(chosen)]


def _heights(sides: Sequence[Recording]) -> List[Series]:
    found = []
    for name in sides[0].meta["names"]["free"]:
        rows = [side.meta["names"]["actor"].index(name) for side in sides]
        found.append(
            (name, [_seen(s, s.arrays["free/root_state"])[:, 0, row, 2] for s, row in zip(sides, rows)]),
        )
    return found[: len(CYCLE)]


def _reward(sides: Sequence[Recording], column: int) -> List[Series]:
    values = []
    for side in sides:
        masked = _seen(side, side.arrays["free/rewards"][..., column])
        count = np.isfinite(masked).sum(1)
        values.append(np.where(count > 0, np.nansum(masked, axis=1) / np.maximum(count, 1), np.nan))
    return [("rh"[column], values)]


def _seen(side: Recording, values: np.ndarray) -> np.ndarray:
    """(T, N, …) with NaN after the end of each environment's first episode."""
    parts = side.group("free")
    over = np.logical_or.accumulate(parts["terminated"] | parts["time_out"] | parts["bad"], 0)
    over = np.concatenate((np.zeros_like(over[:1]), over[:-1]))
    return np.where(over.reshape(*over.shape, *[1] * (values.ndim - 2)), np.nan, values.astype(np.float64))
