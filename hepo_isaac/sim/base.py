"""The Simulation contract: what a task may ask of any engine, on one screen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from hepo_isaac.errors import Notice
from hepo_isaac.sim.spec import SceneSpec

RANDOMIZABLE = ("body_mass", "friction", "dof_damping", "dof_armature", "drive_stiffness", "drive_damping", "gravity")
# Key of get_state under which stands what all envs have in common; every other tensor but scalars has a row per env.
SHARED = "shared"


class Simulation(ABC):
    """num_envs copies of one scene in lock-step.

    Every tensor is float32 on ``device``, allocated once and updated in place: keep a reference, never a copy.
    Quaternions are xyzw; poses and velocities are in the environment's world frame; linear velocity is that of
    the body origin. After ``step`` and ``set_state`` all of them describe the same instant (nothing is one
    substep old). N = num_envs, A actors, D degrees of freedom, B served bodies, S force sensors.

    Attributes:
        root_state: (N, A, 13) position m, quaternion, linear m/s, angular velocity rad/s of each actor's root. The
            root of a fixed actor is where it is mounted: constant, even if its first body turns on a joint.
        dof_pos, dof_vel: (N, D) rad or m, rad/s or m/s.
        dof_force: (N, D) force the drives applied in the last physics step, N or N m.
        dof_target_pos: (N, D) the position targets in force (rad or m).
        body_state: (N, B, 13) as root_state, for the bodies of ``body_names``.
        contact_force: (N, C, 3) net contact force on each of ``spec.contact_bodies``, world frame, N, in the
            last physics step.
        force_sensor: (N, S, 6) force N and torque N m in the sensor's body frame, last physics step.
        bad_envs: (N,) bool, worlds whose last step diverged (NaN, solver warning, buffer overflow). Their
            tensors hold no meaning until ``set_state`` or ``reset`` touches them.
        version: changes whenever the served state does, so that a task can keep what it derived from it.
        limits_joint_speed: whether a drive's velocity_limit is a hard bound of the joint's speed, in every mode.
        damps_links: whether links lose speed as the engine's own options say, so that a task need not slow them.
        overflow_count: (), int64, number of worlds and steps so far in which a contact or constraint buffer
            overflowed.
    """

    version: int = 0
    limits_joint_speed: bool = False
    damps_links: bool = False
    spec: SceneSpec
    num_envs: int
    device: torch.device
    dof_names: List[str]
    body_names: List[str]
    actor_names: List[str]
    dof_lower: Tensor
    dof_upper: Tensor
    root_state: Tensor
    dof_pos: Tensor
    dof_vel: Tensor
    dof_force: Tensor
    dof_target_pos: Tensor
    body_state: Tensor
    contact_force: Tensor
    force_sensor: Tensor
    bad_envs: Tensor
    overflow_count: Tensor

    # -- names -------------------------------------------------------------------------------------------------
    def dof_index(self, name: str) -> int:
        """Column of joint ``actor/joint`` in dof_pos; ValueError with the known names if there is none."""
        return _index("joint", name, self.dof_names)

    def dof_indices(self, names: Sequence[str]) -> Tensor:
        """(len(names),) int64 columns, on the device."""
        return torch.tensor([self.dof_index(n) for n in names], device=self.device)

    def body_index(self, name: str) -> int:
        """Row of body ``actor/body`` in body_state; ValueError with the served names if there is none."""
        return _index("body", name, self.body_names)

    def actor_index(self, name: str) -> int:
        """Row of an actor in root_state."""
        return _index("actor", name, self.actor_names)

    # -- commands ----------------------------------------------------------------------------------------------
    @abstractmethod
    def set_dof_target_pos(self, target: Tensor) -> None:
        """Position targets (N, D), rad or m; ignored on joints whose drive is not in mode "position"."""

    @abstractmethod
    def set_dof_target_vel(self, target: Tensor) -> None:
        """Velocity targets (N, D), rad/s or m/s; ignored on joints whose drive is not in mode "velocity"."""

    @abstractmethod
    def set_dof_effort(self, effort: Tensor) -> None:
        """Efforts (N, D), N or N m, held during the next control step; only joints in mode "effort"."""

    @abstractmethod
    def apply_body_force(self, force: Tensor, torque: Optional[Tensor] = None) -> None:
        """World-frame force (N, B, 3) in N at the centre of mass and torque (N, B, 3) in N m of the served
        bodies, for the next control step only."""

    # -- lifecycle ---------------------------------------------------------------------------------------------
    @abstractmethod
    def step(self) -> None:
        """Advance one control step (``spec.substeps`` physics steps) and refresh every tensor."""

    @abstractmethod
    def set_state(
        self,
        mask: Tensor,
        dof_pos: Optional[Tensor] = None,
        dof_vel: Optional[Tensor] = None,
        root_state: Optional[Tensor] = None,
        dof_target_pos: Optional[Tensor] = None,
    ) -> None:
        """Rewrite the envs where ``mask`` (N,) bool is true and refresh them at once.

        The other arguments have the full batch shape, (N, D) or (N, A, 13); rows outside the mask are ignored,
        omitted ones keep their values. Touched worlds are healed: solver memory, warnings, applied forces and
        ``bad_envs`` are cleared. Poses of fixed actors cannot be changed and are ignored.
        """

    def may_select(self, mask: Tensor) -> bool:
        """False only if ``mask`` is nowhere true and the engine can tell so without making a device wait.

        Lets a CPU engine skip work (resets, healing) in steps that need none; a GPU engine always answers True.
        """
        return True

    @abstractmethod
    def reset(self, mask: Tensor) -> None:
        """Put masked envs back to the scene's initial state (joints at zero or their default, actors at their
        spec pose, velocities zero) and refresh them."""

    @abstractmethod
    def jacobian(self, body: str) -> Tensor:
        """(N, 6, D) world-frame Jacobian of a served body's origin: rows linear then angular. Computed on call."""

    @abstractmethod
    def mass_matrix(self) -> Tensor:
        """(N, D, D) joint-space inertia including armature, kg, kg m or kg m^2. Computed on call."""

    @abstractmethod
    def randomize(self, field: str, mask: Tensor, values: Tensor, names: Sequence[str] = ()) -> None:
        """Set a physical parameter of masked envs; ``field`` is one of RANDOMIZABLE.

        values: (N, len(names)) for named bodies or joints (all of them if names is empty), (N, 3) for gravity.
        """

    @abstractmethod
    def get_state(self) -> Dict[str, Any]:
        """Everything needed to continue bit-exactly (CPU engine): a dict of plain numbers, tensors with a row per env,
        and a dict ``SHARED`` of tensors that all envs have in common."""

    @abstractmethod
    def load_state(self, state: Dict[str, Any]) -> None:
        """Restore what get_state returned; ValueError if it belongs to another scene or num_envs."""

    def notices(self) -> List[Notice]:
        """What a user should know about how this engine runs here, most of all what makes it slower; empty is well."""
        return []

    def render_state(self, env: int) -> Dict[str, Tensor]:
        """State of one env that a renderer needs, on the CPU (engine-specific; ``qpos`` for MuJoCo)."""
        raise NotImplementedError("%s cannot render" % type(self).__name__)

    def close(self) -> None:  # noqa: B027
        """Free the engine. The tensors are dead afterwards."""


def _index(kind: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ValueError("no %s %r in this simulation; it serves: %s" % (kind, name, ", ".join(names)))
    return list(names).index(name)
