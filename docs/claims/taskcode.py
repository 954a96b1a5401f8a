"""What a task computed at a commit, as a hash: the settings of a run do not tell."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import subprocess
from pathlib import Path
from typing import Optional, Tuple

from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class

ROOT = Path(__file__).resolve().parents[2]


def code(task: str, commit: Optional[str] = None) -> str:
    """Hash of the modules of ``task`` at ``commit``, comments and docstrings aside.

    Of this checkout for no commit, and where the commit's cannot be known: without git, or when this clone lacks it.
    """
    then = [(commit and _before(file, commit)) or _meaning(_now(file)) for file in _files(task)]
    return hashlib.sha256("\n".join(then).encode()).hexdigest()[:16]


@functools.cache
def _files(task: str) -> Tuple[str, ...]:
    """The task's module and that of its heuristics, relative to the checkout."""
    try:
        module = Path(inspect.getfile(task_class(task)))
    except (UserError, TypeError, OSError):
        return ()
    found = sorted(f for f in (ROOT / "tasks").glob(module.stem + "*.py"))
    return tuple(str(f.relative_to(ROOT)) for f in found)


def _now(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@functools.cache
def _before(file: str, commit: str) -> Optional[str]:
    """The meaning of a file at a commit; None where that is not known."""
    asked = ["git", "-C", str(ROOT), "show", "%s:%s" % (commit, file)]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return _meaning(found.stdout)


@functools.cache
def _meaning(source: str) -> str:
    """The source without comments and docstrings, however it is laid out."""
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
    return ast.unparse(tree)
