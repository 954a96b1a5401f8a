"""What each setting is to a run: part of what the run is, or only how it is kept; and which may change at a resume.

One table, read by resuming (runs/launch.py), by skip_finished (runs/sweep/twins.py) and by comparisons (runs/compare).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping


@dataclass(frozen=True)
class Role:
    """What a setting is to a run.

    identity: another value makes another run, since what is learned or reported may differ.
    at_resume: a resumed run may change it, since nothing learned until then depends on it.
    """

    identity: bool
    at_resume: bool


RESULT = Role(identity=True, at_resume=False)  # what is learned
EXTENT = Role(identity=True, at_resume=True)  # how much of it there is
RECORD = Role(identity=False, at_resume=True)  # how it is recorded, and how fast it is (threads: the last bits differ)
CALL = Role(identity=False, at_resume=False)  # what this call does, and where

# Every key of cfg/config.yaml and its groups, and dotted keys that differ from the group they are in.
ROLES: Dict[str, Role] = {
    "task": RESULT,
    "task.source": CALL,
    "algo": RESULT,
    "sim": RESULT,
    "sim.threads": CALL,
    "budget": RESULT,
    "train": RESULT,
    "train.max_iterations": EXTENT,
    "train.fused": RECORD,
    "seed": RESULT,
    "seeds": RESULT,
    "device": RESULT,
    "num_envs": RESULT,
    "heuristic": RESULT,
    "potential": RESULT,
    "evaluation_episodes": EXTENT,
    "torch_threads": RECORD,
    "update_threads": RECORD,
    "checkpoint_every": RECORD,
    "keep_checkpoints": RECORD,
    "video": RECORD,
    "video_every": RECORD,
    "tensorboard": RECORD,
    "plot": RECORD,
    "wandb": RECORD,
    "run_root": CALL,
    "skip_finished": CALL,
    "resume": CALL,
    "test": CALL,
    "checkpoint": CALL,
    "eval": CALL,
    "trust": CALL,
}


def role(key: str) -> Role:
    """Of a dotted key: its own entry, or that of the nearest group it is in; a key nobody knows makes another run."""
    while key not in ROLES and "." in key:
        key = key.rpartition(".")[0]
    return ROLES.get(key, RESULT)


def changeable() -> List[str]:
    """What ``resume`` may change, groups by their names."""
    return [key for key, found in ROLES.items() if found.at_resume]


def identifying(config: Mapping[str, Any]) -> Dict[str, Any]:
    """The part of a resolved configuration that makes it another run, nested as it was.

    A setting that is null is as good as absent, so that a run made before it existed is still the same; of ``device``
    the number of the GPU does not count.
    """
    kept = _identifying(config, "")
    if "device" in kept:
        kept["device"] = str(kept["device"]).split(":")[0]
    return kept


def _identifying(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        inner = {str(k): (v, "%s.%s" % (path, k) if path else str(k)) for k, v in value.items() if v is not None}
        return {k: _identifying(v, dotted) for k, (v, dotted) in inner.items() if role(dotted).identity}
    if isinstance(value, (list, tuple)):
        return [_identifying(v, path) for v in value]
    return value
