"""Commands that an engine keeps until its next step hands them over."""

# ruff: noqa: D102  (docstrings are inherited from Simulation)
from __future__ import annotations

from torch import Tensor

from hepo_isaac.sim.base import Simulation


class HeldCommands(Simulation):
    """The part of a Simulation that takes commands: each (N, D), allocated by the engine, see base.py for units."""

    _target_vel: Tensor
    _effort: Tensor

    def set_dof_target_pos(self, target: Tensor) -> None:
        self.dof_target_pos.copy_(target)

    def set_dof_target_vel(self, target: Tensor) -> None:
        self._target_vel.copy_(target)

    def set_dof_effort(self, effort: Tensor) -> None:
        self._effort.copy_(effort)
