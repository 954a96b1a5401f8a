"""What Ant and Humanoid share: a robot with a free root is to run towards a point 1 km along +x.

Published task (Isaac Gym Envs, with HEPO's changes): r is the speed towards the target. Lengths in metres, angles in
radians, quaternions xyzw, time in seconds.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ActionGroup, ObsSlice, columns
from hepo_isaac.envs.math import quat_matrix
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Task
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, DriveSpec, ForceSensorSpec, SceneSpec

ASSETS = Path(__file__).parent / "assets"

TARGET_X = 1000.0  # m; the target is (1000, 0, 0), published
POSE_NOISE = 0.2  # rad, half width of the uniform noise on joint angles at a reset
SPEED_NOISE = 0.1  # rad/s, the same on joint speeds
WALKED = 10.0  # m towards the target that count as success


@dataclass
class WalkerState:
    """What rewards and observations are functions of; N envs, D joints, F feet.

    progress: (N,) m/s, mean speed towards the target in the last control step; 0 at the start of an episode.
    height: (N,) m, of the root.  distance: (N,) m nearer to the target than at the start of the episode.
    up: (N,) cosine between the root's z axis and the vertical.  heading: (N,) cosine between the root's x axis and the
        horizontal direction to the target.
    angles: (N, 3) yaw and roll in [-pi, pi], and the published angle to the target, not wrapped.
    velocity, spin: (N, 3) m/s and rad/s of the root, in its own frame.
    dof_pos: (N, D) -1 at a joint's lower limit, 1 at its upper.  dof_vel: (N, D) rad/s.
    dof_force: (N, D) N m that the drives apply.
    foot_load: (N, F, 6) N and N m that each foot hands on to its leg, in the foot's frame (ForceSensorSpec).
    actions: (N, D) clipped to [-1, 1]; 0 at the start of an episode.
    """

    progress: Tensor
    height: Tensor
    distance: Tensor
    up: Tensor
    heading: Tensor
    angles: Tensor
    velocity: Tensor
    spin: Tensor
    dof_pos: Tensor
    dof_vel: Tensor
    dof_force: Tensor
    foot_load: Tensor
    actions: Tensor


def approach(before: Tensor, after: Tensor, target: Tensor) -> Tensor:
    """Metres that a move brings nearer to the target, |target - before| - |target - after|.

    Published as a difference of potentials -distance / dt; at 1 km their float32 grid is 0.0039 m/s. This is the same
    number as (|u|^2 - |w|^2) / (|u| + |w|), whose numerator is a product of the move itself, so nothing cancels.

    Args:
        before, after, target: (..., 2) horizontal positions, m.
    """
    u, w = target - before, target - after
    lengths = torch.linalg.vector_norm(u, dim=-1) + torch.linalg.vector_norm(w, dim=-1)
    return ((after - before) * (u + w)).sum(-1) / lengths


def facing(rotation: Tensor, root: Tensor, target: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Which way the root points.

    Args:
        rotation: (N, 3, 3) body to world.  root: (N, 3) position, m.  target: (2,) horizontal, m.

    Returns:
        up (N,), heading (N,) and angles (N, 3) as in WalkerState. The third angle is the published
        atan2(target_z - z, target_x - x) - yaw: z stands where y was meant, so it is -yaw but for a millirad or so.
    """
    to_target = target - root[:, :2]
    ahead = (rotation[:, :2, 0] * to_target).sum(-1) / torch.linalg.vector_norm(to_target, dim=-1)
    sines = torch.stack((rotation[:, 1, 0], rotation[:, 2, 1], -root[:, 2]), 1)
    cosines = torch.stack((rotation[:, 0, 0], rotation[:, 2, 2], to_target[:, 0]), 1)
    yaw, roll, slope = torch.atan2(sines, cosines).unbind(1)
    return rotation[:, 2, 2], ahead, torch.stack((yaw, roll, slope - yaw), 1)


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def posture_bonus(up: Tensor, heading: Tensor) -> Tuple[Tensor, Tensor]:
    """Published, for both robots: 0.1 while up > 0.93; 0.5 while heading > 0.8, in proportion below."""
    return 0.1 * (up > 0.93).to(up.dtype), (0.5 / 0.8) * heading.clamp(max=0.8)


def start_pose(middle: Tensor, uniform: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Joint angles at a reset: middle + U(-0.2, 0.2), clamped, from ``uniform`` on [0, 1)."""
    return torch.minimum(torch.maximum(middle + POSE_NOISE * (2.0 * uniform - 1.0), lower), upper)


class Walker(Task):
    """Everything but the observation, the heuristic and the numbers. cfg: the ``task`` group."""

    actor: ClassVar[str]
    feet: ClassVar[Sequence[str]]
    start_height: ClassVar[float]  # m
    fall_height: ClassVar[float]  # m; a root below it ends the episode
    self_collision: ClassVar[bool]
    obs_scales: ClassVar[Sequence[Tuple[int, float]]]  # (columns, what they are multiplied with), in order

    @classmethod
    @abstractmethod
    def drives(cls, physics: Mapping[str, Any]) -> Sequence[DriveSpec]:
        """One drive per group of joints."""

    @classmethod
    @abstractmethod
    def gears(cls) -> Sequence[float]:
        """N m of each joint's motor at action 1, in the order of the joints."""

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        robot = ActorSpec(
            name=cls.actor,
            asset=ASSETS / (cls.actor + ".xml"),
            position=(0.0, 0.0, cls.start_height),
            fixed=False,
            drives=tuple(cls.drives(physics)),
            collision_mask=1 if cls.self_collision else 0,
        )
        bodies = ["%s/%s" % (cls.actor, foot) for foot in cls.feet]
        return SceneSpec(
            actors=(robot,),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            contact=ContactSpec(float(physics["friction"]), float(physics["solref_steps"])),
            body_states=("%s/torso" % cls.actor,),
            body_velocities=False,
            force_sensors=tuple(ForceSensorSpec(body, body) for body in bodies),
            ground_plane=True,
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        device = sim.device
        self._gear = torch.tensor(list(self.gears()), device=device)
        self._target = torch.tensor([TARGET_X, 0.0], device=device)
        scales = [scale for count, scale in self.obs_scales for _ in range(count)]
        self._obs_scale = torch.tensor(scales, device=device)
        # (2q - u - l) / (u - l) as one multiply and one subtraction
        self._scale = 2.0 / (sim.dof_upper - sim.dof_lower)
        self._shift = (sim.dof_upper + sim.dof_lower) / (sim.dof_upper - sim.dof_lower)
        self._middle = torch.minimum(torch.maximum(torch.zeros_like(sim.dof_lower), sim.dof_lower), sim.dof_upper)
        self._start_root = sim.root_state.clone()
        self._origin = self._start_root[:, 0, :2].clone()
        self._before = self._origin.clone()  # where the root was before the last control step
        self._actions = torch.zeros(sim.num_envs, self.num_actions, device=device)
        self._version = -1
        self._state: Optional[WalkerState] = None

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        self._actions.copy_(actions)
        self._before.copy_(self.sim.root_state[:, 0, :2])
        self.sim.set_dof_effort(self._gear * actions)

    def reset(self, mask: Tensor) -> None:
        sim = self.sim
        pose, speed = self.streams.rand(2, self.num_actions, mask=mask).unbind(1)
        sim.set_state(
            mask,
            start_pose(self._middle, pose, sim.dof_lower, sim.dof_upper),
            SPEED_NOISE * (2.0 * speed - 1.0),
            root_state=self._start_root,
        )
        rows = mask.unsqueeze(1)
        self._before.copy_(torch.where(rows, self._origin, self._before))
        self._actions.masked_fill_(rows, 0.0)

    def action_layout(self) -> List[ActionGroup]:
        return [ActionGroup(tuple(self.sim.dof_names), "joint effort", "N m", columns(self._gear))]

    # -- observations and rewards ------------------------------------------------------------------------------
    def root_slices(
        self, velocity: float, spin: float, angles: float, yaw_and_roll: str, to_target: str
    ) -> List[ObsSlice]:
        """Everything of the root: scales of its velocity, spin and angles, and what the two kinds of angles mean."""
        frame = "in the root's frame"
        return [
            ObsSlice("root_height", 1, "m"),
            ObsSlice("root_velocity", 3, "m/s", velocity, meaning=frame),
            ObsSlice("root_spin", 3, "rad/s", spin, meaning=frame),
            ObsSlice("yaw_roll", 2, "rad", angles, meaning=yaw_and_roll),
            ObsSlice("angle_to_target", 1, "rad", angles, meaning=to_target),
            ObsSlice("up", 1, "1", meaning="cosine between the root's z axis and the vertical"),
            ObsSlice("heading", 1, "1", meaning="cosine between the root's x axis and the target"),
        ]

    def joint_slices(self, speed: float) -> List[ObsSlice]:
        """Joint angles, -1 at the lower limits and 1 at the upper ones, and speeds with their scale."""
        joints = tuple(self.sim.dof_names)
        return [
            ObsSlice("joint_pos", len(joints), "rad", columns(self._scale), columns(-self._shift), joints),
            ObsSlice("joint_vel", len(joints), "rad/s", speed, names=joints),
        ]

    def foot_slice(self, scale: float) -> ObsSlice:
        """Force and torque of each foot."""
        names = tuple("%s/%s" % (foot, axis) for foot in self.feet for axis in ("fx", "fy", "fz", "tx", "ty", "tz"))
        return ObsSlice("foot_load", len(names), "N, N m", scale, names=names, meaning="in the foot's frame")

    def action_slice(self) -> ObsSlice:
        """The last action."""
        joints = tuple(self.sim.dof_names)
        meaning = "of the step before, clipped to [-1, 1]"
        return ObsSlice("actions", len(joints), "1", names=joints, meaning=meaning)

    def state(self) -> WalkerState:
        """The quantities that rewards are functions of; kept while the simulation stands still."""
        if self._state is None or self._version != self.sim.version:
            self._state, self._version = self._derive(), self.sim.version
        return self._state

    def _derive(self) -> WalkerState:
        sim, dt = self.sim, self.sim.spec.control_dt
        root = sim.root_state[:, 0]
        rotation = quat_matrix(root[:, 3:7])
        # Both velocities into the root's frame: R^T v.
        local = (rotation.unsqueeze(1) * root[:, 7:].unflatten(1, (2, 3)).unsqueeze(-1)).sum(2)
        starts = torch.stack((self._before, self._origin))
        progress, distance = approach(starts, root[:, :2], self._target).unbind(0)
        up, heading, angles = facing(rotation, root, self._target)
        return WalkerState(
            progress=progress / dt,
            height=root[:, 2],
            distance=distance,
            up=up,
            heading=heading,
            angles=angles,
            velocity=local[:, 0],
            spin=local[:, 1],
            dof_pos=sim.dof_pos * self._scale - self._shift,
            dof_vel=sim.dof_vel,
            dof_force=sim.dof_force,
            foot_load=sim.force_sensor,
            actions=self._actions,
        )

    def task_reward(self, state: WalkerState) -> Tensor:
        return state.progress

    def terminated(self) -> Tensor:
        return self.state().height < self.fall_height

    def metrics(self) -> Dict[str, Tensor]:
        state = self.state()
        return {"walked": state.distance > WALKED, "distance": state.distance, "fell": self.terminated()}

    def get_state(self) -> Dict[str, Any]:
        return {"before": self._before.clone(), "actions": self._actions.clone()}

    def load_state(self, state: Dict[str, Any]) -> None:
        self._before.copy_(state["before"])
        self._actions.copy_(state["actions"])
        self._state = None


def with_fall(terms: Dict[str, Tensor], fallen: Tensor, value: float) -> Dict[str, Tensor]:
    """The terms and one more, ``fall``, with which their sum is ``value`` where the robot has fallen: published, a fall
    replaces the whole of h."""
    total = torch.stack(tuple(terms.values())).sum(0)
    return {**terms, "fall": fallen.to(total.dtype) * (value - total)}
