"""Things of two parts on a table or in the hands (families F3 and F4, docs/bidex.md)."""

from __future__ import annotations

import math

from hepo_isaac.sim.spec import Vec3

from .doors import facing_hands
from .record import ASSETS, Bonus, Condition, Floating, Goal, HandPose, Point, TaskRecord, Thing
from .throwing import HERE, fallen

TABLE_HANDS = tuple(HandPose((0.55, y, 0.8), (-1.0, 0.0, 0.0), (0.0, 0.0, -1.0)) for y in (0.2, -0.2))
BASE = Floating(0.5, 0.1)
QUARTER = (0.0, 0.0, 1.57)
HANDS_POINTS = ("point:right", "point:left")
FAR = Condition("reach", at_least=1.5)


def table(asset: str, position: Vec3) -> Thing:
    """A box that stands on the ground, its frame at its centre."""
    return Thing("table", ASSETS / (asset + ".xml"), position, fixed=True, scenery=True)


def task(name: str, summary: str, **fields: object) -> TaskRecord:
    """A table task: hands palm down over it, unless ``fields`` say otherwise."""
    usual = {"hands": TABLE_HANDS, "floating": BASE, "family": "bimanual", "ground": True, **fields}
    return TaskRecord(name="ShadowHand" + name, summary=summary, **usual)  # type: ignore[arg-type]


PEN = task(
    *("Pen", "Two floating hands pull a pen and its cap apart."),
    things=(
        table("table_wide", (0.0, 0.0, 0.3)),
        Thing("pen", ASSETS / "pen.xml", (0.0, 0.0, 0.6115), (1.57, 1.57, 0.0), joints={"slide": 0.0}),
    ),
    points=(Point("right", "pen/cap", (0.0, 0.0, -0.10)), Point("left", "pen/pen", (0.0, 0.0, 0.07))),
    family="exponential",
    constants={"bonus": Bonus("apart", 5.0, -0.8, gate=(0.75, 0.75))},
    success=Condition("apart", at_least=0.3),
    ends=(FAR,),
    observed=("state:pen", *HANDS_POINTS),
)
SCISSORS = task(
    *("Scissors", "Two floating hands open a pair of scissors that lies on a table."),
    things=(
        table("table_wide", (0.0, 0.0, 0.3)),
        Thing("scissors", ASSETS / "scissors.xml", (0.0, 0.0, 0.608), QUARTER, joints={"hinge": -0.59}),
    ),
    points=(
        Point("right", "scissors/upper", (0.1, -0.2, 0.0)),
        Point("left", "scissors/lower", (-0.1, -0.15, 0.0)),
    ),
    constants={"constant": 2.0, "bonus": Bonus("joint", 5.0, 5.0 * 0.59, gate=(0.7, 0.7))},
    success=Condition("joint", at_least=-0.3),
    ends=(Condition("reach", at_least=1.75),),
    observed=("state:scissors", *HANDS_POINTS),
)
CUP = task(
    *("SwingCup", "Two floating hands turn a two-handled cup by half a turn."),
    hands=facing_hands((0.35, 0.2, 0.8)),
    things=(
        table("pillar", (0.0, 0.0, 0.3)),
        # Friction 0.5 and a hand's 1: PhysX takes their mean.
        Thing("cup", ASSETS / "cup.xml", (0.0, 0.0, 0.684), QUARTER, friction=0.75, joints={"lid": 0.0}),
    ),
    goals=(Goal((0.0, 0.0, 0.684), (0.0, 0.0, math.sin(0.75 * math.pi), math.cos(0.75 * math.pi))),),
    points=(Point("right", "cup/cup", (0.062, 0.0, 0.0)), Point("left", "cup/cup", (-0.06, 0.0, 0.0))),
    constants={"constant": 0.0, "bonus": Bonus("turned", 1.0, -1.0, gate=(0.4, 0.4))},
    success=Condition("angle", at_most=0.785),
    ends=(fallen(0.3),),
    observed=("state:cup", *HANDS_POINTS),
)
RIM, BELOW = ((Point("left", "bucket/bucket", (0.0, 0.0, z)),) for z in (0.045, -0.1))
KETTLE_POINTS = (Point("right", "kettle/kettle", (0.15, 0.0, 0.0)), Point("spout", "kettle/kettle", (-0.2, 0.0, 0.07)))
KETTLE = task(
    *("Kettle", "One floating hand holds a kettle's spout over the bucket that the other one holds."),
    hands=facing_hands((0.55, 0.2, 0.6)),
    things=(
        table("table_low", (0.0, 0.0, 0.2)),
        Thing("kettle", ASSETS / "kettle.xml", (0.0, 0.0, 0.47), QUARTER, joints={"lid": 0.0}),
        Thing("bucket", ASSETS / "bucket.xml", (0.0, -0.3, 0.453)),
    ),
    # As published the bucket's point lies 5 cm below its bottom: here it is the middle of its rim.
    points=(*KETTLE_POINTS, *RIM),
    faithful={"points": (*KETTLE_POINTS, *BELOW)},
    pair=("left", "spout"),
    constants={"constant": 1.0, "bonus": Bonus("apart", -2.0, 0.5, gate=(0.7, 0.7))},
    success=Condition("apart", at_most=0.05),
    ends=(Condition("left_height", at_most=0.2),),
    observed=("state:kettle", *HANDS_POINTS),
)
BOTTLE = task(
    *("BottleCap", "One floating hand holds a bottle, the other one pulls its cap off."),
    hands=(
        HandPose((0.0, -1.05, 0.5), (0.0, 0.878, 0.479), (0.0, 0.479, -0.878)),
        HandPose((0.0, -0.25, 0.45), (0.0, -1.0, 0.0), (0.764, 0.0, 0.645)),
    ),
    floating=Floating(0.1, 0.1),
    things=(
        table("pillar_bottle", (0.0, -0.6, 0.05)),
        # Friction 100 and a hand's 1: PhysX takes their mean.
        Thing(
            "bottle", ASSETS / "bottle.xml", (0.0, -0.6, 0.5), (0.0, -0.7, 0.0), friction=50.5, joints={"slide": 0.0}
        ),
    ),
    points=(
        Point("right", "bottle/bottle", (0.0, 0.0, 0.15)),
        Point("left", "bottle/bottle"),
        Point("cap", "bottle/cap"),
    ),
    pair=("cap", "left"),
    posture={"THJ4": -1.04, "THJ3": 1.2, "THJ0": -1.57},
    constants={"constant": 2.0, "left": "palm", "bonus": Bonus("apart", 30.0, gate=(0.3, math.inf))},
    success=Condition("apart", at_least=0.03),
    ends=(
        Condition("right_height", at_most=0.5),
        Condition("right_palm", at_least=0.5),
        Condition("left_palm", at_least=0.2),
    ),
    observed=("state:bottle", "point:left", "point:right", "point:cap"),
)
LIFT = task(
    *("LiftUnderarm", "Two floating hands, palms up, lift a pot by its handles."),
    hands=(
        HandPose((0.0, 0.05, 0.45), HERE.finger, HERE.palm),
        HandPose((0.0, -1.25, 0.45), (0.0, 1.0, 0.0), HERE.palm),
    ),
    floating=Floating(0.25, 1.0),
    things=(
        table("pillar_pot", (0.0, -0.6, 0.2)),
        # Friction 3 and a hand's 1: PhysX takes their mean.
        Thing("pot", ASSETS / "pot.xml", (0.0, -0.6, 0.465), friction=2.0, joints={"lid": 0.0}),
    ),
    goals=(Goal((0.0, -0.6, 0.85)),),
    points=(Point("right", "pot/pot", (0.0, 0.15, 0.06)), Point("left", "pot/pot", (0.0, -0.15, 0.06))),
    constants={
        **{"constant": 0.2, "right": "palm", "left": "palm"},
        "bonus": Bonus("distance", -3.0, 3.0 * 0.385, gate=(0.08, 0.08)),
    },
    success=Condition("distance", at_most=0.05),
    ends=(fallen(0.3), Condition("palm", at_least=0.2)),
    observed=("state:pot", *HANDS_POINTS),
)


def switches(asset: str, lever: float) -> dict:
    """Fields of two wall switches that lie face up."""
    places = {"right": 0.2, "left": -0.2}
    turn = (0.0, 0.5 * math.pi, math.pi)
    mine = [
        Thing("%s_switch" % s, ASSETS / asset, (0.0, y, 0.65), turn, True, gravity=False, joints={"rocker": 0.0})
        for s, y in places.items()
    ]
    points = tuple(Point(side, "%s_switch/rocker" % side, (0.0, 0.0, -lever)) for side in places)
    return {"things": (table("table_switch", (0.0, 0.0, 0.275)), *mine), "points": points}


SWITCH = task(
    *("Switch", "Two floating hands press a switch each."),
    # As published the point that is to be lowered rises, on a lever of 0.02 m: nobody can succeed.
    **switches("switch.xml", 0.035),
    faithful=switches("switch_published.xml", 0.02),
    constants={"constant": 2.0, "bonus": Bonus("pressed", 50.0)},
    success=Condition("pressed", at_least=0.05),
    observed=("state:right_switch", *HANDS_POINTS),
)

RECORDS = (PEN, SCISSORS, CUP, KETTLE, BOTTLE, LIFT, SWITCH)
