"""Throwing and catching: an egg from one hand to the other (family F1, docs/bidex.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Tuple

from hepo_isaac.sim.spec import Vec3

from .record import HELD, Condition, Floating, Goal, HandPose, TaskRecord, Thing

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
    summary="Two welded hands: one throws an egg, the other catches it.",
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
    summary="Two floating hands, palms up, 0.2 m apart: an egg is thrown and caught.",
    hands=(HERE, FACING),
    floating=Floating(0.05, 0.5),
    goals=(Goal((0.0, -0.79, 0.54), turn="random"),),
    ends=(fallen(0.1),),
)
ABREAST = replace(
    UNDERARM,
    name="ShadowHandCatchAbreast",
    summary="Two floating hands side by side, tilted to each other: an egg is thrown sideways.",
    hands=(
        HandPose((0.0, -0.55, 0.5), (-1.0, 0.0, 0.0), (0.0, -0.3825, 0.924)),
        HandPose((0.0, -1.15, 0.5), (-1.0, 0.0, 0.0), (0.0, 0.3825, 0.924)),
    ),
    floating=Floating(0.5, 1.0),
    things=(egg("egg", (-0.39, -0.55, 0.54)),),
    goals=(Goal((-0.39, -1.15, 0.54), turn="random"),),
    spread=0.0,
    noise=0.0,
    anchors=(("right/palm", (-0.3, -0.55, 0.5)), ("left/palm", (-0.3, -1.15, 0.5))),
    ends=(fallen(0.2), Condition("drift", at_least=0.1)),
)
OVER_TO_UNDERARM = replace(
    UNDERARM,
    name="ShadowHandCatchOver2Underarm",
    summary="An egg falls onto the fingertips of an upright floating hand, which tosses it to one with its palm up.",
    hands=(
        HandPose((0.0, 0.0, 0.5), (0.0, 0.099, 0.995), (0.0, -0.995, 0.099)),
        replace(FACING, position=(0.0, -0.8, 0.5)),
    ),
    floating=Floating(0.1, 2.0),
    things=(egg("egg", (0.0, 0.05, 1.0)),),
    goals=(Goal((0.0, -0.40, 0.55), turn="random"),),
    constants={"kappa": 20.0},
    spread=0.0,
    noise=0.0,
    anchors=(("right/mount", (0.0, 0.0, 0.5)), ("left/mount", (0.0, -0.8, 0.5))),
    ends=(fallen(0.3), Condition("drift", at_least=0.1)),
)
TWO_EGGS = replace(
    UNDERARM,
    name="ShadowHandTwoCatchUnderarm",
    summary="Two floating hands, palms up, exchange two eggs.",
    things=(egg("egg", (0.0, -0.39, 0.54)), egg("other", (0.0, -0.78, 0.54))),
    goals=(Goal((0.0, -0.79, 0.54), turn="random"), Goal((0.0, -0.38, 0.54), turn="random")),
    success=Condition("distance", at_most=0.06),
    ends=(fallen(0.2),),
    observed=(*OBSERVED, "state:other", "goal:other"),
)

RECORDS = (OVER, UNDERARM, ABREAST, OVER_TO_UNDERARM, TWO_EGGS)
