"""Checkpoints: written so that a crash never harms the previous one, read so that nothing wrong is ever loaded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import torch

from hepo_isaac.errors import CheckpointError
from hepo_isaac.runs.record.files import number, write_atomic
from hepo_isaac.runs.record.screen import ForeignError, load

FORMAT = "hepo_isaac"
VERSION = 1
PERIODIC = "iteration_%06d.pt"


def plain(value: Any, where: str = "agent") -> Any:
    """Copy ``value`` into what ``torch.load(weights_only=True)`` accepts: CPU tensors, numbers, strings, lists, dicts.

    A tensor that is a slice of a larger storage is copied, else torch.save would write the whole storage.

    Raises:
        TypeError: something else is inside; the message says where. Found at save time, not when it is too late.
    """
    if isinstance(value, torch.Tensor):
        found = value.detach().cpu()
        whole = found.numel() * found.element_size()
        return found.clone() if found.untyped_storage().nbytes() > whole else found
    if value is None or isinstance(value, (bool, str, bytes)) or type(value) in (int, float, complex):
        return value
    if isinstance(value, Mapping):
        return {plain(k, where + " key"): plain(v, "%s[%r]" % (where, k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(v, "%s[%d]" % (where, i)) for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return plain(value.item(), where)  # a NumPy scalar
    raise TypeError(
        "a checkpoint cannot hold %s at %s: only tensors, numbers, strings, lists and dicts"
        % (type(value).__name__, where)
    )


def serialise(payload: Mapping[str, Any]) -> bytes:
    """Payload as the bytes of one checkpoint file."""
    buffer = io.BytesIO()
    torch.save(plain(payload, "payload"), buffer)
    return buffer.getvalue()


def save_checkpoint(path: Path, payload: Mapping[str, Any]) -> None:
    """Write ``payload`` to ``path`` atomically.

    Raises:
        OSError: not writable; what was at ``path`` is untouched.
        TypeError: the payload holds something that could not be loaded again.
    """
    write_atomic(path, serialise(payload))


def load_checkpoint(path: Union[str, Path], task: Optional[str] = None, algo: Optional[str] = None) -> Dict[str, Any]:
    """Read a checkpoint of ours, onto the CPU, running no code from the file.

    Args:
        task, algo: what the checkpoint must have been trained on and with; None accepts any.

    Raises:
        CheckpointError: missing, truncated, foreign, of another task or algo, or from a newer version. The message
            names the file, the reason and the newest good checkpoint beside it. Nothing on disk is changed.
    """
    path = Path(path)
    payload, reason = _read(path, task, algo)
    if payload is None:
        raise CheckpointError("cannot load checkpoint %s: %s; %s" % (path, reason, _advice(path, task, algo)))
    return payload


def _read(path: Path, task: Optional[str], algo: Optional[str]) -> Tuple[Optional[Dict[str, Any]], str]:
    """Return (payload, "") or (None, why not)."""
    if not path.is_file():
        return None, "there is no such file"
    try:
        payload = load(path)
    except ForeignError as error:
        return None, str(error)
    except OSError as error:
        return None, "it cannot be read (%s)" % (error.strerror or error)
    except Exception:
        # an unpickling error of any kind: bad bytes, or objects that only unsafe loading would accept
        return None, "it was not written by hepo_isaac (it holds more than plain tensors and numbers)"
    return _judge(payload, task, algo)


def _judge(payload: Any, task: Optional[str], algo: Optional[str]) -> Tuple[Optional[Dict[str, Any]], str]:
    """Accept what this version can continue from."""
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        return None, "it was not written by hepo_isaac"
    version = payload.get("version")
    if not isinstance(version, int) or version > VERSION:
        return None, "it has format version %s; this hepo_isaac reads up to %d (upgrade it)" % (version, VERSION)
    missing = [k for k in ("task", "algo", "num_envs", "seed", "iteration", "env_steps", "agent") if k not in payload]
    if missing:
        return None, "it lacks %s" % ", ".join(missing)
    kinds = {"task": str, "algo": str, "num_envs": int, "seed": int, "iteration": int, "env_steps": int, "agent": dict}
    wrong = [k for k, kind in kinds.items() if not isinstance(payload[k], kind)]
    wrong += ["runs"] if not isinstance(payload.get("runs", {}), dict) else []
    if wrong:
        return None, "its %s is not what a run writes" % ", ".join(wrong)
    for name, wanted in (("task", task), ("algo", algo)):
        if wanted is not None and payload[name] != wanted:
            return None, "it is from %s=%s, and %s=%s was asked for" % (name, payload[name], name, wanted)
    return payload, ""


def newest_good(
    folder: Path, task: Optional[str] = None, algo: Optional[str] = None, skip: Optional[Path] = None
) -> Optional[Tuple[Path, int]]:
    """The loadable checkpoint in ``folder`` with the most iterations, and that number; ``skip`` is left out."""
    good: List[Tuple[int, float, Path]] = []
    for path in sorted(folder.glob("*.pt")):
        if skip is not None and path.name == skip.name:
            continue
        payload, _ = _read(path, task, algo)
        if payload is not None:
            good.append((int(payload["iteration"]), path.stat().st_mtime, path))
    if not good:
        return None
    iteration, _, path = max(good)
    return path, iteration


def _advice(path: Path, task: Optional[str], algo: Optional[str]) -> str:
    """Second half of the error sentence: what to use instead."""
    found = newest_good(path.parent, task, algo, skip=path) if path.parent.is_dir() else None
    if found is None:
        return "there is no good checkpoint beside it"
    return "the newest good checkpoint beside it is %s (iteration %d)" % found


class CheckpointStore:
    """last.pt, best.pt and the newest few iteration_*.pt of one run.

    Args:
        folder: the run's checkpoints folder.
        header: task, algo, num_envs, seed: what every checkpoint of this run starts with.
        keep: how many iteration_*.pt to keep; older ones are deleted after a newer one is safely on disk. 0 keeps all.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], keep: int = 3) -> None:
        self.folder = folder
        self.header = dict(header)
        self.keep = keep

    def pack(self, agent: Any, extra: Mapping[str, Any]) -> bytes:
        """Serialise the agent once; the same bytes may then go to several files.

        ``extra`` is the run's own bookkeeping, returned under "runs" when loaded.
        """
        payload: Dict[str, Any] = {"format": FORMAT, "version": VERSION}
        payload.update(self.header)
        payload.update(iteration=int(agent.iteration), env_steps=int(agent.env_steps), runs=dict(extra))
        payload["agent"] = agent.get_full_state_weights()
        return serialise(payload)

    def write(self, name: str, data: bytes) -> Path:
        """Write ``data`` atomically as ``name`` (last.pt, best.pt, …)."""
        path = self.folder / name
        write_atomic(path, data)
        return path

    def write_periodic(self, iteration: int, data: bytes) -> Path:
        """Write iteration_<n>.pt and drop the oldest beyond ``keep``.

        Raises:
            OSError: not writable; then nothing has been dropped.
        """
        path = self.write(PERIODIC % iteration, data)
        if self.keep > 0:
            # oldest by time of writing: after going back to an earlier checkpoint, higher numbers are the older files
            older = [p for p in self.folder.glob("iteration_*.pt") if p != path]
            older.sort(key=lambda p: (p.stat().st_mtime_ns, p.name))
            for old in older[: max(0, len(older) + 1 - self.keep)]:
                old.unlink()
        return path

    def best_return(self) -> float:
        """The return best.pt was saved with: the mark to beat. -inf where there is no good best.pt.

        The mark lives in best.pt itself, so it cannot disagree with the policy that is really on disk.
        """
        payload, _ = _read(self.folder / "best.pt", self.header.get("task"), self.header.get("algo"))
        runs = (payload or {}).get("runs")
        return number(runs.get("best_return") if isinstance(runs, dict) else None, float("-inf"))
