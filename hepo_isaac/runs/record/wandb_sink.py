"""Weights & Biases, which may be absent, offline, slow or broken without the run noticing."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional


class WandbSink:
    """Hands rows to a process of its own, in which everything of W&B happens, its import included.

    A process and not a thread: without a network W&B blocks for minutes, at the exit of the interpreter as well, and
    only a process can be ended. The run puts rows into a bounded queue and drops them when it is full. The first
    failure of any kind is reported once and ends the logging.

    Args:
        options: keyword arguments of ``wandb.init`` (project, entity, group, mode, …), plain values.
        run_dir: run folder; W&B's files and the id of its run go there.
        config: the run's configuration, shown by W&B.
        warn: told about the one failure.

    Raises:
        TypeError: an option is not a plain value.
        OSError: no process can be started, or the run folder is not writable.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        run_dir: Path,
        config: Optional[Mapping[str, Any]] = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._warn = warn
        self._queue: queue.Queue[Optional[Dict[str, Any]]] = queue.Queue(maxsize=1000)
        self._dead = threading.Event()
        self._closing = threading.Event()
        self._queue.put_nowait(_job(options, run_dir, config))
        self._child = _start_worker()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._feed, self._listen)]
        for thread in self._threads:
            thread.start()

    def write(self, metrics: Mapping[str, float]) -> None:
        """Hand one row over; never blocks."""
        if self._dead.is_set():
            return
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait({k: float(v) for k, v in metrics.items() if math.isfinite(v)})

    def close(self, timeout: float = 10.0) -> None:
        """Give W&B up to ``timeout`` seconds to upload what is queued, then end it."""
        if self._closing.is_set():
            return
        self._closing.set()
        # None only wakes a waiting thread; a full queue means that it is not waiting
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self._give_up("W&B did not finish within %g s and was ended" % timeout)
        # W&B's own helper processes live in the worker's session and must not outlive it
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for thread in self._threads:
            thread.join(1.0)

    def _feed(self) -> None:
        """Thread: queue to pipe. Where W&B hangs the pipe fills up and only this thread waits."""
        stdin = self._child.stdin
        assert stdin is not None
        try:
            while True:
                row = self._queue.get()
                if row is not None:
                    stdin.write(json.dumps(row) + "\n")
                    stdin.flush()
                if self._closing.is_set() and self._queue.empty():
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
                elif kind == "fatal":
                    self._give_up(message)
        if not self._closing.is_set():
            self._give_up("W&B logging stopped (its process ended); the run goes on without it")

    def _give_up(self, message: str) -> None:
        if not self._dead.is_set():
            self._dead.set()
            self._warn(message)


def _start_worker() -> subprocess.Popen[str]:
    """The W&B process, in a session of its own: a Ctrl-C is for the run, which then closes W&B in order."""
    root = str(Path(__file__).resolve().parents[3])
    path = [root] + ([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])
    return subprocess.Popen(
        [sys.executable, "-m", "hepo_isaac.runs.record.wandb_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
        start_new_session=True,
    )


def _new_id() -> str:
    """Id of a new W&B run; under a W&B sweep the agent has chosen it, and W&B would ignore another."""
    given = os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""
    return given or secrets.token_hex(4)


def _job(options: Mapping[str, Any], run_dir: Path, config: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """What wandb.init is to be called with; the id makes a resumed run continue its old W&B run."""
    id_file = run_dir / "wandb_id"
    known = id_file.is_file()
    run_id = id_file.read_text(encoding="utf-8").strip() if known else _new_id()
    if not known:
        id_file.write_text(run_id + "\n", encoding="utf-8")
    job: Dict[str, Any] = {"project": "hepo_isaac", "name": run_dir.name, "id": run_id, "dir": str(run_dir.resolve())}
    job["config"] = json.loads(json.dumps(dict(config or {}), default=str))
    job.update(options)
    json.dumps(job)  # refuses, here and now, options that cannot be handed to another process
    return job
