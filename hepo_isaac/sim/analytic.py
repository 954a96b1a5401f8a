"""An engine without physics: tasks whose dynamics are a few torch operations integrate them in ``Task.apply``."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

import torch
from torch import Tensor

from hepo_isaac.sim.base import RANDOMIZABLE, Simulation
from hepo_isaac.sim.spec import SceneSpec


class AnalyticSimulation(Simulation):
    """The Simulation contract with no actors, joints or bodies: every state tensor is empty and no world diverges.

    Args:
        spec: a scene without actors.  num_envs: N.  device: where the task's tensors live, CPU or CUDA.
    """

    def __init__(self, spec: SceneSpec, num_envs: int, device: torch.device) -> None:
        if spec.actors:
            raise ValueError(
                "sim=analytic simulates nothing, but the scene has actors (%s); use a physics engine for it"
                % ", ".join(a.name for a in spec.actors)
            )
        if num_envs < 1:
            raise ValueError("num_envs must be at least 1, got %d" % num_envs)
        self.spec, self.num_envs, self.device = spec, num_envs, torch.device(device)
        self.dof_names, self.body_names, self.actor_names = [], [], []
        self.dof_lower, self.dof_upper = self._zeros(0), self._zeros(0)
        self.root_state, self.body_state = self._zeros(num_envs, 0, 13), self._zeros(num_envs, 0, 13)
        for name in ("dof_pos", "dof_vel", "dof_force", "dof_target_pos"):
            setattr(self, name, self._zeros(num_envs, 0))
        self.contact_force, self.force_sensor = self._zeros(num_envs, 0, 3), self._zeros(num_envs, 0, 6)
        self.bad_envs = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.overflow_count = torch.zeros((), dtype=torch.int64, device=self.device)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, device=self.device)

    # -- commands: nothing to command --------------------------------------------------------------------------
    def set_dof_target_pos(self, target: Tensor) -> None:
        """There are no joints."""

    def set_dof_target_vel(self, target: Tensor) -> None:
        """There are no joints."""

    def set_dof_effort(self, effort: Tensor) -> None:
        """There are no joints."""

    def apply_body_force(self, force: Tensor, torque: Optional[Tensor] = None) -> None:
        """There are no bodies."""

    # -- lifecycle ---------------------------------------------------------------------------------------------
    def step(self) -> None:
        """Count the step; the task has already advanced its own state."""
        self.version += 1

    def set_state(
        self,
        mask: Tensor,
        dof_pos: Optional[Tensor] = None,
        dof_vel: Optional[Tensor] = None,
        root_state: Optional[Tensor] = None,
        dof_target_pos: Optional[Tensor] = None,
    ) -> None:
        self.version += 1

    def may_select(self, mask: Tensor) -> bool:
        if self.device.type != "cpu":
            return True
        return bool(mask.numpy().any())  # host read: on the CPU the mask is host memory; on CUDA nothing is read

    def reset(self, mask: Tensor) -> None:
        self.version += 1

    def jacobian(self, body: str) -> Tensor:
        raise ValueError("no body %r in this simulation; sim=analytic has none" % body)

    def mass_matrix(self) -> Tensor:
        return self._zeros(self.num_envs, 0, 0)

    def randomize(self, field: str, mask: Tensor, values: Tensor, names: Sequence[str] = ()) -> None:
        if field not in RANDOMIZABLE:
            raise ValueError("unknown field %r; one of: %s" % (field, ", ".join(RANDOMIZABLE)))
        raise ValueError("sim=analytic has no physical parameters; %s cannot be randomized" % field)

    # -- checkpoints -------------------------------------------------------------------------------------------
    def get_state(self) -> Dict[str, Any]:
        return {"engine": "analytic", "version": self.version}  # the state is the task's

    def load_state(self, state: Dict[str, Any]) -> None:
        if state.get("engine") != "analytic":
            raise ValueError("engine state of %r does not fit analytic" % state.get("engine"))
        self.version = int(state["version"])
