"""KeyDoor: fetch the key in one corner, then stand at the door in the opposite one.

Dynamics: point p in [-1, 1]^2 moves SPEED a per step and axis; it has the key from the step on in which it is within
RADIUS of KEY. Start: uniform on [-0.3, 0.3]^2, without the key.

r = 1[has the key and is within RADIUS of DOOR] / T, which exploration by noise hardly ever finds. h: ``default`` pays
for progress on the way over the key to the door (aligned); ``key`` = -distance to the key, 0 with it (J(pi_H) = 0,
though the right first half); ``door`` = -distance to the door, key or not (J = 0).

Optimum: the fewest steps start - key - door; with q the point where the key is taken, n = min_q ceil(|q - p|_inf /
SPEED) + reach_steps(q - DOOR): J = E[T - n + 1] / T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator, midpoints, reach_steps, spread

SPEED = 0.1  # per step and axis
RADIUS = 0.15
KEY = (-0.7, 0.7)
DOOR = (0.7, -0.7)
APART = math.hypot(KEY[0] - DOOR[0], KEY[1] - DOOR[1])
START = 0.3


@dataclass
class KeyState:
    """pos (N, 2), has (N,) 1 with the key, else 0, progress (N,) by how much the last step shortened the way left."""

    pos: Tensor
    has: Tensor
    progress: Tensor

    def distance(self, x: float, y: float) -> Tensor:
        """(N,) to a point."""
        return torch.hypot(self.pos[:, 0] - x, self.pos[:, 1] - y)

    @property
    def way_left(self) -> Tensor:
        """(N,) over the key, unless it is taken, to the door."""
        return torch.where(self.has > 0.5, self.distance(*DOOR), self.distance(*KEY) + APART)

    @property
    def done(self) -> Tensor:
        """(N,) bool, at the door with the key."""
        return (self.has > 0.5) & (self.distance(*DOOR) < RADIUS)


def default(s: KeyState) -> Dict[str, Tensor]:
    """10 times the progress on the way + 1[at the door with the key]."""
    return {"progress": 10.0 * s.progress, "done": indicator(s.done)}


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
    heuristics = {"default": default, "key": key_only, "door": door_only}

    def configure(self, cfg: Mapping[str, Any]) -> None:
        self._key = torch.tensor(KEY, device=self.sim.device)
        self._door = torch.tensor(DOOR, device=self.sim.device)

    def start(self, uniform: Tensor) -> KeyState:
        zero = torch.zeros_like(uniform[:, 0])
        return KeyState(spread(uniform, -START, START), zero, zero)

    def advance(self, state: KeyState, actions: Tensor) -> KeyState:
        moved = KeyState((state.pos + SPEED * actions).clamp(-1.0, 1.0), state.has, state.progress)
        moved.has = torch.maximum(state.has, indicator(moved.distance(*KEY) < RADIUS))
        moved.progress = state.way_left - moved.way_left
        return moved

    def observation(self, state: KeyState) -> Tensor:
        """Position, key or not, and the offset to what is wanted next."""
        has = state.has.unsqueeze(1)
        target = self._key + has * (self._door - self._key)
        return torch.cat((state.pos, has, target - state.pos), 1)

    def task_reward(self, state: KeyState) -> Tensor:
        return indicator(state.done) / self.max_episode_length

    def success(self, state: KeyState) -> Tensor:
        return state.done

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
