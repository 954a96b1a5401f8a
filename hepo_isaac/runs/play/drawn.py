"""A film of a task that has no bodies: its state as points in a plane and as curves, with what it is rewarded for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from hepo_isaac.runs.play.recording import Episode
from hepo_isaac.runs.record.steps import Steps

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
INCHES, DPI = (6.4, 3.6), 100
TRAIL = 0.35  # opacity of the way so far


def draw_film(episodes: Sequence[Episode], labels: Sequence[str], out: Path, fps: float) -> Path:
    """Draw episodes, one above the other; whose is over stands still."""
    from hepo_isaac.runs.play.video_worker import write

    length = max(len(e.frames) for e in episodes)
    with Steps("drawing", length, "frames") as progress:

        def pictures() -> Iterator[np.ndarray]:
            for number, picture in enumerate(_pictures(episodes, labels, length)):
                progress.at(number + 1)
                yield picture

        if out.suffix == ".png":
            *_, last = pictures()
            write(out, [last], fps)
        else:
            write(out, pictures(), fps)
    return out


def _pictures(episodes: Sequence[Episode], labels: Sequence[str], length: int) -> Iterator[np.ndarray]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES[0], INCHES[1] * len(episodes)), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(episodes), 2, squeeze=False)
    rows = [_Row(pair, episode, label) for pair, episode, label in zip(axes, episodes, labels)]
    for step in range(length):
        for row in rows:
            row.at(step)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


class _Row:
    """One episode: the state on the left, sums of r and h on the right."""

    def __init__(self, axes: Tuple[Any, Any], episode: Episode, label: str) -> None:
        self._episode = episode
        points, curves = split(episode.frames)
        left, right = axes
        left.set_title(label, fontsize=8)
        self._moving: List[Tuple[Any, Any, np.ndarray]] = []
        if points:
            for (name, way), colour in zip(points.items(), COLOURS):
                (trail,) = left.plot([], [], color=colour, alpha=TRAIL, lw=1)
                (dot,) = left.plot([], [], "o", color=colour, label=name)
                self._moving.append((trail, dot, way))
            everything = np.concatenate(list(points.values()))
            reach = max(1.0, float(np.abs(everything).max())) * 1.05
            left.set_xlim(-reach, reach)
            left.set_ylim(-reach, reach)
            left.set_aspect("equal")
        else:
            for (name, values), colour in zip(curves.items(), COLOURS):
                way = np.stack((np.arange(len(values), dtype=float), values), 1)
                (trail,) = left.plot([], [], color=colour, lw=1.5)
                (dot,) = left.plot([], [], "o", color=colour, label=name)
                self._moving.append((trail, dot, way))
            left.set_xlim(0, max(1, len(episode.frames) - 1))
            left.set_ylim(*_limits(list(curves.values())))
            left.set_xlabel("step", fontsize=8)
        left.legend(fontsize=7, loc="upper left")
        sums = np.cumsum(episode.rewards, 0)
        self._sums = np.concatenate((np.zeros((1, 2)), sums))
        self._lines = []
        for column, (name, colour) in enumerate((("sum of r", "#1f77b4"), ("sum of h", "#ff7f0e"))):
            axis = right if column == 0 else right.twinx()
            (line,) = axis.plot([], [], color=colour, lw=1.5)
            axis.set_ylabel(name, color=colour, fontsize=8)
            axis.set_ylim(*_limits([self._sums[:, column]]))
            axis.set_xlim(0, max(1, len(episode.frames)))
            self._lines.append(line)
        right.set_xlabel("step", fontsize=8)

    def at(self, step: int) -> None:
        """Show ``step``, or the last one there is."""
        step = min(step, len(self._episode.frames) - 1)
        for trail, dot, way in self._moving:
            trail.set_data(way[: step + 1, 0], way[: step + 1, 1])
            dot.set_data(way[step : step + 1, 0], way[step : step + 1, 1])
        for column, line in enumerate(self._lines):
            line.set_data(np.arange(step + 1), self._sums[: step + 1, column])


def split(frames: Sequence[Dict[str, np.ndarray]]) -> Tuple[Dict[str, np.ndarray], Dict[str, np.ndarray]]:
    """What of a state are points in a plane (T, 2), and what are single numbers (T,), by name."""
    points, curves = {}, {}
    for name in frames[0]:
        values = np.stack([frame[name] for frame in frames])
        if values.shape[1:] == (2,):
            points[name] = values
        elif values.ndim == 1:
            curves[name] = values
    return points, curves


def _limits(values: Sequence[np.ndarray]) -> Tuple[float, float]:
    low = min((float(v.min()) for v in values), default=0.0)
    high = max((float(v.max()) for v in values), default=1.0)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room
