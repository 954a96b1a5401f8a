"""What an engine did, in a file: plain arrays and JSON, readable by every Python, NumPy and torch."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple
from zipfile import BadZipFile

import numpy as np

from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.files import plain_json, write_atomic

FORMAT = 1
# What decides how a rollout goes, besides the engine and its physics: two recordings agree on it or are not compared.
MUST_AGREE = ("task", "heuristic", "seed", "actions", "steps", "num_envs", "single_steps", "obs_steps")
# An engine brings its own time step, and physics is what is being compared.
PHYSICS = "physics"


@dataclass
class Recording:
    """One engine's rollouts of one task. T steps, N environments, S single steps, K steps with observations.

    Attributes:
        meta: settings and origin as plain JSON values: those of MUST_AGREE, ``engine``, ``device``, ``names`` (dof,
            actor, free, term, metric), ``task_settings``, ``overrides``, ``versions``, ``hardware``, ``git``.
        arrays: by name. ``actions`` (T, N, K). ``start/…`` what all environments start from; ``states/…`` (S, N, …)
            what single steps start from, of the same parts: dof_pos, dof_vel (N, D), root_state (N, A, 13),
            dof_target_pos (N, D), progress (N,), and task/… what the task carries. ``free/…`` (T, N, …) and
            ``single/…`` (S, N, …) what steps led to: rewards (2: r, h), terms, metrics, terminated, time_out, bad,
            dof_pos, dof_vel, root_state, each before the reset where an episode ended; and obs, in ``free/`` (K, N, O)
            of the steps in ``obs_steps``.
    """

    meta: Dict[str, Any]
    arrays: Dict[str, np.ndarray]

    def group(self, prefix: str) -> Dict[str, np.ndarray]:
        """The arrays ``prefix/…`` by what follows."""
        return {k[len(prefix) + 1 :]: v for k, v in self.arrays.items() if k.startswith(prefix + "/")}

    @property
    def label(self) -> str:
        """Engine, and its device where that needs saying."""
        return str(self.meta["engine"])


def save(path: Path, recording: Recording) -> Path:
    """Write a recording as compressed .npz without pickles; returns ``path``.

    Raises:
        UserError: the folder cannot be written.
    """
    text = json.dumps(plain_json({"format": FORMAT, **recording.meta}), ensure_ascii=False)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, meta=np.frombuffer(text.encode("utf-8"), np.uint8), **_narrow(recording.arrays))  # type: ignore[arg-type]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UserError("%s cannot be written: %s" % (path, error)) from error
    return path


def _narrow(arrays: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Nothing wider than 32 bits leaves an engine."""
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}


def load(path: Path) -> Recording:
    """Read what ``save`` wrote.

    Raises:
        UserError: there is no such file, or it is no recording of this format.
    """
    if not path.is_file():
        raise UserError("%s does not exist; hepo-isaac parity task=… engine=… save=%s makes it" % (path, path))
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes().decode("utf-8"))
        version = meta.pop("format")
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, RecursionError, BadZipFile) as error:
        raise UserError("%s is no recording of hepo-isaac parity: %s" % (path, error or "it is empty")) from error
    if version != FORMAT:
        raise UserError(
            "%s has format %s and this release reads %d: record it anew with hepo-isaac parity save="
            % (path, version, FORMAT)
        )
    return Recording(meta, arrays)


def check_comparable(first: Recording, second: Recording) -> None:
    """Refuse two recordings that are not of the same task, settings, start states and actions.

    Raises:
        UserError: names what differs.
    """
    a, b = first.meta, second.meta
    for key in MUST_AGREE:
        if a[key] != b[key]:
            raise _differ(key, a[key], b[key])
    for key, mine, its in different(a["task_settings"], b["task_settings"]):
        if key.split(".")[0] != PHYSICS:
            raise _differ("task." + key, mine, its)
    for kind in ("dof", "free", "term", "metric"):
        if sorted(a["names"][kind]) != sorted(b["names"][kind]):
            raise _differ(kind + " names", ", ".join(a["names"][kind]), ", ".join(b["names"][kind]))
    if not np.array_equal(first.arrays["actions"], second.arrays["actions"]):
        raise UserError(
            "the two recordings have different actions: record the second with against=<file of the first>, which"
            " replays its actions"
        )
    starts = first.group("start"), second.group("start")
    if any(not np.array_equal(starts[0][k], starts[1].get(k)) for k in starts[0]):  # type: ignore[arg-type]
        raise UserError(
            "the two recordings have different start states: record the second with against=<file of the first>,"
            " which starts from its states"
        )


def _differ(key: str, mine: Any, its: Any) -> UserError:
    return UserError("recordings with different %s cannot be compared: %s and %s" % (key, mine, its))


def different(mine: Any, its: Any, prefix: str = "") -> List[Tuple[str, Any, Any]]:
    """(dotted key, one value, other value) of every leaf in which two nested settings differ; None where missing."""
    return list(_different(mine, its, prefix))


def _different(mine: Any, its: Any, prefix: str) -> Iterator[Tuple[str, Any, Any]]:
    if isinstance(mine, Mapping) and its is None or isinstance(its, Mapping) and mine is None:
        mine, its = mine or {}, its or {}
    if isinstance(mine, Mapping) and isinstance(its, Mapping):
        for key in [*mine, *(k for k in its if k not in mine)]:
            yield from _different(mine.get(key), its.get(key), prefix + "." + key if prefix else str(key))
    elif mine != its:
        yield prefix, mine, its


def positions(of: Sequence[str], within: Sequence[str], what: str) -> np.ndarray:
    """Where each name of ``of`` stands in ``within``.

    Raises:
        UserError: a name is missing there.
    """
    missing = [name for name in of if name not in within]
    if missing:
        raise UserError(
            "%s %s of one engine does not exist on the other, which has: %s" % (what, missing[0], ", ".join(within))
        )
    return np.array([list(within).index(name) for name in of], dtype=np.int64)
