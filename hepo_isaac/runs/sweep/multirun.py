"""Several jobs from one command line: each on its own feet, the same one never twice, and a table at the end.

The process that starts a sweep makes ``<run_root>/.multirun/<time>/`` and lists the jobs there. Each job leaves a
record in it, from whatever process or machine a launcher runs it on; the table is made of these records, so that a
job which dies without a word is known as well.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import platform
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from hepo_isaac.config import usable_cores
from hepo_isaac.errors import UserError, report_errors
from hepo_isaac.runs.record.files import read_json, write_json
from hepo_isaac.runs.record.folder import make_unique
from hepo_isaac.runs.sweep.twins import Note

JOBS_FILE, STOP_FILE = "jobs.json", "stop"
RAN, FAILED, INTERRUPTED, LOST, NOT_STARTED = "running", "failed", "interrupted", "lost", "not started"
# what a job can become, in the order of the summary line
STATES = ("trained", "resumed", "skipped", "elsewhere", FAILED, LOST, INTERRUPTED, NOT_STARTED)


# ---- in the process that starts the sweep -----------------------------------------------------------------------


def begin(overrides: Sequence[str]) -> Path:
    """Make the folder of a new sweep and list its jobs there.

    Raises:
        UserError: the folder cannot be made, or is asked to be elsewhere.
    """
    from hepo_isaac.overrides import compose

    if any(o.lstrip("+").startswith("hydra.sweep.") for o in overrides):
        raise UserError("hydra.sweep.* is set by the sweep itself; run_root=<folder> says where everything goes")
    jobs = expand(overrides)
    root = str(compose(jobs[0] if jobs else [o for o in overrides if "run_root" in o]).run_root)
    stem = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = make_unique(Path(root).absolute() / ".multirun", stem)
    write_json(folder / JOBS_FILE, {"jobs": jobs, "pid": os.getpid(), "host": platform.node()})
    return folder


def expand(overrides: Sequence[str]) -> List[List[str]]:
    """The settings of every job, in Hydra's order; nothing where a sweeper plugin chooses the values."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if any(o.lstrip("+").startswith("hydra/sweeper=") for o in overrides):
        return []
    own = [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
    try:
        return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(own), None)[0]
    except HydraException as error:
        raise UserError("cannot make jobs of these settings: %s" % str(error).splitlines()[0]) from error


@contextlib.contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets no further job start and lets those that run save and stop.

    A terminal's Ctrl-C reaches the processes of jobs too, unless a launcher hid them from it; SIGTERM is passed on to
    them. Without this a launcher of processes kills its jobs in the middle of saving, or leaves them behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # a shell that starts a sweep in the background ignores Ctrl-C for it on purpose
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: Optional[FrameType]) -> None:
        signal.signal(number, previous[signal.Signals(number)])
        (folder / STOP_FILE).touch()
        if number == signal.SIGTERM:
            _tell_children(number)
        os.write(2, b"\nno further job starts; waiting for those that run (once more ends the sweep at once)\n")

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _tell_children(number: int) -> None:
    """Send a signal to every process that this one has started."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.send_signal(number)


def unfinished(folder: Path) -> List[int]:
    """Numbers of the listed jobs that nobody has finished or stopped: their process died, or none was there to start
    them. One whose process has died twice is left alone."""
    if (folder / STOP_FILE).exists():
        return []
    records = collect(folder)
    if any(record["state"] == INTERRUPTED for record in records):
        return []
    return [
        k for k, r in enumerate(records) if r["state"] == NOT_STARTED or (r["state"] == LOST and r.get("lost", 0) < 1)
    ]


def finish(folder: Path, code: int) -> int:
    """Print what became of every job; returns the exit code of the sweep, given that of the launcher."""
    records = collect(folder)
    print(table(records))
    bad = [r for r in records if r["state"] in (FAILED, LOST, NOT_STARTED)]
    stopped = [r for r in records if r["state"] == INTERRUPTED]
    if stopped or (folder / STOP_FILE).exists():
        return int(stopped[0]["code"]) if stopped else 130
    if bad:
        # 2 is a mistake of the user, as in a single run
        return code if code > 2 else 2 if all(r["code"] == 2 for r in bad) else 1
    return code


def collect(folder: Path) -> List[Dict[str, Any]]:
    """One record per job, listed or not, by number."""
    found = {int(p.stem[4:]): read_json(p) or {} for p in folder.glob("job_*.json")}
    listed = (read_json(folder / JOBS_FILE) or {}).get("jobs", [])
    records = []
    for number in range(max([len(listed), *(n + 1 for n in found)])):
        record: Dict[str, Any] = {"state": NOT_STARTED, "code": 1, "overrides": [], "folders": [], "reason": ""}
        if number < len(listed):
            record["overrides"] = listed[number]
        record.update(found.get(number, {}))
        if record["state"] == RAN:
            record.update(state=LOST, reason="its process ended without a word (killed, or out of memory)")
        records.append(record)
    return records


def table(records: Sequence[Dict[str, Any]]) -> str:
    """One line per job: number, state, time, the settings that not all share, and its folder or what went wrong."""
    shared = set.intersection(*(set(r["overrides"]) for r in records)) if len(records) > 1 else set()
    counts = [(state, sum(r["state"] == state for r in records)) for state in STATES]
    lines = ["", "sweep of %d jobs: %s" % (len(records), ", ".join("%d %s" % (n, s) for s, n in counts if n))]
    rows = []
    for number, record in enumerate(records):
        where = ", ".join(record["folders"])
        seconds = record.get("seconds")
        rows.append(
            [
                "#%d" % number,
                record["state"],
                "" if seconds is None else "%.0f s" % seconds,
                " ".join(o for o in record["overrides"] if o not in shared),
                " ".join(part for part in (where, record["reason"]) if part),
            ]
        )
    widths = [max(len(row[k]) for row in rows) for k in range(4)] if rows else []
    for row in rows:
        lines.append("  " + "  ".join([cell.ljust(width) for cell, width in zip(row, widths)] + row[4:]).rstrip())
    return "\n".join(lines)


# ---- in the process of a job ------------------------------------------------------------------------------------


def current() -> Optional[Path]:
    """Folder of the sweep that the job running in this process belongs to; None outside of one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    folder = Path(str(HydraConfig.get().sweep.dir))
    return folder if (folder / JOBS_FILE).is_file() else None


def run_job_of_sweep(folder: Path, work: Callable[[Note], int]) -> None:
    """Run one job to its end or its failure, and leave its record; nothing that goes wrong in it stops the others.

    Raises:
        SystemExit: the user stopped the sweep, in the process that runs it.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    number, listed = int(hydra.job.num), read_json(folder / JOBS_FILE)
    if (folder / STOP_FILE).exists():
        return
    record_file, began = folder / ("job_%d.json" % number), time.monotonic()
    before = read_json(record_file) or {}
    if before and (before.get("state") != RAN or before.get("lost", 0) >= 1):
        return  # done, or given up, when the sweep was started before
    overrides = [str(o) for o in hydra.overrides.task]
    record: Dict[str, Any] = {"state": RAN, "code": 1, "overrides": overrides, "folders": [], "reason": ""}
    record.update(pid=os.getpid(), host=platform.node())
    record["lost"] = before.get("lost", -1) + 1 if before else 0
    write_json(record_file, record)
    if os.path.isdir(hydra.runtime.cwd):
        os.chdir(hydra.runtime.cwd)  # a launcher may start its processes anywhere
    jobs = len(listed["jobs"])
    print("\njob %d%s: %s" % (number, " (0 to %d)" % (jobs - 1) if jobs else "", " ".join(overrides)), flush=True)
    done: List[str] = []

    def note(state: str, folders: Sequence[Path]) -> None:
        done.append(state)
        record["folders"] = [str(f) for f in folders]

    code, reason = _guarded(lambda: work(note))
    state = (done or ["trained"])[-1] if code == 0 else INTERRUPTED if code >= 128 else FAILED
    record.update(state=state, code=code, reason=reason, seconds=time.monotonic() - began)
    write_json(record_file, record)
    gc.collect()  # the next job in this process finds the memory of this one free
    # no signal may start the next job here; elsewhere an exception would only look like a crash
    if code >= 128 and (listed["pid"], listed["host"]) == (os.getpid(), platform.node()):
        raise SystemExit(code)


def _guarded(work: Callable[[], int]) -> Tuple[int, str]:
    """(exit code, why) of a job, whatever it raises; its errors are printed as those of a single run."""
    raised: List[BaseException] = []

    def remembering() -> int:
        try:
            return work()
        except BaseException as error:
            raised.append(error)
            raise

    try:
        code = report_errors(remembering)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    if not raised or code >= 128:
        return code, ""
    kind = "" if isinstance(raised[0], UserError) else type(raised[0]).__name__ + ": "
    return code, " ".join((kind + str(raised[0])).split())[:300]


def skips(setting: Any) -> bool:
    """What skip_finished means here: auto is true in a sweep and false in a single run."""
    return current() is not None if setting == "auto" else bool(setting)


def share_cores(settled: Dict[str, Any], torch_threads: Any) -> Dict[str, Any]:
    """``settled`` with the threads of one of several jobs that share this machine, where the user set none."""
    cores = cores_per_job()
    if cores is None:
        return settled
    shared = dict(settled)
    if torch_threads == "auto":
        shared["torch_threads"] = max(1, cores // 2)
        shared["update_threads"] = cores
    if shared["sim"].get("threads") == 0:
        shared["sim"] = {**shared["sim"], "threads": cores}
    return shared


def cores_per_job() -> Optional[int]:
    """Cores for each of the jobs that a launcher runs at the same time; None where a job has the machine to itself."""
    from hydra.core.hydra_config import HydraConfig

    folder = current()
    if folder is None:
        return None
    launcher, cores = HydraConfig.get().launcher, usable_cores()
    kind = str(launcher.get("_target_", "")).rsplit(".", 1)[-1]
    jobs = len((read_json(folder / JOBS_FILE) or {}).get("jobs", [])) or cores
    if kind == "JoblibLauncher":
        # joblib counts from the end: -1 is as many as there are cores
        wanted = int(launcher.n_jobs) if launcher.n_jobs > 0 else cores + 1 + int(launcher.n_jobs)
        return max(1, cores // max(1, min(wanted, jobs)))
    if kind == "RayLauncher":
        return max(1, int(launcher.ray.remote.get("num_cpus") or 1))  # Ray's own default is one
    if kind == "LocalLauncher":  # submitit without SLURM starts all jobs at once
        return int(launcher.cpus_per_task or max(1, cores // jobs))
    return None  # one after the other, or SLURM, which shows a job its own cores only
