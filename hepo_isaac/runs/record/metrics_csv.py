"""metrics.csv: one row per iteration, always written, readable at every moment."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, TextIO, Tuple

import numpy as np

from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.files import write_atomic

INTEGERS = ("iteration", "env_steps")


def _cell(name: str, value: Any) -> str:
    """One value as text: counters as integers, the rest so that float() gives back the same number, unknown as nan."""
    if value is None:
        return ""
    number = float(value)
    if name in INTEGERS and math.isfinite(number):
        return str(int(number))
    return repr(number)


def _read_table(path: Path) -> Tuple[List[str], List[List[str]]]:
    """Header and complete rows of a CSV; a last line without its newline was cut off by a kill and is left out.

    Raises:
        UserError: it is no text, or no table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return [], []
    except UnicodeDecodeError as error:
        raise UserError("%s is no text (%s); expected the table that a run wrote" % (path, error.reason)) from error
    text = text[: text.rfind("\n") + 1]
    try:
        table = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise UserError("%s cannot be read: %s; expected the table that a run wrote" % (path, error)) from error
    if not table:
        return [], []
    return table[0], [row for row in table[1:] if len(row) == len(table[0])]


def _write_table(path: Path, header: List[str], rows: List[List[str]]) -> None:
    """Replace the whole file, atomically."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, buffer.getvalue().encode("utf-8"))


class MetricsCsv:
    """Appends one row per call to ``write`` and flushes it.

    Columns may be added at any time: the file is rewritten with the wider header and earlier rows stay empty there.

    Args:
        path: the file; an existing one is continued.
        resume_iteration: rows after this iteration are dropped first, because the resumed run will write them again.
    """

    def __init__(self, path: Path, resume_iteration: Optional[int] = None) -> None:
        self.path = path
        self._file: Optional[TextIO] = None
        self._header, rows = _read_table(path)
        if not self._header:
            return
        if resume_iteration is not None and "iteration" in self._header:
            column = self._header.index("iteration")
            rows = [row for row in rows if float(row[column] or "nan") <= resume_iteration]
        _write_table(path, self._header, rows)  # also drops a half-written last line

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append one row.

        Raises:
            OSError: the disk is full or gone. The half-written row is cut off, so the next call may succeed.
        """
        new = [name for name in metrics if name not in self._header]
        if new:
            self._widen(new)
        if self._file is None:
            self._file = open(self.path, "a", encoding="utf-8", newline="")  # noqa: SIM115 (open between rows)
        start = self.path.stat().st_size
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([_cell(n, metrics.get(n)) for n in self._header])
        try:
            self._file.write(line.getvalue())
            self._file.flush()
        except OSError:
            self._cut(start)
            raise

    def _widen(self, new: List[str]) -> None:
        """Add columns at the right."""
        self.close()
        _, rows = _read_table(self.path)
        header = self._header + new
        _write_table(self.path, header, [row + [""] * len(new) for row in rows])
        self._header = header

    def _cut(self, size: int) -> None:
        """Drop what a failed write left in the buffer and in the file."""
        broken, self._file = self._file, None
        try:
            if broken is not None:
                broken.close()
        except OSError:
            pass
        try:
            with open(self.path, "r+b") as file:
                file.truncate(size)
        except OSError:
            pass

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def check_metrics(path: Path) -> None:
    """Refuse a file that a run cannot go on writing; none, or an empty one, is fine.

    Raises:
        UserError: it is no table of iterations.
    """
    header, rows = _read_table(path)
    if header and "iteration" not in header:
        raise UserError("%s has no column iteration; expected the table that the run wrote, or no such file" % path)
    for row in rows:
        cell = row[header.index("iteration")]
        if not math.isfinite(_number(cell)):
            raise UserError("%s: an iteration is %r; expected the table that the run wrote" % (path, cell[:20]))


def read_metrics(path: Path) -> Dict[str, np.ndarray]:
    """Columns of a metrics.csv as float arrays of one length; empty and unknown cells are NaN. {} for no file.

    Raises:
        UserError: it is no table.
    """
    header, rows = _read_table(path)
    columns = {}
    for index, name in enumerate(header):
        columns[name] = np.array([_number(row[index]) for row in rows], dtype=float)
    return columns


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
