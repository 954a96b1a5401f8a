"""The numbers that rewards, success and ends of episodes are made of, and the four families of h. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.errors import UserError

ROTATION_EPS = 0.1  # rad, of 1 / (angle + eps)
ACTION_COST = 0.0002  # of |a|^2
NEARNESS = 10.0  # 1/m, of exp(-10 distance)
SPREAD_WEIGHT = 0.2  # of exp(-0.2 (kappa d + theta))
SWITCH_HEIGHT = 1.4  # m, from which the heights of both switches are taken
# BlockStack: 50 (0.05 - |0.675 - z|) of the upper cube while both cubes are within 7 cm of their places.
STACK_WITHIN, STACK_HEIGHT, STACK_SCALE, STACK_MARGIN = 0.07, 0.675, 50.0, 0.05


@dataclass
class BiDexState:
    """What rewards are computed from; N environments, H hands, K objects, J joints of objects.

    distance, angle: (N, K) m and rad in [0, pi] between each object and its goal; no columns where there are no goals.
    reach: (N, H) m, sum of the distances of a hand's five fingertips to its point.  palm: (N, H) m, of its palm centre.
    apart: (N, 1) m between the task's pair of points.  right, left: (N, 3) the hands' points.
    Without points they are the palms' centres.
    objects: (N, K, 13) root states.  joints: (N, J) rad or m.  drift: (N, A) m of the anchored bodies.
    reached: (N,) 1 where the goals turn on, else 0.  actions: (N, A) clipped to [-1, 1].
    """

    distance: Tensor
    angle: Tensor
    reach: Tensor
    palm: Tensor
    apart: Tensor
    right: Tensor
    left: Tensor
    objects: Tensor
    joints: Tensor
    drift: Tensor
    reached: Tensor
    actions: Tensor


@dataclass(frozen=True)
class Condition:
    """Whether a measure is at least, or at most, a number."""

    measure: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def __post_init__(self) -> None:
        if not math.isfinite(self.at_least) and not math.isfinite(self.at_most):
            raise UserError("a condition on %s needs at_least or at_most" % self.measure)


@dataclass(frozen=True)
class Bonus:
    """offset + scale * measure, paid while each hand is within its ``gate`` (m, right and left) of its point."""

    measure: str
    scale: float = 1.0
    offset: float = 0.0
    gate: Tuple[float, float] = (math.inf, math.inf)


Terms = Dict[str, Tensor]


def _stack(s: BiDexState) -> Tensor:
    placed = (s.distance < STACK_WITHIN).all(1, keepdim=True)
    return placed * STACK_SCALE * (STACK_MARGIN - (STACK_HEIGHT - s.left[:, 2:]).abs())


# Each gives (N, columns); what a column is of, BiDexState says.
MEASURES: Mapping[str, Callable[[BiDexState], Tensor]] = {
    "distance": lambda s: s.distance.sum(1, keepdim=True),
    "distances": lambda s: s.distance,
    "angle": lambda s: s.angle,
    "last_angle": lambda s: s.angle[:, -1:],
    "turned": lambda s: 1.0 / (s.angle + ROTATION_EPS),
    "height": lambda s: s.objects[..., 2],
    "reach": lambda s: s.reach,
    "right_palm": lambda s: s.palm[:, :1],
    "left_palm": lambda s: s.palm[:, 1:],
    "palm": lambda s: s.palm,
    "apart": lambda s: s.apart,
    "near": lambda s: torch.exp(-NEARNESS * s.apart),
    "gap": lambda s: (s.right[:, 1:2] - s.left[:, 1:2]).abs(),
    "right_height": lambda s: s.right[:, 2:],
    "left_height": lambda s: s.left[:, 2:],
    "pressed": lambda s: SWITCH_HEIGHT - s.right[:, 2:] - s.left[:, 2:],
    "joint": lambda s: s.joints,
    "drift": lambda s: s.drift,
    "stack": _stack,
}


def holds(test: Condition, s: BiDexState) -> Tensor:
    """(N, columns) bool."""
    value = MEASURES[test.measure](s)
    return (value <= test.at_most) & (value >= test.at_least)


def succeeded(test: Condition, s: BiDexState) -> Tensor:
    """(N,) success in [0, 1]: the share of the measure's columns for which the test holds."""
    return holds(test, s).to(torch.float32).mean(1)


# -- families of h ---------------------------------------------------------------------------------------------------
def throw(s: BiDexState, kappa: float) -> Terms:
    """F1: sum over objects of exp(-0.2 (kappa d + theta))."""
    return {"throw": torch.exp(-SPREAD_WEIGHT * (kappa * s.distance + s.angle)).sum(1)}


def in_hand(s: BiDexState, kappa: float, bonus: float) -> Terms:
    """F2: kappa sum d + sum 1 / (theta + 0.1) - 0.0002 |a|^2 + bonus where the goal turns on."""
    return {
        "distance": kappa * s.distance.sum(1),
        "rotation": MEASURES["turned"](s).sum(1),
        "action_penalty": -ACTION_COST * (s.actions * s.actions).sum(1),
        "goal_bonus": bonus * s.reached,
    }


def bimanual(
    s: BiDexState, constant: float, bonus: Bonus, more: Optional[Bonus] = None, by: Tuple[str, str] = ("reach", "reach")
) -> Terms:
    """F3: constant - how far the hands are from their points + what is paid. by: "reach" or "palm" of each hand."""
    away = {"right": getattr(s, by[0])[:, 0], "left": getattr(s, by[1])[:, 1]}
    terms = {"constant": torch.full_like(away["right"], constant), "right": -away["right"], "left": -away["left"]}
    return {**terms, **_paid(s, away, bonus, more)}


def exponential(s: BiDexState, bonus: Bonus) -> Terms:
    """F4: exp(-10 D) of each hand + what is paid."""
    away = {"right": s.reach[:, 0], "left": s.reach[:, 1]}
    return {**{side: torch.exp(-NEARNESS * d) for side, d in away.items()}, **_paid(s, away, bonus, None)}


def _paid(s: BiDexState, away: Mapping[str, Tensor], bonus: Bonus, more: Optional[Bonus]) -> Terms:
    """Terms "bonus" and "more": offset + scale * measure, summed over columns, inside of the gate."""
    found = {}
    for name, paid in (("bonus", bonus), ("more", more)):
        if paid is not None:
            value = paid.offset + paid.scale * MEASURES[paid.measure](s).sum(1)
            inside = (away["right"] < paid.gate[0]) & (away["left"] < paid.gate[1])
            found[name] = value * inside
    return found


FAMILIES: Mapping[str, Callable[..., Terms]] = {f.__name__: f for f in (throw, in_hand, bimanual, exponential)}
TWO_HANDED = ("bimanual", "exponential")


# -- what a hasty person would write: each can be had without the success that is wanted -------------------------------
def high(s: BiDexState) -> Terms:
    """Near the goal, and up: what is tossed straight up, or held high, pays without ever arriving."""
    return {"near": torch.exp(-NEARNESS * s.distance).sum(1), "high": s.objects[:, -1, 2]}


def hold(s: BiDexState) -> Terms:
    """Hands at their points first, then a little for the gap: holding on pays as much as a wide open door."""
    return {"hold": torch.exp(-s.reach).sum(1), "gap": 0.2 * MEASURES["gap"](s)[:, 0]}


def whirl(s: BiDexState) -> Terms:
    """Hands at their points, and turning: spinning on past the goal pays more than to stop there."""
    return {"hold": -0.1 * s.reach.sum(1), "whirl": s.objects[:, 0, 10:].norm(dim=-1)}


HASTY = {"Over": high, "BlockStack": high, "DoorOpenOutward": hold, "DoorOpenInward": hold, "SwingCup": whirl}
