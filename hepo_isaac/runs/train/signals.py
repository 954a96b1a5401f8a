"""Ctrl-C, SIGTERM and a closed terminal: ask the run to stop after this iteration, with its state saved."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Callable, Dict, Iterator, List, Optional

from hepo_isaac.launched import launched

ECHO_S = 2.0  # torchrun passes on the Ctrl-C that the terminal has sent already
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class StoppedError(KeyboardInterrupt):
    """The run ends here and now. signal: the number of the signal that asked for it."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped by %s" % signal.Signals(number).name)
        self.signal = number


class StopRequest:
    """A flag that signals set. ``install`` in the main thread; ``remove`` puts the previous handlers back.

    The first signal only sets the flag. A second Ctrl-C raises StoppedError at once, after what ``on_abort`` was given
    has been called; so does any signal once ``closing`` is set, since everything is saved by then. A third ends the
    process. A second SIGTERM before that changes nothing: schedulers repeat it while the state is being saved. While
    the state is written (``saving``) nobody stops anything; what came meanwhile counts when it is on disk.
    """

    def __init__(self) -> None:
        self.signal: Optional[int] = None
        self.closing = False
        self._on_abort: List[Callable[[], None]] = []
        self._saving, self._late = 0, 0
        self._aborting, self._aborted = False, False
        self._heard = -math.inf
        self._previous: Dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run should stop at the end of this iteration."""
        return self.signal is not None

    def on_abort(self, function: Callable[[], None]) -> None:
        """Call ``function`` before a run is stopped at once."""
        self._on_abort.append(function)

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

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """The state is being written: no signal breaks in. One inside another counts as one."""
        self._saving += 1
        try:
            yield
        finally:
            self._saving -= 1
            if self._late and not self._saving:
                number, self._late = self._late, 0
                self._abort(number)

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        if self._aborted:
            os._exit(128 + number)  # the status is written and every file on disk is whole
        if self._aborting:
            return
        echo = launched() and time.monotonic() - self._heard < ECHO_S
        if echo:
            return
        if self.closing or (self.requested and number == signal.SIGINT):
            if self._saving:
                self._late = number
            else:
                self._abort(number)
        elif not self.requested:
            self.signal, self._heard = number, time.monotonic()
            # os.write and not print: a handler may run in the middle of another print
            _say("\n%s: saving after this iteration; Ctrl-C again stops at once\n" % signal.Signals(number).name)

    def _abort(self, number: int) -> None:
        # Python runs a handler between any two instructions, whichever thread the signal went to: nothing but this flag
        # keeps a third one from breaking into the writing of the status.
        self.signal, self._aborting = number, True
        for function in self._on_abort:
            function()
        self._aborted = True
        raise StoppedError(number)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, message.encode("ascii"))
