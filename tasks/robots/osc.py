"""Operational-space control of an arm, as pure functions of batches.

A commanded acceleration at the hand becomes joint torques through the arm's inertia; a posture acceleration acts in
what is left of the joint space (Khatib, IEEE J. Robotics and Automation 3(1), 1987). N worlds, n joints.

The linear algebra is written out as column operations in float64. What a library would cost: matrix products may run in
TF32 on a GPU, whose 10-bit mantissa is far below what inverting an inertia needs, and a checked ``torch.linalg.solve``
makes the host wait for the device. The batch is the last dimension here, so that every operation runs along memory.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple

import torch
from torch import Tensor

REGULARISATION = 1e-8  # added to J M^-1 J^T, whose entries are of the order 1/kg and 1/(kg m^2): finite when singular


class Factors(NamedTuple):
    """L D L^T of symmetric positive definite matrices; kept with the matrix (n, n, N) they belong to.

    pivots: (n, N), the diagonal of D.  columns: n - 1 tensors (n - 1 - j, N), L's columns below its unit diagonal.
    """

    matrix: Tensor
    pivots: Tensor
    columns: List[Tensor]


def factorise(matrix: Tensor) -> Factors:
    """Factors of matrix (n, n, N). Positive definite, so pivots need no exchange of rows."""
    rest, columns = matrix.clone(), []
    for j in range(len(matrix) - 1):
        row = rest[j, j + 1 :]
        column = row / rest[j, j]
        rest[j + 1 :, j + 1 :].addcmul_(column.unsqueeze(1), row.unsqueeze(0), value=-1.0)
        columns.append(column)
    return Factors(matrix, torch.diagonal(rest).t(), columns)


def forward(factors: Factors, right: Tensor) -> Tensor:
    """L^-1 right for right (n, k, N)."""
    out = right.clone()
    for j, column in enumerate(factors.columns):
        out[j + 1 :].addcmul_(column.unsqueeze(1), out[j : j + 1], value=-1.0)
    return out


def solve(factors: Factors, right: Tensor) -> Tensor:
    """x (n, N) of matrix x = right."""
    x = forward(factors, right.unsqueeze(1)).squeeze(1) / factors.pivots
    for j in reversed(range(len(factors.columns))):
        x[j] -= (factors.columns[j] * x[j + 1 :]).sum(0)
    return x


def product(matrix: Tensor, vector: Tensor) -> Tensor:
    """(m, n, N) times (n, N) -> (m, N)."""
    return (matrix * vector).sum(1)


def batch_last(x: Tensor) -> Tensor:
    """(N, ...) -> (..., N) contiguous in float64."""
    return x.movedim(0, -1).to(torch.float64).contiguous()


def batch_first(x: Tensor) -> Tensor:
    """(n, N) -> (N, n) in float32."""
    return x.t().to(torch.float32)


def shift_jacobian(jacobian: Tensor, offset: Tensor) -> Tensor:
    """Jacobian (6, n, N) of the point at ``offset`` (3, N), world frame, m, from that of the point ``jacobian`` belongs
    to. Rows linear then angular; a point's velocity is v + omega x offset."""
    angular = jacobian[3:]
    lever = offset.unsqueeze(1).expand_as(angular)
    return torch.cat((jacobian[:3] + torch.linalg.cross(angular, lever, dim=0), angular))


def wrap_angle(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi), rad."""
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi


def posture_acceleration(position: Tensor, velocity: Tensor, rest: Tensor, stiffness: float) -> Tensor:
    """stiffness wrap(rest - position) - 2 sqrt(stiffness) velocity, rad/s^2: a critically damped pull to ``rest``."""
    return stiffness * wrap_angle(rest - position) - 2.0 * math.sqrt(stiffness) * velocity


def operational_space_torque(inertia: Factors, jacobian: Tensor, task: Tensor, posture: Tensor) -> Tensor:
    """Joint torques (n, N), N m, that accelerate the hand by ``task`` and the null space by ``posture``.

    J^T L a + (1 - J^T L J M^-1) M w with L = (J M^-1 J^T)^-1 is the same as M w + J^T L (a - J w), which takes one
    solve and no inverse.

    Args:
        inertia: of M, kg m^2.  jacobian: J (m, n, N), m <= n.
        task: a (m, N), m/s^2 and rad/s^2.  posture: w (n, N), rad/s^2.
    """
    half = forward(inertia, jacobian.transpose(0, 1))  # (n, m, N): J M^-1 J^T = half^T D^-1 half
    scaled = half / inertia.pivots.unsqueeze(1)
    mobility = (half.unsqueeze(2) * scaled.unsqueeze(1)).sum(0)
    torch.diagonal(mobility).add_(REGULARISATION)
    force = solve(factorise(mobility), task - product(jacobian, posture))
    return product(inertia.matrix, posture) + (jacobian * force.unsqueeze(1)).sum(0)


def limit_speed(inertia: Factors, torque: Tensor, velocity: Tensor, limit: Tensor, dt: float) -> Tensor:
    """Torques (n, N) under which no joint is faster than ``limit`` (n, 1), rad/s, after dt seconds.

    The speed after dt is predicted from the inertia alone, bounded, and turned back into torques. So a joint at its
    limit is held there by whatever torque it takes, as a physics engine with a hard joint-speed limit does it.
    """
    after = velocity + dt * solve(inertia, torque)
    excess = after - torch.minimum(torch.maximum(after, -limit), limit)
    return torque - product(inertia.matrix, excess) / dt
