"""A line now and then about work that takes a while: how far it is and what is left."""

from __future__ import annotations

import sys
import time
from typing import Optional, TextIO

from hepo_isaac.runs.train.progress import Eta, duration, printable

INTERVAL_S = 5.0


class Ticker:
    """Says how far something is, at most every five seconds; what takes less says nothing.

    Args:
        label: what is being done.
        total: how much there is to do, in the units that ``at`` counts.
        stream: where to; standard output by default.
        interval: seconds between two lines.
    """

    def __init__(
        self, label: str, total: float, stream: Optional[TextIO] = None, interval: float = INTERVAL_S, unit: str = ""
    ) -> None:
        self.label, self.total, self.interval = label, total, interval
        self._unit = " " + unit if unit else ""
        self._stream = sys.stdout if stream is None else stream
        self._eta = Eta(int(total), window=1000)
        self.began = self._last = time.monotonic()
        self._eta.update(0, self.began)

    def at(self, done: float, what: str = "") -> None:
        """Note that ``done`` of the total are done; ``what`` is being done now."""
        now = time.monotonic()
        if now - self._last < self.interval:
            return
        self._last = now
        left = self._eta.update(int(done), now)
        text = "  %s: %d of %d%s%s, ETA %s" % (
            *(self.label, done, self.total, self._unit),
            *(", " + what if what else "", duration(left)),
        )
        print(printable(text, self._stream), file=self._stream, flush=True)

    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self.began
