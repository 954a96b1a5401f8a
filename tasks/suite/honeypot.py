"""Honeypot: a corridor of 10 steps to the goal, and a heuristic that pays for staying at its start.

Dynamics: states 0 ... 10; action > 0 moves one to the right, else one to the left, and state 0 stays. Start: state 0.
State 10 is the goal and ends the episode.

r = 1[goal] + HONEY 1[state 0] with HONEY = task.honey_reward, 0 by default. h: ``default`` pays c = 0.1 in state 0
for ever: its optimum never leaves, so J(pi_H) = 0 and the constraint J(pi) >= J(pi_H) is vacuous. ``aligned`` pays
for progress. With gamma = 0.99 the goal is optimal for r + lambda h iff lambda < (1 - gamma) gamma^9 / c = 0.09135.
The binding version is task.honey_reward=0.005: then J(pi_H) = 0.25 and the constraint has something to hold.

Optimum: walk straight, J = 1, or stay if HONEY T > 1, J = HONEY T: the best of the stationary policies, since the
state has no clock. The agent discounts: staying is its optimum iff HONEY / (1 - gamma) > gamma^9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator

GOAL = 10
BONUS = 0.1  # c


@dataclass
class ChainState:
    """cell (N,) int64 in 0 ... 10, step (N,) change of the cell in the last step."""

    cell: Tensor
    step: Tensor


def honeypot(s: ChainState) -> Dict[str, Tensor]:
    """c 1[state 0]."""
    return {"honeypot": BONUS * indicator(s.cell == 0)}


def aligned(s: ChainState) -> Dict[str, Tensor]:
    """c times the cells moved to the right, -c per step of time."""
    return {"progress": BONUS * s.step.to(torch.float32), "time": torch.full_like(s.cell, -BONUS, dtype=torch.float32)}


class Honeypot(AnalyticTask):
    """See the module docstring. cfg.honey_reward: r per step in state 0."""

    name = "Honeypot"
    num_obs = GOAL + 1
    num_actions = 1
    heuristics = {"default": honeypot, "aligned": aligned}

    def configure(self, cfg: Mapping[str, Any]) -> None:
        self._honey = float(cfg["honey_reward"])
        self._cells = torch.arange(GOAL + 1, device=self.sim.device)

    def start(self, uniform: Tensor) -> ChainState:
        zero = torch.zeros(self.sim.num_envs, dtype=torch.int64, device=self.sim.device)
        return ChainState(zero, zero)

    def advance(self, state: ChainState, actions: Tensor) -> ChainState:
        cell = (state.cell + 2 * (actions[:, 0] > 0.0) - 1).clamp_min(0)
        return ChainState(cell, cell - state.cell)

    def observation(self, state: ChainState) -> Tensor:
        return indicator(state.cell.unsqueeze(1) == self._cells)

    def task_reward(self, state: ChainState) -> Tensor:
        return indicator(state.cell == GOAL) + self._honey * indicator(state.cell == 0)

    def success(self, state: ChainState) -> Tensor:
        return state.cell == GOAL

    def over(self, state: ChainState) -> Tensor:
        return state.cell == GOAL

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        return max(1.0, float(cfg["honey_reward"]) * int(cfg["episode_length"]))


TASK = Honeypot
