"""A Shadow hand of the dexterous tasks: ShadowHand's robot, at any place, welded or floating; its points and its drag.

The asset is ShadowHand's, tasks/robots/assets/shadow_hand.xml, whose head says how it departs from the published one.
Both hands are right hands, told apart by the prefix alone.
"""

from __future__ import annotations

import math
from typing import Any, List, Mapping, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.math import quat_conjugate, quat_of_axes, rotate_many
from hepo_isaac.envs.task import for_engine
from hepo_isaac.errors import UserError
from hepo_isaac.sim.spec import ActorSpec, ForceSensorSpec, Quat, Vec3

from ..robots.shadow_hand import FINGER_JOINTS, WRIST_JOINTS, hand_drives
from .record import HELD, HandPose

ACTUATED = (*WRIST_JOINTS, *FINGER_JOINTS)
FINGERTIPS = ("ffdistal", "mfdistal", "rfdistal", "lfdistal", "thdistal")
TIP_OFFSET = (0.0, 0.0, 0.02)  # m, of a fingertip in its distal link's frame
PALM_CENTRE = (0.0, -0.02, 0.08)  # m, in the palm's frame: 8 cm along the fingers, 2 cm in front
# Bit sets of ActorSpec: a hand touches the other one, things and tables, and itself only in its asset's list of pairs.
GROUPS = {"right": 1, "left": 2, "thing": 4, "scenery": 8}
# Things touch everything, scenery all that moves; a hand's other contacts follow from these.
MEETS = {"right": 2, "left": 1, "thing": 1 | 2 | 4 | 8, "scenery": 1 | 2 | 4}

# A floating hand is dragged as a whole, where its forearm's centre of mass is.
MASS = 5.011  # kg
COM = (0.001, -0.002, 0.29)  # m, in the forearm's frame
# kg m^2 of the straight hand about its centre of mass, along the forearm's axes; a test takes it from the asset.
INERTIA = (0.0260, 0.0265, 0.0112)
PUSH, TWIST = 0.01667 * 1e5, 0.01667 * 1e3  # N and N m at action 1 of a base of force 1 and torque 1


def mount_orientation(pose: HandPose) -> Quat:
    """Of the asset's frame, in which fingers point to -y and the palm faces +z."""
    return quat_of_axes((-pose.finger[0], -pose.finger[1], -pose.finger[2]), pose.palm)


def hand_actor(side: str, pose: HandPose, floating: bool, cfg: Mapping[str, Any], engine: str) -> ActorSpec:
    """One hand of the scene, called "right" or "left"."""
    return ActorSpec(
        name=side,
        asset=HELD / "shadow_hand.xml",
        position=pose.position,
        orientation=mount_orientation(pose),
        fixed=not floating,
        gravity=False,
        drives=hand_drives(for_engine(cfg["physics"]["drives"], engine)),
        collision_group=GROUPS[side],
        collision_mask=MEETS[side],
    )


def served_bodies(sides: Sequence[str]) -> Tuple[str, ...]:
    """Bodies of the hands that the task reads: fingertips of each, palms, forearms."""
    tips = ["%s/%s" % (side, tip) for side in sides for tip in FINGERTIPS]
    return (*tips, *("%s/palm" % side for side in sides), *("%s/forearm" % side for side in sides))


def offsets(hands: int) -> List[Vec3]:
    """Of the points of that many hands in their bodies: fingertips of each, then palm centres."""
    return [TIP_OFFSET] * (5 * hands) + [PALM_CENTRE] * hands


def tip_sensors(sides: Sequence[str]) -> Tuple[ForceSensorSpec, ...]:
    """Six-axis force sensors, in the order of the fingertips."""
    return tuple(ForceSensorSpec("%s_%s" % (side, tip), "%s/%s" % (side, tip)) for side in sides for tip in FINGERTIPS)


class Drag:
    """What slows floating hands down: every link loses its speed at a rate, 1/s.

    The force is held for a control step. So that it takes away in the step what the decay exp(-rate t) would, it is a
    little smaller than rate m v, and so are pushes by the same factor: the terminal speed stays force / (rate m).
    """

    def __init__(self, rate: float, dt: float, device: torch.device) -> None:
        if not 0.0 <= rate < math.inf:
            raise UserError("task.physics.base_drag=%g is no rate, 1/s; it takes 0 or more" % rate)
        decay = rate * dt
        self.share = (1.0 - math.exp(-decay)) / decay if decay > 0.0 else 1.0
        self._mass = self.share * rate * MASS
        self._inertia = torch.tensor([self.share * rate * i for i in INERTIA], device=device)
        self._com = torch.tensor(COM, device=device)

    def wrench(self, forearm: Tensor, force: Tensor, torque: Tensor) -> Tuple[Tensor, Tensor]:
        """Force and torque (N, H, 3) to apply to the forearms (N, H, 13) that are pushed with force and torque."""
        quat, spin = forearm[..., 3:7], forearm[..., 10:]
        speed = forearm[..., 7:10] + torch.linalg.cross(spin, rotate_many(quat, self._com))
        slowed = rotate_many(quat, self._inertia * rotate_many(quat_conjugate(quat), spin))
        return self.share * force - self._mass * speed, self.share * torque - slowed
