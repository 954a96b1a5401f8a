"""Where a number first stopped being one: what an environment looks at in every step, and the words for it.

A number counts as broken if it is NaN, infinite or so large that float32 cannot hold its square: what is learned from
it would be NaN a little later. Everything is found on the device; nobody reads it before the iteration's end.
"""

from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

# In the order in which one causes another within a step: columns of StepResult.faults.
FAULTS = ("action", "observation", "task_reward", "heuristic", "potential", "metric")
LARGEST = 1e15
_SAID = {
    "action": "the policy's actions",
    "observation": "the observations of task {task}",
    "task_reward": "the task reward of {task}",
    "heuristic": "heuristic {heuristic}",
    "potential": "potential {potential}",
    "metric": "a metric of task {task}",
}
_HINT = {
    "action": "its weights are broken: a smaller train.learning_rate or train.max_lr may help",
    "observation": "check divisions and square roots in observe()",
    "task_reward": "check divisions and square roots in it",
    "heuristic": "check divisions and square roots in it",
    "potential": "check divisions and square roots in it",
    "metric": "check divisions in metrics()",
}


def sound(values: Tensor) -> Tensor:
    """Elementwise, whether a number can be learned from; False for NaN."""
    return values.abs() <= LARGEST


def stacked(faults: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """(N, len(FAULTS)) bool from (N,) masks by name; what is not there is no fault."""
    none = torch.zeros_like(like)
    return torch.stack([faults.get(name, none) for name in FAULTS], 1)


def sentence(fault: str, count: int, names: Mapping[str, str]) -> str:
    """What was wrong, what was expected and what to do.

    Args:
        names: of the task, the heuristic and the potential.
    """
    return "%s: NaN, infinity or beyond %.0e in %d cases; expected finite numbers: %s" % (
        _SAID[fault].format(**names),
        LARGEST,
        count,
        _HINT[fault],
    )
