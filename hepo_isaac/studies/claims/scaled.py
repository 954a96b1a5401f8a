"""A task's own heuristic times a constant: heuristic=hepo_isaac.studies.claims.scaled:push2d_hundred."""

from __future__ import annotations

from typing import Any, Callable, Dict

from torch import Tensor

from hepo_isaac.locate import task_class

FACTORS = {"hundredth": 0.01, "hundred": 100.0, "thousand": 1000.0}


def _scaled(task: str, factor: float) -> Callable[[Any], Dict[str, Tensor]]:
    function = task_class(task).heuristics["default"]

    def heuristic(state: Any) -> Dict[str, Tensor]:
        return {name: factor * value for name, value in function(state).items()}

    return heuristic


push2d_hundredth, push2d_hundred, push2d_thousand = (_scaled("Push2D", c) for c in FACTORS.values())
effortreach_hundredth, effortreach_hundred, effortreach_thousand = (_scaled("EffortReach", c) for c in FACTORS.values())
