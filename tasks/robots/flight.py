"""What Quadcopter and Ingenuity share: a free body with rotors that flies to a point and stays there.

Lengths in metres, angles in radians, forces in newtons, quaternions xyzw. "World" and "body" say in which frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ObsSlice
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Task
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import MarkerSpec

ASSETS = Path(__file__).parent / "assets"

HOVER_POINT = (0.0, 0.0, 1.0)  # where the aircraft is built, and around which it starts
# Start position: uniform between these, relative to HOVER_POINT; level and at rest.
START_LOW, START_HIGH = (-1.5, -1.5, -0.2), (1.5, 1.5, 1.5)
# Observation: (target - position) / 3, quaternion, velocity / 2, spin / pi.
OBS_SCALE = (1 / 3,) * 3 + (1.0,) * 4 + (0.5,) * 3 + (1 / math.pi,) * 3


TARGET_MARKER = MarkerSpec("target", radius=0.06)  # of films


@dataclass
class FlightState:
    """What rewards are computed from; every field but distance2 is (N, .) on the device.

    to_target: target - position, m.  distance2: (N,) its squared length, m^2.
    pos, quat, lin_vel, ang_vel: of the root body, world frame, m, xyzw, m/s and rad/s.
    joints: (N, D) angles, rad.  thrust: (N, R) force of each rotor along its own z axis, N.
    actions: (N, K) clipped to [-1, 1].
    """

    to_target: Tensor
    distance2: Tensor
    pos: Tensor
    quat: Tensor
    lin_vel: Tensor
    ang_vel: Tensor
    joints: Tensor
    thrust: Tensor
    actions: Tensor


def task_reward(distance2: Tensor) -> Tensor:
    """r = 1 / (1 + d^2), d the distance to the target: 1 per step at the target, 0.5 a metre away."""
    return (1.0 + distance2).reciprocal()


def hover_terms(s: FlightState, upright_weight: float) -> Dict[str, Tensor]:
    """The published shaping h = P + P (w U + S) as named terms: position P, upright w P U, spin P S.

    P = 1 / (1 + d^2); U = 1 / (1 + tilt^2) with tilt = 1 - (R e_z)_z, which is 2 (x^2 + y^2) of the quaternion;
    S = 1 / (1 + w_z^2) with the spin about the world's z axis.
    """
    tilt = 2.0 * s.quat[:, :2].square().sum(1)
    position, upright, spin = (1.0 + torch.stack((s.distance2, tilt * tilt, s.ang_vel[:, 2].square()))).reciprocal()
    return {"position": position, "upright": upright_weight * position * upright, "spin": position * spin}


def start_roots(uniform: Tensor) -> Tensor:
    """(N, 1, 13) level root states at rest, from uniform (N, 3) on [0, 1)."""
    low, span = _start_box(uniform.device)
    return torch.cat((low[:, :3] + span * uniform, low[:, 3:].expand(uniform.shape[0], 10)), 1).unsqueeze(1)


@lru_cache(maxsize=None)
def _start_box(device: torch.device) -> Tuple[Tensor, Tensor]:
    """Root state (1, 13) at the low corner of the start positions, and the box's edges (1, 3), made once."""
    low = [point + offset for point, offset in zip(HOVER_POINT, START_LOW)]
    span = [high - offset for high, offset in zip(START_HIGH, START_LOW)]
    root = torch.tensor([low + [0.0, 0.0, 0.0, 1.0] + [0.0] * 6], device=device)
    return root, torch.tensor([span], device=device)


class HoverTask(Task):
    """A single free actor whose task reward is its closeness to a target point; subclasses own the actuators.

    Class attributes:
        num_rotors: R.  max_distance, min_height: an episode ends further from the target or lower than these, m.
        hover_radius: the metric ``hovering`` is 1 within this distance of the target, m.
    Instance attributes:
        target: (N, 3) m.  thrust: (N, R) N, of the last control step.
    """

    num_rotors: ClassVar[int]
    max_distance: ClassVar[float]
    min_height: ClassVar[float]
    hover_radius: ClassVar[float]

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        n, device = sim.num_envs, sim.device
        self.target = torch.tensor([HOVER_POINT], device=device).repeat(n, 1)
        self.thrust = torch.zeros(n, self.num_rotors, device=device)
        self._actions = torch.zeros(n, self.num_actions, device=device)
        scale = OBS_SCALE + (1.0,) * (self.num_obs - len(OBS_SCALE))
        self._obs_scale = torch.tensor(scale, device=device)
        self._version = -1
        self._state: FlightState

    def state(self) -> FlightState:
        """The quantities that rewards are functions of; kept while the simulation stands still."""
        if self._version != self.sim.version:
            root = self.sim.root_state[:, 0]
            pos = root[:, :3]
            to_target = self.target - pos
            self._state = FlightState(
                to_target=to_target,
                distance2=to_target.square().sum(1),
                pos=pos,
                quat=root[:, 3:7],
                lin_vel=root[:, 7:10],
                ang_vel=root[:, 10:],
                joints=self.sim.dof_pos,
                thrust=self.thrust,
                actions=self._actions,
            )
            self._version = self.sim.version
        return self._state

    def observe(self) -> Tensor:
        parts = (self.state().to_target, self.sim.root_state[:, 0, 3:], self.sim.dof_pos)
        return torch.cat(parts, 1) * self._obs_scale

    def obs_layout(self) -> List[ObsSlice]:
        joints = tuple(self.sim.dof_names)
        found = [
            ObsSlice("to_target", 3, "m", OBS_SCALE[0], meaning="target minus position, in the world"),
            ObsSlice("orientation", 4, "1", OBS_SCALE[3], meaning="quaternion xyzw"),
            ObsSlice("velocity", 3, "m/s", OBS_SCALE[7], meaning="in the world"),
            ObsSlice("spin", 3, "rad/s", OBS_SCALE[10], meaning="in the world"),
        ]
        return found + ([ObsSlice("joint_pos", len(joints), "rad", names=joints)] if joints else [])

    def marker_poses(self) -> Dict[str, Tensor]:
        level = torch.zeros_like(self.sim.root_state[:, 0, 3:7])
        level[:, 3] = 1.0
        return {TARGET_MARKER.name: torch.cat((self.target, level), 1)}

    def task_reward(self, state: FlightState) -> Tensor:
        return task_reward(state.distance2)

    def terminated(self) -> Tensor:
        state = self.state()
        return (state.distance2 > self.max_distance**2) | (state.pos[:, 2] < self.min_height)

    def metrics(self) -> Dict[str, Tensor]:
        distance2 = self.state().distance2
        return {"hovering": distance2 < self.hover_radius**2, "final_distance": distance2.sqrt()}

    def get_state(self) -> Dict[str, Any]:
        return {"thrust": self.thrust.clone()}

    def load_state(self, state: Dict[str, Any]) -> None:
        self.thrust = state["thrust"].to(self.sim.device).clone()
        self._version = -1
