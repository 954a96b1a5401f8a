"""EffortReach: hold a point at a goal against a spring, with effort priced too high.

Dynamics: x in R^2, x <- x + 0.1 (a - 0.8 x): holding x costs the action a = 0.8 x. Start: x = 0. The goal g is drawn
anew for every episode, its distance uniform on [0.2, 1] and its direction uniform.

r = 1[|x - g| < RADIUS] / T. h = -|x - g|^2 - w |a|^2. Resting at x, h is best at x = g / (1 + 0.64 w), so the goal is
held only if it is nearer than RADIUS (1 + 0.64 w) / (0.64 w): ``default`` w = 0.5, 0.62 and about half of the goals;
``aligned`` w = 0.01, all; ``lazy`` w = 10, none.

Optimum: full speed on both axes, x_n = 1.25 (1 - 0.92^n), n the first with |max(|g| - x_n, 0)| < RADIUS, then hold: J
= E[T - n + 1] / T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, Heuristic, indicator, midpoints, spread

RATE = 0.1
SPRING = 0.8
RADIUS = 0.15
GOALS = (0.2, 1.0)


@dataclass
class ReachState:
    """pos (N, 2), goal (N, 2), actions (N, 2)."""

    pos: Tensor
    goal: Tensor
    actions: Tensor

    @property
    def distance2(self) -> Tensor:
        """(N,) squared distance to the goal."""
        return (self.pos - self.goal).square().sum(1)


def priced(w: float) -> Heuristic:
    """-|x - g|^2 - w |a|^2."""
    return lambda s: {"distance": -s.distance2, "effort": -w * s.actions.square().sum(1)}


def draw_goal(uniform: Tensor) -> Tensor:
    """(N, 2) goals from uniform (N, 2): distance, direction."""
    radius, angle = spread(uniform[:, 0], *GOALS), (2.0 * math.pi) * uniform[:, 1]
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), 1)


class EffortReach(AnalyticTask):
    """See the module docstring."""

    name = "EffortReach"
    num_obs = 4
    num_actions = 2
    num_uniforms = 2
    heuristics = {"default": priced(0.5), "aligned": priced(0.01), "lazy": priced(10.0)}

    def start(self, uniform: Tensor) -> ReachState:
        zero = torch.zeros_like(uniform)
        return ReachState(zero, draw_goal(uniform), zero)

    def advance(self, state: ReachState, actions: Tensor) -> ReachState:
        return ReachState(state.pos + RATE * (actions - SPRING * state.pos), state.goal, actions)

    def observation(self, state: ReachState) -> Tensor:
        return torch.cat((state.pos, state.goal - state.pos), 1)

    def task_reward(self, state: ReachState) -> Tensor:
        return indicator(self.success(state)) / self.max_episode_length

    def success(self, state: ReachState) -> Tensor:
        return state.distance2 < RADIUS**2

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        length = int(cfg["episode_length"])
        goal = draw_goal(midpoints(400, 400)).abs()
        reached = (1.0 - (1.0 - RATE * SPRING) ** torch.arange(length + 1)) / SPRING  # x_0 ... x_T
        missed = (goal - reached.view(-1, 1, 1)).clamp_min(0.0).norm(dim=2) >= RADIUS
        return float((length + 1 - missed.sum(0)).to(torch.float32).mean()) / length


TASK = EffortReach
