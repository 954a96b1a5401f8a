"""Heuristics of Push2D: an aligned default, FrankaCabinet's 12 human ones in the plane, and graded bad ones.

h1-h12 keep the shape, scales and mistakes of robots/franka_cabinet_heuristics.py; orientation terms, constant or noise
there, are left out. d = |dp|, dp = gripper - handle, o the opening, s = 1[o > OPEN], f the finger gap.

q0 ... q10: h = q good + (1 - q) bad for q = 0, 0.1, ... 1 with good = default and bad = 3 d. Both signs are known:
the slope of the distance is 3 - 4 q, so below q = 3/4 the shaping leads away from the handle; with the drawer open at
the handle h = 5.5 q, and in the far corner (d = 1.97) 1.97 (3 - 4 q), so fleeing is the optimum of h below q = 0.44.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Dict

import torch
from torch import Tensor

OPEN = 0.35  # opening that counts as open
CLOSED = 0.03  # finger gap that holds the handle
RADIUS = 0.12  # of a grasp
SPARSE_SCALE = 10.0
# Frequencies and phases of ``noise``, drawn once from random.Random(0).uniform(-8, 8), to two digits.
NOISE = ((5.51, 4.13, 0.18, -0.86), (0.18, -1.52, 4.54, -3.15), (-0.37, 1.33, 6.53, 0.08))

Terms = Dict[str, Tensor]


def _distance(s: Any) -> Tensor:
    return s.offset.norm(dim=1)


def default(s: Any) -> Terms:
    """-d + 0.5 1[d < RADIUS] (1 - f / 0.1) + 3 o / OPEN (at most 3) + 2 s: come nearer, close, pull."""
    d = _distance(s)
    return {
        "distance": -d,
        "fingers": (0.5 - 5.0 * s.gap) * (d < RADIUS).to(d.dtype),
        "opening": (3.0 / OPEN) * s.opening.clamp_max(OPEN),
        "success": 2.0 * s.success,
    }


def h1(s: Any) -> Terms:
    """100 s - d^2 + 1000 o^2."""
    return {
        "success": 100.0 * s.success,
        "distance": -s.offset.square().sum(1),
        "opening": 1000.0 * s.opening.square(),
    }


def h2(s: Any) -> Terms:
    """s - 0.01 |a| - 2 d + 7.5 o."""
    return {
        "success": s.success,
        "action_penalty": -0.01 * s.actions.norm(dim=1),
        "distance": -2.0 * _distance(s),
        "opening": 7.5 * s.opening,
    }


def h3(s: Any) -> Terms:
    """s + 7.5 o + 2 exp(-mean dp^2): flat reach term."""
    return {
        "success": s.success,
        "opening": 7.5 * s.opening,
        "distance": 2.0 * torch.exp(-s.offset.square().mean(1)),
    }


def h4(s: Any) -> Terms:
    """-2 d + 7.5 s - 5 f - 0.01 mean a^2: nothing rewards opening before it is open."""
    return {
        "distance": -2.0 * _distance(s),
        "success": 7.5 * s.success,
        "fingers": -5.0 * s.gap,
        "action_penalty": -0.01 * s.actions.square().mean(1),
    }


def h5(s: Any) -> Terms:
    """s + 1 / (1 + d) + o - 1[closed and far]."""
    d = _distance(s)
    return {
        "success": s.success,
        "distance": (1.0 + d).reciprocal(),
        "opening": s.opening,
        "fingers": -((s.gap < 0.01) & (d > RADIUS)).to(d.dtype),
    }


def h6(s: Any) -> Terms:
    """-|dp|_1 + 10 (o - OPEN): no success term."""
    return {"distance": -s.offset.abs().sum(1), "opening": 10.0 * (s.opening - OPEN)}


def h7(s: Any) -> Terms:
    """-3 mean dp^2 + 10 o + 20 s + 0.1 1[at the handle with open fingers]."""
    straddles = (_distance(s) < RADIUS) & (s.gap > CLOSED)
    return {
        "distance": -3.0 * s.offset.square().mean(1),
        "opening": 10.0 * s.opening,
        "success": 20.0 * s.success,
        "around_handle": 0.1 * straddles.to(s.gap.dtype),
    }


def h8(s: Any) -> Terms:
    """s - d + 10 o."""
    return {"success": s.success, "distance": -_distance(s), "opening": 10.0 * s.opening}


def h9(s: Any) -> Terms:
    """s + 0.1 d + 100 (d - 0.1) f: wrong sign. At d = 0.5 and f = 0.05 it already pays 2, twice the success."""
    d = _distance(s)
    return {"success": s.success, "distance": 0.1 * d, "fingers": 100.0 * (d - 0.1) * s.gap}


def h10(s: Any) -> Terms:
    """-d - sqrt 2: reach only."""
    return {"distance": -_distance(s), "axes": torch.full_like(s.gap, -(2.0**0.5))}


def h11(s: Any) -> Terms:
    """5 o - d + 10 * 0: its success is read before it is computed."""
    return {"opening": 5.0 * s.opening, "distance": -_distance(s)}


def h12(s: Any) -> Terms:
    """s + mean dp^2: wrong sign. The far corner of a room of half-width W pays 1.94 W^2: more than success at W = 1,
    but below W = 0.72 the drawer is the better deal and h only misguides the search."""
    return {"success": s.success, "distance": s.offset.square().mean(1)}


def mixed(q: float, s: Any) -> Terms:
    """q default + (1 - q) 3 d."""
    good = sum(default(s).values(), torch.zeros_like(s.gap))
    return {"good": q * good, "bad": (1.0 - q) * 3.0 * _distance(s)}


def reverse(s: Any) -> Terms:
    """-default."""
    return {name: -value for name, value in default(s).items()}


def sparse(s: Any) -> Terms:
    """Success alone, scaled."""
    return {"success": SPARSE_SCALE * s.success}


def noise(s: Any) -> Terms:
    """A fixed smooth function of gripper and opening that says nothing about the task: three sines."""
    x, y, o = s.pos[:, 0], s.pos[:, 1], s.opening
    waves = [torch.sin(a * x + b * y + c * o + phase) for a, b, c, phase in NOISE]
    return {"noise": waves[0] + waves[1] + waves[2]}


NAMED: Dict[str, Callable[[Any], Terms]] = {
    "default": default,
    **{"h%d" % (i + 1): f for i, f in enumerate((h1, h2, h3, h4, h5, h6, h7, h8, h9, h10, h11, h12))},
    **{"q%d" % i: partial(mixed, i / 10.0) for i in range(11)},
    "reversed": reverse,
    "sparse": sparse,
    "noise": noise,
}
