"""What W&B has of a run already, and under which id: decided before the W&B process opens its record.

W&B numbers rows by steps that only grow. A row for an iteration that it has is dropped without an error, and `wandb
sync` appends every offline record of one id to the others and renumbers its steps. So a run that is resumed hands over
what W&B lacks and nothing else; where W&B has iterations that the run does not have any more, a new record begins.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, MutableMapping, Optional, Tuple

# What tells wandb that it runs under an agent; it then takes its id, project and entity from there alone.
OF_AN_AGENT = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
SUPERSEDED = "superseded-"


@dataclass
class Plan:
    """Which W&B record a run writes.

    id: of the record.   after: W&B has this run's iterations up to this one (offline; online its server says so).
    left: id of the record that this run had before and leaves, or None.
    superseded: offline records that this one replaces as a whole.
    """

    id: str
    after: int = 0
    left: Optional[str] = None
    superseded: Tuple[Path, ...] = ()


class WandbRecord:
    """The id of a run's W&B record (``wandb_id``) and how far it was handed over (``wandb/handed.json``)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._id_file = folder / "wandb_id"
        self._handed_file = folder / "wandb" / "handed.json"

    @property
    def id(self) -> Optional[str]:
        """The id, if there is one."""
        try:
            return self._id_file.read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def begin(self, given: Optional[str] = None) -> str:
        """Take ``given`` or an id of our own for a new record."""
        taken = given or secrets.token_hex(4)
        self._id_file.write_text(taken + "\n", encoding="utf-8")
        return taken

    def plan(self, trained: int, offline: bool, given: Optional[str] = None, appends: bool = True) -> Plan:
        """Which record a run that has ``trained`` iterations goes on with.

        Args:
            offline: whether W&B's server cannot be asked.
            given: the id that an agent chose.
            appends: whether this version's ``wandb sync`` adds a second record of one id to the first.
        """
        known = self.id
        if known is None:
            return Plan(self.begin(given))
        unsynced = tuple(d for d in self._records("offline-run-*-" + known) if not _marker(d).exists())
        if not offline:
            return Plan(known, superseded=unsynced)
        others = [d for d in self._records("*run-*-" + known) if d not in unsynced]
        if not others:  # nobody else has seen this record yet: it is written anew, from the first iteration on
            return Plan(known, superseded=unsynced)
        handed, closed = self._handed()
        whole = appends and closed and handed <= trained and not unsynced and all(_synced_as_it_is(d) for d in others)
        if whole:
            return Plan(known, after=handed)
        return Plan(self.begin(), left=known, superseded=unsynced)

    def hand(self, iteration: int, closed: bool = False) -> None:
        """Note that W&B was given the iterations up to ``iteration``; ``closed``: and took them all."""
        self._handed_file.parent.mkdir(exist_ok=True)
        text = json.dumps({"iteration": iteration, "closed": closed})
        temporary = self._handed_file.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(str(temporary), str(self._handed_file))

    def _handed(self) -> Tuple[int, bool]:
        try:
            found = json.loads(self._handed_file.read_text(encoding="utf-8"))
            return int(found["iteration"]), bool(found["closed"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, False

    def _records(self, pattern: str) -> List[Path]:
        found = sorted((self.folder / "wandb").glob(pattern))
        return [d for d in found if not d.name.startswith(SUPERSEDED) and d.is_dir() and not d.is_symlink()]


def sync_appends() -> bool:
    """Whether ``wandb sync`` is the one that asks the server what it has; before 0.31 it wrote over it."""
    from importlib import metadata

    try:
        return tuple(int(part) for part in metadata.version("wandb").split(".")[:2]) >= (0, 31)
    except (metadata.PackageNotFoundError, ValueError):
        return True


def supersede(records: Tuple[Path, ...]) -> None:
    """Keep offline records under a name that ``wandb sync`` does not upload."""
    for record in records:
        with contextlib.suppress(OSError):
            record.rename(record.with_name(SUPERSEDED + record.name))


def _log_of(record: Path) -> Path:
    return record / ("run-%s.wandb" % record.name.rsplit("-", 1)[-1])


def _marker(record: Path) -> Path:
    """Written by ``wandb sync`` when it has uploaded the record."""
    log = _log_of(record)
    return log.with_name(log.name + ".synced")


def _synced_as_it_is(record: Path) -> bool:
    """Whether an offline record was uploaded after its last row had been written."""
    try:
        uploaded = _marker(record).stat().st_mtime_ns
        return record.name.startswith("offline-run-") and uploaded >= _log_of(record).stat().st_mtime_ns
    except OSError:
        return False


# ---- agents ---------------------------------------------------------------------------------------------------------


def agents_id(environment: MutableMapping[str, str]) -> Optional[str]:
    """The id that an agent of a W&B sweep has chosen; an id alone may be left over from anything."""
    return environment.get("WANDB_RUN_ID") or None if environment.get("WANDB_SWEEP_ID") else None


def leave_the_agent(environment: MutableMapping[str, str]) -> Dict[str, str]:
    """Take the agent's run out of ``environment``; what a run beside it has in common with it, as options."""
    if not environment.get("WANDB_SWEEP_ID"):
        return {}
    for name in OF_AN_AGENT:
        environment.pop(name, None)
    names = {"project": "WANDB_PROJECT", "entity": "WANDB_ENTITY"}
    return {option: environment[name] for option, name in names.items() if environment.get(name)}


# ---- rows -----------------------------------------------------------------------------------------------------------


class Rows:
    """Reads metrics.csv while it is being written, each iteration once.

    Args:
        path: of metrics.csv; it may be replaced by a wider one at any moment.
        after: iterations up to this one are left out.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        self.done = after
        self._path = path
        self._file: Optional[BinaryIO] = None
        self._header: List[str] = []

    def up_to(self, iteration: int) -> Iterator[Dict[str, float]]:
        """The finite numbers of every iteration not given yet, up to ``iteration``."""
        while self.done < iteration:
            replaced = self._open()
            for row in self._next_rows(iteration):
                self.done = int(row["iteration"])
                yield row
            if not replaced and not self._replaced():
                return  # the file has no more

    def _replaced(self) -> bool:
        if self._file is None:
            return True
        try:
            now, mine = os.stat(str(self._path)), os.fstat(self._file.fileno())
        except OSError:
            return False
        return (now.st_ino, now.st_dev) != (mine.st_ino, mine.st_dev)

    def _open(self) -> bool:
        """Open the file if it is another one than before; whether it was."""
        if not self._replaced():
            return False
        self.close()
        self._file = open(str(self._path), "rb")  # noqa: SIM115 (open between rows)
        self._header = _cells(self._file.readline())
        return True

    def _next_rows(self, iteration: int) -> Iterator[Dict[str, float]]:
        file = self._file
        assert file is not None
        while True:
            start = file.tell()
            line = file.readline()
            row = self._numbers(line) if line.endswith(b"\n") else {}
            if not line.endswith(b"\n") or row.get("iteration", 0) > iteration:
                file.seek(start)  # half written, or not yet to be handed over
                return
            if row.get("iteration", 0) > self.done:
                yield row

    def _numbers(self, line: bytes) -> Dict[str, float]:
        found: Dict[str, Any] = {}
        for name, cell in zip(self._header, _cells(line)):
            with contextlib.suppress(ValueError):
                found[name] = float(cell)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _cells(line: bytes) -> List[str]:
    return next(csv.reader([line.decode("utf-8")]), [])
