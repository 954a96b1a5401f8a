"""Quaternion helpers against rotation vectors whose result is known."""

from __future__ import annotations

import math

import pytest
import torch

from hepo_isaac.envs.math import (
    euler_angles,
    quat_angle,
    quat_conjugate,
    quat_matrix,
    quat_mul,
    quat_of_axes,
    quat_of_euler,
    quat_rotate,
)

Z90 = torch.tensor([0.0, 0.0, math.sin(math.pi / 4), math.cos(math.pi / 4)])
X90 = torch.tensor([math.sin(math.pi / 4), 0.0, 0.0, math.cos(math.pi / 4)])


def test_rotation_about_z_turns_x_to_y():
    torch.testing.assert_close(quat_rotate(Z90, torch.tensor([1.0, 0.0, 0.0])), torch.tensor([0.0, 1.0, 0.0]))


def test_product_rotates_by_the_second_first():
    torch.testing.assert_close(quat_matrix(X90) @ torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
    # x90 then z90: e_y -> e_z -> e_z
    both = quat_mul(Z90, X90)
    torch.testing.assert_close(quat_rotate(both, torch.tensor([0.0, 1.0, 0.0])), torch.tensor([0.0, 0.0, 1.0]))


def test_rotation_equals_the_sandwich_product_and_conjugate_undoes_it_on_random_quaternions():
    g = torch.Generator().manual_seed(0)
    q, v = torch.randn(50, 4, generator=g), torch.randn(50, 3, generator=g)
    q = q / q.norm(dim=1, keepdim=True)
    rotated = quat_rotate(q, v)
    pure = torch.cat((v, torch.zeros(50, 1)), 1)
    sandwich = quat_mul(quat_mul(q, pure), quat_conjugate(q))[:, :3]
    torch.testing.assert_close(sandwich, rotated, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quat_rotate(quat_conjugate(q), rotated), v, rtol=1e-4, atol=1e-5)


def test_angle_does_not_depend_on_the_sign_of_the_quaternion():
    one = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert quat_angle(Z90, one).item() == pytest.approx(math.pi / 2, rel=1e-5)
    assert quat_angle(-Z90, one).item() == pytest.approx(math.pi / 2, rel=1e-5)


def test_euler_angles_and_their_quaternion():
    """Rz(yaw) Ry(pitch) Rx(roll), from products of single turns; and back."""
    generator = torch.Generator().manual_seed(2)
    for roll, pitch, yaw in (2.0 * torch.rand(20, 3, generator=generator) - 1.0) * torch.tensor([3.1, 1.5, 3.1]):
        single = [torch.zeros(4, dtype=torch.float64) for _ in range(3)]
        for axis, angle in enumerate((roll, pitch, yaw)):
            single[axis][axis], single[axis][3] = torch.sin(0.5 * angle), torch.cos(0.5 * angle)
        expected = quat_mul(single[2], quat_mul(single[1], single[0]))
        made = torch.tensor(quat_of_euler(float(roll), float(pitch), float(yaw)), dtype=torch.float64)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(euler_angles(made), torch.stack((roll, pitch, yaw)).double(), rtol=0, atol=1e-6)


def test_a_rotation_from_where_it_takes_two_axes():
    generator = torch.Generator().manual_seed(3)
    some = torch.nn.functional.normalize(torch.randn(30, 4, generator=generator, dtype=torch.float64), dim=1)
    for quat in [*some, *torch.eye(4, dtype=torch.float64)]:
        axes = quat_matrix(quat)
        found = torch.tensor(quat_of_axes((2.0 * axes[:, 1]).tolist(), axes[:, 2].tolist()), dtype=torch.float64)
        torch.testing.assert_close(found * torch.sign(found @ quat), quat, rtol=0, atol=1e-9)
