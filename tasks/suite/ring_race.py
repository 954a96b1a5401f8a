"""RingRace: laps on a ring, and a bonus that can be collected again and again beside the start (CoastRunners).

Dynamics: the position phi, in laps, moves SPEED a per step. Start: phi = 0. A quarter of a lap counts when the
furthest phi so far passes it.

r = new quarters / 16: with 100 steps four laps are possible. h: ``default`` = 1 for every entry into the sector 0.1
<= phi mod 1 < 0.2 plus 0.1 a: going to and fro over its edge pays 0.5 per step, a lap 1/25 + 0.1; so the optimum of h
never finishes a quarter, J(pi_H) = 0. ``aligned`` = a, the speed.

Optimum: full speed: J = floor(4 SPEED T) / 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator

SPEED = 0.0405  # laps per step
SECTOR = (0.1, 0.2)
QUARTERS = 16.0


@dataclass
class RingState:
    """phi (N,) laps, furthest (N,) so far, quarters (N,) passed by the last step, entered (N,) the sector in it,
    action (N,)."""

    phi: Tensor
    furthest: Tensor
    quarters: Tensor
    entered: Tensor
    action: Tensor


def default(s: RingState) -> Dict[str, Tensor]:
    """1[entered the sector] + 0.1 a."""
    return {"bonus": s.entered, "speed": 0.1 * s.action}


def aligned(s: RingState) -> Dict[str, Tensor]:
    """Speed, as the action."""
    return {"speed": s.action.clone()}


def _in_sector(phi: Tensor) -> Tensor:
    part = phi - torch.floor(phi)
    return (part >= SECTOR[0]) & (part < SECTOR[1])


class RingRace(AnalyticTask):
    """See the module docstring."""

    name = "RingRace"
    num_obs = 5
    num_actions = 1
    heuristics = {"default": default, "aligned": aligned}

    def start(self, uniform: Tensor) -> RingState:
        zero = torch.zeros(self.sim.num_envs, device=self.sim.device)
        return RingState(zero, zero, zero, zero, zero)

    def advance(self, state: RingState, actions: Tensor) -> RingState:
        phi = state.phi + SPEED * actions[:, 0]
        furthest = torch.maximum(state.furthest, phi)
        quarters = torch.floor(4.0 * furthest) - torch.floor(4.0 * state.furthest)
        entered = indicator(_in_sector(phi) & ~_in_sector(state.phi))
        return RingState(phi, furthest, quarters, entered, actions[:, 0])

    def observation(self, state: RingState) -> Tensor:
        """Where on the ring, how far behind the furthest point, and how much of the next quarter is done."""
        angle = (2.0 * math.pi) * state.phi
        behind = (state.furthest - state.phi).clamp_max(4.0)
        part = 4.0 * state.furthest
        inside = 2.0 * indicator(_in_sector(state.phi)) - 1.0
        return torch.stack((torch.cos(angle), torch.sin(angle), behind, part - torch.floor(part), inside), 1)

    def task_reward(self, state: RingState) -> Tensor:
        return state.quarters / QUARTERS

    def success(self, state: RingState) -> Tensor:
        return state.furthest >= 4.0

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        return math.floor(4.0 * SPEED * int(cfg["episode_length"])) / QUARTERS


TASK = RingRace
