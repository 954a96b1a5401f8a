"""What the user sees while a run goes on: one progress bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, Optional, Sequence, TextIO, Tuple

from hepo_isaac.errors import Notice
from hepo_isaac.runs.record.running import POLICY_LABELS, RunningMeans, success_metric

_ASCII = {"π": "pi", "α": "alpha", "–": "-"}
_TEXTS = ("fields[left]", "description")
PLAIN_INTERVAL_S = 30.0
MIN_BAR = 6


def printable(text: str, stream: TextIO) -> str:
    """``text`` with Greek letters spelled out where ``stream`` has no encoding for them."""
    encoding = getattr(stream, "encoding", None)
    if encoding is None:  # a text buffer: holds any character
        return text
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


def number(value: float) -> str:
    """A value in at most three decimals, so that it does not jump about; a dash where nothing is known yet."""
    if not math.isfinite(value):
        return "–"
    if value != 0 and abs(value) < 1e-3:
        return "%.0e" % value
    return "%.*f" % (3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0, value)


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
        self._marks: Deque[Tuple[int, float]] = deque(maxlen=window)

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
        self, total: int, stream: Optional[TextIO] = None, success: Optional[str] = None, quiet: bool = False
    ) -> None:
        self.stream: TextIO = sys.stdout if stream is None else stream
        self.total = total
        self._success = success
        self._quiet = quiet
        self._fancy = not quiet and _is_terminal(self.stream)
        self._eta = Eta(total)
        self._bar: Any = None
        self._row: Any = None
        self._blocks: Any = None
        self._last_plain = -math.inf

    def start(self, header: Sequence[Tuple[str, str]], iteration: int) -> None:
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
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        texts = [TextColumn("{task.%s}" % name, table_column=Column(no_wrap=True)) for name in _TEXTS]
        self._blocks = BarColumn(bar_width=MIN_BAR)
        columns = [texts[0], self._blocks, texts[1]]
        # two redraws a second: the bar's own thread must not compete with the physics threads
        self._bar = Bar(*columns, console=_console(file=self.stream), refresh_per_second=2)
        left, right = self._lay_out(iteration, ["ETA –"])
        self._row = self._bar.add_task(right, total=self.total, completed=iteration, left=left)
        self._bar.start()

    def _lay_out(self, iteration: int, facts: List[str]) -> Tuple[str, str]:
        """Texts left and right of the bar; the bar takes what they leave, and on a narrow terminal facts give way."""
        left = "%*d/%d" % (len(str(self.total)), iteration, self.total)
        for kept in range(len(facts), -1, -1):
            right = printable(("  " if kept == len(facts) else " ").join(facts[:kept]), self.stream)
            room = self._bar.console.width - len(left) - len(right) - 3
            if room >= MIN_BAR:
                break
        self._blocks.bar_width = max(MIN_BAR, min(60, room))
        return left, right

    def update(self, metrics: Mapping[str, float], running: RunningMeans) -> None:
        """Show one finished iteration."""
        if self._quiet:
            return
        now = time.monotonic()
        iteration = int(metrics["iteration"])
        left = self._eta.update(iteration, now)
        if self._bar is not None:
            facts = self._facts(metrics, running, left)
            before, after = self._lay_out(iteration, facts)
            self._bar.update(self._row, completed=iteration, left=before, description=after)
        elif now - self._last_plain >= PLAIN_INTERVAL_S or iteration >= self.total:
            self._last_plain = now
            facts = self._facts(metrics, running, left)
            self.say("  ".join(["iteration %d/%d" % (iteration, self.total)] + facts))

    def _facts(self, metrics: Mapping[str, float], running: RunningMeans, left: float) -> List[str]:
        """What is worth a place on the one line, the most important first."""
        speed = rate(float(metrics.get("env_steps_per_second", math.nan)))
        facts = ["ETA " + duration(left), speed + " steps/s"]
        others = [k for k in metrics if k.startswith("return_task/") and k != "return_task/pi"]
        for name in ["return_task/pi", *others]:
            policy = name[len("return_task/") :]
            facts.append("J(%s) %s" % (POLICY_LABELS.get(policy, policy), number(running.mean(name))))
        if "alpha" in metrics:
            facts.append("α " + number(float(metrics["alpha"])))
        if metrics.get("projections"):
            facts.append("projections %d" % metrics["projections"])
        key = success_metric(metrics, self._success)
        if key is not None:
            facts.append("%s %s" % (key.split("/")[1], number(running.mean(key))))
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

    def warn(self, notices: Sequence[Notice]) -> None:
        """Print what went otherwise than asked for."""
        for notice in notices:
            where = " (traceback in metadata.json)" if notice.details else ""
            self.say("warning: %s%s" % (notice.text, where))

    def close(self) -> None:
        """Leave the bar as it is and stop redrawing it."""
        if self._bar is not None:
            bar, self._bar = self._bar, None
            with contextlib.suppress(OSError, ValueError):
                bar.stop()

    def table(self, title: str, rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
        """Print a table below everything."""
        from rich.table import Table

        table = Table(title=printable(title, self.stream), title_justify="left")
        for index, name in enumerate(columns):
            table.add_column(printable(name, self.stream), justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*[printable(cell, self.stream) for cell in row])
        # a file or a pipe gets no control characters, and lines wide enough not to be folded
        plain: Dict[str, Any] = {"width": 100, "force_terminal": False, "color_system": None}
        console = _console(file=self.stream, **({} if self._fancy else plain))
        with contextlib.suppress(OSError, ValueError):
            console.print(table)


def _console(**options: Any) -> Any:
    """A rich console that falls silent when its reader goes away; rich's own would end the process."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Quiet(**options)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def summary_rows(running: RunningMeans, policies: Sequence[str], success: Optional[str]) -> List[List[str]]:
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
