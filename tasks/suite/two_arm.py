"""TwoArm: a bandit whose arms pay r = (1, 0) and h = (0, c).

Dynamics: an episode is one step; action > 0 pulls arm 1, else arm 2.

r = 1[arm 1]. h = c 1[arm 2], wrong whatever c: ``default`` c = 2, ``half`` c = 0.5; ``aligned`` pays arm 1. With the
raw sum r + h PPO pulls arm 1 iff c < 1. With separately standardised advantages z(A_r) = -z(A_h): equal weights
cancel, so the threshold is alpha = 0 for every c. J(pi_H) = 0, so the constraint J(pi) >= J(pi_H) is vacuous.

Optimum: arm 1, J = 1; random 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, Heuristic, indicator


@dataclass
class ArmState:
    """first (N,) 1 after arm 1, 0 after arm 2."""

    first: Tensor


def paying_second(c: float) -> Heuristic:
    """c 1[arm 2]."""
    return lambda s: {"second_arm": c * (1.0 - s.first)}


def aligned(s: ArmState) -> Dict[str, Tensor]:
    """1[arm 1]."""
    return {"first_arm": s.first.clone()}


class TwoArm(AnalyticTask):
    """See the module docstring."""

    name = "TwoArm"
    num_obs = 1
    num_actions = 1
    heuristics = {"default": paying_second(2.0), "half": paying_second(0.5), "aligned": aligned}

    def start(self, uniform: Tensor) -> ArmState:
        return ArmState(torch.zeros(self.sim.num_envs, device=self.sim.device))

    def advance(self, state: ArmState, actions: Tensor) -> ArmState:
        return ArmState(indicator(actions[:, 0] > 0.0))

    def observation(self, state: ArmState) -> Tensor:
        return torch.zeros(self.sim.num_envs, 1, device=self.sim.device)

    def task_reward(self, state: ArmState) -> Tensor:
        return state.first

    def success(self, state: ArmState) -> Tensor:
        return state.first > 0.5

    def over(self, state: ArmState) -> Tensor:
        return torch.ones(self.sim.num_envs, dtype=torch.bool, device=self.sim.device)

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        return 1.0


TASK = TwoArm
