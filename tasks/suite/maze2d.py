"""Maze2D: out of a U-shaped cup and around it to the goal behind its wall.

Dynamics: point p in [-1, 1]^2, each step moves x by SPEED a_x, then y by SPEED a_y. Walls: the bottom of the cup at
x = 0.3 for |y| <= 0.5 and its arms at y = +-0.5 for |x| <= 0.3; an axis whose move would cross a wall does not move.
Start: uniform on [-0.2, 0.2]^2, inside the cup, whose mouth is to the left. The goal is the disc of radius RADIUS
around (0.7, 0).

r = 1[in the goal] / T. h: ``default`` = -straight distance, whose optimum of the first hundred steps sits at the
bottom of the cup unless exploration goes against it all the way out; ``geodesic`` pays for progress on the way
around (aligned).

Optimum: k steps until x < -0.3 and |y| > 0.5, m more to the goal (optimal_return): J = E[T - k - m + 1] / T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator, midpoints, spread

SPEED = 0.15  # per step and axis
WALL = 0.3  # half-length of the arms; x of the bottom
ARM = 0.5  # |y| of the arms
GOAL = 0.7  # x of the goal
RADIUS = 0.3
START = 0.2
MARGIN = 0.08


@dataclass
class MazeState:
    """pos (N, 2), before (N, 2) the step."""

    pos: Tensor
    before: Tensor


def distance(pos: Tensor) -> Tensor:
    """(N,) straight distance to the goal."""
    return torch.hypot(pos[:, 0] - GOAL, pos[:, 1])


def geodesic_distance(pos: Tensor) -> Tensor:
    """(N,) length of the way to the goal around the cup, MARGIN clear of its corners so that the corners are no traps.

    By the mirror symmetry the way over the upper arm of (x, |y|) is the shorter one.
    """
    x, y = pos[:, 0], pos[:, 1].abs()
    corner_x, corner_y = WALL + MARGIN, ARM + MARGIN
    back = math.hypot(GOAL - corner_x, corner_y)
    over_right = torch.hypot(x - corner_x, y - corner_y) + back
    over_left = torch.hypot(x + corner_x, y - corner_y) + (2.0 * corner_x + back)
    # from above the arm the right corner hides the goal until the straight line passes it
    visible = (x > WALL) | (y * (GOAL - WALL) > ARM * (GOAL - x))
    behind = torch.where(visible, distance(pos), over_right)
    return torch.where((x <= WALL) & (y <= ARM), over_left, behind)


def straight(s: MazeState) -> Dict[str, Tensor]:
    """-straight distance."""
    return {"distance": -distance(s.pos)}


def geodesic(s: MazeState) -> Dict[str, Tensor]:
    """10 times the progress on the way around + 1[in the goal]."""
    progress = geodesic_distance(s.before) - geodesic_distance(s.pos)
    return {"progress": 10.0 * progress, "in_goal": indicator(distance(s.pos) < RADIUS)}


def move(pos: Tensor, actions: Tensor) -> Tensor:
    """(N, 2) after one step: x first, then y; a move across a wall does not happen, and the room is closed."""
    x, y = pos.unbind(1)
    new_x, new_y = (pos + SPEED * actions).clamp(-1.0, 1.0).unbind(1)
    x = torch.where(((x > WALL) != (new_x > WALL)) & (y.abs() <= ARM), x, new_x)
    outside = (y.abs() > ARM) != (new_y.abs() > ARM)
    y = torch.where(outside & (x.abs() <= WALL), y, new_y)
    return torch.stack((x, y), 1)


class Maze2D(AnalyticTask):
    """See the module docstring."""

    name = "Maze2D"
    num_obs = 2
    num_actions = 2
    num_uniforms = 2
    heuristics = {"default": straight, "geodesic": geodesic}

    def start(self, uniform: Tensor) -> MazeState:
        pos = spread(uniform, -START, START)
        return MazeState(pos, pos)

    def advance(self, state: MazeState, actions: Tensor) -> MazeState:
        return MazeState(move(state.pos, actions), state.pos)

    def observation(self, state: MazeState) -> Tensor:
        return state.pos

    def task_reward(self, state: MazeState) -> Tensor:
        return indicator(self.success(state)) / self.max_episode_length

    def success(self, state: MazeState) -> Tensor:
        return distance(state.pos) < RADIUS

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        """k: x must pass -0.3 (x moves before y) and |y| pass 0.5 in the same step or later. Then x can run right
        from just left of -0.3, and y may come down from the step on in which x passes 0.3."""
        length = int(cfg["episode_length"])
        u = spread(midpoints(400, 400), -START, START)
        out = torch.maximum(steps_past(u[:, 0] + WALL), steps_past(ARM - u[:, 1].abs()))
        return float((length + 1 - out - around()).mean()) / length


def steps_past(gap: Tensor) -> Tensor:
    """Fewest steps that move strictly further than ``gap`` > 0."""
    return torch.floor(gap / SPEED) + 1.0


def around() -> int:
    """m: steps from just left and above the left corner into the goal."""
    passing = int(2.0 * WALL / SPEED + 1e-9) + 1
    m = passing
    while _outside(-WALL + m * SPEED, ARM - (m - passing + 1) * SPEED):
        m += 1
    return m


def _outside(x: float, y: float) -> bool:
    nearest: Tuple[float, float] = (max(GOAL - x, 0.0), max(y, 0.0))
    return nearest[0] ** 2 + nearest[1] ** 2 >= RADIUS**2


TASK = Maze2D
