"""Policies that come along: one small run folder for each robot task that was learned, in hepo_isaac/policies.

Each folder holds a run's config.yaml and its best checkpoint without what only training needs, so that whatever plays,
evaluates or exports a run does so with these. policies.yaml beside them says what each is worth and how it was made;
``python -m hepo_isaac.studies.bundle_policies`` writes all of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, Optional

import yaml

from hepo_isaac.errors import UserError
from hepo_isaac.locate import PACKAGE

FOLDER = PACKAGE / "policies"
INDEX = "policies.yaml"


def entries() -> Dict[str, Dict[str, Any]]:
    """What policies.yaml says, by task: see docs/export.md for its keys; {} where nothing came along."""
    file = FOLDER / INDEX
    found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return dict(found or {})


def bundled_run(task: str) -> Path:
    """The run folder of a task's policy.

    Raises:
        UserError: none came along for this task.
    """
    known = entries()
    if task not in known:
        raise UserError(
            "no policy for task=%s came along; there is one for: %s. Name a run: run=<run folder or checkpoint>"
            % (task, ", ".join(sorted(known)) or "no task")
        )
    return FOLDER / task


def entry_of(folder: Path) -> Optional[Dict[str, Any]]:
    """The entry of a run folder that came along, or None for any other run."""
    return entries().get(folder.name) if is_bundled(folder) else None


def is_bundled(folder: Path) -> bool:
    """Whether a run folder is one that came along: nothing is written there."""
    return folder.resolve().parent == FOLDER.resolve()


def rows() -> List[List[str]]:
    """One row per policy: task, J and H of pi and J of random actions, each with its standard error, success rate."""
    found = []
    for task, entry in sorted(entries().items()):
        mine = entry["policies"]["pi"]
        numbers = [_text(value) for value in (mine["J"], mine["H"], entry["random"]["J"])]
        found.append([task, *numbers, "%.0f %%" % (100.0 * mine[entry["success"]]["mean"])])
    return found


def made() -> List[str]:
    """How each was made, a line per policy."""
    return [
        "%s: %s (commit %s, seed %d)" % (task, entry["command"], entry["commit"][:8], entry["seed"])
        for task, entry in sorted(entries().items())
    ]


def _text(value: Dict[str, float]) -> str:
    """Mean and standard error to two digits of the error, three decimals at most."""
    error = value["std_error"]
    decimals = min(3, max(0, 1 - math.floor(math.log10(error)))) if error > 0 else 2
    return "%.*f ± %.*f" % (decimals, value["mean"], decimals, error)
