"""Survival: run forward without falling over, paid for staying alive and for saving energy.

Dynamics: speed v in [0, 1] changes by 0.05 a_0; the lean is unstable the more the faster: lean <- (1 + 0.2 v) lean +
0.1 a_1. |lean| > 1 is a fall and ends the episode. Start: v = 0, lean uniform on [-0.3, 0.3].

r = v / T: distance as a share of the greatest possible. h: ``default`` = 1 + 0.4 v - v^2 (alive bonus and energy):
every speed can be survived, so its optimum is v = 0.2 and J = 0.196; ``still`` = 1 - v^2, whose optimum stands still;
``aligned`` = 0.5 + 2 v - 0.5 lean^2.

Optimum: balance, and reach v = 1 as fast as possible: J = sum_k min(1, 0.05 k) / T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, spread

ACCELERATION = 0.05
INSTABILITY = 0.2
BALANCE = 0.1
LEAN_START = 0.3


@dataclass
class RunnerState:
    """speed (N,), lean (N,), a fall beyond +-1."""

    speed: Tensor
    lean: Tensor


def default(s: RunnerState) -> Dict[str, Tensor]:
    """1 + 0.4 v - v^2."""
    return {"alive": torch.ones_like(s.speed), "progress": 0.4 * s.speed, "energy": -s.speed.square()}


def still(s: RunnerState) -> Dict[str, Tensor]:
    """1 - v^2."""
    return {"alive": torch.ones_like(s.speed), "energy": -s.speed.square()}


def aligned(s: RunnerState) -> Dict[str, Tensor]:
    """0.5 + 2 v - 0.5 lean^2."""
    return {"alive": torch.full_like(s.speed, 0.5), "progress": 2.0 * s.speed, "lean": -0.5 * s.lean.square()}


class Survival(AnalyticTask):
    """See the module docstring."""

    name = "Survival"
    num_obs = 2
    num_actions = 2
    num_uniforms = 1
    heuristics = {"default": default, "still": still, "aligned": aligned}

    def start(self, uniform: Tensor) -> RunnerState:
        return RunnerState(torch.zeros_like(uniform[:, 0]), spread(uniform[:, 0], -LEAN_START, LEAN_START))

    def advance(self, state: RunnerState, actions: Tensor) -> RunnerState:
        speed = (state.speed + ACCELERATION * actions[:, 0]).clamp(0.0, 1.0)
        return RunnerState(speed, state.lean * (1.0 + INSTABILITY * speed) + BALANCE * actions[:, 1])

    def observation(self, state: RunnerState) -> Tensor:
        return torch.stack((state.speed, state.lean), 1)

    def task_reward(self, state: RunnerState) -> Tensor:
        return state.speed / self.max_episode_length

    def success(self, state: RunnerState) -> Tensor:
        return state.lean.abs() <= 1.0

    def over(self, state: RunnerState) -> Tensor:
        return state.lean.abs() > 1.0

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        length = int(cfg["episode_length"])
        return sum(min(1.0, ACCELERATION * k) for k in range(1, length + 1)) / length


TASK = Survival
