"""Puts the fake Isaac Gym (tests/fakes/isaacgym) where ``import isaacgym`` finds it."""

import os
import sys
from pathlib import Path

FAKES = str(Path(__file__).resolve().parents[1] / "fakes")


def install():
    """From here on ``import isaacgym`` is the fake, even after torch. Child processes need ``environment()``."""
    os.environ["FAKE_ISAACGYM_AFTER_TORCH"] = "1"
    if FAKES not in sys.path:
        sys.path.insert(0, FAKES)


def environment():
    """os.environ for a process of its own: PYTHONPATH finds the fake, and torch may come first only if it may here."""
    path = os.pathsep.join([FAKES] + [p for p in [os.environ.get("PYTHONPATH")] if p])
    return dict(os.environ, PYTHONPATH=path)
