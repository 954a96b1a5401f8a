"""Quaternion helpers in pure torch. Quaternions are xyzw and of unit length."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by quaternions xyzw (..., 4)."""
    xyz, w = quat[..., :3], quat[..., 3:]
    t = 2.0 * torch.linalg.cross(xyz, vec)
    return vec + w * t + torch.linalg.cross(xyz, t)


def rotate_inverse(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by the inverse of quaternions xyzw (..., 4)."""
    xyz, w = -quat[..., :3], quat[..., 3:]
    t = 2.0 * torch.linalg.cross(xyz, vec)
    return vec + w * t + torch.linalg.cross(xyz, t)


def wxyz_to_xyzw(quat: Tensor) -> Tensor:
    """MuJoCo's scalar-first order to ours (..., 4)."""
    return quat.roll(-1, -1)


def xyzw_to_wxyz(quat: Tensor) -> Tensor:
    """Our order to MuJoCo's scalar-first one (..., 4)."""
    return quat.roll(1, -1)
