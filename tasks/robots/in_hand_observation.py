"""What a hand observes: parts side by side, each with its scale, its unit and its meaning."""

from __future__ import annotations

from typing import Callable, List, NamedTuple, Sequence, Tuple, Union

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ObsSlice, columns


class Part(NamedTuple):
    """A piece of an observation: scale * read() + shift, where read gives (N, width)."""

    read: Callable[[], Tensor]
    scale: Union[float, Tensor] = 1.0
    shift: Union[float, Tensor] = 0.0


# Unit and meaning of each part that an observation may have.
UNITS = {
    "joint_pos": ("rad", "-1 at the lower limits, 1 at the upper ones"),
    "joint_vel": ("rad/s", ""),
    "joint_force": ("N m", "of the drives; zeros where task.observe_joint_force is false"),
    "object_pos": ("m", "in the world"),
    "object_pose": ("m, 1", "position and quaternion xyzw, in the world"),
    "object_vel": ("m/s, rad/s", "in the world"),
    "goal_pose": ("m, 1", "position and quaternion xyzw, in the world"),
    "relative_quat": ("1", "of the object times the conjugate of the goal's, xyzw"),
    "fingertip_pos": ("m", "in the world"),
    "fingertip_state": ("m, 1, m/s, rad/s", "position, quaternion xyzw and velocities of each, in the world"),
    "fingertip_force": ("N, N m", "force and torque of each, in its own frame"),
    "action": ("1", "of the step before, clipped to [-1, 1]"),
}


class Observation:
    """Parts side by side; all of them are scaled in one operation."""

    def __init__(self, parts: Sequence[Part]) -> None:
        values = [part.read() for part in parts]
        self._read = [part.read for part in parts]
        self._sizes = [value.shape[1] for value in values]
        self._scale, self._shift = (
            torch.cat([torch.as_tensor(x, device=v.device).expand(v.shape[1]) for x, v in zip(column, values)])
            for column in ([part.scale for part in parts], [part.shift for part in parts])
        )
        self.size = len(self._scale)

    def __call__(self) -> Tensor:
        return torch.addcmul(self._shift, torch.cat([read() for read in self._read], 1), self._scale)

    def layout(self, names: Sequence[str], joints: Tuple[str, ...], actuated: Tuple[str, ...]) -> List[ObsSlice]:
        """The parts as Task.obs_layout wants them, called ``names``."""
        found, start = [], 0
        for name, size in zip(names, self._sizes):
            scale, shift = (columns(x[start : start + size]) for x in (self._scale, self._shift))
            of = joints if name in ("joint_pos", "joint_vel", "joint_force") else actuated if name == "action" else ()
            found.append(ObsSlice(name, size, UNITS[name][0], scale, shift, of, UNITS[name][1]))
            start += size
        return found
