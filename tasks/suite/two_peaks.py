"""TwoPeaks: a small peak of r nearby, a high one far away, and a heuristic that points to the small one.

Dynamics: x in [-1, 1] moves SPEED a per step. Start: uniform on [-0.6, 0.3].

r = (0.3 exp(-((x + 0.5) / 0.15)^2) + exp(-((x - 0.8) / 0.4)^2)) / T. h: ``default`` = -|x + 0.5|, whose optimum
earns J = 0.3; ``far`` = -|x - 0.8| (aligned); ``between`` = -|x - 0.1|, where r is nearly 0.

Optimum: to the far peak at full speed and stay: J = E sum_k r(min(0.8, x_0 + k SPEED)); slowing down on the way never
pays, since the far peak is worth more than the near one at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, Heuristic, midpoints, spread

SPEED = 0.08
NEAR, FAR = -0.5, 0.8
NEAR_HEIGHT = 0.3
NEAR_WIDTH, FAR_WIDTH = 0.15, 0.4
START = (-0.6, 0.3)


@dataclass
class PeakState:
    """x (N,)."""

    x: Tensor


def landscape(x: Tensor) -> Tensor:
    """r T at x."""
    near, far = ((x - NEAR) / NEAR_WIDTH).square(), ((x - FAR) / FAR_WIDTH).square()
    return NEAR_HEIGHT * torch.exp(-near) + torch.exp(-far)


def towards(target: float) -> Heuristic:
    """-|x - target|."""
    return lambda s: {"distance": -(s.x - target).abs()}


class TwoPeaks(AnalyticTask):
    """See the module docstring."""

    name = "TwoPeaks"
    num_obs = 1
    num_actions = 1
    num_uniforms = 1
    heuristics = {"default": towards(NEAR), "far": towards(FAR), "between": towards(0.1)}

    def start(self, uniform: Tensor) -> PeakState:
        return PeakState(spread(uniform[:, 0], *START))

    def advance(self, state: PeakState, actions: Tensor) -> PeakState:
        return PeakState((state.x + SPEED * actions[:, 0]).clamp(-1.0, 1.0))

    def observation(self, state: PeakState) -> Tensor:
        return 2.0 * state.x.unsqueeze(1)

    def task_reward(self, state: PeakState) -> Tensor:
        return landscape(state.x) / self.max_episode_length

    def success(self, state: PeakState) -> Tensor:
        return (state.x - FAR).abs() < 0.2

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        length = int(cfg["episode_length"])
        x = spread(midpoints(2000), *START) + SPEED * torch.arange(1, length + 1)  # (starts, T)
        return float(landscape(x.clamp_max(FAR)).mean())


TASK = TwoPeaks
