"""Weights & Biases, which may be absent, offline, slow or broken without the run noticing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

_MOST_REFUSALS = 10
_ENDED = "W&B logging stopped (its process ended); the run goes on without it, and metrics.csv has every row"


class WandbSink:
    """Lets a process of its own follow metrics.csv, in which everything of W&B happens, its import included.

    A process and not a thread: without a network W&B blocks for minutes, at the exit of the interpreter as well, and
    only a process can be ended. Rows are read from metrics.csv once a checkpoint covers them, and all of them at the
    end: so a run that is killed and resumed does not repeat iterations that W&B has, and a slow W&B loses no row. The
    first failure of any kind is reported once and ends the logging; what W&B drops or refuses is reported as W&B says.

    Args:
        options: keyword arguments of ``wandb.init`` (project, entity, group, mode, …), plain values.
        metrics_file: the run's metrics.csv; W&B's files and the id of its run go into the folder that it is in.
        config: the run's configuration, shown by W&B.
        warn: told about failures and refusals.
        trained: iterations of the checkpoint that is resumed from; 0 for a new run.
        agent: whether this run may be the one of a W&B agent that started this process.

    Raises:
        TypeError: an option is not a plain value.
        OSError: no process can be started.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        metrics_file: Path,
        config: Optional[Mapping[str, Any]] = None,
        warn: Callable[[str], None] = print,
        trained: int = 0,
        agent: bool = True,
    ) -> None:
        self._warn = warn
        self._dead = threading.Event()
        self._closing = threading.Event()
        self._refused: Set[str] = set()
        self._change = threading.Condition()
        self._message: Optional[Dict[str, int]] = None  # the newest that is not sent
        self._written = trained
        self._folder = metrics_file.parent
        job = {
            "options": dict(options),
            "folder": str(metrics_file.parent.resolve()),
            "metrics": str(metrics_file.resolve()),
            "config": json.loads(json.dumps(dict(config or {}), default=str)),
            "trained": trained,
            "agent": agent,
        }
        first = json.dumps(job)  # refuses, here and now, options that cannot be handed to another process
        self._child = _start_worker()
        works = ((self._feed, (first,)), (self._listen, ()))
        self._threads = [threading.Thread(target=work, args=given, daemon=True) for work, given in works]
        for thread in self._threads:
            thread.start()
        self.saved(trained)

    def write(self, metrics: Mapping[str, float]) -> None:
        """One row is in metrics.csv."""
        self._written = int(metrics["iteration"])

    def film(self, file: Path, iteration: int) -> None:
        """Nothing: the process finds it, beside metrics.csv."""

    def saved(self, iteration: int) -> None:
        """A checkpoint covers the rows up to ``iteration``: they may be logged. Never blocks."""
        self._send({"saved": iteration})

    def close(self, finished: bool = True, timeout: float = 10.0) -> None:
        """Give W&B up to ``timeout`` seconds to take what it has not, then end it."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._send({"saved": self._written, "code": int(not finished)})
        ended = 0
        try:
            ended = self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            text = "W&B did not finish within %g s and was ended; metrics.csv has every row" % timeout
            kept = [p for kind in ("offline-run-*", "run-*") for p in (self._folder / "wandb").glob(kind)]
            if kept:
                newest = shlex.quote(str(max(kept, key=os.path.getmtime)))
                text += ", and this uploads what W&B lacks: wandb sync --include-online " + newest
            self._give_up(text)
        # W&B's own helper processes live in the worker's session and must not outlive it
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for thread in self._threads:
            thread.join(1.0)
        if ended:  # without a word, else _listen has passed it on
            self._give_up(_ENDED)

    def _send(self, message: Dict[str, int]) -> None:
        with self._change:
            self._message = message
            self._change.notify()

    def _feed(self, first: str) -> None:
        """Thread: messages to the pipe. Where W&B hangs the pipe fills up and only this thread waits."""
        stdin = self._child.stdin
        assert stdin is not None
        try:
            stdin.write(first + "\n")
            while not self._dead.is_set():
                with self._change:
                    self._change.wait_for(lambda: self._message is not None)
                    message, self._message = self._message, None
                stdin.write(json.dumps(message) + "\n")
                stdin.flush()
                if message and "code" in message:
                    break
        except (OSError, ValueError):
            pass  # the worker is gone; it has said why, or _listen will
        with contextlib.suppress(OSError, ValueError):
            stdin.close()

    def _listen(self) -> None:
        """Thread: what the worker has to say."""
        stdout = self._child.stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                kind, _, message = line.strip().partition(" ")
                if kind == "note":
                    self._warn(message)
                elif kind == "refused":
                    self._refuse(message)
                elif kind == "fatal":
                    self._give_up(message)
        if not self._closing.is_set():
            self._give_up(_ENDED)

    def _refuse(self, message: str) -> None:
        """Something that W&B drops or does not take, each kind of it said once."""
        kind = re.sub(r"\d+", "0", message)
        if kind not in self._refused and len(self._refused) < _MOST_REFUSALS:
            self._refused.add(kind)
            self._warn("W&B: " + message)

    def _give_up(self, message: str) -> None:
        if not self._dead.is_set():
            self._dead.set()
            self._warn(message)


def _start_worker() -> subprocess.Popen[str]:
    """The W&B process, in a session of its own: a Ctrl-C is for the run, which then closes W&B in order."""
    root = str(Path(__file__).resolve().parents[3])
    path: List[str] = [root] + ([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])
    return subprocess.Popen(
        [sys.executable, "-m", "hepo_isaac.runs.record.wandb_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
        start_new_session=True,
    )
