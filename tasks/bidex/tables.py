"""Records of what two floating hands do at a door or a table (families F3 and F4, docs/bidex.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Dict, Optional, Tuple

from hepo_isaac.sim.spec import Vec3

from .hands_only import FACING, HERE, fallen
from .measures import Bonus, Condition
from .record import ASSETS, HELD, Goal, HandPose, Point, TaskRecord, Thing


def points(right: str, at_right: Vec3, left: str, at_left: Vec3) -> Tuple[Point, ...]:
    """Of both hands: a body each, and where on it."""
    return (Point("right", right, at_right), Point("left", left, at_left))


# -- doors: "inward" leaves swing to the hands -----------------------------------------------------------------------
def facing_hands(position: Vec3) -> Tuple[HandPose, HandPose]:
    """Hands whose palms face each other, fingers to -x, the right one at ``position``, the left one mirrored in y."""
    x, y, z = position
    ahead = (-1.0, 0.0, 0.0)
    return HandPose((x, y, z), ahead, (0.0, -1.0, 0.0)), HandPose((x, -y, z), ahead, (0.0, 1.0, 0.0))


def door(name: str, inward: bool, hands: Vec3, closed: bool, constant: float, bonus: Bonus, far: float) -> TaskRecord:
    """One of the four. far: m, sum of a hand's fingertip distances at which an episode ends."""
    angle, side = (0.0 if closed else 1.57), (-0.04 if inward else 0.04)  # m, of the handle's point, towards the hands
    mine: Any = {"fixed": True, "gravity": False, "joints": {"hinge_r": angle, "hinge_l": angle}}
    turn = (0.0, math.pi if inward else 0.0, 0.0)
    gap = Condition("gap", 0.5) if closed else Condition("gap", at_most=0.5)
    return TaskRecord(
        name="ShadowHand" + name,
        hands=facing_hands(hands),
        floating=(0.5, 0.5),
        # Shape friction 0.1 and a hand's 1: PhysX takes their mean.
        things=(Thing("door", ASSETS / "door.xml", (0.0, 0.0, 0.7), turn, friction=0.55, **mine),),
        points=points("door/leaf_r", (side, -0.39, -0.0167), "door/leaf_l", (side, 0.39, -0.0167)),
        family="bimanual",
        constants={"constant": constant, "bonus": bonus},
        success=gap,
        ends=(Condition("reach", far),),
        observed=("state:door", "point:left", "point:right"),
    )


BY_IT, AWAY = (0.55, 0.2, 0.6), (0.9, 0.5, 0.6)
OPEN, CLOSE = Bonus("gap", 2.0, gate=(0.5, 0.5)), Bonus("gap", -2.0, 1.0, gate=(0.5, 0.5))
DOORS = (
    door("DoorOpenInward", True, BY_IT, True, 2.0, OPEN, 1.5),
    door("DoorOpenOutward", False, BY_IT, True, 2.0, OPEN, 1.5),
    door("DoorCloseInward", True, AWAY, False, 2.0, CLOSE, 1.5),
    door("DoorCloseOutward", False, BY_IT, False, 6.0, CLOSE, 3.0),
)

# -- things of two parts ---------------------------------------------------------------------------------------------
DOWN = (0.0, 0.0, -1.0)
TABLE_HANDS = tuple(HandPose((0.55, y, 0.8), (-1.0, 0.0, 0.0), DOWN) for y in (0.2, -0.2))
QUARTER = (0.0, 0.0, 1.57)
HANDS_POINTS = ("point:right", "point:left")


def table(asset: str, top: float, y: float = 0.0) -> Thing:
    """A box that stands on the ground with its top at ``top``."""
    return Thing("table", ASSETS / (asset + ".xml"), (0.0, y, 0.5 * top), fixed=True, scenery=True)


def thing(name: str, position: Vec3, turn: Vec3 = (0.0, 0.0, 0.0), **fields: Any) -> Thing:
    """An object whose file has its name."""
    return Thing(name, ASSETS / (name + ".xml"), position, turn, **fields)


def task(name: str, **fields: Any) -> TaskRecord:
    """A table task: hands palm down over it, unless ``fields`` say otherwise."""
    first = next(thing.name for thing in fields["things"] if not thing.scenery)
    usual = {"hands": TABLE_HANDS, "floating": (0.5, 0.1), "family": "bimanual", "ground": True}
    usual["observed"] = ("state:" + first, *HANDS_POINTS)
    return TaskRecord(name="ShadowHand" + name, **{**usual, **fields})


PEN = task(
    "Pen",
    things=(table("table_wide", 0.6), thing("pen", (0.0, 0.0, 0.6115), (1.57, 1.57, 0.0))),
    points=points("pen/cap", (0.0, 0.0, -0.10), "pen/pen", (0.0, 0.0, 0.07)),
    family="exponential",
    constants={"bonus": Bonus("apart", 5.0, -0.8, gate=(0.75, 0.75))},
    success=Condition("apart", 0.3),
    ends=(Condition("reach", 1.5),),
)
SCISSORS = task(
    "Scissors",
    things=(table("table_wide", 0.6), thing("scissors", (0.0, 0.0, 0.608), QUARTER, joints={"hinge": -0.59})),
    points=points("scissors/upper", (0.1, -0.2, 0.0), "scissors/lower", (-0.1, -0.15, 0.0)),
    constants={"constant": 2.0, "bonus": Bonus("joint", 5.0, 5.0 * 0.59, gate=(0.7, 0.7))},
    success=Condition("joint", -0.3),
    ends=(Condition("reach", 1.75),),
)
CUP = task(
    "SwingCup",
    hands=facing_hands((0.35, 0.2, 0.8)),
    # Friction 0.5 and a hand's 1: PhysX takes their mean.
    things=(table("pillar", 0.6), thing("cup", (0.0, 0.0, 0.684), QUARTER, friction=0.75)),
    goals=(Goal((0.0, 0.0, 0.684), (0.0, 0.0, math.sin(0.75 * math.pi), math.cos(0.75 * math.pi))),),
    points=points("cup/cup", (0.062, 0.0, 0.0), "cup/cup", (-0.06, 0.0, 0.0)),
    constants={"constant": 0.0, "bonus": Bonus("turned", 1.0, -1.0, gate=(0.4, 0.4))},
    success=Condition("angle", at_most=0.785),
    ends=(fallen(0.3),),
)
SPOUT = Point("spout", "kettle/kettle", (-0.2, 0.0, 0.07))
RIM, BELOW = (
    (*points("kettle/kettle", (0.15, 0.0, 0.0), "bucket/bucket", (0.0, 0.0, z)), SPOUT) for z in (0.045, -0.1)
)
KETTLE = task(
    "Kettle",
    hands=facing_hands((0.55, 0.2, 0.6)),
    things=(table("table_low", 0.4), thing("kettle", (0.0, 0.0, 0.474), QUARTER), thing("bucket", (0.0, -0.3, 0.453))),
    # As published the bucket's point lies 5 cm below its bottom: here it is the middle of its rim.
    points=RIM,
    faithful={"points": BELOW},
    pair=("left", "spout"),
    constants={"constant": 1.0, "bonus": Bonus("apart", -2.0, 0.5, gate=(0.7, 0.7))},
    success=Condition("apart", at_most=0.05),
    ends=(Condition("left_height", at_most=0.2),),
)
BOTTLE = task(
    "BottleCap",
    hands=(
        HandPose((0.0, -1.05, 0.5), (0.0, 0.878, 0.479), (0.0, 0.479, -0.878)),
        HandPose((0.0, -0.25, 0.45), (0.0, -1.0, 0.0), (0.764, 0.0, 0.645)),
    ),
    floating=(0.1, 0.1),
    # Published 100: PhysX takes 50.5. MuJoCo's pyramids soften so rough a contact until it carries nothing.
    things=(table("pillar_bottle", 0.1, -0.6), thing("bottle", (0.0, -0.6, 0.5), (0.0, -0.7, 0.0), friction=2.0)),
    points=(*points("bottle/bottle", (0.0, 0.0, 0.15), "bottle/bottle", (0.0, 0.0, 0.0)), Point("cap", "bottle/cap")),
    pair=("cap", "left"),
    posture={"THJ4": -1.04, "THJ3": 1.2, "THJ0": -1.57},
    constants={"constant": 2.0, "by": ("reach", "palm"), "bonus": Bonus("apart", 30.0, gate=(0.3, math.inf))},
    success=Condition("apart", 0.03),
    ends=(Condition("right_height", at_most=0.5), Condition("right_palm", 0.5), Condition("left_palm", 0.2)),
    observed=("state:bottle", "point:left", "point:right", "point:cap"),
)
LIFT = task(
    "LiftUnderarm",
    hands=(replace(HERE, position=(0.0, 0.05, 0.45)), replace(FACING, position=(0.0, -1.25, 0.45))),
    floating=(0.25, 1.0),
    # Friction 3 and a hand's 1: PhysX takes their mean.
    things=(table("pillar_pot", 0.4, -0.6), thing("pot", (0.0, -0.6, 0.465), friction=2.0)),
    goals=(Goal((0.0, -0.6, 0.85)),),
    points=points("pot/pot", (0.0, 0.15, 0.06), "pot/pot", (0.0, -0.15, 0.06)),
    constants={"constant": 0.2, "by": ("palm", "palm"), "bonus": Bonus("distance", -3.0, 3.0 * 0.385, (0.08, 0.08))},
    success=Condition("distance", at_most=0.05),
    ends=(fallen(0.3), Condition("palm", 0.2)),
)


def switches(asset: str, lever: float) -> Dict[str, Any]:
    """Fields of two wall switches that lie face up."""
    right, left = (
        Thing(name, ASSETS / asset, (0.0, y, 0.65), (0.0, 0.5 * math.pi, math.pi), fixed=True, gravity=False)
        for name, y in (("right_switch", 0.2), ("left_switch", -0.2))
    )
    pressed = points("right_switch/rocker", (0.0, 0.0, -lever), "left_switch/rocker", (0.0, 0.0, -lever))
    return {"things": (table("table_switch", 0.55), right, left), "points": pressed}


SWITCH = task(
    "Switch",
    # As published the point that is to be lowered rises, on a lever of 0.02 m: nobody can succeed.
    **switches("switch.xml", 0.035),
    faithful=switches("switch_published.xml", 0.02),
    constants={"constant": 2.0, "bonus": Bonus("pressed", 50.0)},
    success=Condition("pressed", 0.05),
)


# -- cubes -----------------------------------------------------------------------------------------------------------
def cube(side: str, position: Vec3, friction: Optional[float] = None) -> Thing:
    """Edge 0.05 m, 0.0709 kg: the density of its file, which the code may override."""
    return Thing(side + "_cube", HELD / "in_hand_block.xml", position, friction=friction)


CUBES = (Point("right", "right_cube/object"), Point("left", "left_cube/object"))
STACK = task(
    "BlockStack",
    hands=(HandPose((0.0, 0.6, 0.7), HERE.finger, DOWN), HandPose((0.0, -0.6, 0.7), FACING.finger, DOWN)),
    floating=(0.2, 0.02),
    friction=0.5,
    # Friction 0.25, a hand's 0.5 and the table's 0.2: PhysX takes means, 0.375 and 0.225; here both are the first.
    things=(table("table_wide", 0.6), cube("right", (0.0, 0.1, 0.625), 0.375), cube("left", (0.0, -0.1, 0.625), 0.375)),
    goals=(Goal((0.0, 0.0, 0.625)), Goal((0.0, 0.0, 0.675))),
    points=CUBES,
    constants={"constant": 1.5, "bonus": Bonus("distance", -2.0, 0.48, (0.5, 0.5)), "more": Bonus("stack")},
    success=Condition("stack", 1.0),
    ends=(Condition("reach", 0.75),),
    observed=("state:right_cube", "state:left_cube", "zeros:4"),
)
GOALS = (Goal((-0.2, 0.2, 0.625)), Goal((-0.2, -0.2, 0.625)))
PUSH = task(
    "PushBlock",
    friction=0.75,  # the table's 0.5 and 1
    things=(table("table_square", 0.6), cube("right", (0.0, 0.2, 0.625)), cube("left", (0.0, -0.2, 0.625))),
    goals=GOALS,
    # As published both cubes are rewarded at the left goal.
    faithful={"goals": (GOALS[1], GOALS[1])},
    points=CUBES,
    constants={"constant": 7.4, "bonus": Bonus("distance", -5.0)},
    success=Condition("distances", at_most=0.1),
    ends=(Condition("reach", 1.2),),
    observed=("state:right_cube", *HANDS_POINTS, "place:left_cube", "place:right_cube", "zeros:5"),
)
PLACE = task(
    "GraspAndPlace",
    things=(table("table_square", 0.6), thing("bucket", (0.0, 0.2, 0.653)), cube("left", (0.0, -0.2, 0.625))),
    points=(Point("right", "bucket/bucket"), CUBES[1]),
    family="exponential",
    constants={"bonus": Bonus("near", 2.0)},
    success=Condition("apart", at_most=0.2),
    ends=(Condition("reach", 1.5),),
    observed=("state:bucket", "pose:right", "pose:left"),
)

RECORDS = (*DOORS, PEN, SCISSORS, CUP, KETTLE, BOTTLE, LIFT, SWITCH, STACK, PUSH, PLACE)
