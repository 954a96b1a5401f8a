"""What a task computed at a commit, as a hash: the settings of a run do not tell.

A task whose code was rewritten without a change of what it computes keeps the runs it has: docs/claims/same_code.json
maps the hash of the new code to the one that runs were recorded with. The map is written by a program that compares
what both compute (same_code.py).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Dict, Optional, Tuple

from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class
from hepo_isaac.studies.places import CHECKOUT, DOCS

SAME = DOCS / "claims" / "same_code.json"
# Where files were before tasks/ had folders.
FORMER_NAMES = {
    "push2d": "push2_d",
    "push2d_heuristics": "push2_d_heuristics",
    "maze2d": "maze2_d",
    "park2d": "park2_d",
}


def code(task: str, commit: Optional[str] = None) -> str:
    """Hash of the modules of ``task`` at ``commit``, comments and docstrings aside, or the hash of code that computed
    the same before.

    Of this checkout for no commit, and where the commit's cannot be known: without git, or when this clone lacks it.
    """
    found = written(task, commit)
    return same().get(task, {}).get(found, found)


def written(task: str, commit: Optional[str] = None) -> str:
    """Hash of the code as it is written, see ``code``."""
    then = [(commit and before(file, commit)) or meaning(now(file)) for file in files(task)]
    return hashlib.sha256("\n".join(then).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=None)
def same() -> Dict[str, Dict[str, str]]:
    """task -> hash of its code -> hash of earlier code that computes the same."""
    return json.loads(SAME.read_text(encoding="utf-8")) if SAME.exists() else {}


@functools.lru_cache(maxsize=None)
def files(task: str) -> Tuple[str, ...]:
    """The task's module and that of its heuristics, relative to the checkout."""
    try:
        module = Path(inspect.getfile(task_class(task)))
    except (UserError, TypeError, OSError):
        return ()
    return tuple(str(f.relative_to(CHECKOUT)) for f in sorted(module.parent.glob(module.stem + "*.py")))


def former(file: str) -> str:
    """The path that a task's file had before tasks/ had folders: tasks/suite/push2d.py was tasks/push2_d.py."""
    stem = Path(file).stem
    return re.sub(r"^tasks/(robots|suite)/.*", "tasks/%s.py" % FORMER_NAMES.get(stem, stem), file)


def now(file: str) -> str:
    """The text of a file of this checkout."""
    return (CHECKOUT / file).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=None)
def before(file: str, commit: str) -> Optional[str]:
    """The meaning of a file at a commit; None where that is not known."""
    for path in (file, former(file)):
        asked = ["git", "-C", str(CHECKOUT), "show", "%s:%s" % (commit, path)]
        try:
            found = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return meaning(found.stdout.decode("utf-8"))
    return None


@functools.lru_cache(maxsize=None)
def meaning(source: str) -> str:
    """The source without comments and docstrings, however it is laid out. Python 3.9 or newer."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)  # novm
