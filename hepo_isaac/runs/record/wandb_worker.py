"""The W&B process of runs/record/wandb_sink.py: ``python -m hepo_isaac.runs.record.wandb_worker``.

Standard input: one JSON line that says what to start, then lines ``{"saved": K}``: the iterations up to K are to be
logged, from metrics.csv, and at last ``{"saved": K, "code": c}``: the run has ended, 0 is well. An end without that is
a run that was killed.
Standard output: "note …", "refused …" or "fatal …" lines for the user. It goes on where nobody reads them any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional, TextIO, Tuple

from hepo_isaac.runs.record.files import FILMS
from hepo_isaac.runs.record.wandb_record import Rows, WandbRecord, agents_id, leave_the_agent, supersede, sync_appends

# What wandb prints when it drops or cannot upload something.
_REFUSED = re.compile(r"wandb: +(?:(?:WARNING|ERROR) +(?P<warning>.*)|(?P<http>[1-9]\d\d encountered .*))")
_TELLING = threading.Lock()


def tell(out: TextIO, kind: str, message: str) -> None:
    """One line to the process that trains, if it is still there."""
    with _TELLING, contextlib.suppress(OSError, ValueError):
        out.write("%s %s\n" % (kind, " ".join(message.split())[:400]))
        out.flush()


def refusal(line: str) -> str:
    """What a line that wandb prints says of something dropped or refused; empty for any other line."""
    found = _REFUSED.match(re.sub(r"\x1b\[[0-9;]*m", "", line))
    return (found.group("warning") or found.group("http")) if found else ""


def take_what_wandb_prints(out: TextIO) -> threading.Thread:
    """Read it here, as wandb would end with whoever else read it, and pass on what the user is to know."""
    read, write = os.pipe()
    os.dup2(write, 1)
    os.dup2(write, 2)
    os.close(write)

    def listen() -> None:
        with open(read, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                text = refusal(line)
                if text:
                    tell(out, "refused", text)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    return thread


def mode(out: TextIO) -> str:
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
    tell(out, "note", "W&B has no key here: logging offline; upload later with wandb sync")
    return "offline"


def start(job: Dict[str, Any], out: TextIO) -> Tuple[Any, WandbRecord, int]:
    """Begin the W&B record, or go on with the run's own; also what is known of it and the last iteration it has."""
    folder, trained = Path(job["folder"]), int(job["trained"])
    options = {"dir": str(folder), "name": folder.name, "config": job["config"], **job["options"]}
    if "mode" not in options:
        options["mode"] = mode(out)
    record = WandbRecord(folder)
    agents = agents_id(os.environ) if job["agent"] else None
    plan = record.plan(trained, options["mode"] == "offline", agents, sync_appends())
    if plan.id != agents:
        options.update(leave_the_agent(os.environ))
    if plan.left:
        _going_back(options, out, plan.left, plan.id, trained)
    run = _init(options, plan.id)
    after = plan.after
    if options["mode"] == "online":
        after = int(run.starting_step) - 1 if run.starting_step else 0
        if after > trained:
            # W&B would drop every row that it has a step for
            run.finish(exit_code=1)
            options.update(leave_the_agent(os.environ))
            left, new = plan.id, record.begin()
            _going_back(options, out, left, new, trained)
            run, after = _init(options, new), 0
    supersede(plan.superseded)
    return run, record, after


def _init(options: Dict[str, Any], run_id: str) -> Any:
    import wandb

    return wandb.init(settings=wandb.Settings(console="off"), **{**options, "id": run_id, "resume": "allow"})


def _going_back(options: Dict[str, Any], out: TextIO, old: str, new: str, trained: int) -> None:
    """Name a record apart from the one that is left, and say so."""
    options["name"] = "%s-from%d" % (options["name"], trained)
    tell(
        out,
        "note",
        "the W&B run %s has iterations that this run, which is at %d, has not, or is not known to be whole, and W&B "
        "takes nothing back: it goes on as the W&B run %s, which has every iteration from the first on"
        % (old, trained, new),
    )


class Films:
    """The films that a run makes while it trains, each handed to W&B once.

    Args:
        folder: where they are.  after: the iteration up to which W&B has them.
    """

    def __init__(self, folder: Path, after: int) -> None:
        self._folder = folder
        self._handed = {path for path in self._there() if _iteration(path) <= after}

    def log(self, run: Any) -> None:
        """Hand over those that are new."""
        for path in [p for p in self._there() if p not in self._handed]:
            import wandb

            self._handed.add(path)
            run.log({"film": wandb.Video(str(path), format="mp4"), "film_iteration": _iteration(path)})

    def _there(self) -> List[Path]:
        return sorted(self._folder.glob("iteration_*.mp4"))


def _iteration(film: Path) -> int:
    digits = film.stem.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0


def follow(run: Any, record: WandbRecord, rows: Rows, lines: TextIO, films: Films) -> None:
    """Log what may be logged until the run ends, and close W&B's record."""
    code: Optional[int] = None
    for line in lines:
        message = json.loads(line)
        for row in rows.up_to(int(message["saved"])):
            run.log(row, step=int(row["iteration"]))
        record.hand(rows.done)
        films.log(run)
        if "code" in message:
            code = int(message["code"])
            break
    run.finish(exit_code=1 if code is None else code)
    record.hand(rows.done, closed=True)


def main() -> None:
    """Log until the run ends."""
    # whatever wandb prints must not be taken for a message to the user
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    listener = take_what_wandb_prints(out)
    try:
        job = json.loads(sys.stdin.readline())
        run, record, after = start(job, out)
        films = Films(Path(job["folder"]) / FILMS, after)
        follow(run, record, Rows(Path(job["metrics"]), after), sys.stdin, films)
    except ImportError as error:
        text = "W&B logging is on but needs wandb (%s): pip install 'hepo-isaac[wandb]'"
        tell(out, "fatal", text % error)
    except BaseException as error:  # wandb is known to raise SystemExit as well
        text = "W&B logging stopped (%s: %s); the run goes on without it, and metrics.csv has every row"
        tell(out, "fatal", text % (type(error).__name__, error))
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    listener.join(1.0)  # W&B's helpers may keep the pipe open


if __name__ == "__main__":
    main()
