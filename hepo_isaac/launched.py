"""What torchrun tells each process of a run; without importing torch."""

from __future__ import annotations

import os
from typing import Tuple

# All of it, or this is no process of several.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether torchrun, or who speaks as it does, started this process as one of a run's."""
    return all(os.environ.get(name) for name in VARIABLES)


def local() -> Tuple[int, int]:
    """This process among those on this machine, and how many those are; (0, 1) for one that nobody launched."""
    return (int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])) if launched() else (0, 1)


def where() -> Tuple[str, str]:
    """Address and port at which the processes meet."""
    return os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")


def world() -> Tuple[int, int]:
    """This process among all, and how many those are, as the launcher says."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched() else (0, 1)
