"""Cubes on a table, each for one hand (families F3 and F4, docs/bidex.md)."""

from __future__ import annotations

from typing import Optional

from hepo_isaac.sim.spec import Vec3

from .record import ASSETS, HELD, Bonus, Condition, Floating, Goal, HandPose, Point, Thing
from .tools import FAR, HANDS_POINTS, table, task

DOWN = (0.0, 0.0, -1.0)


def cube(side: str, position: Vec3, friction: Optional[float] = None) -> Thing:
    """Edge 0.05 m, 0.0709 kg: the density of its file, which the code may override."""
    return Thing(side + "_cube", HELD / "in_hand_block.xml", position, friction=friction)


CUBES = (Point("right", "right_cube/object"), Point("left", "left_cube/object"))
STACK = task(
    *("BlockStack", "Two floating hands put one cube on the other."),
    hands=(
        HandPose((0.0, 0.6, 0.7), (0.0, -1.0, 0.0), DOWN),
        HandPose((0.0, -0.6, 0.7), (0.0, 1.0, 0.0), DOWN),
    ),
    floating=Floating(0.2, 0.02),
    friction=0.5,
    # Friction 0.25, a hand's 0.5 and the table's 0.2: PhysX takes means, 0.375 and 0.225; here both are the first.
    things=(
        table("table_wide", (0.0, 0.0, 0.3)),
        cube("right", (0.0, 0.1, 0.625), 0.375),
        cube("left", (0.0, -0.1, 0.625), 0.375),
    ),
    goals=(Goal((0.0, 0.0, 0.625)), Goal((0.0, 0.0, 0.675))),
    points=CUBES,
    constants={
        **{"constant": 1.5, "bonus": Bonus("distance", -2.0, 2.0 * 0.24, gate=(0.5, 0.5))},
        "more": Bonus("stack"),
    },
    success=Condition("stack", at_least=1.0),
    ends=(Condition("reach", at_least=0.75),),
    observed=("state:right_cube", "state:left_cube", "zeros:4"),
)
GOALS = (Goal((-0.2, 0.2, 0.625)), Goal((-0.2, -0.2, 0.625)))
PUSH = task(
    *("PushBlock", "Two floating hands push a cube each to its goal."),
    friction=0.75,  # the table's 0.5 and 1
    things=(
        table("table_square", (0.0, 0.0, 0.3)),
        cube("right", (0.0, 0.2, 0.625)),
        cube("left", (0.0, -0.2, 0.625)),
    ),
    goals=GOALS,
    # As published both cubes are rewarded at the left goal.
    faithful={"goals": (GOALS[1], GOALS[1])},
    points=CUBES,
    constants={"constant": 7.4, "bonus": Bonus("distance", -5.0)},
    success=Condition("distances", at_most=0.1),
    ends=(Condition("reach", at_least=1.2),),
    observed=("state:right_cube", *HANDS_POINTS, "place:left_cube", "place:right_cube", "zeros:5"),
)
PLACE = task(
    *("GraspAndPlace", "Two floating hands bring a cube and a bucket together."),
    things=(
        table("table_square", (0.0, 0.0, 0.3)),
        Thing("bucket", ASSETS / "bucket.xml", (0.0, 0.2, 0.653)),
        cube("left", (0.0, -0.2, 0.625)),
    ),
    points=(Point("right", "bucket/bucket"), CUBES[1]),
    family="exponential",
    constants={"bonus": Bonus("near", 2.0)},
    success=Condition("apart", at_most=0.2),
    ends=(FAR,),
    observed=("state:bucket", "pose:right", "pose:left"),
)

RECORDS = (STACK, PUSH, PLACE)
