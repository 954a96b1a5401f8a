"""Checks in processes of their own: one that crashes, hangs or breaks its CUDA context costs its own time and no more.

The process that runs the jobs never touches a GPU. Jobs are forked from a server that has imported everything, so that
each begins in milliseconds, and every result is shown and written the moment it is there.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

VERDICTS = {True: "ok", False: "FAILED", None: "-"}
_GOODBYE_S = 5.0
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class Outcome(NamedTuple):
    """What a check found. ok: None where nothing was judged.  numbers: for tables."""

    ok: Optional[bool]
    said: str
    numbers: Mapping[str, Any] = {}


@dataclass
class Result:
    """One line of the report. seconds: the check took.  at: seconds since the beginning."""

    job: str
    check: str
    ok: Optional[bool]
    said: str
    seconds: float
    at: float = 0.0
    numbers: Dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """For the terminal."""
        return "%5.0f s  %-15s %-22s %-6s %5.1f s  %s" % (
            self.at,
            self.job,
            self.check,
            VERDICTS[self.ok],
            self.seconds,
            self.said,
        )


class Reporter:
    """Runs the checks of one job, in its process, and sends what they found.

    Args:
        job: its name.  pipe: where results go.
        unjudged: names of checks that are run but not judged (in a rehearsal, those that need what kernels compute).
    """

    def __init__(self, job: str, pipe: Connection, unjudged: Sequence[str] = ()) -> None:
        self.job, self._pipe, self._unjudged = job, pipe, set(unjudged)
        self._dead = ""

    def run(self, name: str, check: Callable[..., Outcome], *args: Any) -> bool:
        """Run one check; True if it did not fail. Once the CUDA context is broken nothing else is tried."""
        if self._dead:
            self._send(name, Outcome(None, "not run: " + self._dead), 0.0)
            return False
        self._pipe.send(name)
        print("== %s: %s" % (self.job, name), flush=True)
        start = time.perf_counter()
        try:
            found = check(*args)
        except Exception as error:
            traceback.print_exc()
            found = Outcome(False, describe(error))
            if "CUDA error" in str(error) or "illegal" in str(error):
                self._dead = "the CUDA context may be broken"
        if name in self._unjudged:
            found = Outcome(None, "not judged here: " + found.said, found.numbers)
        self._send(name, found, time.perf_counter() - start)
        return found.ok is not False

    def _send(self, name: str, found: Outcome, seconds: float) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._pipe.send(Result(self.job, name, found.ok, found.said, round(seconds, 1), 0.0, dict(found.numbers)))


def describe(error: BaseException) -> str:
    """An exception in one line, with the lines of ours that led to it, innermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "site-packages" not in f.filename or "hepo_isaac" in f.filename][-3:]
    where = " < ".join("%s:%d" % (os.path.basename(f.filename), f.lineno or 0) for f in reversed(ours))
    lines = str(error).strip().splitlines()
    return "%s: %s [%s]" % (type(error).__name__, lines[0][:300] if lines else "", where)


class Job(NamedTuple):
    """name: of the job.  run: a module's function, called with a Reporter and ``args``.  limit_s: seconds it may take.
    unjudged: see Reporter."""

    name: str
    run: Callable[..., None]
    args: Sequence[Any]
    limit_s: float
    unjudged: Sequence[str] = ()


class Runner:
    """Runs jobs one after the other.

    Args:
        out: folder of results.jsonl (a line per result) and log.txt (tracebacks, warnings, everything printed).
        preload: modules that every job needs; they must not initialise CUDA when imported.
    """

    def __init__(self, out: Path, preload: Sequence[str]) -> None:
        self._began = time.monotonic()
        self.results: List[Result] = []
        out.mkdir(parents=True, exist_ok=True)
        self._file, self._log = out / "results.jsonl", out / "log.txt"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def run(self, job: Job) -> None:
        """Run one job to its end or to its limit."""
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_child, args=(job, there, str(self._log)), daemon=True)
        start = time.monotonic()
        process.start()
        there.close()
        check = self._receive(job, here, start + job.limit_s)
        seconds = time.monotonic() - start
        if seconds >= job.limit_s and process.is_alive():
            process.kill()
            self._show(Result(job.name, check, False, "no answer within %.0f s, ended" % job.limit_s, job.limit_s))
        process.join(_GOODBYE_S)
        if process.is_alive():  # a driver that hangs when its context is taken down
            process.kill()
            process.join()
        code = process.exitcode or 0
        if code and seconds < job.limit_s:
            cause = "died of %s" % signal.Signals(-code).name if code < 0 else "ended with exit code %d" % code
            self._show(Result(job.name, check, False, "%s, see %s" % (cause, self._log), round(seconds, 1)))

    def _receive(self, job: Job, pipe: Connection, deadline: float) -> str:
        """Show what comes until the job ends or is late; returns the check that was running."""
        check = "start"
        while wait([pipe], max(0.0, deadline - time.monotonic())):
            try:
                message = pipe.recv()
            except EOFError:
                break
            if isinstance(message, Result):
                self._show(message)
            else:
                check = str(message)
        return check

    def _show(self, result: Result) -> None:
        result.at = round(self.elapsed(), 1)
        self.results.append(result)
        print(result.line(), flush=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def _child(job: Job, pipe: Connection, log: str) -> None:
    """The job's process: everything printed goes to the log, and nothing outlives the process that asked for it."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
    file = open(log, "a", encoding="utf-8")  # noqa: SIM115  (open as long as the process)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    faulthandler.enable()
    faulthandler.dump_traceback_later(max(1.0, job.limit_s - 3.0), exit=False)
    job.run(Reporter(job.name, pipe, job.unjudged), *job.args)
