"""What makes one dexterous task: a record of data, checked when it is made. No formula stands in a record.

Lengths in metres, angles in radians, world z up; quaternions xyzw. Numbers of the published tasks.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Collection, Mapping, Optional, Tuple, Union

from hepo_isaac.errors import UserError, unknown
from hepo_isaac.sim.spec import Quat, Vec3

from .measures import FAMILIES, MEASURES, TWO_HANDED, Bonus, Condition

ASSETS = Path(__file__).parent / "assets"
HELD = Path(__file__).parent.parent / "robots" / "assets"  # in_hand_egg.xml and its like
SIDES = ("right", "left")
ROTATIONS = ("as_placed", "random", "pen")
TURNS = ("fixed", "random", "advancing")


@dataclass(frozen=True)
class HandPose:
    """Where a hand's mount stands, the direction of its straight fingers and the side its palm faces, world frame."""

    position: Vec3
    finger: Vec3
    palm: Vec3


@dataclass(frozen=True)
class Thing:
    """An actor that is no hand.

    turn: Euler angles a, b, c of Rz(c) Ry(b) Rx(a).  fixed: welded to the world.  scenery: it is a table, say, and no
    task object.  friction: of its contacts; None: the scene's.  mass: kg by body, instead of the asset's.
    joints: start of its joints by name; how they move says the asset.
    """

    name: str
    asset: Path
    position: Vec3
    turn: Vec3 = (0.0, 0.0, 0.0)
    fixed: bool = False
    scenery: bool = False
    gravity: bool = True
    friction: Optional[float] = None
    mass: Mapping[str, float] = field(default_factory=dict)
    joints: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """A task point: ``offset`` in the frame of ``body`` ("thing/body")."""

    name: str
    body: str
    offset: Vec3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Goal:
    """Where a task object is wanted. turn: see ``TURNS``; "advancing" is 10 degrees about its own y at a time."""

    position: Vec3
    quat: Quat = (0.0, 0.0, 0.0, 1.0)
    turn: str = "fixed"


@dataclass(frozen=True)
class TaskRecord:
    """One task.

    hands: one pose a hand, right first.  floating: None if bases are welded; else an action of 1 pushes with 1667 times
        the first number, N, and twists with 16.67 times the second, N m.
    things: tables and objects; those that are no scenery are the task's objects, in this order.
    points: "right" and "left", where each hand is wanted, and others by name.
    family, constants: which h, with its keyword arguments (measures.FAMILIES).
    success: r is its mean over the columns of its measure.  ends: any of them, in any column, ends an episode.
    goals: of the objects in order.  start_turn: of the objects' rotation (``ROTATIONS``).
    spread: joints start within this share of their range.  noise: half width of the objects' start position, m.
    posture: start of hand joints other than 0, by name.  observed: what follows the hands' blocks in an observation, as
        "state:<thing>" (13), "goal:<thing>" (11), "place:<thing>" (3, of its goal), "point:<name>" (3),
        "pose:<point>" (7) or "zeros:<n>".
    hand_position: of a floating hand's, "root" or "palm".  anchors: (body, place) that measure "drift" is taken of.
    reached: what turns goals on, for family in_hand.  symmetric: the object's ends are interchangeable (a pen).
    pair: the two points that measure "apart" is taken of.  ground: whether there is a floor at z = 0.
    friction: of what says nothing.  faithful: fields that ``task.faithful=true`` replaces, published defects.
    """

    name: str
    hands: Tuple[HandPose, ...]
    things: Tuple[Thing, ...]
    family: str
    constants: Mapping[str, Any]
    success: Condition
    observed: Tuple[str, ...]
    floating: Optional[Tuple[float, float]] = None
    points: Tuple[Point, ...] = ()
    ends: Tuple[Condition, ...] = ()
    goals: Tuple[Goal, ...] = ()
    start_turn: str = "as_placed"
    spread: float = 0.0
    noise: float = 0.0
    posture: Mapping[str, float] = field(default_factory=dict)
    hand_position: str = "palm"
    anchors: Tuple[Tuple[str, Vec3], ...] = ()
    reached: Optional[Condition] = None
    symmetric: bool = False
    pair: Tuple[str, str] = SIDES
    ground: bool = False
    friction: float = 1.0
    faithful: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known("family", self.family, FAMILIES)
        try:
            inspect.signature(FAMILIES[self.family]).bind(None, **self.constants)
        except TypeError as error:
            raise UserError("constants of task %s, family %s: %s" % (self.name, self.family, error)) from None
        for distance in self.constants.get("by", ()):
            self._known("distance of a hand", distance, ("reach", "palm"))
        for name in self.faithful:
            self._known("faithful field", name, [known.name for known in fields(self)])
        for named in self.measured():
            self._known("measure", named.measure, MEASURES)
        hands, objects, mine = len(self.hands), [t.name for t in self.objects()], [p.name for p in self.points]
        self._needs(hands in (1, 2), "one hand or two, and has %d" % hands)
        self._needs(hands == 2 or self.family not in TWO_HANDED, "two hands for h of family %s" % self.family)
        self._needs(len(self.goals) <= len(objects), "an object for each of its %d goals" % len(self.goals))
        self._known("start rotation", self.start_turn, ROTATIONS)
        for goal in self.goals:
            self._known("turn of a goal", goal.turn, TURNS)
        for point in self.points:
            self._known("object of point %s" % point.name, point.body.split("/")[0], [t.name for t in self.things])
        for kind, name in self.parts():
            if kind == "zeros":
                self._needs(name.isdigit(), "a number of zeros to observe, got %r" % name)
                continue
            wanted = [t.name for t in self.wanted()] if kind in ("goal", "place") else objects
            self._known("point or object", name, mine if kind in ("point", "pose") else wanted)
        needed = {*SIDES, *self.pair} if self.points else {*self.pair} - {*SIDES}
        self._needs(needed <= {*mine}, "the points right, left, %s and %s, or none" % self.pair)

    def _needs(self, sound: bool, what: str) -> None:
        if not sound:
            raise UserError("task %s needs %s" % (self.name, what))

    def measured(self) -> Tuple[Union[Condition, Bonus], ...]:
        """What names a measure."""
        bonuses = [value for value in self.constants.values() if isinstance(value, Bonus)]
        return (self.success, *self.ends, *((self.reached,) if self.reached else ()), *bonuses)

    def _known(self, kind: str, name: str, valid: Collection[str]) -> None:
        if name not in valid:
            raise unknown("%s of task %s" % (kind, self.name), name, valid)

    def objects(self) -> Tuple[Thing, ...]:
        """The things that the task is about."""
        return tuple(thing for thing in self.things if not thing.scenery)

    def wanted(self) -> Tuple[Thing, ...]:
        """Those that have a goal."""
        return self.objects()[: len(self.goals)]

    def parts(self) -> Tuple[Tuple[str, str], ...]:
        """(kind, name) of each part of ``observed``."""
        found = [tuple(part.split(":")) for part in self.observed]
        for part in found:
            if len(part) != 2:
                raise UserError("task %s observes %r; expected <kind>:<name>" % (self.name, ":".join(part)))
            self._known("observed part", part[0], PART_SIZES)
        return tuple((kind, name) for kind, name in found)


# Columns of each kind of observed part; "zeros:<n>" has n.
PART_SIZES = {"state": 13, "goal": 11, "place": 3, "point": 3, "pose": 7, "zeros": 0}
HAND_SIZE, BASE_SIZE = 3 * 24 + 5 * 13 + 5 * 6 + 20, 6 + 6  # of a hand's block; what a floating base adds


def sizes(record: TaskRecord) -> Tuple[int, int]:
    """Sizes of observation and action."""
    extra = BASE_SIZE if record.floating else 0
    tail = sum(PART_SIZES[kind] + (int(name) if kind == "zeros" else 0) for kind, name in record.parts())
    actions = len(record.hands) * (26 if record.floating else 20)
    return len(record.hands) * (HAND_SIZE + extra) + tail, actions
