"""Anymal: the quadruped ANYmal C walks on flat ground as fast, and turns as fast, as it is told.

The published task (Isaac Gym Envs, with HEPO's changes): 12 joint-position actions, 48 observations, task reward r =
minus the squared errors of the commanded velocities, and a shaped heuristic h. r is never positive and falling costs
nothing, so a short episode can have a higher J than a good one: read J next to the metrics ``survived`` and
``tracking_error`` (docs/parity/Anymal.md). Lengths in metres, angles in radians, quaternions xyzw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ActionGroup, ObsSlice
from hepo_isaac.envs.math import quat_matrix
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Rewards, Task, for_engine
from hepo_isaac.errors import unknown
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, DriveSpec, SceneSpec

ASSETS = Path(__file__).parent / "assets"

LEGS = ("LF", "LH", "RF", "RH")
JOINTS = ["anymal/%s_%s" % (leg, joint) for leg in LEGS for joint in ("HAA", "HFE", "KFE")]
# Default angles (HAA, HFE, KFE) of LEGS, in that order, rad.
STANCE = (0.03, 0.4, -0.8, 0.03, -0.4, 0.8, -0.03, 0.4, -0.8, -0.03, -0.4, 0.8)
START_HEIGHT = 0.62  # m of the base; the feet are 8 cm above the ground
ACTION_SCALE = 0.5  # rad of joint target per action
EFFORT_LIMIT = 80.0  # N m
COMMAND_LIMITS = (2.0, 1.0, 1.0)  # |forward|, |sideways| m/s, |turning| rad/s
FATAL = ("anymal/base", *("anymal/%s_THIGH" % leg for leg in LEGS))  # bodies that must not touch the ground
FATAL_FORCE = 1.0  # N
# Scales of [linear velocity, angular velocity, gravity, commands, joint offsets, joint velocities, actions].
OBS_SCALES = ((2.0,) * 3, (0.25,) * 3, (1.0,) * 3, (2.0, 2.0, 0.25), (1.0,) * 12, (0.05,) * 12, (1.0,) * 12)
ERROR_WIDTH = 0.25  # (m/s)^2 and (rad/s)^2 of h's exponentials
# Published coefficients 1, 0.5 and -2.5e-5, times the control step of 0.02 s.
TERM_WEIGHTS = {"linear_velocity": 0.02, "angular_velocity": 0.01, "torque": -5e-7}
BAD_WEIGHTS = {"linear_velocity": -0.02, "angular_velocity": -0.01, "torque": -5e-7}
TRACKED_ERROR = 0.25  # mean e_v + e_w of an episode below which the commands count as followed


@dataclass
class AnymalState:
    """What rewards are computed from; every field is (N, .) on the device.

    linear_error: (N,) e_v, squared error of the horizontal velocity, m^2/s^2.  angular_error: (N,) e_w of the turning
    speed, rad^2/s^2.  linear_velocity, angular_velocity: (N, 3) of the base in its own frame, m/s and rad/s.
    commands: (N, 3) forward, sideways m/s, turning rad/s.  gravity: (N, 3) as observed, see ``projected_gravity``.
    base_position: (N, 3) m.  joint_offset: (N, 12) from STANCE, rad.  joint_velocity: (N, 12) rad/s.
    torque: (N, 12) of the last physics step, N m.  actions: (N, 12) clipped to [-1, 1].
    """

    linear_error: Tensor
    angular_error: Tensor
    linear_velocity: Tensor
    angular_velocity: Tensor
    commands: Tensor
    gravity: Tensor
    base_position: Tensor
    joint_offset: Tensor
    joint_velocity: Tensor
    torque: Tensor
    actions: Tensor


def task_reward(linear_error: Tensor, angular_error: Tensor, alive_bonus: float = 0.0) -> Tensor:
    """r = bonus - (e_v + e_w) per control step: as published (bonus 0) neither scaled by the step nor bounded."""
    return alive_bonus - (linear_error + angular_error)


def tracking_errors(velocity: Tensor, commands: Tensor) -> Tuple[Tensor, Tensor]:
    """Squared errors e_v, e_w (N,) of the base's velocity (N, 2, 3), linear and angular in its own frame."""
    error = commands - torch.cat((velocity[:, 0, :2], velocity[:, 1, 2:]), 1)
    squared = error * error
    return squared[:, 0] + squared[:, 1], squared[:, 2]


def default_heuristic(s: AnymalState) -> Dict[str, Tensor]:
    """The published shaping as named terms: 0.02 exp(-e_v / 0.25) + 0.01 exp(-e_w / 0.25) - 5e-7 sum torque^2, and all
    of them 0 where their sum is negative."""
    closeness = torch.exp(torch.stack((s.linear_error, s.angular_error)) * (-1.0 / ERROR_WIDTH))
    values = torch.stack((closeness[0], closeness[1], (s.torque * s.torque).sum(-1)))
    weighted = values * _constants(values.device)[0]
    weighted = weighted * (weighted.sum(0) > 0)
    return dict(zip(TERM_WEIGHTS, weighted.unbind(0)))


def bad_unclipped_heuristic(s: AnymalState) -> Dict[str, Tensor]:
    """What the published "bad" variant would pay without its clipping: -0.02 e_v - 0.01 e_w - 5e-7 sum torque^2."""
    values = torch.stack((s.linear_error, s.angular_error, (s.torque * s.torque).sum(-1)))
    return dict(zip(BAD_WEIGHTS, (values * _constants(values.device)[1]).unbind(0)))


def bad_heuristic(s: AnymalState) -> Tensor:
    """The published "bad" variant, which no published run ever called: clipped at 0 from below it is always 0."""
    return sum(bad_unclipped_heuristic(s).values(), torch.zeros_like(s.linear_error)).clamp(min=0.0)


@lru_cache(maxsize=None)
def _constants(device: torch.device) -> Tuple[Tensor, Tensor]:
    """(3, 1) weights of the default and the bad heuristic on the device, made once: copying them to a GPU in every step
    would make the host wait."""
    weights = (list(TERM_WEIGHTS.values()), list(BAD_WEIGHTS.values()))
    default, bad = (torch.tensor(w, device=device).unsqueeze(1) for w in weights)
    return default, bad


def start_state(uniform: Tensor, stance: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Joint angles stance * U(0.5, 1.5), joint velocities U(-0.1, 0.1) rad/s and commands of a new episode.

    Args:
        uniform: (N, 27) on [0, 1).  stance: (12,) rad.
    """
    drawn = (2.0 * uniform[:, 24:] - 1.0).unbind(1)
    commands = torch.stack([limit * draw for limit, draw in zip(COMMAND_LIMITS, drawn)], 1)
    return stance * (0.5 + uniform[:, :12]), 0.2 * uniform[:, 12:24] - 0.1, commands


class Anymal(Task):
    """See the module docstring. cfg: the ``task`` group (cfg/task/Anymal.yaml)."""

    name = "Anymal"
    num_obs = 48
    num_actions = 12
    heuristics = {
        "default": default_heuristic,
        "bad": bad_heuristic,
        "bad_unclipped": bad_unclipped_heuristic,
    }

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        gains = for_engine(physics["drives"], engine)
        drive = DriveSpec(
            ".*",
            stiffness=float(gains["stiffness"]),
            damping=float(gains["damping"]),
            armature=float(gains["armature"]),
            effort_limit=EFFORT_LIMIT,
            velocity_limit=gains["velocity_limit"],
        )
        robot = ActorSpec(
            name="anymal",
            asset=ASSETS / "anymal_c.xml",
            position=(0.0, 0.0, START_HEIGHT),
            fixed=False,
            drives=(drive,),
            collision_group=1,
            collision_mask=0,  # touches the ground, never itself
        )
        return SceneSpec(
            actors=(robot,),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            contact=ContactSpec(friction=1.0, solref_steps=float(physics["solref_steps"])),
            body_states=("anymal/base",),
            body_velocities=False,  # the root's are served anyway
            contact_bodies=FATAL,
            ground_plane=True,
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        self._alive_bonus = float(cfg["alive_bonus"])
        gravity = str(cfg["projected_gravity"])
        if gravity not in ("published", "corrected"):
            raise unknown("task.projected_gravity", gravity, ("published", "corrected"))
        # R (0, 0, -1) is minus R's last column, the right R^T (0, 0, -1) minus its last row.
        self._gravity_axis = 2 if gravity == "published" else 1
        assert sim.dof_names == JOINTS
        n, device = sim.num_envs, sim.device
        self._stance = torch.tensor(STANCE, device=device)
        self._obs_scale = torch.tensor([x for part in OBS_SCALES for x in part], device=device)
        self._start_roots = sim.root_state.clone()
        self._actions = torch.zeros(n, 12, device=device)
        self._commands = torch.zeros(n, 3, device=device)
        # Sum of e_v + e_w and number of steps of the running episode.
        self._error_sum, self._steps = torch.zeros(n, device=device), torch.zeros(n, device=device)
        self._version, self._motion = -1, (torch.empty(0), torch.empty(0))

    # -- actions and resets ------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        self._actions.copy_(actions)
        self.sim.set_dof_target_pos(torch.add(self._stance, actions, alpha=ACTION_SCALE))

    def reset(self, mask: Tensor) -> None:
        pose, velocity, commands = start_state(self.streams.rand(27, mask=mask), self._stance)
        rows = mask.unsqueeze(1)
        torch.where(rows, commands, self._commands, out=self._commands)
        self._actions.masked_fill_(rows, 0.0)  # those of the former episode are none of the new one's business
        self._error_sum.masked_fill_(mask, 0.0)
        self._steps.masked_fill_(mask, 0.0)
        self.sim.set_state(mask, pose, velocity, root_state=self._start_roots, dof_target_pos=pose)

    # -- observations and rewards ------------------------------------------------------------------------------
    def _moving(self) -> Tuple[Tensor, Tensor]:
        """(N, 2, 3) linear and angular velocity of the base in its own frame, and (N, 3) gravity as observed; kept
        while the simulation stands still, since rewards and observation both want them."""
        if self._version != self.sim.version:
            root = self.sim.root_state[:, 0]
            rotation = quat_matrix(root[:, 3:7])
            velocity = (rotation.unsqueeze(1) * root[:, 7:].unflatten(1, (2, 3)).unsqueeze(-1)).sum(2)
            self._motion = velocity, -rotation.select(self._gravity_axis, 2)
            self._version = self.sim.version
        return self._motion

    def state(self) -> AnymalState:
        """The quantities that rewards are functions of, from the engine's current tensors."""
        velocity, gravity = self._moving()
        linear_error, angular_error = tracking_errors(velocity, self._commands)
        return AnymalState(
            linear_error=linear_error,
            angular_error=angular_error,
            linear_velocity=velocity[:, 0],
            angular_velocity=velocity[:, 1],
            commands=self._commands,
            gravity=gravity,
            base_position=self.sim.root_state[:, 0, :3],
            joint_offset=self.sim.dof_pos - self._stance,
            joint_velocity=self.sim.dof_vel,
            torque=self.sim.dof_force,
            actions=self._actions,
        )

    def observe(self) -> Tensor:
        velocity, gravity = self._moving()
        sim = self.sim
        parts = (velocity.flatten(1), gravity, self._commands, sim.dof_pos - self._stance, sim.dof_vel, self._actions)
        return torch.cat(parts, 1) * self._obs_scale

    def obs_layout(self) -> List[ObsSlice]:
        joints, scale = tuple(JOINTS), [part[0] for part in OBS_SCALES]
        gravity = "minus the last %s of the base's rotation matrix" % ("column", "row")[self._gravity_axis == 1]
        return [
            ObsSlice("base_velocity", 3, "m/s", scale[0], meaning="in the base's frame"),
            ObsSlice("base_spin", 3, "rad/s", scale[1], meaning="in the base's frame"),
            ObsSlice("gravity", 3, "1", scale[2], meaning=gravity),
            ObsSlice("command", 3, "m/s, m/s, rad/s", OBS_SCALES[3], names=("forward", "sideways", "turning")),
            ObsSlice("joint_pos", 12, "rad", names=joints, shift=tuple(-angle for angle in STANCE)),
            ObsSlice("joint_vel", 12, "rad/s", scale[5], names=joints),
            ObsSlice("actions", 12, "1", scale[6], names=joints, meaning="of the step before, clipped to [-1, 1]"),
        ]

    def action_layout(self) -> List[ActionGroup]:
        return [ActionGroup(tuple(JOINTS), "joint position target", "rad", ACTION_SCALE, offset=STANCE)]

    def rewards(self) -> Rewards:
        state = self.state()
        heuristic, terms = self.heuristic(state)
        reward = task_reward(state.linear_error, state.angular_error, self._alive_bonus)
        self._error_sum += state.linear_error + state.angular_error
        self._steps += 1.0
        return Rewards(reward, heuristic, terms)

    def terminated(self) -> Tensor:
        """(N,) the base or a thigh pushes on the ground with more than 1 N; hips and shanks may touch it."""
        force = self.sim.contact_force
        return ((force * force).sum(-1) > FATAL_FORCE**2).any(1)

    def metrics(self) -> Dict[str, Tensor]:
        """survived: up to the time limit.  tracking_error: mean e_v + e_w per step.  tracked: survived with a mean
        error below 0.25, h's own width (standing still manages that for one command in thirty)."""
        error, survived = self._error_sum / self._steps, ~self.terminated()
        return {"tracked": survived & (error < TRACKED_ERROR), "survived": survived, "tracking_error": error}

    # -- checkpoints -------------------------------------------------------------------------------------------
    _SAVED = ("actions", "commands", "error_sum", "steps")

    def get_state(self) -> Dict[str, Any]:
        return {name: getattr(self, "_" + name).clone() for name in self._SAVED}

    def load_state(self, state: Dict[str, Any]) -> None:
        for name in self._SAVED:
            getattr(self, "_" + name).copy_(state[name])


TASK = Anymal
