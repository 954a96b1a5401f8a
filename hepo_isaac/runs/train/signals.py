"""Ctrl-C, SIGTERM and a closed terminal: ask the run to stop after this iteration, with its state saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any, Callable, Dict, Optional

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class StopRequest:
    """A flag that signals set. ``install`` in the main thread; ``remove`` puts the previous handlers back.

    The first signal only sets the flag. A second Ctrl-C raises KeyboardInterrupt at once, after ``on_abort``.
    A second SIGTERM changes nothing: schedulers and containers repeat it while the state is being saved.
    """

    def __init__(self, on_abort: Optional[Callable[[], None]] = None) -> None:
        self.signal: Optional[int] = None
        self._on_abort = on_abort
        self._previous: Dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run should stop at the end of this iteration."""
        return self.signal is not None

    def install(self) -> None:
        """Take over the signals. Does nothing outside the main thread, where Python allows no handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is None or number in self._previous:
                continue
            # nohup and background shells ignore a signal on purpose; leave that alone
            if signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._handle)

    def remove(self) -> None:
        """Put back what was there before ``install``."""
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        if number == signal.SIGINT and self.requested:
            self.remove()
            if self._on_abort is not None:
                self._on_abort()
            raise KeyboardInterrupt
        if not self.requested:
            self.signal = number
            # os.write and not print: a handler may run in the middle of another print
            _say("\n%s: saving after this iteration; Ctrl-C again stops at once\n" % signal.Signals(number).name)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, message.encode("ascii"))
