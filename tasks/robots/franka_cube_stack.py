"""FrankaCubeStack: a Panda arm puts a small cube on a larger one.

The published task (Isaac Gym Envs, with HEPO's changes). Seven actions: a relative hand pose, which operational-space
control turns into torques, and opening or closing the gripper; 19 observations. Or eight: joint torques and gripper; 26
observations. Task reward r for the cube being stacked, shaped heuristic h. What differs from PhysX:
docs/parity/FrankaCubeStack.md; in the step loop: docs/differences.md. Lengths in metres, angles in radians, quaternions
xyzw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import SWITCH, ActionGroup, ObsSlice, columns
from hepo_isaac.envs.math import quat_matrix, quat_mul
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Task, for_engine
from hepo_isaac.errors import unknown
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, DriveSpec, SceneSpec

from .osc import (
    Factors,
    batch_first,
    batch_last,
    factorise,
    limit_speed,
    operational_space_torque,
    posture_acceleration,
    product,
    shift_jacobian,
)

ASSETS = Path(__file__).parent / "assets"

ARM_JOINTS = ["franka/panda_joint%d" % i for i in range(1, 8)]
FINGER_JOINTS = ["franka/panda_finger_joint1", "franka/panda_finger_joint2"]
LINK7 = "franka/link7"
EFFORT_LIMITS = (87.0,) * 4 + (12.0,) * 3  # N m, the Panda's
VELOCITY_LIMITS = (2.175,) * 4 + (2.61,) * 3  # rad/s, the Panda's
FINGER_VELOCITY_LIMIT = 0.2  # m/s, the Panda's
OBS_ACTIONS = {"osc": (19, 7), "joint_tor": (26, 8)}  # control_type -> sizes of observation and action

DEFAULT_POSE = (0.0, 0.1963, 0.0, -2.6180, 0.0, 2.9416, 0.7854, 0.035, 0.035)
POSE_NOISE = 0.25  # half width of the uniform noise on every arm joint; the fingers have none
HAND_YAW = (0.0, 0.0, -0.38268343, 0.92387953)  # the hand in link7
HAND_IN_LINK7 = 0.107  # m along z, which hand and link7 share
GRIP_IN_HAND = 0.1025  # m along z: grip site, and both fingertip frames
TIP_OFFSET = 0.0015  # m from a finger's origin outwards to its tip's frame
COMMAND_SCALE = (0.1, 0.1, 0.1, 0.5, 0.5, 0.5)  # m and rad of hand displacement at action 1
HAND_STIFFNESS, POSTURE_STIFFNESS = 150.0, 10.0  # 1/s^2, critically damped
FINGER_OPEN = 0.04  # m

TABLE_TOP = 1.025  # m above the ground
SIZE_A, SIZE_B = 0.05, 0.07  # m, edges of the cubes
SPREAD = 0.25  # m, half width of the square in which both cubes start
MIN_GAP = (SIZE_A + SIZE_B) * 0.5**0.5 * 2.0  # m between the cubes' centres at the start, 0.1697
MAX_YAW = 0.785  # rad, of each cube at the start
START_TRIES = 16  # places drawn for cube A; all of them too close to B: below 1e-7 per reset
# Cube B's start: published is cube A's height, which puts B 1 cm into the table.
CUBE_B_START = {"resting": TABLE_TOP + SIZE_B / 2, "published": TABLE_TOP + SIZE_A / 2}

LIFTED = 0.04  # m that the cube's lower face is above the table (the height of its centre less one edge)
RELEASED = 0.04  # m between grip site and cube A
TOLERANCE = 0.02  # m, of the stacked cube sideways and in height
STACKED_HEIGHT = SIZE_B + SIZE_A / 2
# Published scales of the heuristic's terms.
REACH, LIFT, ALIGN, STACK = 0.1, 1.5, 2.0, 16.0


@dataclass
class CubeStackState:
    """What rewards are computed from; every field is (N, .) in the world frame on the device.

    cube_a_pos, cube_a_quat, cube_b_pos, cube_b_quat: centres of the cubes.  grip_pos: between the fingertips.
    left_tip, right_tip: fingertip frames.  finger_pos: (N, 2) m, how far each finger is open.
    actions: (N, 7) or (N, 8) clipped to [-1, 1].
    """

    cube_a_pos: Tensor
    cube_a_quat: Tensor
    cube_b_pos: Tensor
    cube_b_quat: Tensor
    grip_pos: Tensor
    left_tip: Tensor
    right_tip: Tensor
    finger_pos: Tensor
    actions: Tensor


def stacked(s: CubeStackState) -> Tensor:
    """(N,) bool: A is within 2 cm of B's axis and of its height upon B, and the grip is more than 4 cm away. As
    published it need not be at rest, nor the fingers open."""
    sideways = (s.cube_b_pos - s.cube_a_pos)[:, :2].norm(dim=-1)
    height = (s.cube_a_pos[:, 2] - (TABLE_TOP + STACKED_HEIGHT)).abs()
    away = (s.cube_a_pos - s.grip_pos).norm(dim=-1) > RELEASED
    return (torch.maximum(sideways, height) < TOLERANCE) & away


def lifted(s: CubeStackState) -> Tensor:
    """(N,) bool: the cube's centre is more than 9 cm above the table (published: height - edge > 4 cm)."""
    return s.cube_a_pos[:, 2] - TABLE_TOP - SIZE_A > LIFTED


def task_reward(on_top: Tensor, episode_length: int) -> Tensor:
    """r = 1[stacked] / episode_length, so that an episode's sum is the share of it stacked."""
    return on_top.to(torch.float32) / episode_length


@lru_cache(maxsize=None)
def _on_top(device: torch.device) -> Tensor:
    """Where A's centre belongs, from B's: half of both edges up; made once."""
    return torch.tensor([0.0, 0.0, (SIZE_A + SIZE_B) / 2], device=device)


def default_heuristic(s: CubeStackState) -> Dict[str, Tensor]:
    """The published shaping as named terms: 0.1 max(reach, align) + 1.5 lifted + 2 align, or 16 once stacked.

    Returns:
        terms: reach, lift, align, stack. The first three are 0 in a stacked step.
    """
    targets = torch.stack((s.grip_pos, s.left_tip, s.right_tip, s.cube_b_pos + _on_top(s.grip_pos.device)), 1)
    distances = (targets - s.cube_a_pos.unsqueeze(1)).norm(dim=-1)
    near = 1.0 - torch.tanh((10.0 / 3.0) * distances[:, :3].sum(1))
    up, on_top = lifted(s).to(near.dtype), stacked(s).to(near.dtype)
    align = (1.0 - torch.tanh(10.0 * distances[:, 3])) * up
    rest = 1.0 - on_top
    return {
        "reach": REACH * torch.maximum(near, align) * rest,
        "lift": LIFT * up * rest,
        "align": ALIGN * align * rest,
        "stack": STACK * on_top,
    }


def start_places(uniform: Tensor) -> Tuple[Tensor, Tensor]:
    """Start places (N, 2) of cubes A and B from uniform (N, 2 + 2 tries): both even on a square of 0.5 m, A not closer
    to B than 0.17 m. A takes the first of its tries that is far enough; if none is, the corner farthest from B."""
    places = (2.0 * SPREAD) * uniform.unflatten(1, (-1, 2)) - SPREAD
    b, tries = places[:, 0], places[:, 1:]
    corner = torch.where(b > 0, -SPREAD, SPREAD)
    tries = torch.cat((tries, corner.unsqueeze(1)), 1)
    far = (tries - b.unsqueeze(1)).norm(dim=-1) >= MIN_GAP
    first = far.to(torch.uint8).argmax(1)
    return tries.gather(1, first[:, None, None].expand(-1, 1, 2)).squeeze(1), b


def reset_pose(default: Tensor, uniform: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Start pose (N, 9): default + 0.25 (2 u - 1) on the seven arm joints, clamped; fingers 3.5 cm open each."""
    arm = default[:7] + POSE_NOISE * (2.0 * uniform - 1.0)
    arm = torch.minimum(torch.maximum(arm, lower[:7]), upper[:7])
    return torch.cat((arm, default[7:].expand(arm.shape[0], 2)), 1)


class FrankaCubeStack(Task):
    """See the module docstring. cfg: the ``task`` group (cfg/task/FrankaCubeStack.yaml)."""

    name = "FrankaCubeStack"
    heuristics = {"default": default_heuristic}
    num_obs, num_actions = OBS_ACTIONS["osc"]

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        drives = for_engine(physics["drives"], engine)
        start_b = _choice(CUBE_B_START, "cube_b_start", cfg)
        return SceneSpec(
            actors=(
                _robot(drives),
                ActorSpec("table", ASSETS / "table.xml", (0.0, 0.0, 1.0), collision_group=4, collision_mask=2 | 8),
                ActorSpec("stand", ASSETS / "stand.xml", (-0.5, 0.0, 1.075), collision_group=4, collision_mask=2 | 8),
                _cube("cube_a", (-0.1, 0.0, CUBE_B_START["published"])),
                _cube("cube_b", (0.1, 0.0, start_b)),
            ),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            contact=ContactSpec(friction=1.0, solref_steps=float(physics["solref_steps"])),
            body_states=(LINK7,),
            body_velocities=False,
            ground_plane=True,
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        sizes = _choice(OBS_ACTIONS, "control_type", cfg)
        self.num_obs, self.num_actions = sizes
        self._osc = cfg["control_type"] == "osc"
        self._limit_speed = bool(cfg["physics"]["limit_joint_speed"]) and not sim.limits_joint_speed
        n, device = sim.num_envs, sim.device
        assert sim.dof_names == ARM_JOINTS + FINGER_JOINTS
        self._a, self._b = sim.actor_index("cube_a"), sim.actor_index("cube_b")
        self._default = torch.tensor(DEFAULT_POSE, device=device)
        self._rest = batch_last(self._default[None, :7])
        limits = torch.tensor([EFFORT_LIMITS, VELOCITY_LIMITS], device=device, dtype=torch.float64)
        self._effort_limit, self._speed_limit = limits.unsqueeze(-1).unbind(0)
        scale = COMMAND_SCALE if self._osc else EFFORT_LIMITS
        self._command = torch.tensor(scale, device=device) / float(cfg["action_scale"])
        self._hand_yaw = torch.tensor(HAND_YAW, device=device)
        self._draws = [2 + 2 * START_TRIES, 2, 7]  # uniform numbers of a reset: places, yaw of both cubes, arm
        self._start_roots = sim.root_state.clone()
        self._actions = torch.zeros(n, self.num_actions, device=device)
        self._effort, self._target, self._zero_vel = (torch.zeros(n, 9, device=device) for _ in range(3))
        self._hand_version, self._hand = -1, (torch.empty(0), torch.empty(0), torch.empty(0))

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        self._actions.copy_(actions)
        inertia = factorise(batch_last(self.sim.mass_matrix()[:, :7, :7]))
        velocity = batch_last(self.sim.dof_vel[:, :7])
        torque = batch_last(actions[:, :-1] * self._command)
        if self._osc:
            torque = self._hand_torque(inertia, velocity, torque)
        torque = torch.minimum(torch.maximum(torque, -self._effort_limit), self._effort_limit)
        if self._limit_speed:
            torque = limit_speed(inertia, torque, velocity, self._speed_limit, self.sim.spec.control_dt)
        self._effort[:, :7] = batch_first(torque)
        self._target[:, 7:] = FINGER_OPEN * (actions[:, -1:] >= 0.0)
        self.sim.set_dof_effort(self._effort)
        self.sim.set_dof_target_pos(self._target)

    def _hand_torque(self, inertia: Factors, velocity: Tensor, displacement: Tensor) -> Tensor:
        """Torques (7, N), N m, towards a hand displacement (6, N), m and rad in world axes. As published, the Jacobian
        is the hand's and the velocity that is damped the grip site's, 10 cm ahead."""
        ahead = batch_last(self._hand_frame()[1][..., 2])  # the hand's z axis, which is link7's
        jacobian = shift_jacobian(batch_last(self.sim.jacobian(LINK7)[..., :7]), HAND_IN_LINK7 * ahead)
        linear, angular = product(jacobian, velocity).split(3)
        grip = torch.cat((linear + torch.linalg.cross(angular, GRIP_IN_HAND * ahead, dim=0), angular))
        acceleration = HAND_STIFFNESS * displacement - 2.0 * HAND_STIFFNESS**0.5 * grip
        posture = posture_acceleration(batch_last(self.sim.dof_pos[:, :7]), velocity, self._rest, POSTURE_STIFFNESS)
        return operational_space_torque(inertia, jacobian, acceleration, posture)

    def reset(self, mask: Tensor) -> None:
        places, yaw, arm = self.streams.rand(sum(self._draws), mask=mask).split(self._draws, 1)
        roots = self._start_roots.clone()
        half = MAX_YAW * (yaw - 0.5)  # half of an angle in +-0.785
        for cube, place, angle in zip((self._a, self._b), start_places(places), half.unbind(1)):
            roots[:, cube, :2] = place
            roots[:, cube, 5], roots[:, cube, 6] = torch.sin(angle), torch.cos(angle)
        pose = reset_pose(self._default, arm, self.sim.dof_lower, self.sim.dof_upper)
        self.sim.set_state(mask, pose, self._zero_vel, root_state=roots, dof_target_pos=pose)

    # -- observations and rewards ------------------------------------------------------------------------------
    def _hand_frame(self) -> Tuple[Tensor, Tensor, Tensor]:
        """The hand's orientation (N, 4), its axes as columns (N, 3, 3), and grip site, left and right fingertip
        (N, 3, 3); kept while the simulation stands still, since rewards, observation and control all want them."""
        if self._hand_version != self.sim.version:
            link = self.sim.body_state[:, 0]
            quat = quat_mul(link[:, 3:7], self._hand_yaw)
            axes = quat_matrix(quat)
            grip = link[:, :3] + (HAND_IN_LINK7 + GRIP_IN_HAND) * axes[..., 2]
            out = self.sim.dof_pos[:, 7:] + TIP_OFFSET  # along y of the hand, the right one the other way
            left, right = grip + out[:, :1] * axes[..., 1], grip - out[:, 1:] * axes[..., 1]
            self._hand = quat, axes, torch.stack((grip, left, right), 1)
            self._hand_version = self.sim.version
        return self._hand

    def state(self) -> CubeStackState:
        """The quantities that rewards are functions of, from the engine's current tensors."""
        roots, points = self.sim.root_state, self._hand_frame()[2]
        return CubeStackState(
            cube_a_pos=roots[:, self._a, :3],
            cube_a_quat=roots[:, self._a, 3:7],
            cube_b_pos=roots[:, self._b, :3],
            cube_b_quat=roots[:, self._b, 3:7],
            grip_pos=points[:, 0],
            left_tip=points[:, 1],
            right_tip=points[:, 2],
            finger_pos=self.sim.dof_pos[:, 7:],
            actions=self._actions,
        )

    def observe(self) -> Tensor:
        a, b = self.sim.root_state[:, self._a], self.sim.root_state[:, self._b]
        joints = self.sim.dof_pos[:, 7:] if self._osc else self.sim.dof_pos
        quat, _, points = self._hand_frame()
        return torch.cat((a[:, 3:7], a[:, :3], b[:, :3] - a[:, :3], points[:, 0], quat, joints), 1)

    def obs_layout(self) -> List[ObsSlice]:
        joints = tuple(FINGER_JOINTS if self._osc else ARM_JOINTS + FINGER_JOINTS)
        return [
            ObsSlice("cube_a_orientation", 4, "1", meaning="quaternion xyzw"),
            ObsSlice("cube_a_pos", 3, "m", meaning="in the world, the table's top at 1.025 m"),
            ObsSlice("cube_a_to_cube_b", 3, "m", meaning="in the world"),
            ObsSlice("grip_pos", 3, "m", meaning="between the fingertips, in the world"),
            ObsSlice("hand_orientation", 4, "1", meaning="quaternion xyzw"),
            ObsSlice("joint_pos", len(joints), "m" if self._osc else "rad, fingers m", names=joints),
        ]

    def action_layout(self) -> List[ActionGroup]:
        gripper = ActionGroup(("gripper",), "position target of both fingers", "m", FINGER_OPEN, SWITCH)
        scale = self._command
        if not self._osc:
            return [ActionGroup(tuple(ARM_JOINTS), "joint effort", "N m", columns(scale)), gripper]
        axes = ("x", "y", "z")
        move, turn = (tuple("hand/%s%s" % (kind, axis) for axis in axes) for kind in ("", "r"))
        control = "made torques by operational-space control (tasks/robots/osc.py), stiffness %g 1/s^2" % HAND_STIFFNESS
        return [
            ActionGroup(move, "displacement of the hand, world axes", "m", columns(scale[:3]), meaning=control),
            ActionGroup(turn, "rotation of the hand, world axes", "rad", columns(scale[3:]), meaning=control),
            gripper,
        ]

    def task_reward(self, state: CubeStackState) -> Tensor:
        return task_reward(stacked(state), self.max_episode_length)

    def metrics(self) -> Dict[str, Tensor]:
        state = self.state()
        distance = (state.cube_a_pos - state.grip_pos).norm(dim=-1)
        return {"stacked": stacked(state), "lifted": lifted(state), "grip_distance": distance}


# -- scene pieces ------------------------------------------------------------------------------------------------
def _choice(valid: Mapping[str, Any], key: str, cfg: Mapping[str, Any]) -> Any:
    if cfg[key] not in valid:
        raise unknown("task." + key, str(cfg[key]), valid)
    return valid[cfg[key]]


def _robot(drives: Mapping[str, Any]) -> ActorSpec:
    """The Panda on its stand. It does not touch itself, unlike the published one (docs/parity/FrankaCubeStack.md)."""
    arm, finger = drives["arm"], drives["finger"]

    def motor(joints: str, effort: float, speed: float) -> DriveSpec:
        limit = effort if arm["limit_effort"] else float("inf")
        return DriveSpec(
            joints, mode="effort", armature=float(arm["armature"]), effort_limit=limit, velocity_limit=speed
        )

    fingers = DriveSpec(
        "panda_finger_joint.",
        stiffness=float(finger["stiffness"]),
        damping=float(finger["damping"]),
        armature=float(finger["armature"]),
        effort_limit=200.0,
        velocity_limit=FINGER_VELOCITY_LIMIT if finger["limit_velocity"] else None,
    )
    return ActorSpec(
        name="franka",
        asset=ASSETS / "panda.xml",
        position=(-0.45, 0.0, 1.125),
        gravity=False,
        drives=(
            motor("panda_joint[1-4]", EFFORT_LIMITS[0], VELOCITY_LIMITS[0]),
            motor("panda_joint[5-7]", EFFORT_LIMITS[6], VELOCITY_LIMITS[6]),
            fingers,
        ),
        collision_group=2,
        collision_mask=1 | 4 | 8,
    )


def _cube(name: str, position: Tuple[float, float, float]) -> ActorSpec:
    return ActorSpec(
        name, ASSETS / (name + ".xml"), position, fixed=False, collision_group=8, collision_mask=1 | 2 | 4 | 8
    )


TASK = FrankaCubeStack
