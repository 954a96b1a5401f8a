"""Records of what hands throw, catch (family F1) and turn (family F2, docs/bidex.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Tuple

from hepo_isaac.sim.spec import Vec3

from .measures import Condition
from .record import HELD, Goal, HandPose, TaskRecord, Thing

UP = (0.0, 0.0, 1.0)
HERE = HandPose((0.0, 0.0, 0.5), (0.0, -1.0, 0.0), UP)
FACING = HandPose((0.0, -1.15, 0.5), (0.0, 1.0, 0.0), UP)  # the other hand of most tasks, palm up


def egg(name: str, position: Vec3) -> Thing:
    """Semi-axes 0.03, 0.03, 0.04 m; the density that the published code asks for is 500 kg/m^3."""
    return Thing(name, HELD / "in_hand_egg.xml", position, mass={"object": 0.075398})


def fallen(height: float) -> Condition:
    """An object is at most this high, m."""
    return Condition("height", at_most=height)


OBSERVED: Tuple[str, ...] = ("state:egg", "goal:egg")

OVER = TaskRecord(
    name="ShadowHandOver",
    hands=(HERE, replace(FACING, position=(0.0, -1.0, 0.5))),
    things=(egg("egg", (0.0, -0.39, 0.54)),),
    goals=(Goal((0.0, -0.64, 0.54), turn="random"),),
    start_turn="random",
    spread=0.2,
    noise=0.01,
    family="throw",
    constants={"kappa": 50.0},
    success=Condition("distance", at_most=0.03),
    ends=(fallen(0.2),),
    observed=OBSERVED,
    hand_position="root",
)
UNDERARM = replace(
    OVER,
    name="ShadowHandCatchUnderarm",
    hands=(HERE, FACING),
    floating=(0.05, 0.5),
    goals=(Goal((0.0, -0.79, 0.54), turn="random"),),
    ends=(fallen(0.1),),
)
ABREAST = replace(
    UNDERARM,
    name="ShadowHandCatchAbreast",
    hands=(
        HandPose((0.0, -0.55, 0.5), (-1.0, 0.0, 0.0), (0.0, -0.3825, 0.924)),
        HandPose((0.0, -1.15, 0.5), (-1.0, 0.0, 0.0), (0.0, 0.3825, 0.924)),
    ),
    floating=(0.5, 1.0),
    things=(egg("egg", (-0.39, -0.55, 0.54)),),
    goals=(Goal((-0.39, -1.15, 0.54), turn="random"),),
    spread=0.0,
    noise=0.0,
    anchors=(("right/palm", (-0.3, -0.55, 0.5)), ("left/palm", (-0.3, -1.15, 0.5))),
    ends=(fallen(0.2), Condition("drift", 0.1)),
)
OVER_TO_UNDERARM = replace(
    UNDERARM,
    name="ShadowHandCatchOver2Underarm",
    hands=(
        HandPose((0.0, 0.0, 0.5), (0.0, 0.099, 0.995), (0.0, -0.995, 0.099)),
        replace(FACING, position=(0.0, -0.8, 0.5)),
    ),
    floating=(0.1, 2.0),
    # As published the egg, at z 1.0, starts 2 cm inside of the fingertips.
    things=(egg("egg", (0.0, 0.05, 1.03)),),
    faithful={"things": (egg("egg", (0.0, 0.05, 1.0)),)},
    goals=(Goal((0.0, -0.40, 0.55), turn="random"),),
    constants={"kappa": 20.0},
    spread=0.0,
    noise=0.0,
    anchors=(("right/mount", (0.0, 0.0, 0.5)), ("left/mount", (0.0, -0.8, 0.5))),
    ends=(fallen(0.3), Condition("drift", 0.1)),
)
TWO_EGGS = replace(
    UNDERARM,
    name="ShadowHandTwoCatchUnderarm",
    things=(egg("egg", (0.0, -0.39, 0.54)), egg("other", (0.0, -0.78, 0.54))),
    goals=(Goal((0.0, -0.79, 0.54), turn="random"), Goal((0.0, -0.38, 0.54), turn="random")),
    success=Condition("distance", at_most=0.06),
    ends=(fallen(0.2),),
    observed=(*OBSERVED, "state:other", "goal:other"),
)

# -- turning in the hand ---------------------------------------------------------------------------------------------
REORIENTATION = TaskRecord(
    name="ShadowHandReOrientation",
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
    ends=(Condition("distance", 0.24),),
    observed=("state:pen", "goal:pen"),
)
UPSIDE_DOWN = replace(
    SPIN,
    name="ShadowHandUpsideDown",
    hands=(HandPose((0.0, 0.0, 0.5), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),),
    things=(Thing("pen", HELD / "in_hand_pen.xml", (0.0, -0.39, 0.48)),),
    goals=(replace(SPIN.goals[0], position=(0.0, -0.39, 0.44)),),
    constants={"kappa": -10.0, "bonus": 250.0},
    symmetric=False,
)

RECORDS = (OVER, UNDERARM, ABREAST, OVER_TO_UNDERARM, TWO_EGGS, REORIENTATION, SPIN, UPSIDE_DOWN)
