"""Humanoid: a robot with 21 joints runs towards a point 1 km along +x.

The published task (Isaac Gym Envs, with HEPO's changes): 21 joint torques, 108 observations, task reward r for speed,
and a shaped heuristic h. What differs from PhysX, and why: docs/parity/Humanoid.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ObsSlice
from hepo_isaac.sim.spec import DriveSpec

from .locomotion import Walker, WalkerState, posture_bonus, with_fall, wrap

FALL_HEIGHT = 0.8  # m
FALL_REWARD = -1.0
VELOCITY_SCALE = 0.1  # of joint speeds, in observation and heuristic
AT_LIMIT = 0.98  # of the way from the middle of a joint's range to its end

# name: passive stiffness N m/rad, damping N m s/rad, armature kg m^2, motor N m at action 1
_SPINE = {
    "abdomen_z": (20.0, 5.0, 0.02, 67.5),
    "abdomen_y": (20.0, 5.0, 0.01, 67.5),
    "abdomen_x": (10.0, 5.0, 0.01, 67.5),
}
_LEG = {
    "hip_x": (10.0, 5.0, 0.01, 45.0),
    "hip_z": (10.0, 5.0, 0.01, 45.0),
    "hip_y": (20.0, 5.0, 0.01, 135.0),
    "knee": (5.0, 0.1, 0.007, 90.0),
    "ankle_y": (2.0, 1.0, 0.006, 22.5),
    "ankle_x": (2.0, 1.0, 0.006, 22.5),
}
_ARM = {
    "shoulder1": (10.0, 5.0, 0.01, 67.5),
    "shoulder2": (10.0, 5.0, 0.01, 67.5),
    "elbow": (2.0, 1.0, 0.006, 45.0),
}
# In the order of the model's joints.
JOINTS: Dict[str, Tuple[float, float, float, float]] = dict(_SPINE)
for _limb in (_LEG, _ARM):
    for _side in ("right_", "left_"):
        JOINTS.update({_side + name: numbers for name, numbers in _limb.items()})

# What the observation's columns are multiplied with. Published are 1 for the velocity and 0.01 for the feet, and no
# clipping. Environments here clip at +-5, so both are scaled down, the feet such that three times the body's weight is
# seen in full. The learner standardises each column, so that a constant factor makes no other difference.
OBS_SCALES = (
    (1, 1.0),  # root height, m
    (3, 0.2),  # velocity of the root in its own frame
    (3, 0.25),  # spin of the root in its own frame
    (3, 1.0),  # yaw, roll, angle to the target
    (2, 1.0),  # up and heading
    (21, 1.0),  # joint angles in their ranges
    (21, VELOCITY_SCALE),  # joint speeds
    (21, 0.01),  # joint torques
    (12, 0.004),  # force and torque of the feet
    (21, 1.0),  # actions
)


@lru_cache(maxsize=None)
def _strength(device: torch.device) -> Tensor:
    """(21,) each motor's torque over the strongest one's."""
    gears = torch.tensor([numbers[3] for numbers in JOINTS.values()])
    return (gears / gears.max()).to(device)


def default_heuristic(s: WalkerState) -> Dict[str, Tensor]:
    """The published shaping as named terms; h is their sum, overwritten by -1 in a fall.

    The cost of joints near their limits grows up to the limit and no further: PhysX's joints do not pass it, MuJoCo's
    soft stops give way for a moment (docs/parity/Humanoid.md).
    """
    strength = _strength(s.progress.device)
    up, heading = posture_bonus(s.up, s.heading)
    beyond = (s.dof_pos.abs() - AT_LIMIT).clamp(0.0, 1.0 - AT_LIMIT)
    terms = {
        "progress": s.progress,
        "alive": torch.full_like(s.progress, 2.0),
        "up": up,
        "heading": heading,
        "action_cost": -0.01 * (s.actions * s.actions).sum(1),
        "energy": (-0.05 * VELOCITY_SCALE) * ((s.actions * s.dof_vel).abs() * strength).sum(1),
        "limits": (-0.25 / (1.0 - AT_LIMIT)) * (beyond * strength).sum(1),
    }
    return with_fall(terms, s.height < FALL_HEIGHT, FALL_REWARD)


class Humanoid(Walker):
    """See the module docstring. cfg: the ``task`` group (cfg/task/Humanoid.yaml)."""

    name = "Humanoid"
    num_obs = 108
    num_actions = 21
    heuristics = {"default": default_heuristic}
    actor = "humanoid"
    feet = ("right_foot", "left_foot")
    start_height = 1.34
    fall_height = FALL_HEIGHT
    self_collision = True
    obs_scales = OBS_SCALES

    @classmethod
    def drives(cls, physics: Mapping[str, Any]) -> Sequence[DriveSpec]:
        return [
            DriveSpec(
                joint,
                mode="effort",
                stiffness=stiffness,
                damping=damping,
                armature=armature,
            )
            for joint, (stiffness, damping, armature, _) in JOINTS.items()
        ]

    @classmethod
    def gears(cls) -> Sequence[float]:
        return [numbers[3] for numbers in JOINTS.values()]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self.sim.dof_names == ["humanoid/" + joint for joint in JOINTS]
        device = self.sim.device
        # Stiffness and damping as (2, 21), against the joint's angle and speed.
        self._passive = torch.tensor([numbers[:2] for numbers in JOINTS.values()], device=device).t().contiguous()

    def observe(self) -> Tensor:
        s = self.state()
        # PhysX reads what a drive applies in all: motor, spring and damper.
        passive = torch.stack((self.sim.dof_pos, s.dof_vel), 1) * self._passive
        columns = (
            s.height.unsqueeze(1),
            s.velocity,
            s.spin,
            wrap(s.angles),
            torch.stack((s.up, s.heading), 1),
            s.dof_pos,
            s.dof_vel,
            s.dof_force - passive.sum(1),
            s.foot_load.flatten(1),
            s.actions,
        )
        return torch.cat(columns, 1) * self._obs_scale

    def obs_layout(self) -> List[ObsSlice]:
        _, (_, velocity), (_, spin), (_, angles), _, _, (_, speed), (torques, torque), (_, load), _ = self.obs_scales
        names, meaning = tuple(self.sim.dof_names), "motor, spring and damper together"
        return [
            *self.root_slices(velocity, spin, angles, "in [-pi, pi)", "minus the yaw, for a target far along x"),
            *self.joint_slices(speed),
            ObsSlice("joint_torque", torques, "N m", torque, names=names, meaning=meaning),
            self.foot_slice(load),
            self.action_slice(),
        ]


TASK = Humanoid
