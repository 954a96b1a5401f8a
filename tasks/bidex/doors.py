"""A double door that two floating hands open or close (family F3, docs/bidex.md); "inward" leaves swing to the hands."""

from __future__ import annotations

import math
from typing import Tuple

from hepo_isaac.sim.spec import Vec3

from .record import ASSETS, Bonus, Condition, Floating, HandPose, Point, TaskRecord, Thing


def facing_hands(position: Vec3) -> Tuple[HandPose, HandPose]:
    """Hands whose palms face each other, fingers to -x, the right one at ``position``, the left one mirrored in y."""
    x, y, z = position
    return (
        HandPose((x, y, z), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
        HandPose((x, -y, z), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    )


def door(
    name: str, verb: str, inward: bool, hands: Vec3, closed: bool, constant: float, bonus: Bonus, far: float
) -> TaskRecord:
    """One of the four. far: m, sum of a hand's fingertip distances at which an episode ends."""
    angle, side = (0.0 if closed else 1.57), (-0.04 if inward else 0.04)  # m, of the handle's point, towards the hands
    leaves = {"hinge_r": angle, "hinge_l": angle}
    gap = Condition("gap", at_least=0.5) if closed else Condition("gap", at_most=0.5)
    return TaskRecord(
        name="ShadowHand" + name,
        summary="Two floating hands %s a double door." % verb,
        hands=facing_hands(hands),
        floating=Floating(0.5, 0.5),
        # Shape friction 0.1 and a hand's 1: PhysX takes their mean.
        things=(
            Thing(
                *("door", ASSETS / "door.xml", (0.0, 0.0, 0.7), (0.0, math.pi if inward else 0.0, 0.0)),
                fixed=True,
                gravity=False,
                friction=0.55,
                joints=leaves,
            ),
        ),
        points=(
            Point("right", "door/leaf_r", (side, -0.39, -0.0167)),
            Point("left", "door/leaf_l", (side, 0.39, -0.0167)),
        ),
        family="bimanual",
        constants={"constant": constant, "bonus": bonus},
        success=gap,
        ends=(Condition("reach", at_least=far),),
        observed=("state:door", "point:left", "point:right"),
    )


NEAR, FAR = (0.55, 0.2, 0.6), (0.9, 0.5, 0.6)
OPEN, CLOSE = Bonus("gap", 2.0, gate=(0.5, 0.5)), Bonus("gap", -2.0, 1.0, gate=(0.5, 0.5))
RECORDS = (
    door("DoorOpenInward", "pull open", True, NEAR, True, 2.0, OPEN, 1.5),
    door("DoorOpenOutward", "push open", False, NEAR, True, 2.0, OPEN, 1.5),
    door("DoorCloseInward", "push shut", True, FAR, False, 2.0, CLOSE, 1.5),
    door("DoorCloseOutward", "pull shut", False, NEAR, False, 6.0, CLOSE, 3.0),
)
