"""What the user sees while a run goes on: one progress bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from typing import Any, Mapping, Sequence, TextIO

from hepo_isaac.runs.running import RunningMeans, success_metric

_ASCII = {"π": "pi", "α": "alpha", "–": "-"}
PLAIN_INTERVAL_S = 30.0


def printable(text: str, stream: TextIO) -> str:
    """``text`` with Greek letters spelled out where ``stream`` has no encoding for them."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
        return text
    except (UnicodeEncodeError, LookupError):
        for char, name in _ASCII.items():
            text = text.replace(char, name)
        return text.encode("ascii", "replace").decode("ascii")


def duration(seconds: float) -> str:
    """Time as 0:07:09; a dash where it is unknown."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    whole = int(round(seconds))
    return "%d:%02d:%02d" % (whole // 3600, whole // 60 % 60, whole % 60)


def number(value: float, digits: int = 3) -> str:
    """A value in ``digits`` significant digits; a dash where nothing is known yet."""
    if not math.isfinite(value):
        return "–"
    return "%.0f" % value if abs(value) >= 10.0**digits else "%.*g" % (digits, value)


def rate(value: float) -> str:
    """Steps per second: 950, 12.3k, 1.20M."""
    if not math.isfinite(value):
        return "–"
    if value >= 1e6:
        return "%.2fM" % (value / 1e6)
    return "%.1fk" % (value / 1e3) if value >= 1e4 else "%.0f" % value


class Eta:
    """Remaining time from the pace of the last iterations, so that a slow start is forgotten."""

    def __init__(self, total: int, window: int = 50) -> None:
        self._total = total
        self._marks: deque[tuple[int, float]] = deque(maxlen=window)

    def update(self, iteration: int, now: float) -> float:
        """Seconds left; NaN before the second iteration."""
        self._marks.append((iteration, now))
        first, began = self._marks[0]
        if iteration <= first:
            return float("nan")
        return (now - began) / (iteration - first) * max(0, self._total - iteration)


class Progress:
    """Shows the run.

    Args:
        total: iterations of the whole run.
        stream: where to; standard output by default. What it is decides between bar and plain lines.
        success: name of the success metric to show (see running.success_metric).
        quiet: show nothing.
    """

    def __init__(
        self, total: int, stream: TextIO | None = None, success: str | None = None, quiet: bool = False
    ) -> None:
        self.stream: TextIO = sys.stdout if stream is None else stream
        self.total = total
        self._success = success
        self._quiet = quiet
        self._fancy = not quiet and _is_terminal(self.stream)
        self._eta = Eta(total)
        self._bar: Any = None
        self._row: Any = None
        self._last_plain = -math.inf

    def start(self, header: Sequence[tuple[str, str]], iteration: int) -> None:
        """Print the first lines and begin at ``iteration``.

        Args:
            header: (name, value) pairs, one line each.
        """
        if self._quiet:
            return
        width = max([len(name) for name, _ in header] or [0])
        self.say(*["%-*s  %s" % (width, name, value) for name, value in header])
        self._eta.update(iteration, time.monotonic())
        if self._fancy:
            self._start_bar(iteration)

    def _start_bar(self, iteration: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        facts = TextColumn("{task.description}")
        columns = [TextColumn("iteration"), MofNCompleteColumn(), BarColumn(bar_width=None), facts]
        # two redraws a second: the bar's own thread must not compete with the physics threads
        self._bar = Bar(*columns, console=Console(file=self.stream), refresh_per_second=2, expand=True)
        self._row = self._bar.add_task("", total=self.total, completed=iteration)
        self._bar.start()

    def update(self, metrics: Mapping[str, float], running: RunningMeans) -> None:
        """Show one finished iteration."""
        if self._quiet:
            return
        now = time.monotonic()
        iteration = int(metrics["iteration"])
        left = self._eta.update(iteration, now)
        if self._bar is not None:
            facts = self._facts(metrics, running, left)
            text = "  ".join("%s %s" % pair for pair in facts.items())
            self._bar.update(self._row, completed=iteration, description=printable(text, self.stream))
        elif now - self._last_plain >= PLAIN_INTERVAL_S or iteration >= self.total:
            self._last_plain = now
            facts = self._facts(metrics, running, left)
            text = "  ".join("%s %s" % pair for pair in facts.items())
            self.say("iteration %d/%d  %s" % (iteration, self.total, text))

    def _facts(self, metrics: Mapping[str, float], running: RunningMeans, left: float) -> dict[str, str]:
        """What is worth a place on the one line."""
        facts = {"ETA": duration(left), "steps/s": rate(float(metrics.get("env_steps_per_second", math.nan)))}
        facts["J(π)"] = number(running.mean("return_task/pi"))
        if "return_task/pi_h" in metrics:
            facts["J(π_H)"] = number(running.mean("return_task/pi_h"))
        if "alpha" in metrics:
            facts["α"] = number(float(metrics["alpha"]))
        key = success_metric(metrics, self._success)
        if key is not None:
            facts[key.split("/")[1]] = number(running.mean(key))
        return facts

    def say(self, *lines: str) -> None:
        """Print lines above the bar. A reader that has gone away (a closed pipe) must not stop the run."""
        text = printable("\n".join(lines), self.stream)
        try:
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                self.stream.write(text + "\n")
                self.stream.flush()
        except (OSError, ValueError):
            pass

    def close(self) -> None:
        """Leave the bar as it is and stop redrawing it."""
        if self._bar is not None:
            bar, self._bar = self._bar, None
            with contextlib.suppress(OSError, ValueError):
                bar.stop()

    def table(self, title: str, rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
        """Print a table below everything."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=printable(title, self.stream), title_justify="left")
        for index, name in enumerate(columns):
            table.add_column(printable(name, self.stream), justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*[printable(cell, self.stream) for cell in row])
        # a file or a pipe gets no control characters, and lines wide enough not to be folded
        console = (
            Console(file=self.stream)
            if self._fancy
            else Console(file=self.stream, width=100, force_terminal=False, color_system=None)
        )
        with contextlib.suppress(OSError, ValueError):
            console.print(table)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def summary_rows(running: RunningMeans, policies: Sequence[str], success: str | None) -> list[list[str]]:
    """Rows of the final table: returns, episode length and success, one column per policy."""
    rows = [
        ["task return J", "return_task/"],
        ["heuristic return H", "return_heuristic/"],
        ["episode length [steps]", "episode_length/"],
    ]
    key = success_metric(running.all(), success)
    if key is not None:
        rows.append([key.split("/")[1], "/".join(key.split("/")[:-1]) + "/"])
    return [[label] + [number(running.mean(prefix + name)) for name in policies] for label, prefix in rows]
