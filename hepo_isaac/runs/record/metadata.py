"""What a reader needs to repeat a run: code version, library versions, hardware, command."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import hepo_isaac
from hepo_isaac import ranks
from hepo_isaac.runs.record.files import read_json

CODE = ("hepo_isaac", "tasks", "cfg", "train.py")  # what a run is made of


def now() -> str:
    """Coordinated universal time to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def collect() -> Dict[str, Any]:
    """Describe this process: time, command line, git commit, versions, hardware. Never fails; unknown is None."""
    return {
        "started": now(),
        "command": " ".join(shlex.quote(a) for a in [os.path.basename(sys.executable)] + sys.argv),
        "git": git_state(Path(hepo_isaac.__file__).resolve().parent.parent),
        "versions": versions(),
        "hardware": hardware(),
        **ranks.described(),
    }


def git_state(root: Path) -> Optional[Dict[str, Any]]:
    """Return {"commit", "dirty"} of the checkout whose top folder is ``root``, else None.

    An installed package may sit inside some other project's checkout (its virtual environment); that commit would
    say nothing about our code, so the top folder must be ``root`` itself. ``dirty``: a tracked file has changed, or
    code lies in CODE that git does not track; runs and notes do not matter. A bundle (docs/bundle.md) says in the
    bundle.json beside the package which commit it was made from.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != root.resolve():
        made = read_json(root / "bundle.json")
        if not isinstance(made, dict) or not made.get("commit"):
            return None
        return {"commit": made["commit"], "dirty": made.get("dirty")}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    added = _git(root, "ls-files", "--others", "--exclude-standard", "--", *CODE)
    return {"commit": commit, "dirty": None if changed is None or added is None else bool(changed or added)}


def _git(root: Path, *args: str) -> Optional[str]:
    """Output of one git command, or None where git or the repository is missing."""
    try:
        done = subprocess.run(["git"] + list(args), cwd=str(root), capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> Dict[str, Optional[str]]:
    """Versions of Python and of the packages a result can depend on."""
    found: Dict[str, Optional[str]] = {"python": platform.python_version()}
    try:
        from importlib import metadata
    except ImportError:  # pragma: no cover - Python 3.7 and older are not supported
        return found
    for name in ("torch", "mujoco", "rl-games", "numpy", "gymnasium", "mujoco-warp", "warp-lang"):
        try:
            found[name.replace("-", "_")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name.replace("-", "_")] = None
    found["hepo_isaac"] = getattr(hepo_isaac, "__version__", None)
    return found


def hardware() -> Dict[str, Any]:
    """CPU model, usable cores, memory in GiB, GPU names."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": _memory_gib(),
        "gpus": gpus,
        "system": platform.platform(),
    }


def _cpu_model() -> str:
    """The CPU's marketing name; the architecture where there is none to be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> Optional[float]:
    """Physical memory in GiB."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
