"""KeyDoor: fetch the key in one corner, then stand at the door in the opposite one.

Dynamics: point p in [-1, 1]^2 moves SPEED a per step and axis; it has the key from the step on in which it is within
RADIUS of KEY. Start: uniform on [-0.3, 0.3]^2, without the key.

r = 1[has the key and is within RADIUS of DOOR] / T, which exploration by noise hardly ever finds. h: ``default``
leads to the key, then to the door (aligned); ``key`` pays for the key alone (J(pi_H) = 0, though the right first
half); ``door`` leads to the door without the key (J = 0).

Optimum: the fewest steps start - key - door; with q the point where the key is taken, n = min_q ceil(|q - p|_inf /
SPEED) + reach_steps(q - DOOR): J = E[T - n + 1] / T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator, midpoints, reach_steps, spread

SPEED = 0.1  # per step and axis
RADIUS = 0.15
KEY = (-0.7, 0.7)
DOOR = (0.7, -0.7)
START = 0.3


@dataclass
class KeyState:
    """pos (N, 2), has (N,) 1 with the key, else 0."""

    pos: Tensor
    has: Tensor

    def distance(self, x: float, y: float) -> Tensor:
        """(N,) to a point."""
        return torch.hypot(self.pos[:, 0] - x, self.pos[:, 1] - y)


def default(s: KeyState) -> Dict[str, Tensor]:
    """-distance to the key, or 3 - distance to the door with it."""
    return {"key": (s.has - 1.0) * s.distance(*KEY), "door": s.has * (3.0 - s.distance(*DOOR))}


def key_only(s: KeyState) -> Dict[str, Tensor]:
    """-distance to the key, 0 with it."""
    return {"key": (s.has - 1.0) * s.distance(*KEY)}


def door_only(s: KeyState) -> Dict[str, Tensor]:
    """-distance to the door, key or not."""
    return {"door": -s.distance(*DOOR)}


class KeyDoor(AnalyticTask):
    """See the module docstring."""

    name = "KeyDoor"
    num_obs = 5
    num_actions = 2
    num_uniforms = 2
    named = {"default": default, "key": key_only, "door": door_only}

    def configure(self, cfg: Mapping[str, Any]) -> None:
        self._key = torch.tensor(KEY, device=self.sim.device)
        self._door = torch.tensor(DOOR, device=self.sim.device)

    def start(self, uniform: Tensor) -> KeyState:
        return KeyState(spread(uniform, -START, START), torch.zeros_like(uniform[:, 0]))

    def advance(self, state: KeyState, actions: Tensor) -> KeyState:
        moved = KeyState((state.pos + SPEED * actions).clamp(-1.0, 1.0), state.has)
        moved.has = torch.maximum(state.has, indicator(moved.distance(*KEY) < RADIUS))
        return moved

    def observation(self, state: KeyState) -> Tensor:
        """Position, key or not, and the offset to what is wanted next."""
        has = state.has.unsqueeze(1)
        target = self._key + has * (self._door - self._key)
        return torch.cat((state.pos, has, target - state.pos), 1)

    def task_reward(self, state: KeyState) -> Tensor:
        return state.has * indicator(state.distance(*DOOR) < RADIUS) / self.max_episode_length

    def success(self, state: KeyState) -> Tensor:
        return (state.has > 0.5) & (state.distance(*DOOR) < RADIUS)

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        length = int(cfg["episode_length"])
        disc = spread(midpoints(60, 60), -RADIUS, RADIUS)
        disc = disc[disc.norm(dim=1) < RADIUS] + torch.tensor(KEY)
        start = spread(midpoints(60, 60), -START, START)
        to_key = torch.ceil((disc - start.unsqueeze(1)).abs().amax(2) / SPEED)
        steps = (to_key + reach_steps(disc - torch.tensor(DOOR), SPEED, RADIUS)).amin(1)
        return float((length + 1 - steps).mean()) / length


TASK = KeyDoor
