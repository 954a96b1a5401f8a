"""Observations of the dexterous tasks: a block a hand, then what the record says of the task."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, List, NamedTuple, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ObsSlice, columns
from hepo_isaac.envs.math import euler_angles

from ..robots.in_hand import FORCE_SCALE, VELOCITY_SCALE
from ..robots.in_hand_observation import UNITS, Observation, Part
from .hand import ACTUATED

if TYPE_CHECKING:
    from .task import BiDex

# Unit and meaning of what a record may observe, and of what only these tasks have.
MEANINGS = {
    **UNITS,
    "joint_force": ("N m", "of the drives"),
    "place_of_hand": ("m, rad", "position, and roll, pitch, yaw in [-pi, pi] of the mount, in the world"),
    "state": ("m, 1, m/s, rad/s", "position, quaternion xyzw and velocities, in the world"),
    "goal": ("m, 1", "position, quaternion xyzw, and object times conjugate of goal"),
    "place": ("m", "position of the goal, in the world"),
    "point": ("m", "in the world"),
    "pose": ("m, 1", "position and quaternion xyzw, in the world"),
    "zeros": ("1", "always 0, as published"),
}


class Named(NamedTuple):
    """A part with what is said of it. kind: key of MEANINGS.  joints: of its columns, where these are joints."""

    name: str
    kind: str
    part: Part
    joints: Tuple[str, ...] = ()


class BiDexObservation:
    """Puts an observation together. With one hand, the task's part stands between its joints and its fingertips."""

    def __init__(self, task: BiDex) -> None:
        self._task = task
        joints, rest = zip(*(self._hand(k, side) for k, side in enumerate(task.sides)))
        tail = [self._tail(kind, name) for kind, name in task.chosen_record.parts()]
        if len(task.sides) == 1:
            self._parts: List[Named] = [*joints[0], *tail, *rest[0]]
        else:
            self._parts = [part for k in range(len(joints)) for part in (*joints[k], *rest[k])] + tail
        self._observe = Observation([named.part for named in self._parts])

    def __call__(self) -> Tensor:
        return self._observe()

    def layout(self) -> List[ObsSlice]:
        """As Task.obs_layout wants it."""
        found = []
        for name, kind, part, joints in self._parts:
            size = part.read().shape[1]
            scale, shift = (columns(torch.as_tensor(x).expand(size)) for x in (part.scale, part.shift))
            unit, meaning = MEANINGS[kind]
            found.append(ObsSlice(name, size, unit, scale, shift, joints, meaning))
        return found

    def _hand(self, k: int, side: str) -> Tuple[List[Named], List[Named]]:
        """Parts of hand ``k``: of its joints, and the rest."""
        task, sim = self._task, self._task.sim
        mine, tips = slice(24 * k, 24 * k + 24), slice(5 * k, 5 * k + 5)
        names = tuple(sim.dof_names[mine])
        width = (sim.dof_upper - sim.dof_lower)[mine]
        prefix = side + "_" if len(task.sides) == 2 else ""
        actions = task.num_actions // len(task.sides)
        own = slice(actions * k, actions * (k + 1))
        joints = [
            (
                "joint_pos",
                Part(lambda: sim.dof_pos[:, mine], 2.0 / width, -(sim.dof_upper + sim.dof_lower)[mine] / width),
            ),
            ("joint_vel", Part(lambda: sim.dof_vel[:, mine], VELOCITY_SCALE)),
            ("joint_force", Part(lambda: sim.dof_force[:, mine], FORCE_SCALE)),
        ]
        rest = [
            Named(prefix + "fingertip_state", "fingertip_state", Part(lambda: sim.body_state[:, tips].flatten(1))),
            Named(
                prefix + "fingertip_force",
                "fingertip_force",
                Part(lambda: sim.force_sensor[:, tips].flatten(1), FORCE_SCALE),
            ),
        ]
        if task.chosen_record.floating:
            rest.append(Named(prefix + "place", "place_of_hand", Part(lambda: self._place(k))))
        driven = tuple("%s/%s" % (side, joint) for joint in ACTUATED)
        rest.append(
            Named(prefix + "action", "action", Part(lambda: task.last_action[:, own]), driven if actions == 20 else ())
        )
        return [Named(prefix + kind, kind, part, names) for kind, part in joints], rest

    def _place(self, k: int) -> Tensor:
        """(N, 6) position and Euler angles of hand ``k``."""
        root = self._task.sim.root_state[:, k]
        at_root = self._task.chosen_record.hand_position == "root"
        position = root[:, :3] if at_root else self._task.part("palm", str(k))
        return torch.cat((position, euler_angles(root[:, 3:7])), 1)

    def _tail(self, kind: str, name: str) -> Named:
        """One part of ``TaskRecord.observed``."""
        task, device = self._task, self._task.sim.device
        if kind == "zeros":
            zeros = torch.zeros(task.sim.num_envs, int(name), device=device)
            return Named("zeros", kind, Part(lambda: zeros))
        spin = torch.tensor([1.0] * 10 + [VELOCITY_SCALE] * 3, device=device)
        return Named(
            "%s_%s" % (name, kind), kind, Part(partial(task.part, kind, name), spin if kind == "state" else 1.0)
        )
