"""The 12 human-designed heuristics of the HEPO study for FrankaCabinet (its Table of human rewards), h1 to h12.

h1-h6 are the release's ``ppo1``-``ppo6``, h7-h12 its ``hepo1``-``hepo6``. They replace h only. Formulas are faithful,
mistakes included: that people write such rewards is the point of the study. Common to all:

* "success" s is 1[opening > 0.39] in this very step; the release never stores its success buffer.
* axis vectors are the raw local constants, not rotated into the world, so terms made of them are constants.
* quaternion targets are those of the unrotated drawer, 120 degrees away from the useful grasp.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

import torch
from torch import Tensor

from hepo_isaac.envs.math import quat_angle

OPEN = 0.39  # m


def _success(s: Any) -> Tensor:
    return (s.drawer_opening > OPEN).to(s.drawer_opening.dtype)


def _offset(s: Any) -> Tensor:
    return s.gripper_pos - s.drawer_pos


def _finger_gap(s: Any) -> Tensor:
    return (s.left_finger - s.right_finger).norm(dim=-1)


def h1(s: Any) -> Dict[str, Tensor]:
    """100 s - d^2 + 1000 q^2. Its comments mention alignment, its code has none."""
    return {
        "success": 100.0 * _success(s),
        "distance": -(_offset(s) ** 2).sum(-1),
        "opening": 1000.0 * s.drawer_opening**2,
    }


def h2(s: Any) -> Dict[str, Tensor]:
    """s - 0.01 |a| - 0.5 angle(Q_drawer, Q_gripper) - 2 d + 7.5 q. The angle is least at a wrong orientation."""
    return {
        "success": _success(s),
        "action_penalty": -0.01 * s.actions.norm(dim=-1),
        "rotation": -0.5 * quat_angle(s.drawer_quat, s.gripper_quat),
        "distance": -2.0 * _offset(s).norm(dim=-1),
        "opening": 7.5 * s.drawer_opening,
    }


def h3(s: Any) -> Dict[str, Tensor]:
    """s + 7.5 q + 2 exp(-d^2 / 3): the mean, not the sum, of the squared components makes reaching flat."""
    return {
        "success": _success(s),
        "opening": 7.5 * s.drawer_opening,
        "distance": 2.0 * torch.exp(-(_offset(s) ** 2).mean(-1)),
    }


def h4(s: Any) -> Dict[str, Tensor]:
    """-2 d - 0.5 |Q_p - Q_g| - 0.25 (2 sqrt 2) + 7.5 s - 5 gap - 0.01 mean(a^2).

    The third term is a constant (unrotated axes), closing the fingers is rewarded everywhere, and nothing rewards
    opening the drawer before it is open.
    """
    return {
        "distance": -2.0 * _offset(s).norm(dim=-1),
        "rotation": -0.5 * (s.gripper_quat - s.drawer_quat).norm(dim=-1),
        "axes": torch.full_like(s.drawer_opening, -0.25 * 2.0 * 2.0**0.5),
        "success": 7.5 * _success(s),
        "fingers": -5.0 * _finger_gap(s),
        "action_penalty": -0.01 * (s.actions**2).mean(-1),
    }


def h5(s: Any) -> Dict[str, Tensor]:
    """s + 0 + 1/(1+d) + q - 1[gap < 1 mm and |P - G| > 0.01].

    The 0 is a product of unrotated axes, and the last norm runs over the whole batch of environments (a missing
    dim), so one env's penalty depends on all the others.
    """
    offset = _offset(s)
    penalty = ((_finger_gap(s) < 0.001) & (offset.norm() > 0.01)).to(offset.dtype)
    return {
        "success": _success(s),
        "distance": 1.0 / (1.0 + offset.norm(dim=-1)),
        "opening": s.drawer_opening.clone(),
        "fingers": -penalty,
    }


def h6(s: Any) -> Dict[str, Tensor]:
    """-|P - G|_1 + 10 (q - 0.39): no success term."""
    return {"distance": -_offset(s).abs().sum(-1), "opening": 10.0 * (s.drawer_opening - OPEN)}


def h7(s: Any) -> Dict[str, Tensor]:
    """-3 mean(dp^2) + 10 q + 20 s + 0.1 1[fingers 1 cm above and below the handle]; its action term has weight 0."""
    z = s.drawer_pos[:, 2]
    straddles = (s.left_finger[:, 2] > z + 0.01) & (s.right_finger[:, 2] < z - 0.01)
    return {
        "distance": -3.0 * (_offset(s) ** 2).mean(-1),
        "opening": 10.0 * s.drawer_opening,
        "success": 20.0 * _success(s),
        "around_handle": 0.1 * straddles.to(z.dtype),
    }


def h8(s: Any) -> Dict[str, Tensor]:
    """s - d + 10 q."""
    return {"success": _success(s), "distance": -_offset(s).norm(dim=-1), "opening": 10.0 * s.drawer_opening}


def h9(s: Any) -> Dict[str, Tensor]:
    """s + 0.1 d + 0.01 |Q_p - Q_g| + 100 (d - 0.1) gap: wrong sign, it pays for staying away with an open gripper;
    a closed gripper is better only within 10 cm."""
    d = _offset(s).norm(dim=-1)
    return {
        "success": _success(s),
        "distance": 0.1 * d,
        "rotation": 0.01 * (s.gripper_quat - s.drawer_quat).norm(dim=-1),
        "fingers": 100.0 * (d - 0.1) * _finger_gap(s),
    }


def h10(s: Any) -> Dict[str, Tensor]:
    """-|G - (p_L + p_R) / 2| - sqrt 2: reaches with the finger bases; no drawer and no success term."""
    middle = 0.5 * (s.left_finger + s.right_finger)
    return {
        "distance": -(s.drawer_pos - middle).norm(dim=-1),
        "axes": torch.full_like(s.drawer_opening, -(2.0**0.5)),
    }


def h11(s: Any) -> Dict[str, Tensor]:
    """5 q - d + 10 * 0: the success it adds is read before it is computed and is always 0."""
    return {"opening": 5.0 * s.drawer_opening, "distance": -_offset(s).norm(dim=-1)}


def h12(s: Any) -> Dict[str, Tensor]:
    """s + mean(dp^2): a sign error that rewards distance."""
    return {"success": _success(s), "distance": (_offset(s) ** 2).mean(-1)}


HUMAN_HEURISTICS: Dict[str, Callable[[Any], Dict[str, Tensor]]] = {
    "h%d" % (i + 1): f for i, f in enumerate((h1, h2, h3, h4, h5, h6, h7, h8, h9, h10, h11, h12))
}
