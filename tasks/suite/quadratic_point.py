"""QuadraticPoint: one step, two parabolas.

Dynamics: an episode is one step; the action puts the point at x = 4 a.

r = -(x - 1)^2. h = -k (x - b)^2: ``default`` k = 1, b = 3; ``strong`` k = 10, b = 3; ``opposite`` k = 1, b = -3;
``aligned`` b = 1. The optimum of (1 + alpha) r + h is x = (1 + alpha + k b) / (1 + alpha + k): x = 3 and J = -4 for h
alone, x = 2 and J = -1 for alpha = 0 (default).

Optimum: x = 1, J = 0. Random, x = 4 clip(z): -1 - 16 E clip(z)^2 = -9.26. A stochastic policy loses 16 sigma^2 more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, Heuristic

SCALE = 4.0  # x at action 1
TARGET = 1.0


@dataclass
class PointState:
    """x (N,)."""

    x: Tensor


def parabola(k: float, b: float) -> Heuristic:
    """-k (x - b)^2."""
    return lambda s: {"parabola": -k * (s.x - b).square()}


class QuadraticPoint(AnalyticTask):
    """See the module docstring."""

    name = "QuadraticPoint"
    num_obs = 1
    num_actions = 1
    heuristics = {
        "default": parabola(1.0, 3.0),
        "strong": parabola(10.0, 3.0),
        "opposite": parabola(1.0, -3.0),
        "aligned": parabola(1.0, TARGET),
    }

    def start(self, uniform: Tensor) -> PointState:
        return PointState(torch.zeros(self.sim.num_envs, device=self.sim.device))

    def advance(self, state: PointState, actions: Tensor) -> PointState:
        return PointState(SCALE * actions[:, 0])

    def observation(self, state: PointState) -> Tensor:
        return torch.zeros(self.sim.num_envs, 1, device=self.sim.device)

    def task_reward(self, state: PointState) -> Tensor:
        return -(state.x - TARGET).square()

    def success(self, state: PointState) -> Tensor:
        return (state.x - TARGET).abs() < 0.5

    def over(self, state: PointState) -> Tensor:
        return torch.ones(self.sim.num_envs, dtype=torch.bool, device=self.sim.device)

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        return 0.0


TASK = QuadraticPoint
