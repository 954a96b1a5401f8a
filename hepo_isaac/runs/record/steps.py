"""Progress of what takes its time and is no training: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Optional, TextIO

FIRST_S, EVERY_S = 5.0, 10.0  # after which something is said, and how often then, where no terminal is


class Steps:
    """Counts to ``total`` and says how far it is, once it has taken five seconds.

    Args:
        what: is being done, a word or two.  total: 0 if only who calls ``at`` knows.  unit: of the count.
        stream: standard error unless given.  quiet: say nothing.
    """

    def __init__(
        self, what: str, total: int = 0, unit: str = "steps", stream: Optional[TextIO] = None, quiet: bool = False
    ) -> None:
        self._what, self._total, self._unit, self._quiet = what, max(1, total), unit, quiet
        self._stream = stream or sys.stderr
        self._began = self._said = time.monotonic()
        self._shown = False
        self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._shown and self._terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def at(self, done: int, total: int = 0) -> None:
        """``done`` of the total are done, of another ``total`` if one is given."""
        now = time.monotonic()
        self._total = total or self._total
        pause = 0.2 if self._terminal else EVERY_S if self._shown else 0.0
        if self._quiet or now - self._began < FIRST_S or now - self._said < pause:
            return
        self._said, self._shown = now, True
        left = (now - self._began) * (self._total - done) / max(done, 1)
        line = "%s: %d of %d %s, ETA %d:%02d" % (self._what, done, self._total, self._unit, *divmod(int(left), 60))
        self._stream.write("\r\033[K" + line if self._terminal else line + "\n")
        self._stream.flush()
