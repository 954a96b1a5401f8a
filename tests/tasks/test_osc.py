"""Operational-space control against the textbook formulas with explicit inverses in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tasks.robots.osc import (
    REGULARISATION,
    batch_first,
    batch_last,
    factorise,
    forward,
    limit_speed,
    operational_space_torque,
    posture_acceleration,
    product,
    shift_jacobian,
    solve,
    wrap_angle,
)

N = 50


@pytest.fixture
def arm():
    """Inertias like an arm's, from 2 down to 0.01 kg m^2, with couplings, and Jacobians; numpy, float64."""
    rng = np.random.default_rng(0)
    scale = np.array([1.3, 0.8, 1.0, 0.9, 0.2, 0.2, 0.1])
    mix = 0.4 * rng.standard_normal((N, 7, 7)) + np.eye(7)
    mass = scale[:, None] * (mix @ mix.transpose(0, 2, 1)) * scale + 1e-3 * np.eye(7)
    return mass, 0.6 * rng.standard_normal((N, 6, 7)), rng.standard_normal((N, 6)), rng.standard_normal((N, 7))


def last(x):
    return batch_last(torch.tensor(x))


def first(x):
    return x.t().numpy()


def published(mass, jacobian, task, posture):
    """u = J^T L a + (1 - J^T L J M^-1) M w, world by world; L regularised as ours (the published one is not)."""
    torques = []
    for m, j, a, w in zip(mass, jacobian, task, posture):
        inverse = np.linalg.inv(m)
        lam = np.linalg.inv(j @ inverse @ j.T + REGULARISATION * np.eye(6))
        torques.append(j.T @ lam @ a + (np.eye(len(m)) - j.T @ lam @ j @ inverse) @ m @ w)
    return np.array(torques)


def test_factors_multiply_back_and_solve(arm):
    mass, right = arm[0], arm[3]
    factors = factorise(last(mass))
    lower = torch.eye(7, dtype=torch.float64).unsqueeze(-1).repeat(1, 1, N)
    for j, column in enumerate(factors.columns):
        lower[j + 1 :, j] = column
    lower = lower.movedim(-1, 0).numpy()
    pivots = factors.pivots.t().numpy()
    np.testing.assert_allclose(lower * pivots[:, None] @ lower.transpose(0, 2, 1), mass, rtol=1e-10, atol=1e-12)
    assert (pivots > 0).all()
    np.testing.assert_allclose(first(solve(factors, last(right))), np.linalg.solve(mass, right[..., None])[..., 0])
    got = forward(factors, last(mass)).movedim(-1, 0).numpy()
    np.testing.assert_allclose(got, np.linalg.solve(lower, mass), rtol=1e-8, atol=1e-10)
    assert np.array_equal(first(product(last(mass), last(right))).shape, (N, 7))
    torch.testing.assert_close(factors.matrix, last(mass), rtol=0, atol=0)  # inputs stay as they were


def test_torque_equals_the_published_formula(arm):
    mass, jacobian, task, posture = arm
    got = operational_space_torque(factorise(last(mass)), last(jacobian), last(task), last(posture))
    np.testing.assert_allclose(first(got), published(mass, jacobian, task, posture), rtol=1e-6, atol=1e-8)


def test_the_hand_accelerates_as_commanded_whatever_the_posture_wants(arm):
    mass, jacobian, task, posture = arm
    for wish in (posture, 0.0 * posture, 100.0 * posture):
        torque = first(operational_space_torque(factorise(last(mass)), last(jacobian), last(task), last(wish)))
        joints = np.linalg.solve(mass, torque[..., None])
        np.testing.assert_allclose((jacobian @ joints)[..., 0], task, rtol=1e-4, atol=1e-3)


def test_a_posture_the_hand_does_not_notice_is_followed_exactly(arm):
    mass, jacobian, _, _ = arm
    null = np.linalg.svd(jacobian)[2][:, -1]  # (N, 7) joint motions that keep the hand still
    torque = first(operational_space_torque(factorise(last(mass)), last(jacobian), last(np.zeros((N, 6))), last(null)))
    np.testing.assert_allclose(np.linalg.solve(mass, torque[..., None])[..., 0], null, atol=1e-6)


def test_a_singular_arm_gives_finite_torques(arm):
    mass, jacobian, task, posture = arm
    jacobian[:, 1] = jacobian[:, 0]
    jacobian[0] = 0.0
    got = operational_space_torque(factorise(last(mass)), last(jacobian), last(task), last(posture))
    assert got.isfinite().all()


def test_shifted_jacobian_gives_the_velocity_of_the_shifted_point(arm):
    jacobian, speed = arm[1], arm[3]
    offset = np.random.default_rng(1).standard_normal((N, 3))
    shifted = shift_jacobian(last(jacobian), last(offset)).movedim(-1, 0).numpy()
    twist = (jacobian @ speed[..., None])[..., 0]
    expected = twist[:, :3] + np.cross(twist[:, 3:], offset)
    np.testing.assert_allclose((shifted @ speed[..., None])[:, :3, 0], expected)
    assert np.array_equal(shifted[:, 3:], jacobian[:, 3:])


def test_angles_wrap_to_half_a_turn():
    turns = torch.tensor([0.0, 3.0, -3.0, 4.0, -4.0, 7.0], dtype=torch.float64)
    expected = [0.0, 3.0, -3.0, 4.0 - 2 * math.pi, 2 * math.pi - 4.0, 7.0 - 2 * math.pi]
    assert wrap_angle(turns).tolist() == pytest.approx(expected)


def test_posture_pull_is_critically_damped_and_takes_the_short_way():
    rest, position = torch.tensor([[3.0]]), torch.tensor([[-3.0]])
    got = posture_acceleration(position, torch.tensor([[0.5]]), rest, 10.0)
    assert got.item() == pytest.approx(10.0 * (6.0 - 2 * math.pi) - 2 * math.sqrt(10.0) * 0.5, rel=1e-5)


class TestSpeedLimit:
    DT = 1 / 60

    def limit(self, mass, torque, speed, limit):
        got = limit_speed(factorise(last(mass)), last(torque), last(speed), last(limit[None]), self.DT)
        return first(got)

    def test_slow_joints_are_left_alone(self, arm):
        mass, torque, speed = arm[0], 0.01 * arm[3], 0.1 * arm[3]
        np.testing.assert_allclose(self.limit(mass, torque, speed, np.full(7, 1e4)), torque, atol=1e-9)

    def test_no_joint_is_predicted_to_exceed_its_limit_and_the_others_go_on(self, arm):
        mass, torque, speed = arm[0], 20.0 * arm[3], arm[3][:, ::-1].copy()
        limit = np.array([2.175] * 4 + [2.61] * 3)
        free = speed + self.DT * np.linalg.solve(mass, torque[..., None])[..., 0]
        got = self.limit(mass, torque, speed, limit)
        after = speed + self.DT * np.linalg.solve(mass, got[..., None])[..., 0]
        assert (np.abs(free) > limit).any() and (np.abs(free) < limit).any()
        np.testing.assert_allclose(after, np.clip(free, -limit, limit), atol=1e-8)


def test_layouts_are_inverse_to_each_other(arm):
    x = torch.tensor(arm[3], dtype=torch.float32)
    assert torch.equal(batch_first(batch_last(x)), x)
    assert batch_last(x).is_contiguous() and batch_last(x).dtype == torch.float64
