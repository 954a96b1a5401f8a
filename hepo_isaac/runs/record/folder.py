"""The run folder: ``runs/<task>/<algo>/<time>_seed<k>/`` and what lies in it.

config.yaml     the resolved configuration          metadata.json  commit, versions, hardware, command
status.json     running, finished, interrupted, failed             summary.json   only once the run has finished
metrics.csv     one row per iteration                checkpoints/   last.pt, best.pt, iteration_*.pt
tensorboard/    the same numbers for TensorBoard     returns.png    the plot made at the end
videos/         films made while it trained (video_every)
bad_worlds/     the last states of worlds that diverged, for hepo-isaac replay-bad
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shlex
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from hepo_isaac.errors import CheckpointError, Notice, UserError
from hepo_isaac.launched import launched, local
from hepo_isaac.locate import train_command
from hepo_isaac.runs.record import metadata
from hepo_isaac.runs.record.files import read_json, remove_stale_temporaries, write_atomic, write_json
from hepo_isaac.runs.record.lock import NAME, FileLock, HeldError, alive
from hepo_isaac.runs.record.stored import escaped, sign

SILENT_WITHOUT_LOCK_S = 1800.0
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"


class RunFolder:
    """Paths and small files of one run. Build with ``create`` or ``open``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metadata_file = path / "metadata.json"
        self.status_file = path / "status.json"
        self.summary_file = path / "summary.json"
        self.metrics_file = path / "metrics.csv"
        self.plot_file = path / "returns.png"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.bad_worlds = path / "bad_worlds"
        self._lock = FileLock(path / NAME)

    @classmethod
    def create(cls, task: str, algo: str, seed: int, config: Any, root: Union[str, Path] = "runs") -> RunFolder:
        """Make a new folder; two runs that start in the same second get different ones.

        Args:
            config: the resolved configuration, a mapping or an OmegaConf node.
            root: where all runs live.

        Raises:
            UserError: the folder cannot be made.
        """
        stem = "%s_seed%d" % (datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d_%H-%M-%S"), seed)
        parent = Path(root) / task / algo
        folder = cls(make_unique(parent, stem))
        folder._take()
        folder.checkpoints.mkdir()
        folder.write_config(config)
        described: Dict[str, Any] = {"task": task, "algo": algo, "seed": seed}
        described.update(metadata.collect())
        write_json(folder.metadata_file, described)
        folder.set_status(RUNNING)
        return folder

    @classmethod
    def open(cls, path: Union[str, Path]) -> RunFolder:
        """Open an existing run folder.

        Raises:
            UserError: there is no run at ``path``.
        """
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise UserError("no run folder at %s" % path)
        if not folder.config_file.is_file():
            raise UserError("%s is not a run folder: it has no config.yaml" % path)
        return folder

    def write_config(self, config: Any) -> None:
        """Write config.yaml, a mapping or an OmegaConf node, resolved, and sign it as this account's."""
        write_atomic(self.config_file, _to_yaml(config).encode("utf-8"))
        sign(self.config_file)

    def begin_resume(self, checkpoint: Optional[Path] = None) -> None:
        """Mark an opened run as running again and note who resumed it, with which code, in metadata.json.

        From an older ``checkpoint`` than last.pt the run goes another way: it becomes last.pt, so that whatever ends
        the run now, it is not continued from the way that was left.

        Raises:
            UserError: another live process is writing this run, or the folder cannot be written.
        """
        for path in self.path.iterdir():
            if path.is_symlink():
                raise UserError("%s is a link; expected a run folder with files of its own" % path)
        state = self._read_status()
        of_old = not self._lock.path.exists() and state.get("status") == RUNNING  # a version without locks
        if of_old and self._alive(state) and state.get("pid") != os.getpid():
            raise UserError("%s is still being written by process %s; stop it first" % (self.path, state.get("pid")))
        self._take()
        described = self.metadata
        described.setdefault("resumes", []).append(metadata.collect())
        write_json(self.metadata_file, described)
        self.checkpoints.mkdir(exist_ok=True)
        remove_stale_temporaries(self.path)
        remove_stale_temporaries(self.checkpoints)
        # a summary speaks of a finished run; this one is not finished any more
        if self.summary_file.exists():
            self.summary_file.unlink()
        if checkpoint is not None and checkpoint.name not in ("last.pt", "failed.pt"):
            self._go_back(checkpoint)
        self.set_status(RUNNING)

    def _go_back(self, checkpoint: Path) -> None:
        try:
            write_atomic(self.checkpoints / "last.pt", checkpoint.read_bytes())
        except OSError as error:
            text = "cannot write %s: %s; expected room for a copy of %s"
            raise UserError(text % (self.checkpoints / "last.pt", error.strerror or error, checkpoint.name)) from error

    def _alive(self, state: Mapping[str, Any]) -> bool:
        """Whether the process that wrote ``state``, of a version without locks, still runs: asked for on this machine,
        and judged by when it last wrote something on another."""
        if state.get("host") == platform.node() and isinstance(state.get("pid"), int):
            return _process_lives(state)
        written = [p.stat().st_mtime for p in (self.status_file, self.metrics_file) if p.is_file()]
        return time.time() - max(written, default=0.0) < SILENT_WITHOUT_LOCK_S

    def _take(self) -> None:
        try:
            self._lock.acquire()
        except HeldError as who:
            raise UserError("%s is still being written by %s; stop it first" % (self.path, who)) from None
        except OSError as error:
            raise UserError(
                "cannot write in the run folder %s: %s; expected a folder of yours with room in it"
                % (self.path, error.strerror or error)
            ) from error

    def end_unfinished(self, error: BaseException) -> None:
        """Say in status.json why a run ended about which nobody has said anything yet."""
        if self._read_status().get("status") != RUNNING:
            return
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
        reason = {} if stopped else {"reason": "%s: %s" % (type(error).__name__, error)}
        with contextlib.suppress(OSError):
            self.set_status(INTERRUPTED if stopped else FAILED, resume=self.resume_command(), **reason)

    def release(self) -> None:
        """Let others write this folder. Harmless where this process does not."""
        self._lock.release()

    def add_warnings(self, notices: Sequence[Notice]) -> None:
        """Keep in metadata.json what went otherwise than asked for, with tracebacks."""
        described = self.metadata
        described.setdefault("warnings", []).extend(
            {"at": metadata.now(), "text": notice.text, "traceback": notice.details} for notice in notices
        )
        write_json(self.metadata_file, described)

    @property
    def metadata(self) -> Dict[str, Any]:
        """Contents of metadata.json ({} where it is missing or damaged), without parts of another form than theirs."""
        return _of_form(read_json(self.metadata_file), {"git": dict, "resumes": list, "warnings": list})

    @property
    def summary(self) -> Dict[str, Any]:
        """Contents of summary.json, as ``metadata`` is; {} while the run is not finished."""
        return _of_form(read_json(self.summary_file), {"evaluation": dict, "final": dict, "policies": list})

    def set_status(self, status: str, **facts: Any) -> None:
        """Write status.json: ``status``, since when, which process, and ``facts`` (iteration, reason, …)."""
        record: Dict[str, Any] = {"status": status, "since": metadata.now()}
        if status == RUNNING:
            record.update(pid=os.getpid(), host=platform.node(), process_start=_process_start(os.getpid()))
        record.update(facts)
        write_json(self.status_file, record)

    def status(self) -> str:
        """ "running", "finished", "interrupted" or "failed".

        A run killed outright leaves "running" behind; where its process is known to be gone this says "interrupted".
        """
        state = self._read_status()
        found = str(state.get("status", INTERRUPTED))
        if found != RUNNING:
            return found
        writing = alive(self._lock.path)
        if writing is None:  # of a version without locks
            writing = self._alive(state)
        return RUNNING if writing else INTERRUPTED

    def _read_status(self) -> Dict[str, Any]:
        found = read_json(self.status_file)
        return found if isinstance(found, dict) else {}

    def resume_command(self, checkpoint: Optional[Path] = None) -> str:
        """The exact shell command that continues this run (from ``checkpoint`` if given, else from last.pt)."""
        start = train_command()
        if launched():
            script = "-m hepo_isaac train" if start.startswith("hepo-isaac") else "train.py"
            start = "torchrun --nproc_per_node=%d %s" % (local()[1], script)
        return "%s resume=%s" % (start, shlex.quote(str(checkpoint or self.path)))

    def policy_checkpoint(self) -> Path:
        """The checkpoint to play or evaluate: best.pt, else last.pt.

        Raises:
            CheckpointError: the run has saved neither.
        """
        for name in ("best.pt", "last.pt"):
            if (self.checkpoints / name).is_file():
                return self.checkpoints / name
        raise CheckpointError("%s holds no checkpoint yet (no best.pt, no last.pt)" % self.checkpoints)


def _of_form(found: Any, forms: Mapping[str, type]) -> Dict[str, Any]:
    """A run folder may be from anybody: what is no dictionary is an empty one, and a value that is not of the form that
    ``forms`` names for its key is as if it were not there."""
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, forms.get(key, object))}


def locate_resume(path: Union[str, Path]) -> Tuple[RunFolder, Path]:
    """Turn the value of ``resume=`` (a run folder, or a checkpoint inside one) into the folder and the checkpoint.

    Raises:
        UserError: neither a run folder nor a checkpoint in one.
    """
    given = Path(path)
    if given.suffix == ".pt":
        if given.parent.name != "checkpoints":
            raise UserError("cannot resume from %s: it is not in the checkpoints/ folder of a run" % given)
        return RunFolder.open(given.parent.parent), given
    folder = RunFolder.open(given)
    return folder, folder.checkpoints / "last.pt"


def latest_run(root: Union[str, Path] = "runs", task: Optional[str] = None) -> Path:
    """The run folder under ``root``, of ``task`` if one is named, that was written last.

    Raises:
        UserError: there is none.
    """
    base = Path(root) / task if task else Path(root)
    found = [file.parent for file in base.rglob("status.json") if (file.parent / "config.yaml").is_file()]
    if not found:
        raise UserError("latest: there is no run in %s; run_root=<folder> says where runs are" % base)
    return max(found, key=lambda folder: ((folder / "status.json").stat().st_mtime_ns, folder.name))


def make_unique(parent: Path, stem: str) -> Path:
    """Create ``parent/stem``, or ``stem_2``, ``stem_3``, …: mkdir itself decides who was first."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / (stem if number == 1 else "%s_%d" % (stem, number))
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UserError("cannot create a run folder in %s: %s" % (parent, error.strerror or error)) from error


def _to_yaml(config: Any) -> str:
    """Configuration as YAML with every interpolation resolved."""
    from omegaconf import OmegaConf

    node = config if OmegaConf.is_config(config) else OmegaConf.create(escaped(dict(config)))
    return str(OmegaConf.to_yaml(node, resolve=True))


def _process_start(pid: int) -> Optional[str]:
    """Start time of a process in clock ticks since boot: tells it from a later one with the same number."""
    try:
        stat = Path("/proc/%d/stat" % pid).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rsplit(")", 1)[-1].split()[19]


def _process_lives(state: Mapping[str, Any]) -> bool:
    pid = int(state["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    started = _process_start(pid)
    return started is None or state.get("process_start") is None or started == state["process_start"]
