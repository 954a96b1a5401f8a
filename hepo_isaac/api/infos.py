"""What a step tells besides observation, reward and ends, in the layout of gymnasium's vector environments."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping

import numpy as np
import torch
from torch import Tensor

from hepo_isaac.envs.task import StepResult


class EpisodeSums:
    """Returns and length of the running episodes of N envs.

    Attributes:
        sums: (N, 2) r and h.  length: (N,) steps.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.sums = torch.zeros(num_envs, 2, device=device)
        self.length = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def clear(self) -> None:
        """All episodes begin."""
        self.sums.zero_()
        self.length.zero_()

    def add(self, result: StepResult) -> Dict[str, Tensor]:
        """Take in a step; returns the episodes' numbers with it, and begins those anew that ended."""
        self.sums += result.rewards
        self.length += 1
        found = {
            "task_return": self.sums[:, 0].clone(),
            "heuristic_return": self.sums[:, 1].clone(),
            "episode_length": self.length.clone(),
        }
        self.sums.masked_fill_(result.done.unsqueeze(1), 0.0)
        self.length.masked_fill_(result.done, 0)
        return found


def step_facts(result: StepResult) -> Dict[str, Any]:
    """What is told of every step, of all envs: tensors (N,), and dicts of them."""
    return {
        "task_reward": result.rewards[:, 0],
        "heuristic_reward": result.rewards[:, 1],
        "reward_terms": dict(zip(result.term_names, result.terms.unbind(1))),
        "metrics": dict(zip(result.metric_names, result.metrics.unbind(1))),
        "diverged": result.bad,
        "counted": result.counted,
    }


def converted(facts: Mapping[str, Any], convert: Callable[[Tensor], Any]) -> Dict[str, Any]:
    """``facts`` with every tensor converted, dicts and all."""
    return {k: converted(v, convert) if isinstance(v, dict) else convert(v) for k, v in facts.items()}


def masked(facts: Mapping[str, Any], mask: np.ndarray) -> Dict[str, Any]:
    """Arrays by name as gymnasium lays out infos: 0 where ``mask`` (N,) is False, and the mask beside each as _name."""
    found: Dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found[name] = masked(value, mask)
        else:
            found[name] = value if mask.all() else np.where(_column(mask, value), value, np.zeros_like(value))
        found["_" + name] = mask.copy()
    return found


def _column(mask: np.ndarray, value: np.ndarray) -> np.ndarray:
    return mask.reshape(mask.shape + (1,) * (value.ndim - 1))


def rows_as_objects(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(N,) objects: the row of ``values`` where ``mask``, else None, as gymnasium gives final observations."""
    found = np.full(len(mask), None, dtype=object)
    for index in np.flatnonzero(mask):
        found[index] = values[index]
    return found
