"""MountainCar: swing a weak car out of a valley; exploration by noise never finds the top.

Dynamics (the classic ones in half the time): v <- clip(v + 0.006 a - 0.01 cos 3x, +-0.14), x <- x + v, on -1.2 <=
x <= 0.5; the left wall stops the car, and at x = 0.5 it is parked for the rest of the episode. Start: x uniform on
[-0.6, -0.4], v = 0.

r = 1[parked] / T. h: ``default`` = mechanical energy, 0 at the bottom and 1 at the goal, + 1[parked] (aligned:
gathering energy is what is needed); ``height`` = sin 3x, greatest at the goal too, but what it first leads to is
leaning against the slope; ``speed`` = 10 |v|, which swings for ever and never parks.

Optimum: bang-bang, as every shortest way to an end state of such a car. optimal_return tries every sequence of up to
three stretches of full throttle, two of them at most 40 steps long: J = E[T - n + 1] / T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator, midpoints, spread

POWER = 0.006
GRAVITY = 0.01
SPEED_MAX = 0.14
LEFT, GOAL = -1.2, 0.5
START = (-0.6, -0.4)
# Potential energy is (GRAVITY / 3) sin 3x: lowest at x = -pi/6.
BOTTOM_ENERGY = -GRAVITY / 3.0
GOAL_ENERGY = GRAVITY / 3.0 * math.sin(3.0 * GOAL)


@dataclass
class CarState:
    """x (N,), v (N,)."""

    x: Tensor
    v: Tensor

    @property
    def parked(self) -> Tensor:
        """(N,) bool."""
        return self.x >= GOAL


def default(s: CarState) -> Dict[str, Tensor]:
    """Energy on a scale from 0 (bottom) to 1 (goal), + 1[parked]."""
    energy = 0.5 * s.v.square() + (GRAVITY / 3.0) * torch.sin(3.0 * s.x)
    return {"energy": (energy - BOTTOM_ENERGY) / (GOAL_ENERGY - BOTTOM_ENERGY), "parked": indicator(s.parked)}


def height(s: CarState) -> Dict[str, Tensor]:
    """sin 3x."""
    return {"height": torch.sin(3.0 * s.x)}


def speed(s: CarState) -> Dict[str, Tensor]:
    """10 |v|."""
    return {"speed": 10.0 * s.v.abs()}


def drive(s: CarState, throttle: Tensor) -> CarState:
    """State after one step with throttle (N,) in [-1, 1]."""
    v = (s.v + POWER * throttle - GRAVITY * torch.cos(3.0 * s.x)).clamp(-SPEED_MAX, SPEED_MAX)
    x = (s.x + v).clamp(LEFT, GOAL)
    x = torch.where(s.parked, s.x, x)
    return CarState(x, torch.where((x <= LEFT) | (x >= GOAL), torch.zeros_like(v), v))


class MountainCar(AnalyticTask):
    """See the module docstring."""

    name = "MountainCar"
    num_obs = 2
    num_actions = 1
    num_uniforms = 1
    heuristics = {"default": default, "height": height, "speed": speed}

    def start(self, uniform: Tensor) -> CarState:
        return CarState(spread(uniform[:, 0], *START), torch.zeros_like(uniform[:, 0]))

    def advance(self, state: CarState, actions: Tensor) -> CarState:
        return drive(state, actions[:, 0])

    def observation(self, state: CarState) -> Tensor:
        return torch.stack((2.0 * state.x + 1.0, 10.0 * state.v), 1)

    def task_reward(self, state: CarState) -> Tensor:
        return indicator(state.parked) / self.max_episode_length

    def success(self, state: CarState) -> Tensor:
        return state.parked

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        length = int(cfg["episode_length"])
        return float((length + 1 - fewest_steps(length)).to(torch.float32).mean()) / length


def fewest_steps(length: int, starts: int = 41, longest: int = 40) -> Tensor:
    """(starts,) steps to the goal with the best throttle +1 for i, -1 for j, then +1, over all i, j <= longest."""
    plans = torch.cartesian_prod(torch.arange(longest + 1), torch.arange(longest + 1))  # (M, 2)
    first, second = plans[:, 0], plans.sum(1)
    x = spread(midpoints(starts), *START).expand(starts, len(plans))
    state = CarState(x, torch.zeros_like(x))
    steps = torch.ones(starts, len(plans))
    for k in range(length):
        throttle = 1.0 - 2.0 * indicator((k >= first) & (k < second))
        state = drive(state, throttle)
        steps += indicator(~state.parked)
        if bool(state.parked.any(1).all()):
            break
    return torch.where(state.parked, steps, torch.full_like(steps, length + 1.0)).amin(1)


TASK = MountainCar
