"""Park2D: bring a double integrator to rest at the origin; the benign case, r and h agree and r is dense.

Dynamics, per axis: v <- clip(v + 0.03 a, +-0.15), p <- clip(p + v, +-1), a wall stops v. Start: p uniform on [-1,
1]^2, v = 0.

r = (1 - (|p_x| + |p_y|) / 2) / T. h: ``default`` = -|p| - 0.5 |v| (aligned); ``fast`` = 10 |v| - |p|, which keeps
moving; ``sparse`` = 1[|p| < 0.1].

Optimum: the axes are independent: J = 1 - sum_t E|p_t| / T from value iteration over T steps on a grid of (p, v) with
linear interpolation (optimal_return), accurate to about 0.002.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator, spread

ACCELERATION = 0.03
SPEED_MAX = 0.15


@dataclass
class ParkState:
    """pos (N, 2), vel (N, 2) per step."""

    pos: Tensor
    vel: Tensor


def default(s: ParkState) -> Dict[str, Tensor]:
    """-|p| - 0.5 |v|."""
    return {"distance": -s.pos.norm(dim=1), "speed": -0.5 * s.vel.norm(dim=1)}


def fast(s: ParkState) -> Dict[str, Tensor]:
    """10 |v| - |p|."""
    return {"distance": -s.pos.norm(dim=1), "speed": 10.0 * s.vel.norm(dim=1)}


def sparse(s: ParkState) -> Dict[str, Tensor]:
    """1[|p| < 0.1]."""
    return {"near": indicator(s.pos.norm(dim=1) < 0.1)}


def move(pos: Tensor, vel: Tensor, action: Tensor) -> Tuple[Tensor, Tensor]:
    """Position and speed after one step; elementwise."""
    vel = (vel + ACCELERATION * action).clamp(-SPEED_MAX, SPEED_MAX)
    new = (pos + vel).clamp(-1.0, 1.0)
    return new, torch.where(new.abs() < 1.0, vel, torch.zeros_like(vel))


class Park2D(AnalyticTask):
    """See the module docstring."""

    name = "Park2D"
    num_obs = 4
    num_actions = 2
    num_uniforms = 2
    heuristics = {"default": default, "fast": fast, "sparse": sparse}

    def start(self, uniform: Tensor) -> ParkState:
        return ParkState(spread(uniform, -1.0, 1.0), torch.zeros_like(uniform))

    def advance(self, state: ParkState, actions: Tensor) -> ParkState:
        return ParkState(*move(state.pos, state.vel, actions))

    def observation(self, state: ParkState) -> Tensor:
        return torch.cat((state.pos, 10.0 * state.vel), 1)

    def task_reward(self, state: ParkState) -> Tensor:
        return (1.0 - state.pos.abs().mean(1)) / self.max_episode_length

    def success(self, state: ParkState) -> Tensor:
        return state.pos.norm(dim=1) < 0.1

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        length = int(cfg["episode_length"])
        cost = least_cost(length)
        return 1.0 - float(cost.mean()) / length


def least_cost(length: int, half: int = 100, speeds: int = 30, actions: int = 21) -> Tensor:
    """(2 half + 1,) sum of |p| over ``length`` steps from rest, by position: value iteration on one axis."""
    p, v = torch.linspace(-1.0, 1.0, 2 * half + 1), torch.linspace(-SPEED_MAX, SPEED_MAX, 2 * speeds + 1)
    grid = torch.meshgrid(p, v, torch.linspace(-1.0, 1.0, actions), indexing="ij")
    new_p, new_v = move(*grid)
    at_p, at_v = (new_p + 1.0) * half, (new_v / SPEED_MAX + 1.0) * speeds
    low_p, low_v = at_p.floor().clamp_max(2 * half - 1), at_v.floor().clamp_max(2 * speeds - 1)
    part_p, part_v = at_p - low_p, at_v - low_v
    corner = (low_p * len(v) + low_v).to(torch.int64)
    value = torch.zeros(len(p), len(v))
    for _ in range(length):
        flat = value.flatten()
        lower = flat[corner] * (1.0 - part_v) + flat[corner + 1] * part_v
        upper = flat[corner + len(v)] * (1.0 - part_v) + flat[corner + len(v) + 1] * part_v
        value = (new_p.abs() + lower * (1.0 - part_p) + upper * part_p).amin(2)
    return value[:, speeds]


TASK = Park2D
