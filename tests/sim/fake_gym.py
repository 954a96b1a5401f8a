"""Puts the fake Isaac Gym (tests/fakes/isaacgym) where ``import isaacgym`` finds it."""

import os
import sys
from pathlib import Path

FAKES = str(Path(__file__).resolve().parents[1] / "fakes")
AFTER_TORCH = "FAKE_ISAACGYM_AFTER_TORCH"


def install():
    """From here on ``import isaacgym`` is the fake, even after torch, in this process.

    A test of a machine without Isaac Gym sets sys.modules["isaacgym"] to None with monkeypatch.
    """
    os.environ[AFTER_TORCH] = "1"
    if FAKES not in sys.path:
        sys.path.insert(0, FAKES)


def environment():
    """os.environ for a process of its own: it finds the fake, and must import it before torch, as the real one."""
    path = os.pathsep.join([FAKES] + [p for p in [os.environ.get("PYTHONPATH")] if p])
    env = dict(os.environ, PYTHONPATH=path)
    env.pop(AFTER_TORCH, None)
    return env
