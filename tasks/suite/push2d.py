"""Push2D: a point gripper finds a handle, closes its fingers and drags a drawer open; FrankaCabinet in the plane.

Dynamics: gripper p in the room [-W, W]^2 moves SPEED a_xy per step, the finger gap f in [0, 0.1] moves 0.02 a_f. The
handle is at (0.7 W - o, 0). A gripper that was within RADIUS of it with f < CLOSED drags it along x: o changes by -dx,
clamped to [0, 0.4]. Start: p uniform on the left half of the room, f uniform, o = 0.

r = 1[o > 0.35] / T: share of the episode with the drawer open. h: ``default`` (aligned), and the 12 human heuristics
of FrankaCabinet restated for the plane (push2d_heuristics.py): h9 and h12 have the wrong sign, so the optimum
of h flees from the handle and J(pi_H) = 0; h10 only reaches; h11's success term is dead.

Optimum: reach, while the fingers close, in n steps (reach_steps), drag in m = floor(0.35 / SPEED) + 1 more steps,
hold: J = E[T - n - m + 1] / T over the starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

import torch
from torch import Tensor

from .analytic import AnalyticTask, indicator, midpoints, reach_steps, spread
from .push2d_heuristics import CLOSED, NAMED, OPEN, RADIUS

SPEED = 0.1  # per step and axis
FINGER_SPEED = 0.02
GAP_MAX = 0.1
HANDLE_X = 0.7  # of the closed drawer, in half-widths of the room
DRAWER_MAX = 0.4


@dataclass
class PushState:
    """pos (N, 2) gripper, gap (N,) of the fingers, opening (N,) of the drawer, handle (N,) its x, actions (N, 3)."""

    pos: Tensor
    gap: Tensor
    opening: Tensor
    handle: Tensor
    actions: Tensor

    @property
    def offset(self) -> Tensor:
        """(N, 2) gripper minus handle."""
        return torch.stack((self.pos[:, 0] - self.handle, self.pos[:, 1]), 1)

    @property
    def success(self) -> Tensor:
        """(N,) 1[o > 0.35]."""
        return indicator(self.opening > OPEN)


class Push2D(AnalyticTask):
    """See the module docstring. cfg.room: half-width W of the room."""

    name = "Push2D"
    num_obs = 6
    num_actions = 3
    num_uniforms = 3
    heuristics = NAMED

    def configure(self, cfg: Mapping[str, Any]) -> None:
        self._room = float(cfg["room"])
        self._closed = HANDLE_X * self._room

    def start(self, uniform: Tensor) -> PushState:
        x, y = spread(uniform[:, 0], -self._room, 0.0), spread(uniform[:, 1], -self._room, self._room)
        zero = torch.zeros_like(x)
        gap, handle = GAP_MAX * uniform[:, 2], torch.full_like(x, self._closed)
        return PushState(torch.stack((x, y), 1), gap, zero, handle, torch.zeros_like(uniform))

    def advance(self, state: PushState, actions: Tensor) -> PushState:
        grasped = (state.offset.square().sum(1) < RADIUS**2) & (state.gap < CLOSED)
        pos = (state.pos + SPEED * actions[:, :2]).clamp(-self._room, self._room)
        gap = (state.gap + FINGER_SPEED * actions[:, 2]).clamp(0.0, GAP_MAX)
        dragged = (state.opening + state.pos[:, 0] - pos[:, 0]).clamp(0.0, DRAWER_MAX)
        opening = torch.where(grasped, dragged, state.opening)
        return PushState(pos, gap, opening, self._closed - opening, actions)

    def observation(self, state: PushState) -> Tensor:
        rest = torch.stack((10.0 * state.gap, 2.0 * state.opening), 1)
        return torch.cat((state.pos, state.offset, rest), 1)

    def task_reward(self, state: PushState) -> Tensor:
        return state.success / self.max_episode_length

    def success(self, state: PushState) -> Tensor:
        return state.opening > OPEN

    @classmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        room, length = float(cfg["room"]), int(cfg["episode_length"])
        u = midpoints(300, 300, 20)
        offset = torch.stack((spread(u[:, 0], -room, 0.0) - HANDLE_X * room, spread(u[:, 1], -room, room)), 1)
        reach = reach_steps(offset, SPEED, RADIUS)
        close = torch.ceil((GAP_MAX * u[:, 2] - CLOSED) / FINGER_SPEED).clamp_min(0.0)
        drag = int(OPEN / SPEED + 1e-9) + 1
        return float((length + 1 - drag - torch.maximum(reach, close)).mean()) / length


TASK = Push2D
