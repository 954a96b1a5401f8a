"""Quaternion helpers as tasks see them; what they are is in hepo_isaac/sim/math.py, where engines use them too."""

from __future__ import annotations

from hepo_isaac.sim.math import (
    euler_angles,
    quat_angle,
    quat_conjugate,
    quat_matrix,
    quat_mul,
    quat_of_axes,
    quat_of_euler,
    quat_rotate,
    rotate_many,
)

__all__ = [
    "euler_angles",
    "quat_angle",
    "quat_conjugate",
    "quat_matrix",
    "quat_mul",
    "quat_of_axes",
    "quat_of_euler",
    "quat_rotate",
    "rotate_many",
]
