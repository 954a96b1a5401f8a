"""Quaternion helpers for engines and tasks. Quaternions are xyzw and of unit length; leading dimensions broadcast.

A product of quaternions is bilinear, so each helper is an outer product weighted by constants: few operations, which
is what a step of a few hundred environments is made of on a CPU. The sums are written out instead of ``@``, since
rl-games' Runner lets matrix products run in TF32 on a GPU: its 10-bit mantissa is a millimetre of the gripper.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import List, Tuple

import torch
from torch import Tensor

from hepo_isaac.sim.spec import Quat, Vec3

_X, _Y, _Z, _W = range(4)
# (a b)_k = sum of sign a_i b_j over these (i, j, k, sign): Hamilton's i^2 = j^2 = k^2 = ijk = -1.
_PRODUCT: Tuple[Tuple[int, int, int, float], ...] = (
    (_W, _W, _W, 1.0), (_X, _X, _W, -1.0), (_Y, _Y, _W, -1.0), (_Z, _Z, _W, -1.0),
    (_W, _X, _X, 1.0), (_X, _W, _X, 1.0), (_Y, _Z, _X, 1.0), (_Z, _Y, _X, -1.0),
    (_W, _Y, _Y, 1.0), (_Y, _W, _Y, 1.0), (_Z, _X, _Y, 1.0), (_X, _Z, _Y, -1.0),
    (_W, _Z, _Z, 1.0), (_Z, _W, _Z, 1.0), (_X, _Y, _Z, 1.0), (_Y, _X, _Z, -1.0),
)  # fmt: skip


@lru_cache(maxsize=None)
def _product_matrix(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(16, 4): flattened outer product of a and b -> a b."""
    matrix = torch.zeros(16, 4, dtype=dtype)
    for i, j, k, sign in _PRODUCT:
        matrix[4 * i + j, k] = sign
    return matrix.to(device)


@lru_cache(maxsize=None)
def _rotation_matrix(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(16, 9): flattened outer product of q with itself -> row-major rotation matrix (homogeneous form)."""
    matrix = torch.zeros(4, 4, 3, 3, dtype=dtype)
    for a in range(3):
        matrix[_W, _W, a, a] = 1.0
        for b in range(3):
            matrix[b, b, a, a] += 1.0 if a == b else -1.0
            if a != b:
                c = 3 - a - b  # the third axis
                cyclic = (a + 1) % 3 == b
                matrix[a, b, a, b] += 2.0
                matrix[_W, c, a, b] += -2.0 if cyclic else 2.0
    return matrix.reshape(16, 9).to(device)


@lru_cache(maxsize=None)
def _conjugate_signs(device: torch.device, dtype: torch.dtype) -> Tensor:
    signs: List[float] = [-1.0, -1.0, -1.0, 1.0]
    return torch.tensor(signs, dtype=dtype, device=device)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)


def _weigh(products: Tensor, weights: Tensor) -> Tensor:
    """(..., 16) and (16, k) -> (..., k) in full float32."""
    return (products.unsqueeze(-1) * weights).sum(-2)


def quat_matrix(quat: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3); column i is where axis i goes."""
    return _weigh(_outer(quat, quat), _rotation_matrix(quat.device, quat.dtype)).unflatten(-1, (3, 3))


def quat_rotate(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vec (..., 3) by quat (..., 4)."""
    return (quat_matrix(quat) * vec.unsqueeze(-2)).sum(-1)


def rotate_many(quat: Tensor, vec: Tensor) -> Tensor:
    """As quat_rotate, to rounding, in a seventh of the time where there are thousands: two cross products instead of a
    matrix each. Few vectors take no longer the other way, whose bits are in recorded trajectories."""
    axis = quat[..., :3]
    half = torch.linalg.cross(axis, vec.expand_as(axis))
    return vec + 2.0 * (quat[..., 3:] * half + torch.linalg.cross(axis, half))


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a b: rotate by b, then by a."""
    return _weigh(_outer(a, b), _product_matrix(a.device, a.dtype))


def quat_conjugate(quat: Tensor) -> Tensor:
    """Inverse of a unit quaternion."""
    return quat * _conjugate_signs(quat.device, quat.dtype)


def quat_angle(a: Tensor, b: Tensor) -> Tensor:
    """Rotation angle between a and b in [0, pi], radians: 2 asin(min(1, |vec(a conj(b))|))."""
    vec = quat_mul(a, quat_conjugate(b))[..., :3]
    return 2.0 * torch.asin(vec.norm(dim=-1).clamp(max=1.0))


def euler_angles(quat: Tensor) -> Tensor:
    """Roll, pitch, yaw (..., 3) in [-pi, pi] of unit quaternions (..., 4) = Rz(yaw) Ry(pitch) Rx(roll)."""
    m = quat_matrix(quat)
    pitch = torch.asin((-m[..., 2, 0]).clamp(-1.0, 1.0))
    return torch.stack((torch.atan2(m[..., 2, 1], m[..., 2, 2]), pitch, torch.atan2(m[..., 1, 0], m[..., 0, 0])), -1)


def quat_of_euler(roll: float, pitch: float, yaw: float) -> Quat:
    """Rz(yaw) Ry(pitch) Rx(roll) of plain numbers, rad, for a scene's description."""
    (sa, ca), (sb, cb), (sc, cc) = ((math.sin(0.5 * t), math.cos(0.5 * t)) for t in (roll, pitch, yaw))
    return (
        sa * cb * cc - ca * sb * sc,
        ca * sb * cc + sa * cb * sc,
        ca * cb * sc - sa * sb * cc,
        ca * cb * cc + sa * sb * sc,
    )


def quat_of_axes(y: Vec3, z: Vec3) -> Quat:
    """The rotation that takes the axes y and z to these directions, plain numbers of any length, orthogonal."""
    yx, yy, yz = (v / math.sqrt(sum(w * w for w in y)) for v in y)
    zx, zy, zz = (v / math.sqrt(sum(w * w for w in z)) for v in z)
    xx, xy, xz = yy * zz - yz * zy, yz * zx - yx * zz, yx * zy - yy * zx
    squares = (xx - yy - zz, yy - xx - zz, zz - xx - yy, xx + yy + zz)
    largest = max(range(4), key=lambda k: squares[k])  # of x, y, z, w: at least 1/2, so that dividing by it is safe
    large = 0.5 * math.sqrt(1.0 + squares[largest])
    f = 0.25 / large
    sums, differences = (f * (xy + yx), f * (xz + zx), f * (yz + zy)), (f * (yz - zy), f * (zx - xz), f * (xy - yx))
    rows: Tuple[Quat, ...] = (
        (large, sums[0], sums[1], differences[0]),
        (sums[0], large, sums[2], differences[1]),
        (sums[1], sums[2], large, differences[2]),
        (*differences, large),
    )
    return rows[largest]


def wxyz_to_xyzw(quat: Tensor) -> Tensor:
    """MuJoCo's scalar-first order to ours (..., 4)."""
    return quat.roll(-1, -1)


def xyzw_to_wxyz(quat: Tensor) -> Tensor:
    """Our order to MuJoCo's scalar-first one (..., 4)."""
    return quat.roll(1, -1)
