"""Quadcopter: a quadcopter with tilting rotors flies to a point one metre above the ground and hovers there.

The published task (Isaac Gym Envs): 12 actions (rates of 8 rotor joints and of 4 thrusts), 21 observations, task
reward r = closeness to the point, and a heuristic h that also pays for being level and not turning. What differs from
PhysX: docs/parity/Quadcopter.md.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional

import torch
from torch import Tensor

from hepo_isaac.envs.interface import INTEGRATED, ActionGroup, columns
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import for_engine
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import ActorSpec, DriveSpec, SceneSpec

from .flight import ASSETS, HOVER_POINT, TARGET_MARKER, FlightState, HoverTask, hover_terms, start_roots

BODIES = ("quadcopter/chassis", *("quadcopter/rotor%d" % i for i in range(4)))
JOINT_RATE = 8.0 * math.pi  # rad/s of target motion at action 1
THRUST_RATE = 200.0  # N/s at action 1: one step covers the whole range
MAX_THRUST = 2.0  # N per rotor; hovering takes 0.617
JOINT_NOISE = 0.2  # rad, half width of the uniform start
# kg m^2 across and along the chassis' axis, all joints at 0 (closed form of the shapes in quadcopter.xml).
INERTIA_ACROSS, INERTIA_ALONG = 2.3349e-3, 4.6591e-3


def default_heuristic(s: FlightState) -> Dict[str, Tensor]:
    """The published shaping h = P + P (U + S), in (0, 3]."""
    return hover_terms(s, 1.0)


def bad_heuristic(s: FlightState) -> Dict[str, Tensor]:
    """HEPO's "bad" variant: h + z, which also pays for height above the ground."""
    return {**hover_terms(s, 1.0), "height": s.pos[:, 2]}


def z_axis(quat: Tensor) -> Tensor:
    """(..., 3) where unit quaternions (..., 4) turn the z axis; a quarter of a full matrix's time."""
    x, y, z, w = quat.unbind(-1)
    return torch.stack((2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)), -1)


def spin_brake(spin: Tensor, axis: Tensor, limit: float, dt: float) -> Tensor:
    """World-frame torque (N, 3) in N m that in time dt takes away what of the spin (N, 3) is beyond ``limit`` rad/s.

    axis: (N, 3) the chassis' z axis in the world.
    """
    beyond = spin * (1.0 - limit * spin.square().sum(1, keepdim=True).clamp(min=limit**2).rsqrt())
    along = axis * (beyond * axis).sum(1, keepdim=True)
    return (-INERTIA_ACROSS / dt) * beyond - ((INERTIA_ALONG - INERTIA_ACROSS) / dt) * along


class Quadcopter(HoverTask):
    """See the module docstring. cfg: the ``task`` group (cfg/task/Quadcopter.yaml)."""

    name = "Quadcopter"
    num_obs = 21
    num_actions = 12
    heuristics = {"default": default_heuristic, "bad": bad_heuristic}
    num_rotors = 4
    max_distance = 3.0
    min_height = 0.3
    hover_radius = 0.2

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        physics = cfg["physics"]
        gains = for_engine(physics["drives"], engine)
        limit = gains["velocity_limit"]
        drive = DriveSpec(
            "(pitch|roll).",
            stiffness=float(gains["stiffness"]),
            damping=float(gains["damping"]),
            armature=float(gains["armature"]),
            velocity_limit=None if limit is None else float(limit),
        )
        actor = ActorSpec(
            name="quadcopter",
            asset=ASSETS / "quadcopter.xml",
            position=HOVER_POINT,
            fixed=False,
            drives=(drive,),
            collision_mask=0,
        )
        return SceneSpec(
            actors=(actor,),
            control_dt=float(physics["control_dt"]),
            substeps=int(physics["substeps"]),
            body_states=BODIES,
            body_velocities=False,
            markers=(TARGET_MARKER,),
            options=physics["options"],
        )

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        assert sim.body_names == list(BODIES)
        assert sim.dof_names == ["quadcopter/%s%d" % (kind, i) for i in range(4) for kind in ("pitch", "roll")]
        self._joint_step = JOINT_RATE * sim.spec.control_dt
        self._thrust_step = THRUST_RATE * sim.spec.control_dt
        self._at_rest = torch.zeros_like(sim.dof_pos)
        self._max_spin = cfg["physics"]["max_spin"]
        self._force = torch.zeros(sim.num_envs, len(BODIES), 3, device=sim.device)
        self._torque = torch.zeros_like(self._force)

    def apply(self, actions: Tensor) -> None:
        """Actions integrate to joint targets and to thrusts, which push along the rotors' axes of this instant."""
        self._actions.copy_(actions)
        sim = self.sim
        targets = torch.add(sim.dof_target_pos, actions[:, :8], alpha=self._joint_step)
        sim.set_dof_target_pos(targets.clamp(sim.dof_lower, sim.dof_upper))
        self.thrust = torch.add(self.thrust, actions[:, 8:], alpha=self._thrust_step).clamp(0.0, MAX_THRUST)
        axes = z_axis(sim.body_state[..., 3:7])  # (N, 5, 3) of chassis and rotors, in the world
        torch.mul(axes[:, 1:], self.thrust.unsqueeze(-1), out=self._force[:, 1:])
        sim.apply_body_force(self._force, self._brake(axes[:, 0]))

    def action_layout(self) -> List[ActionGroup]:
        sim, thrust = self.sim, "thrust along the rotor's z axis"
        low, high = columns(sim.dof_lower), columns(sim.dof_upper)
        drive = ("joint position target", "rad", self._joint_step, INTEGRATED)
        return [
            ActionGroup(tuple(sim.dof_names), *drive, lower=low, upper=high),
            ActionGroup(BODIES[1:], thrust, "N", self._thrust_step, INTEGRATED, lower=0.0, upper=MAX_THRUST),
        ]

    def _brake(self, axis: Tensor) -> Optional[Tensor]:
        """(N, 5, 3) torques that stand in for PhysX's limit on the spin of bodies, or None where none is needed."""
        spin = self.sim.root_state[:, 0, 10:]
        if self._max_spin is None or not self.sim.may_select(spin.square().sum(1) > self._max_spin**2):
            return None
        self._torque[:, 0] = spin_brake(spin, axis, self._max_spin, self.sim.spec.control_dt)
        return self._torque

    def reset(self, mask: Tensor) -> None:
        uniform = self.streams.rand(11, mask=mask)
        joints = (2.0 * JOINT_NOISE) * (uniform[:, 3:] - 0.5)
        self.thrust = self.thrust.masked_fill(mask.unsqueeze(1), 0.0)
        self.sim.set_state(mask, joints, self._at_rest, start_roots(uniform[:, :3]), dof_target_pos=joints)


TASK = Quadcopter
