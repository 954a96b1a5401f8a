"""Which tasks the default run takes where a test is for all of them."""

from __future__ import annotations

from typing import Any, Iterable, List, Sequence

import pytest

from hepo_isaac.locate import PREFIX, tasks_package

# One of each family of h; welded and floating hands, two hands and one, goals, joints and points are among them. All 22
# are one environment class and a record each, and the other 18 would take longer than all other robots together.
CHOSEN = ("ShadowHandOver", "ShadowHandSpin", "ShadowHandDoorOpenOutward", "ShadowHandPen")
OTHERS = frozenset(PREFIX + name for name in tasks_package().DEXTEROUS) - frozenset(CHOSEN)


def without_others(tasks: Iterable[str]) -> List[str]:
    """For tests that take minutes a task even where they are slow: the chosen ones stand for all dexterous tasks."""
    return [name for name in tasks if name not in OTHERS]


def sampled(tasks: Iterable[str], chosen: Sequence[str] = CHOSEN) -> List[Any]:
    """Parameters of a test: dexterous tasks that are not among the chosen ones are slow."""
    slow = (OTHERS | set(CHOSEN)) - set(chosen)
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in tasks]
