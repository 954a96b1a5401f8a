"""Turning things in the hand (family F2, docs/bidex.md)."""

from __future__ import annotations

import math
from dataclasses import replace

from .record import HELD, Condition, Goal, HandPose, TaskRecord, Thing
from .throwing import FACING, HERE, fallen

REORIENTATION = TaskRecord(
    name="ShadowHandReOrientation",
    summary="Two welded hands, palms up, turn a cube each to one common orientation after another.",
    hands=(HERE, FACING),
    things=(
        Thing("cube", HELD / "in_hand_block.xml", (0.0, -0.39, 0.6)),
        Thing("other", HELD / "in_hand_block.xml", (0.0, -0.76, 0.6)),
    ),
    goals=(Goal((0.0, -0.39, 0.56), turn="random"), Goal((0.0, -0.76, 0.56), turn="random")),
    start_turn="random",
    spread=0.2,
    noise=0.01,
    family="in_hand",
    constants={"kappa": -10.0, "bonus": 500.0},
    success=Condition("angle", at_most=0.1),
    # As published, only the second cube's success turns the goals on: the first one's flag is overwritten.
    reached=Condition("last_angle", at_most=0.1),
    ends=(fallen(0.2),),
    observed=("state:cube", "goal:cube", "state:other", "goal:other"),
    hand_position="root",
)

# The published goal is the quaternion (-0.8, 0, 0, 1) of norm 1.281; of unit length, and with the tolerance that its
# angle of 0.2 amounts to, 2 asin(sin(0.1) / 1.281), the set of successes is the same.
NORM = math.sqrt(1.0 + 0.8 * 0.8)
TOLERANCE = 2.0 * math.asin(math.sin(0.1) / NORM)
SPIN = TaskRecord(
    name="ShadowHandSpin",
    summary="One welded hand, palm up, spins a pen; its ends are interchangeable.",
    hands=(HERE,),
    things=(Thing("pen", HELD / "in_hand_pen.xml", (0.0, -0.39, 0.52)),),
    goals=(Goal((0.0, -0.39, 0.48), (-0.8 / NORM, 0.0, 0.0, 1.0 / NORM), "advancing"),),
    start_turn="pen",
    spread=0.2,
    noise=0.01,
    family="in_hand",
    constants={"kappa": 0.1, "bonus": 250.0},  # the sign as in the published yaml: it pays distance
    success=Condition("angle", at_most=TOLERANCE),
    reached=Condition("angle", at_most=TOLERANCE),
    symmetric=True,
    ends=(Condition("distance", at_least=0.24),),
    observed=("state:pen", "goal:pen"),
)
UPSIDE_DOWN = replace(
    SPIN,
    name="ShadowHandUpsideDown",
    summary="One welded hand, palm down, catches a pen that starts below it and spins it.",
    hands=(HandPose((0.0, 0.0, 0.5), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),),
    things=(Thing("pen", HELD / "in_hand_pen.xml", (0.0, -0.39, 0.48)),),
    goals=(replace(SPIN.goals[0], position=(0.0, -0.39, 0.44)),),
    constants={"kappa": -10.0, "bonus": 250.0},
    symmetric=False,
)

RECORDS = (REORIENTATION, SPIN, UPSIDE_DOWN)
