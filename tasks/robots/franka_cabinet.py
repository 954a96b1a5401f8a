"""FrankaCabinet: a Panda arm opens the top drawer of a cabinet.

The published task (Isaac Gym Envs, with HEPO's changes): 9 joint-position actions, 23 observations, task reward r
for the drawer being open, and a shaped heuristic h. What differs from PhysX, and why: docs/physics.md; what
differs in the step loop: docs/differences.md. Lengths in metres, angles in radians, quaternions xyzw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import INTEGRATED, ActionGroup, ObsSlice, columns
from hepo_isaac.envs.math import quat_conjugate, quat_matrix, quat_mul, quat_rotate
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Rewards, Task, for_engine
from hepo_isaac.errors import UserError
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.engines import CUDA_ENGINE
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, DriveSpec, SceneSpec

from .franka_cabinet_heuristics import HUMAN_HEURISTICS

ASSETS = Path(__file__).parent / "assets"

ARM_JOINTS = ["franka/panda_joint%d" % i for i in range(1, 8)]
FINGER_JOINTS = ["franka/panda_finger_joint1", "franka/panda_finger_joint2"]
DRAWER_JOINT = "cabinet/drawer_top_joint"
TRACKED_BODIES = ("franka/link7", "cabinet/drawer_top", "franka/leftfinger", "franka/rightfinger")

# Joint-speed limits of the Panda (datasheet), rad/s for joints 1-4 and 5-7, m/s for the fingers.
ARM_VELOCITY_LIMITS = (2.175, 2.61)
FINGER_VELOCITY_LIMIT = 0.2
DRAWER_VELOCITY_LIMIT = 1.0  # m/s, the URDF's; in PhysX alone it has an effect, since no drive moves the drawer

DEFAULT_POSE = (1.157, -1.066, -0.155, -2.239, -1.841, 1.003, 0.469, 0.035, 0.035)
POSE_NOISE = 0.25  # full width of the uniform noise on every joint, fingers included
ACTION_SCALE = 7.5  # rad/s of target motion at action 1
FINGER_SPEED_SCALE = 0.1
# Constant offsets of the frames that reward and observation use. The gripper frame lies 4 cm to the side of the
# finger bases and the drawer frame 1 cm along y: both are the published constants (their axes are swapped from
# an earlier y-up version) and are kept, since scores must be comparable.
GRIPPER_OFFSET = (0.0, 0.04, 0.1654)  # in link7
GRIPPER_YAW = (0.0, 0.0, -0.38268343, 0.92387953)
DRAWER_OFFSET = (0.3, 0.01, 0.0)  # in the drawer's frame
OPEN = 0.39  # m; the drawer stops at 0.4
BONUS_OPENINGS = (0.01, 0.2, OPEN)  # m
# Published scales of the default heuristic's terms; rotation's 0.5 is halved by its mean over two axes.
TERM_WEIGHTS = {
    "distance": 2.0,
    "rotation": 0.25,
    "around_handle": 0.25,
    "opening": 7.5,
    "fingers": 5.0,
    "action_penalty": -0.01,
    "bonus": 1.0,
}
PROP_MASS = 0.2048  # kg each
# Buffers per world for engines that must size them beforehand: about 2.5 times the most contacts and constraint rows
# seen in 256 worlds of random and of trained actions (rigid props 9 and 38, loose ones 72 and 290).
WARP_BUFFERS = {0: {"nconmax": 24, "njmax": 96}, 16: {"nconmax": 160, "njmax": 640}}


@dataclass
class CabinetState:
    """What rewards are computed from; every field is (N, .) on the device.

    gripper_pos, gripper_quat: gripper grasp frame.  drawer_pos, drawer_quat: drawer grasp frame.
    left_finger, right_finger: finger link origins (the base of the fingers; the tips are 5.4 cm further).
    drawer_opening: (N,) m.  actions: (N, 9) clipped to [-1, 1].
    """

    gripper_pos: Tensor
    gripper_quat: Tensor
    drawer_pos: Tensor
    drawer_quat: Tensor
    left_finger: Tensor
    right_finger: Tensor
    drawer_opening: Tensor
    actions: Tensor


def task_reward(drawer_opening: Tensor, episode_length: int) -> Tensor:
    """r = 1[opening > 0.39] / episode_length, so that an episode's sum is the share of it spent open."""
    return (drawer_opening > OPEN).to(drawer_opening.dtype) / episode_length


@lru_cache(maxsize=None)
def _constants(device: torch.device) -> Tuple[Tensor, Tensor]:
    """Thresholds and weights of the default heuristic on the device, made once: copying them to a GPU in every step
    would make the host wait. A distance of exactly 2 cm, or a finger exactly 4 cm behind, still counts (published
    <= and >=), hence the next representable number below."""
    inclusive = torch.nextafter(torch.tensor([-(0.02**2), -0.04]), torch.tensor(-1.0))
    thresholds = torch.tensor([inclusive[0], 0.0, *BONUS_OPENINGS, inclusive[1]])
    return thresholds.to(device), torch.tensor(list(TERM_WEIGHTS.values()), device=device)


def default_heuristic(s: CabinetState) -> Dict[str, Tensor]:
    """The published shaping as named terms; h is their sum, overwritten by -1 once a finger is past the handle.

    Returns:
        terms: distance, rotation, around_handle, opening, fingers, action_penalty, bonus, and overreach (what the
        overwriting changed).
    """
    offset = s.gripper_pos - s.drawer_pos
    d2, q = (offset * offset).sum(-1), s.drawer_opening
    handle_x, handle_z = s.drawer_pos[:, 0], s.drawer_pos[:, 2]
    above, below = s.left_finger[:, 2] - handle_z, handle_z - s.right_finger[:, 2]
    reach = torch.minimum(s.left_finger[:, 0], s.right_finger[:, 0]) - handle_x
    # All comparisons at once: [within 2 cm, straddling, drawer past each bonus opening, not past the handle].
    thresholds, weights = _constants(q.device)
    compared = torch.stack((-d2, torch.minimum(above, below), q, q, q, reach), 1) > thresholds
    near, straddles, moved, half, opened, sound = compared.to(q.dtype).unbind(1)
    # Cosines of gripper forward (z) with drawer inward (-x), and of gripper up (y) with drawer up (z).
    seen = quat_matrix(quat_mul(quat_conjugate(s.gripper_quat), s.drawer_quat))  # (N, 3, 3) drawer from the gripper
    forward, up = -seen[:, 2, 0], seen[:, 1, 2]
    around = 0.5 * straddles
    closeness = (1.0 + d2).reciprocal()
    closeness = closeness * closeness
    values = (
        closeness + closeness * near,
        forward * forward.abs() + up * up.abs(),
        around,
        q + q * around,
        (0.08 - above.abs() - below.abs()) * straddles,
        (s.actions * s.actions).sum(-1),
        0.5 * moved + around * (half + 2.0 * opened),
    )
    weighted = torch.stack(values, 1) * weights
    terms = dict(zip(TERM_WEIGHTS, weighted.unbind(1)))
    terms["overreach"] = (1.0 - sound) * (-1.0 - weighted.sum(1))
    return terms


def integrate_targets(
    target: Tensor, actions: Tensor, speed: Tensor, dt: float, lower: Tensor, upper: Tensor
) -> Tensor:
    """Next joint targets: clip(target + speed_i * dt * 7.5 * a_i) to the joint limits; open loop, as published."""
    return torch.minimum(torch.maximum(target + speed * (dt * ACTION_SCALE) * actions, lower), upper)


def reset_pose(default: Tensor, uniform: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Start pose: default + 0.25 (u - 1/2) per joint, clamped; so each finger starts closed with p = 0.36 and fully
    open with p = 0.48."""
    return torch.minimum(torch.maximum(default + POSE_NOISE * (uniform - 0.5), lower), upper)


class FrankaCabinet(Task):
    """See the module docstring. cfg: the ``task`` group (cfg/task/FrankaCabinet.yaml)."""

    name = "FrankaCabinet"
    num_obs = 23
    num_actions = 9
    heuristics = {"default": default_heuristic, **HUMAN_HEURISTICS}

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        drives = for_engine(physics["drives"], engine)
        num_props = int(physics["num_props"])
        if num_props not in (0, 16):
            raise UserError("task.physics.num_props must be 0 (rigid load) or 16 (loose), got %d" % num_props)
        # With rigid props only the drawer's slide and the gravity-free robot move, so gravity changes nothing and
        # leaving it out saves its compensation.
        gravity = (0.0, 0.0, -9.81 if num_props else 0.0)
        load = 0.0 if num_props else 16 * PROP_MASS
        actors = [_robot(drives), _cabinet(physics, load), *_props(num_props)]
        return SceneSpec(
            actors=tuple(actors),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            gravity=gravity,
            contact=ContactSpec(friction=1.0, solref_steps=float(physics["solref_steps"])),
            body_states=TRACKED_BODIES,
            body_velocities=False,
            options={
                **physics["options"],
                CUDA_ENGINE: {**WARP_BUFFERS[num_props], **physics["options"].get(CUDA_ENGINE, {})},
            },
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        device = sim.device
        # The robot's joints come first, so they are a view; the drawer is one more column.
        first = sim.dof_index(ARM_JOINTS[0])
        self._robot = slice(first, first + 9)
        assert sim.dof_names[self._robot] == ARM_JOINTS + FINGER_JOINTS
        self._drawer = sim.dof_index(DRAWER_JOINT)
        self._lower, self._upper = sim.dof_lower[self._robot], sim.dof_upper[self._robot]
        self._speed = torch.tensor([1.0] * 7 + [FINGER_SPEED_SCALE] * 2, device=device)
        self._default = torch.tensor(DEFAULT_POSE, device=device)
        assert sim.body_names == list(TRACKED_BODIES)
        # (2q - u - l) / (u - l) as one multiply and one subtraction
        self._obs_scale = 2.0 / (self._upper - self._lower)
        self._obs_shift = (self._upper + self._lower) / (self._upper - self._lower)
        self._offsets = torch.tensor([GRIPPER_OFFSET, DRAWER_OFFSET], device=device)
        self._gripper_yaw = torch.tensor(GRIPPER_YAW, device=device)
        self._points_version, self._points = -1, torch.empty(0)
        self._actions = torch.zeros(sim.num_envs, 9, device=device)
        self._target = torch.zeros(sim.num_envs, len(sim.dof_names), device=device)
        self._zero_vel = torch.zeros_like(self._target)
        self._start_roots = sim.root_state.clone() if len(sim.actor_names) > 2 else None  # only loose props move

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        self._actions.copy_(actions)
        target = self.sim.dof_target_pos[:, self._robot]
        self._target[:, self._robot] = integrate_targets(
            target, actions, self._speed, self.sim.spec.control_dt, self._lower, self._upper
        )
        self.sim.set_dof_target_pos(self._target)

    def reset(self, mask: Tensor) -> None:
        uniform = self.streams.rand(9, mask=mask)
        pose = torch.zeros_like(self._target)
        pose[:, self._robot] = reset_pose(self._default, uniform, self._lower, self._upper)
        self.sim.set_state(mask, pose, self._zero_vel, root_state=self._start_roots, dof_target_pos=pose)
        self._actions.masked_fill_(mask[:, None], 0.0)  # nothing has been done yet: a potential of the state sees them

    def get_state(self) -> Dict[str, Any]:
        return {"actions": self._actions.clone()}

    def load_state(self, state: Dict[str, Any]) -> None:
        self._actions.copy_(state["actions"])

    # -- observations and rewards ------------------------------------------------------------------------------
    def _grasp_points(self) -> Tensor:
        """(N, 2, 3) gripper and drawer grasp points; kept while the simulation stands still, since rewards and
        observation both want them."""
        if self._points_version != self.sim.version:
            bodies = self.sim.body_state[:, :2]  # link7 and drawer, see TRACKED_BODIES
            self._points = bodies[..., :3] + quat_rotate(bodies[..., 3:7], self._offsets)
            self._points_version = self.sim.version
        return self._points

    def state(self) -> CabinetState:
        """The quantities that rewards are functions of, from the engine's current tensors."""
        body, points = self.sim.body_state, self._grasp_points()
        return CabinetState(
            gripper_pos=points[:, 0],
            gripper_quat=quat_mul(body[:, 0, 3:7], self._gripper_yaw),
            drawer_pos=points[:, 1],
            drawer_quat=body[:, 1, 3:7],
            left_finger=body[:, 2, :3],
            right_finger=body[:, 3, :3],
            drawer_opening=self.sim.dof_pos[:, self._drawer],
            actions=self._actions,
        )

    def observe(self) -> Tensor:
        q, qd = self.sim.dof_pos, self.sim.dof_vel
        points = self._grasp_points()
        drawer = slice(self._drawer, self._drawer + 1)
        scaled = q[:, self._robot] * self._obs_scale - self._obs_shift
        return torch.cat(
            (scaled, 0.1 * qd[:, self._robot], points[:, 1] - points[:, 0], q[:, drawer], qd[:, drawer]), 1
        )

    def obs_layout(self) -> List[ObsSlice]:
        joints = tuple(ARM_JOINTS + FINGER_JOINTS)
        range_ = columns(self._obs_scale), columns(-self._obs_shift)
        return [
            ObsSlice("joint_pos", 9, "rad, fingers m", *range_, joints, "-1 at the lower limits, 1 at the upper ones"),
            ObsSlice("joint_vel", 9, "rad/s, fingers m/s", 0.1, names=joints),
            ObsSlice("gripper_to_drawer", 3, "m", meaning="between the grasp points, in the world"),
            ObsSlice("drawer_opening", 1, "m"),
            ObsSlice("drawer_vel", 1, "m/s"),
        ]

    def action_layout(self) -> List[ActionGroup]:
        step = self._speed * (self.sim.spec.control_dt * ACTION_SCALE)

        def group(names: List[str], unit: str, some: slice) -> ActionGroup:
            bounds = columns(self._lower[some]), columns(self._upper[some])
            drive = ("joint position target", unit, columns(step[some]), INTEGRATED)
            return ActionGroup(tuple(names), *drive, lower=bounds[0], upper=bounds[1])

        return [group(ARM_JOINTS, "rad", slice(7)), group(FINGER_JOINTS, "m", slice(7, 9))]

    def rewards(self) -> Rewards:
        state = self.state()
        heuristic, terms = self.heuristic(state)
        terms = {**terms, "drawer_opening": state.drawer_opening / self.max_episode_length}
        return Rewards(task_reward(state.drawer_opening, self.max_episode_length), heuristic, terms)

    def metrics(self) -> Dict[str, Tensor]:
        opening = self.sim.dof_pos[:, self._drawer]
        return {"drawer_open": opening > OPEN, "final_opening": opening}


# -- scene pieces ------------------------------------------------------------------------------------------------
def _robot(drives: Mapping[str, Any]) -> ActorSpec:
    arm, finger = drives["arm"], drives["finger"]

    def drive(joints: str, gains: Mapping[str, Any], effort: float, velocity: float) -> DriveSpec:
        return DriveSpec(
            joints,
            stiffness=float(gains["stiffness"]),
            damping=float(gains["damping"]),
            armature=float(gains["armature"]),
            effort_limit=effort,
            velocity_limit=velocity if gains["limit_velocity"] else None,
        )

    return ActorSpec(
        name="franka",
        asset=ASSETS / "panda.xml",
        position=(1.0, 0.0, 0.0),
        orientation=(0.0, 0.0, 1.0, 0.0),  # faces -x, towards the cabinet
        gravity=False,
        drives=(
            drive("panda_joint[1-4]", arm, 87.0, ARM_VELOCITY_LIMITS[0]),
            drive("panda_joint[5-7]", arm, 12.0, ARM_VELOCITY_LIMITS[1]),
            drive("panda_finger_joint.", finger, 200.0, FINGER_VELOCITY_LIMIT),
        ),
        # Robot and cabinet never touch themselves (published collision filters; the cabinet's parts overlap).
        collision_group=1,
        collision_mask=2 | 4,
    )


def _cabinet(physics: Mapping[str, Any], load: float) -> ActorSpec:
    return ActorSpec(
        name="cabinet",
        asset=ASSETS / "cabinet.xml",
        position=(0.0, 0.0, 0.4),
        drives=(
            DriveSpec(
                "drawer_top_joint",
                mode="none",
                damping=float(physics["drawer_damping"]),
                armature=0.005,
                velocity_limit=DRAWER_VELOCITY_LIMIT,
                inelastic_stop=bool(physics["inelastic_stop"]),
            ),
        ),
        collision_group=2,
        collision_mask=1 | 4,
        body_mass={"drawer_top": 5.33 + load},
    )


def _props(count: int) -> List[ActorSpec]:
    """A 4 x 4 grid of loose cubes in the top drawer, 9 cm apart (published)."""

    def place(i: int) -> Tuple[float, float, float]:
        return (0.0515 - 0.135 + 0.09 * (i // 4), -0.135 + 0.09 * (i % 4), 0.7172)

    return [
        ActorSpec("prop%02d" % i, ASSETS / "prop.xml", place(i), fixed=False, collision_group=4, collision_mask=7)
        for i in range(count)
    ]


TASK = FrankaCabinet
