"""Run by make test-py38 in a Python 3.8 with torch 2.4: everything compiles and imports there, and a run trains.

It is a script rather than a test: it needs no pytest, and its first failure is the message.
"""

from __future__ import annotations

import compileall
import importlib
import pkgutil
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import hepo_isaac
import tasks
from hepo_isaac.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# What Python 3.8 has no release of, or none that we know of (the peers); isaacgym is the user's to install.
ABSENT = {"mujoco.batch", "mujoco_warp", "warp", "isaacgym", "rsl_rl", "stable_baselines3"}
TRAIN = ["train.py", "task=Push2D", "algo=hepo", "train.max_iterations=3", "num_envs=16"]


def modules():
    """Names of all our modules."""
    for package in (hepo_isaac, tasks):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            yield found.name


def absent(failed: Exception) -> bool:
    """Whether an import failed for a package that cannot be here; a UserError may say so in our own words."""
    error = failed.__cause__ if isinstance(failed, UserError) else failed
    if not isinstance(error, ImportError):
        return False
    if error.name == "mujoco":  # from mujoco import batch: a submodule of newer releases
        return "'batch'" in str(error)
    return (error.name or "").split(".")[0] in ABSENT


def main() -> int:
    """Compile, import, train; the exit status."""
    if not compileall.compile_dir(str(ROOT / "hepo_isaac"), quiet=1) or not compileall.compile_dir(
        str(ROOT / "tasks"), quiet=1
    ):
        return 1
    skipped, count = [], 0
    for name in modules():
        try:
            importlib.import_module(name)
            count += 1
        except (ImportError, UserError) as error:
            if not absent(error):
                raise
            skipped.append(name)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, *TRAIN, "run_root=" + folder], cwd=str(ROOT))
        if done.returncode:
            return done.returncode
    print(
        "Python %s, torch %s: %d modules import, %d wait for an engine (%s), Push2D trains"
        % (platform.python_version(), torch.__version__, count, len(skipped), ", ".join(skipped))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
