"""Ant: a four-legged robot runs towards a point 1 km along +x.

The published task (Isaac Gym Envs, with HEPO's changes): 8 joint torques, 60 observations, task reward r for speed, and
a shaped heuristic h. What differs from PhysX, and why: docs/parity/Ant.md.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Sequence

import torch
from torch import Tensor

from hepo_isaac.envs.interface import ObsSlice
from hepo_isaac.sim.spec import DriveSpec

from .locomotion import Walker, WalkerState, posture_bonus, with_fall

TORQUE = 15.0  # N m at action 1
FALL_HEIGHT = 0.31  # m
FALL_REWARD = -2.0
VELOCITY_SCALE = 0.2  # of joint speeds in the heuristic
AT_LIMIT = 0.99  # of the way from the middle of a joint's range to its end

# What the observation's columns are multiplied with. Published are 1, but 0.2 for joint speeds and 0.1 for the feet,
# and no clipping. Environments here clip at +-5, so what can exceed that is scaled down; the learner standardises each
# column, so that a constant factor makes no other difference.
OBS_SCALES = (
    (1, 1.0),  # root height, m
    (6, 0.1),  # velocity and spin of the root in its own frame
    (3, 0.5),  # yaw and roll in [0, 2 pi), angle to the target
    (2, 1.0),  # up and heading
    (8, 1.0),  # joint angles in their ranges
    (8, 0.05),  # joint speeds
    (24, 0.01),  # force and torque of the feet
    (8, 1.0),  # actions
)


def default_heuristic(s: WalkerState) -> Dict[str, Tensor]:
    """The published shaping as named terms; h is their sum, overwritten by -2 in a fall.

    Its cost for joints at their limit looks at the upper limit only. At rest ankles 2 and 3 are there while ankles 1
    and 4 are at the lower one, so two of the legs are charged for standing.
    """
    return _shaping(s, s.dof_pos > AT_LIMIT)


def two_sided_heuristic(s: WalkerState) -> Dict[str, Tensor]:
    """The published shaping with the cost for joints at either limit: all legs alike."""
    return _shaping(s, s.dof_pos.abs() > AT_LIMIT)


def _shaping(s: WalkerState, at_limit: Tensor) -> Dict[str, Tensor]:
    up, heading = posture_bonus(s.up, s.heading)
    terms = {
        "progress": s.progress,
        "alive": torch.full_like(s.progress, 0.5),
        "up": up,
        "heading": heading,
        "action_cost": -0.005 * (s.actions * s.actions).sum(1),
        "energy": (-0.05 * VELOCITY_SCALE) * (s.actions * s.dof_vel).abs().sum(1),
        "limits": -0.1 * at_limit.to(s.progress.dtype).sum(1),
    }
    return with_fall(terms, s.height < FALL_HEIGHT, FALL_REWARD)


class Ant(Walker):
    """See the module docstring. cfg: the ``task`` group (cfg/task/Ant.yaml)."""

    name = "Ant"
    num_obs = 60
    num_actions = 8
    heuristics = {"default": default_heuristic, "two_sided": two_sided_heuristic}
    actor = "ant"
    feet = ("front_left_foot", "front_right_foot", "left_back_foot", "right_back_foot")
    start_height = 0.44
    fall_height = FALL_HEIGHT
    self_collision = False
    obs_scales = OBS_SCALES

    @classmethod
    def drives(cls, physics: Mapping[str, Any]) -> Sequence[DriveSpec]:
        joints = physics["joints"]
        return [
            DriveSpec(
                "(hip|ankle)_[1-4]",
                mode="effort",
                damping=float(joints["damping"]),
                armature=float(joints["armature"]),
            )
        ]

    @classmethod
    def gears(cls) -> Sequence[float]:
        return [TORQUE] * cls.num_actions

    def observe(self) -> Tensor:
        s = self.state()
        turned = torch.remainder(s.angles[:, :2], 2.0 * math.pi)
        # The published angle to the target subtracts the yaw in [0, 2 pi).
        target = s.angles[:, 2:] + s.angles[:, :1] - turned[:, :1]
        columns = (
            s.height.unsqueeze(1),
            s.velocity,
            s.spin,
            turned,
            target,
            torch.stack((s.up, s.heading), 1),
            s.dof_pos,
            s.dof_vel,
            s.foot_load.flatten(1),
            s.actions,
        )
        return torch.cat(columns, 1) * self._obs_scale

    def obs_layout(self) -> List[ObsSlice]:
        _, (_, motion), (_, angles), _, _, (_, speed), (_, load), _ = self.obs_scales
        return [
            *self.root_slices(motion, motion, angles, "in [0, 2 pi)", "0 minus yaw, for a target far along x"),
            *self.joint_slices(speed),
            self.foot_slice(load),
            self.action_slice(),
        ]


TASK = Ant
