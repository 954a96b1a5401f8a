"""Where the numbers of a run go: metrics.csv always, TensorBoard, and W&B if asked for."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import secrets
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Mapping

from hepo_isaac.runs.metrics_csv import MetricsCsv

Warn = Callable[[str], None]


def warn_on_stderr(message: str) -> None:
    """Default way to tell the user something that must not stop the run."""
    try:
        sys.stderr.write("warning: %s\n" % message)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


class TensorBoardSink:
    """Scalars over env_steps, for ``tensorboard --logdir runs``.

    Args:
        folder: where the event files go.
        purge_step: env_steps of the checkpoint resumed from; points after it are hidden by TensorBoard.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # no two points may share the step of the checkpoint, so purging starts one after it
        purge = None if purge_step is None else purge_step + 1
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=purge, flush_secs=30)

    def write(self, metrics: Mapping[str, float]) -> None:
        """One point per finite metric."""
        step = int(metrics["env_steps"])
        for name, value in metrics.items():
            if name != "env_steps" and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandbSink:
    """Weights & Biases, which may be absent, offline, slow or broken without the run noticing.

    Everything of W&B, its import included, happens in a daemon thread; the run only puts dicts into a bounded queue
    and drops them when it is full. The first failure of any kind is reported once and ends the logging.

    Args:
        options: keyword arguments of ``wandb.init`` (project, entity, group, mode, …).
        run_dir: run folder; W&B's files go there.
        config: the run's configuration, shown by W&B.
        warn: told about the one failure.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        run_dir: Path,
        config: Mapping[str, Any] | None = None,
        warn: Warn = warn_on_stderr,
    ) -> None:
        self._options = dict(options)
        self._run_dir = run_dir
        self._config = dict(config or {})
        self._warn = warn
        self._queue: queue.Queue[dict[str, float] | None] = queue.Queue(maxsize=1000)
        self._dead = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb-sink", daemon=True)
        self._thread.start()

    def write(self, metrics: Mapping[str, float]) -> None:
        """Hand one row over; never blocks."""
        if self._dead.is_set():
            return
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait({k: v for k, v in metrics.items() if math.isfinite(v)})

    def close(self, timeout: float = 10.0) -> None:
        """Give W&B up to ``timeout`` seconds to upload what is queued, then leave it."""
        if self._closing.is_set():
            return
        self._closing.set()
        # None only wakes a waiting thread; a full queue means that it is not waiting
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn("W&B did not finish within %g s; the run goes on without it" % timeout)
            self._dead.set()

    def _work(self) -> None:
        """The thread: start W&B, log until closed and empty, finish."""
        try:
            run = self._start()
            while not self._dead.is_set():
                row = self._queue.get()
                if row is not None:
                    run.log(row, step=int(row["iteration"]))
                if self._closing.is_set() and self._queue.empty():
                    break
            run.finish()
        except ImportError:
            self._give_up("W&B logging is on but wandb is not installed: pip install 'hepo-isaac[wandb]'")
        except BaseException as error:  # wandb is known to raise SystemExit and KeyboardInterrupt subclasses as well
            self._give_up(
                "W&B logging stopped (%s: %s); the run goes on without it"
                % (type(error).__name__, " ".join(str(error).split())[:200])
            )

    def _give_up(self, message: str) -> None:
        if not self._dead.is_set():
            self._dead.set()
            self._warn(message)

    def _start(self) -> Any:
        """Begin or continue the W&B run whose id lies in the run folder."""
        import wandb

        id_file = self._run_dir / "wandb_id"
        run_id = id_file.read_text(encoding="utf-8").strip() if id_file.is_file() else secrets.token_hex(4)
        id_file.write_text(run_id + "\n", encoding="utf-8")
        options: dict[str, Any] = {
            "project": "hepo_isaac",
            "name": self._run_dir.name,
            "id": run_id,
            "resume": "allow",
            "dir": str(self._run_dir),
            "config": self._config,
            "mode": self._mode(),
            # its console capture fights with the progress bar
            "settings": wandb.Settings(console="off", silent=True),
        }
        options.update(self._options)
        return wandb.init(**options)

    def _mode(self) -> str:
        """Online only where W&B has a key: without one wandb.init would ask on the terminal and wait."""
        if os.environ.get("WANDB_MODE"):
            return os.environ["WANDB_MODE"]
        if os.environ.get("WANDB_API_KEY"):
            return "online"
        try:
            import netrc

            if netrc.netrc().authenticators("api.wandb.ai"):
                return "online"
        except Exception:  # no such file, or one that cannot be read: the same as no key
            pass
        self._warn("W&B has no key here: logging offline; upload later with wandb sync")
        return "offline"


class Tracker:
    """Sends every row to metrics.csv and to the other sinks; a failing extra sink is dropped with one warning.

    Args:
        csv: the always-present sink.
        extras: name -> sink with ``write(metrics)`` and ``close()``.
    """

    def __init__(self, csv: MetricsCsv, extras: Mapping[str, Any] | None = None, warn: Warn = warn_on_stderr) -> None:
        self._csv = csv
        self._extras = dict(extras or {})
        self._warn = warn
        self._csv_warned = False

    def write(self, metrics: Mapping[str, float]) -> None:
        """Log one iteration. A full disk is reported once and costs rows, not the run."""
        try:
            self._csv.write(metrics)
        except OSError as error:
            if not self._csv_warned:
                self._warn("cannot write %s (%s); rows are being lost" % (self._csv.path, error.strerror or error))
            self._csv_warned = True
        for name in list(self._extras):
            try:
                self._extras[name].write(metrics)
            except Exception as error:  # a broken extra must not cost the run
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self._extras.pop(name, None)
        self._warn("%s logging stopped (%s: %s); the run goes on without it" % (name, type(error).__name__, error))

    def close(self) -> None:
        """Close every sink."""
        with contextlib.suppress(OSError):
            self._csv.close()
        for name in list(self._extras):
            try:
                self._extras[name].close()
            except Exception as error:
                self._drop(name, error)


def make_tracker(
    folder: Any,
    resume: Mapping[str, Any] | None = None,
    tensorboard: bool = True,
    wandb: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    warn: Warn = warn_on_stderr,
) -> Tracker:
    """Build the sinks of a run.

    Args:
        folder: the RunFolder.
        resume: checkpoint payload being resumed from (its iteration and env_steps), None for a new run.
        wandb: W&B options; logged only if they hold ``enabled: true``. The rest goes to ``wandb.init``.
        config: resolved configuration, shown by W&B.
    """
    csv = MetricsCsv(folder.metrics_file, None if resume is None else int(resume["iteration"]))
    extras: dict[str, Any] = {}
    if tensorboard:
        try:
            purge = None if resume is None else int(resume["env_steps"])
            extras["TensorBoard"] = TensorBoardSink(folder.tensorboard, purge)
        except Exception as error:
            warn("TensorBoard logging is off (%s); pip install tensorboard" % error)
    options: dict[str, Any] = dict(wandb or {})
    if options.pop("enabled", False):
        kept: list[str] = [k for k in options if options[k] is not None]
        extras["W&B"] = WandbSink({k: options[k] for k in kept}, folder.path, config, warn)
    return Tracker(csv, extras, warn)
