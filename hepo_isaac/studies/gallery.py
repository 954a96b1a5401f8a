"""Draw the analytic tasks for docs/tasks.md: where the optimum of h leads, and where hepo_plus does.

    python -m hepo_isaac.studies.gallery                       # all twelve, a quarter of a minute of CPU each
    python -m hepo_isaac.studies.gallery --tasks Maze2D

Each is trained with ``algo=hepo_plus seed=1`` into runs/gallery, unless a finished run is there. The same start is then
played twice, with mean actions: by π_H, which saw h alone (red), and by π (blue). It is that of π's median episode.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from hepo_isaac.runs.play.film import played
from hepo_isaac.runs.play.given import shown
from hepo_isaac.runs.play.recording import Episode
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.studies.places import CHECKOUT, DOCS, require_checkout

EPISODES = 15
INCHES, DPI = (3.0, 2.25), 110
RED, BLUE, GREY = "#d62728", "#1f77b4", "#bbbbbb"
TARGET = {"color": "#2ca02c", "alpha": 0.25, "lw": 0}
Ways = List[Tuple[Episode, str]]
Draw = Callable[[Any, Ways], None]


def of(episode: Episode, name: str) -> np.ndarray:
    """A tensor of the state at every step, (T, ...)."""
    return np.stack([frame[name] for frame in episode.frames])


def plane(*scenery: Callable[[Any, Ways], None]) -> Draw:
    """Ways of a point in [-1, 1]^2 over what else is there."""

    def draw(axes: Any, ways: Ways) -> None:
        for add in scenery:
            add(axes, ways)
        for episode, colour in ways:
            x, y = of(episode, "pos").T
            axes.plot(x, y, color=colour, lw=1.5, marker=".", ms=3)
            axes.plot(x[0], y[0], "o", color="black", ms=4)
            axes.plot(x[-1], y[-1], "s", color=colour, ms=6)
        axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xticks=[], yticks=[])

    return draw


def disc(x: float, y: float, radius: float, text: str) -> Callable[[Any, Ways], None]:
    """A place that pays."""

    def add(axes: Any, ways: Ways) -> None:
        from matplotlib.patches import Circle

        axes.add_patch(Circle((x, y), radius, **TARGET))
        axes.text(x, y + radius, text, fontsize=7, ha="center", va="bottom")

    return add


def cup(axes: Any, ways: Ways) -> None:
    """Maze2D's walls."""
    from hepo_isaac.locate import tasks_module

    maze = tasks_module("suite.maze2d")
    axes.plot([-maze.WALL, maze.WALL, maze.WALL, -maze.WALL], [maze.ARM, maze.ARM, -maze.ARM, -maze.ARM], "k", lw=3)


def drawer(axes: Any, ways: Ways) -> None:
    """How far Push2D's drawer comes."""
    axes.plot([0.7, 0.35], [0.0, 0.0], color="#2ca02c", alpha=0.4, lw=7, solid_capstyle="butt")
    axes.text(0.7, 0.08, "handle", fontsize=7, ha="center")


def goal(axes: Any, ways: Ways) -> None:
    """EffortReach's goal of this episode."""
    x, y = of(ways[0][0], "goal")[0]
    disc(float(x), float(y), 0.15, "goal")(axes, ways)


def over_time(name: str, text: str, low: Optional[float], high: Optional[float]) -> Draw:
    """A number of the state, and the band in which it pays; None: without end."""

    def draw(axes: Any, ways: Ways) -> None:
        for episode, colour in ways:
            values = of(episode, name)
            axes.plot(values, color=colour, lw=1.5)
            axes.plot(len(values) - 1, values[-1], "s", color=colour, ms=5)
        bottom, top = axes.get_ylim()
        if low is not None:
            axes.axhspan(low, top if high is None else high, **TARGET)
        axes.set(ylim=(bottom, max(top, low or top)))
        axes.set_xlabel("step", fontsize=7)
        axes.set_ylabel(text, fontsize=7)

    return draw


def landscape(low: float, high: float, task: Callable[[Any], Any], shaping: Callable[[Any], Any], name: str) -> Draw:
    """r and h over where one can be, each scaled to [0, 1], and where each policy ends."""

    def draw(axes: Any, ways: Ways) -> None:
        x = np.linspace(low, high, 200)
        for formula, label, style in ((task, "r", "k-"), (shaping, "h", "k:")):
            values = formula(x)
            axes.plot(x, (values - values.min()) / np.ptp(values), style, lw=1.2, label=label)
        for episode, colour in ways:
            axes.axvline(float(episode.frames[-1][name]), color=colour, lw=2)
        axes.legend(fontsize=7, loc="lower left")
        axes.set(yticks=[])
        axes.set_xlabel(name, fontsize=7)

    return draw


def one_step(draw: Draw, name: str, scale: Callable[[Episode], float]) -> Draw:
    """For tasks of one step, whose only frame is from before it: where it ended follows from the rewards."""

    def moved(axes: Any, ways: Ways) -> None:
        for episode, _ in ways:
            episode.frames.append({name: np.array(scale(episode))})
        draw(axes, ways)

    return moved


def arms(axes: Any, ways: Ways) -> None:
    """TwoArm: what each arm pays, and which each policy pulls."""
    axes.bar([0.85, 1.85], [1.0, 0.0], 0.3, color="black", label="r")
    axes.bar([1.15, 2.15], [0.0, 2.0], 0.3, color=GREY, label="h")
    for (episode, colour), height in zip(ways, (2.3, 2.6)):
        axes.plot(1.0 if episode.task > 0.5 else 2.0, height, "s", color=colour, ms=7)
    axes.legend(fontsize=7, loc="upper center")
    axes.set(xticks=[1, 2], xticklabels=["arm 1", "arm 2"], ylim=(0, 2.9), xlim=(0.4, 2.6), yticks=[])


def _point(episode: Episode) -> float:
    """x of r = -(x - 1)^2 and h = -(x - 3)^2."""
    return (episode.heuristic - episode.task + 8.0) / 4.0


def _peaks(x: Any) -> Any:
    """TwoPeaks' r."""
    return 0.3 * np.exp(-(((x + 0.5) / 0.15) ** 2)) + np.exp(-(((x - 0.8) / 0.4) ** 2))


PICTURES: Dict[str, Draw] = {
    "Push2D": plane(drawer),
    "KeyDoor": plane(disc(-0.7, 0.7, 0.15, "key"), disc(0.7, -0.7, 0.15, "door")),
    "MountainCar": over_time("x", "x, parked at 0.5", 0.49, None),
    "Park2D": plane(disc(0.0, 0.0, 0.06, "park here")),
    "Survival": over_time("speed", "speed, r at its greatest at 1", 0.98, None),
    "EffortReach": plane(goal),
    "TwoPeaks": landscape(-1.0, 1.0, _peaks, lambda x: -np.abs(x + 0.5), "x"),
    "QuadraticPoint": one_step(
        landscape(-4.0, 4.0, lambda x: -((x - 1.0) ** 2), lambda x: -((x - 3.0) ** 2), "x"), "x", _point
    ),
    "Honeypot": over_time("cell", "cell, goal at 10", 9.0, None),
    "Maze2D": plane(cup, disc(0.7, 0.0, 0.3, "goal")),
    "RingRace": over_time("phi", "laps", None, None),
    "TwoArm": arms,
}


def trained(root: Path, task: str) -> Path:
    """A finished run of hepo_plus, trained if there is none."""
    found = sorted((root / task / "hepo_plus").glob("*_seed1/checkpoints/last.pt"))
    if not found:
        command = [sys.executable, "-m", "hepo_isaac.cli", "train", "task=" + task, "algo=hepo_plus", "seed=1"]
        command += ["torch_threads=1", "tensorboard=false", "run_root=" + str(root)]
        subprocess.run(command, check=True, cwd=CHECKOUT)
        found = sorted((root / task / "hepo_plus").glob("*_seed1/checkpoints/last.pt"))
    return found[-1]


def picture(task: str, root: Path) -> Path:
    """Write <task>.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    what = shown("play", {"run": str(trained(root, task))}, EPISODES)
    assert what.file is not None
    checkpoint = load_checkpoint(what.file, task, "hepo_plus")
    by_j, by_h = (played(what.settings, checkpoint, [name], EPISODES, say=False).episodes for name in ("pi", "pi_h"))
    median = sorted(by_j, key=lambda e: e.task)[len(by_j) // 2]
    other = next(e for e in by_h if e.number == median.number)
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.tick_params(labelsize=7)
    PICTURES[task](axes, [(other, RED), (median, BLUE)])
    axes.set_title("on h alone: J %.2f   hepo_plus: J %.2f" % (other.task, median.task), fontsize=7.5)
    out = DOCS / "clips" / "suite" / (task + ".png")
    out.parent.mkdir(exist_ok=True)
    figure.savefig(out)
    print("%s: %d kB, J of pi_H %.3f, of pi %.3f" % (out.name, out.stat().st_size // 1000, other.task, median.task))
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=CHECKOUT / "runs" / "gallery")
    parser.add_argument("--tasks", nargs="+", default=sorted(PICTURES), choices=sorted(PICTURES))
    args = parser.parse_args()
    require_checkout()
    for task in args.tasks:
        picture(task, args.root)


if __name__ == "__main__":
    main()
