"""BallBalance: a three-legged robot catches a ball on its tray and keeps it there.

The published task (Isaac Gym Envs): 3 joint-position actions, 24 observations, heuristic h = the published reward.
The released task reward r depends on which environments happen to end together; r here is the share of the episode
survived (docs/parity/BallBalance.md). Lengths in metres, angles in radians, quaternions xyzw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import INTEGRATED, ActionGroup, ObsSlice
from hepo_isaac.envs.math import quat_matrix
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Task, for_engine
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, DriveSpec, SceneSpec

ASSETS = Path(__file__).parent / "assets"
JOINTS = ["robot/%s_leg_joint%d" % (part, leg) for leg in range(3) for part in ("upper", "lower")]
LOWER = slice(1, 6, 2)  # the driven joints' columns

TRAY_HEIGHT = 0.36 * math.sqrt(2.0) + 0.04 + 0.01  # m, of the tray's middle at joint angles 0
TRAY_RADIUS, TRAY_HALF_THICKNESS = 0.5, 0.01
TARGET_SPEED = 20.0  # rad/s of target motion at action 1
GOAL = (0.0, 0.0, 0.7)  # m, of the ball in the heuristic; at rest its centre is at 0.669
FALLEN = 0.15  # m; the ball's radius is 0.1
# Start of the ball: distance from the tray's axis, height, horizontal speed towards the axis at most, fall.
DISTANCE, HEIGHT, SPEED, FALL = (0.001, 0.5), (1.0, 2.0), 5.0, -5.0
WRENCH_SCALE = 1.0 / 20.0  # of forces (N) and torques (N m) in the observation
SENSOR_RADIUS = 0.4  # m; one sensor above each leg


@dataclass
class BallState:
    """What rewards are computed from. ball_pos, ball_vel: (N, 3) m and m/s in the world frame."""

    ball_pos: Tensor
    ball_vel: Tensor


@lru_cache(maxsize=None)
def _constants(device: torch.device) -> Tuple[Tensor, Tensor]:
    """The ball's goal (3,) and the sensors' places on the tray (3, 3), made once: copying them to a GPU in every step
    would make the host wait."""
    angles = [2.0 * math.pi * leg / 3.0 for leg in range(3)]
    sensors = [[SENSOR_RADIUS * math.cos(a), SENSOR_RADIUS * math.sin(a), 0.0] for a in angles]
    return torch.tensor(GOAL, device=device), torch.tensor(sensors, device=device)


def task_reward(fallen: Tensor, episode_length: int) -> Tensor:
    """r = 1[survived the step] / episode_length, so that an episode's sum is the share of it survived."""
    return (~fallen).to(torch.float32) / episode_length


def default_heuristic(s: BallState) -> Tensor:
    """The published reward, 1 / (1 + |ball - (0, 0, 0.7)|) · 1 / (1 + |v|)."""
    distance, speed = torch.stack((s.ball_pos - _constants(s.ball_pos.device)[0], s.ball_vel)).norm(dim=-1).unbind(0)
    return ((1.0 + distance) * (1.0 + speed)).reciprocal()


def ball_start(uniform: Tensor, ball: Tensor) -> Tensor:
    """Start states of the ball: ``ball`` (N, 13) with position and velocity replaced; uniform (N, 4) on [0, 1).

    It falls at 5 m/s from 1 to 2 m, at most 0.5 m off the axis and heading for it at up to 5 m/s, the slower the
    nearer it starts.
    """
    share, turn, lift, pace = uniform.unbind(1)
    angle = 2.0 * math.pi * turn
    inward = -SPEED * share * pace  # the published (d - d_min) / (d_max - d_min) is the share itself
    distance = DISTANCE[0] + (DISTANCE[1] - DISTANCE[0]) * share
    height = HEIGHT[0] + (HEIGHT[1] - HEIGHT[0]) * lift
    x, y = torch.cos(angle), torch.sin(angle)
    start = ball.clone()
    start[:, :3] = torch.stack((distance * x, distance * y, height), 1)
    start[:, 7:10] = torch.stack((inward * x, inward * y, torch.full_like(x, FALL)), 1)
    return start


def tray_wrench(tray: Tensor, ball_pos: Tensor, force: Tensor) -> Tensor:
    """What the tray's three sensors read of the ball, in the tray's frame, N and N m.

    The ball touches the tray at the point of the cylinder that is nearest to its centre, which for a ball that
    rests on top lies one radius below the centre.

    Args:
        tray: (N, 7) pose.  ball_pos: (N, 3).  force: (N, 3) on the tray, in the world frame.

    Returns:
        (N, 12): the force's x component three times (published: component 0 of each sensor), then the torques about
        the three sensors, x of each, y of each, z of each.
    """
    offset = ball_pos - tray[:, :3]
    local = (quat_matrix(tray[:, 3:]).unsqueeze(1) * torch.stack((offset, force), 1).unsqueeze(3)).sum(2)
    centre, push = local.unbind(1)
    horizontal, vertical = centre[:, :2], centre[:, 2:]
    inside = (TRAY_RADIUS / horizontal.norm(dim=1, keepdim=True)).clamp(max=1.0)
    point = torch.cat((horizontal * inside, vertical.clamp(-TRAY_HALF_THICKNESS, TRAY_HALF_THICKNESS)), 1)
    levers = point.unsqueeze(1) - _constants(force.device)[1]
    torques = torch.linalg.cross(levers, push.unsqueeze(1).expand_as(levers))
    return torch.cat((push[:, :1].expand(-1, 3), torques.transpose(1, 2).flatten(1)), 1)


class BallBalance(Task):
    """See the module docstring. cfg: the ``task`` group (cfg/task/BallBalance.yaml)."""

    name = "BallBalance"
    num_obs = 24
    num_actions = 3
    heuristics = {"default": default_heuristic}

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        gains = for_engine(physics["drives"], engine)
        legs, passive = gains["lower"], gains["upper"]
        drives = (
            DriveSpec(
                "lower_leg_joint.",
                stiffness=float(legs["stiffness"]),
                damping=float(legs["damping"]),
                armature=float(legs["armature"]),
            ),
            DriveSpec(
                "upper_leg_joint.",
                mode="none",
                damping=float(passive["damping"]),
                armature=float(passive["armature"]),
            ),
        )
        robot = ActorSpec(
            "robot",
            ASSETS / "balance_bot.xml",
            position=(0.0, 0.0, TRAY_HEIGHT),
            fixed=False,
            drives=drives,
            collision_group=1,
            collision_mask=2,
        )
        ball = ActorSpec(
            "ball", ASSETS / "ball.xml", position=(0.2, 0.0, 2.0), fixed=False, collision_group=2, collision_mask=1
        )
        # No floor: an episode is over before the ball gets there.
        return SceneSpec(
            actors=(robot, ball),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            contact=ContactSpec(friction=1.0, solref_steps=float(physics["solref_steps"])),
            body_states=("ball/ball",),
            body_velocities=False,
            contact_bodies=("robot/tray",),
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        assert sim.dof_names == JOINTS and sim.actor_names == ["robot", "ball"]  # columns and rows count on this
        super().__init__(cfg, sim, streams)
        self._turn = TARGET_SPEED * sim.spec.control_dt  # rad per step at action 1
        self._range = float(sim.dof_lower[1]), float(sim.dof_upper[1])
        self._target = torch.zeros(sim.num_envs, 6, device=sim.device)
        self._rest = torch.zeros_like(self._target)
        self._start_roots = sim.root_state.clone()
        self._fallen_version, self._fallen = -1, torch.empty(0)

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        """Targets of the lower legs integrate 0.2 rad per step, clipped to the joint limits; open loop."""
        target = self.sim.dof_target_pos[:, LOWER] + self._turn * actions
        self._target[:, LOWER] = target.clamp(*self._range)
        self.sim.set_dof_target_pos(self._target)

    def reset(self, mask: Tensor) -> None:
        roots = self._start_roots.clone()
        roots[:, 1] = ball_start(self.streams.rand(4, mask=mask), roots[:, 1])
        self.sim.set_state(mask, self._rest, self._rest, root_state=roots, dof_target_pos=self._rest)

    # -- observations and rewards ------------------------------------------------------------------------------
    def state(self) -> BallState:
        """The quantities that rewards are functions of, from the engine's current tensors."""
        ball = self.sim.root_state[:, 1]
        return BallState(ball[:, :3], ball[:, 7:10])

    def observe(self) -> Tensor:
        """Driven joints' angles and speeds, the ball's position and velocity, the tray's wrench; no tray pose."""
        sim = self.sim
        robot, ball = sim.root_state.unbind(1)
        wrench = tray_wrench(robot[:, :7], ball[:, :3], sim.contact_force[:, 0])
        return torch.cat(
            (sim.dof_pos[:, LOWER], sim.dof_vel[:, LOWER], ball[:, :3], ball[:, 7:10], WRENCH_SCALE * wrench), 1
        )

    def obs_layout(self) -> List[ObsSlice]:
        driven = tuple(JOINTS[LOWER])
        sensors, axes = range(3), "xyz"
        torques = tuple("sensor%d/t%s" % (s, axis) for axis in axes for s in sensors)
        return [
            ObsSlice("joint_pos", 3, "rad", names=driven),
            ObsSlice("joint_vel", 3, "rad/s", names=driven),
            ObsSlice("ball_pos", 3, "m", meaning="in the world"),
            ObsSlice("ball_vel", 3, "m/s", meaning="in the world"),
            ObsSlice("tray_force", 3, "N", WRENCH_SCALE, meaning="x component on the tray, in its frame, three times"),
            ObsSlice("tray_torque", 9, "N m", WRENCH_SCALE, names=torques, meaning="about each sensor, tray's frame"),
        ]

    def action_layout(self) -> List[ActionGroup]:
        low, high = self._range
        drive = ("joint position target", "rad", self._turn, INTEGRATED)
        return [ActionGroup(tuple(JOINTS[LOWER]), *drive, lower=low, upper=high)]

    def task_reward(self, state: BallState) -> Tensor:
        return task_reward(self.terminated(), self.max_episode_length)

    def terminated(self) -> Tensor:
        if self._fallen_version != self.sim.version:
            self._fallen = self.sim.root_state[:, 1, 2] < FALLEN
            self._fallen_version = self.sim.version
        return self._fallen

    def metrics(self) -> Dict[str, Tensor]:
        return {"survived": ~self.terminated()}


TASK = BallBalance
