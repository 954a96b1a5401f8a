"""Quaternion helpers for tasks. Quaternions are xyzw and of unit length; all functions work on (..., 4)/(..., 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def quat_rotate(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vec (..., 3) by quat (..., 4); the two broadcast."""
    xyz, w = quat[..., :3], quat[..., 3:]
    t = 2.0 * torch.linalg.cross(xyz, vec.expand_as(xyz))
    return vec + w * t + torch.linalg.cross(xyz, t)


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a b: rotate by b, then by a."""
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    xyz = aw * bv + bw * av + torch.linalg.cross(av, bv)
    return torch.cat((xyz, aw * bw - (av * bv).sum(-1, keepdim=True)), -1)


def quat_conjugate(quat: Tensor) -> Tensor:
    """Inverse of a unit quaternion."""
    return torch.cat((-quat[..., :3], quat[..., 3:]), -1)


def quat_angle(a: Tensor, b: Tensor) -> Tensor:
    """Rotation angle between a and b in [0, pi], radians: 2 asin(min(1, |vec(a conj(b))|))."""
    vec = quat_mul(a, quat_conjugate(b))[..., :3]
    return 2.0 * torch.asin(vec.norm(dim=-1).clamp(max=1.0))
