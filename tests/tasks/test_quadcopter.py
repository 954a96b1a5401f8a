"""Quadcopter's formulas, resets, actions and flight against hand-computed numbers and independent restatements."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.envs.math import quat_matrix
from hepo_isaac.errors import UserError
from tasks.robots.flight import FlightState, start_roots, task_reward
from tasks.robots.quadcopter import (
    INERTIA_ACROSS,
    INERTIA_ALONG,
    MAX_THRUST,
    bad_heuristic,
    default_heuristic,
    spin_brake,
    z_axis,
)
from tests.kolmogorov import ONE_PERCENT, uniform_statistic
from tests.tasks.robots import make

G = 9.81
LEVEL = (0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def env():
    return make("Quadcopter", 4)


def place(env, pos=(0.0, 0.0, 1.0), quat=LEVEL, vel=(0.0,) * 3, spin=(0.0,) * 3, joints=(0.0,) * 8, thrust=0.0):
    """The same state in every env."""
    n = env.num_envs
    root = torch.tensor([*pos, *quat, *vel, *spin]).repeat(n, 1, 1)
    q = torch.tensor(joints).repeat(n, 1)
    env.task.reset(torch.ones(n, dtype=torch.bool))
    env.sim.set_state(torch.ones(n, dtype=torch.bool), q, torch.zeros(n, 8), root, dof_target_pos=q)
    env.task.thrust = torch.full((n, 4), thrust)
    env.progress.zero_()


def fly(env, action, steps):
    """Actions (K,) or (N, K) for some steps; the root states (N, 13) after each."""
    seen = []
    for _ in range(steps):
        env.step(torch.as_tensor(action).expand(env.num_envs, 12))
        seen.append(env.sim.root_state[:, 0].clone())
    return torch.stack(seen)


class TestFormulas:
    @staticmethod
    def states(n=300, seed=0):
        g = torch.Generator().manual_seed(seed)
        quat = torch.randn(n, 4, generator=g)
        offset = torch.randn(n, 3, generator=g)
        return FlightState(
            to_target=offset,
            distance2=offset.square().sum(1),
            pos=torch.randn(n, 3, generator=g),
            quat=quat / quat.norm(dim=1, keepdim=True),
            lin_vel=torch.randn(n, 3, generator=g),
            ang_vel=3 * torch.randn(n, 3, generator=g),
            joints=torch.zeros(n, 8),
            thrust=torch.zeros(n, 4),
            actions=torch.zeros(n, 12),
        )

    @staticmethod
    def restated(offset, quat, spin, z, bad):
        """h of one env in float64, with the attitude as the textbook's rotation matrix."""
        position = 1 / (1 + float(offset @ offset))
        x, y, z_, w = quat
        up = w * w - x * x - y * y + z_ * z_
        tilt = abs(1 - up)
        h = position + position * (1 / (1 + tilt * tilt) + 1 / (1 + spin[2] ** 2))
        return h + (z if bad else 0.0)

    @pytest.mark.parametrize("heuristic, bad", [(default_heuristic, False), (bad_heuristic, True)])
    def test_heuristic_equals_its_restatement(self, heuristic, bad):
        s = self.states()
        got = torch.stack(tuple(heuristic(s).values())).sum(0)
        rows = zip(*(x.double().numpy() for x in (s.to_target, s.quat, s.ang_vel, s.pos[:, 2])))
        np.testing.assert_allclose(got.numpy(), [self.restated(*row, bad) for row in rows], rtol=1e-5, atol=1e-6)

    def test_by_hand(self, env):
        """1 m from the point, upside down, turning at 2 rad/s: P = 1/2, U = 1/5, S = 1/5."""
        place(env, pos=(1.0, 0.0, 1.0), quat=(1.0, 0.0, 0.0, 0.0), spin=(5.0, 0.0, 2.0))
        rewards = env.task.rewards()
        assert rewards.task.tolist() == pytest.approx([0.5] * 4)
        assert rewards.heuristic.tolist() == pytest.approx([0.5 + 0.5 * (0.2 + 0.2)] * 4)
        got = {name: value[0].item() for name, value in bad_heuristic(env.task.state()).items()}
        assert got == pytest.approx({"position": 0.5, "upright": 0.1, "spin": 0.1, "height": 1.0})

    def test_at_rest_on_the_point_both_are_at_their_maximum(self, env):
        place(env)
        rewards = env.task.rewards()
        assert rewards.task.tolist() == pytest.approx([1.0] * 4) and rewards.heuristic.tolist() == pytest.approx(
            [3.0] * 4
        )

    def test_task_reward_is_positive_and_falls_with_distance(self):
        r = task_reward(torch.linspace(0.0, 3.0, 50).square())
        assert (r[1:] < r[:-1]).all() and r[-1].item() == pytest.approx(0.1)

    def test_z_axis_is_the_third_column(self):
        quat = self.states().quat
        torch.testing.assert_close(z_axis(quat), quat_matrix(quat)[..., 2])


def test_observation_layout(env):
    joints = [0.01 * i for i in range(8)]
    half = math.sqrt(0.5)
    place(env, (0.3, -0.6, 1.9), (half, 0.0, 0.0, half), (1.0, 2.0, 3.0), (math.pi, -math.pi / 2, 0.5), joints)
    expected = [-0.1, 0.2, -0.3, half, 0.0, 0.0, half, 0.5, 1.0, 1.5, 1.0, -0.5, 0.5 / math.pi, *joints]
    assert env.task.observe()[0].tolist() == pytest.approx(expected, abs=1e-6)


class TestReset:
    @pytest.fixture(scope="class")
    def draws(self):
        env = make("Quadcopter", 128)
        everyone = torch.ones(128, dtype=torch.bool)
        roots, joints = [], []
        for _ in range(79):
            env.task.reset(everyone)
            roots.append(env.sim.root_state[:, 0].clone())
            joints.append(env.sim.dof_pos.clone())
        return torch.cat(roots)[:10_000], torch.cat(joints)[:10_000]

    def test_positions_and_joints_are_uniform(self, draws):
        roots, joints = draws
        low, high = [-1.5, -1.5, 0.8] + [-0.2] * 8, [1.5, 1.5, 2.5] + [0.2] * 8
        values = torch.cat((roots[:, :3], joints), 1)
        share = (values - torch.tensor(low)) / (torch.tensor(high) - torch.tensor(low))
        assert uniform_statistic(share) < ONE_PERCENT
        assert share.min() >= 0.0 and share.max() <= 1.0
        correlation = torch.corrcoef(values.T) - torch.eye(11)
        assert correlation.abs().max() < 0.05

    def test_level_and_at_rest(self, draws):
        assert torch.equal(draws[0][:, 3:], torch.tensor([*LEVEL] + [0.0] * 6).repeat(10_000, 1))

    def test_farthest_start_is_inside(self):
        corner = start_roots(torch.ones(1, 3))[0, 0, :3] - torch.tensor([0.0, 0.0, 1.0])
        assert corner.norm().item() == pytest.approx(2.598, abs=1e-3)

    def test_only_masked_thrusts_and_targets_start_anew(self, env):
        place(env, thrust=0.7)
        fly(env, [0.3] * 8 + [0.1] * 4, 2)
        targets, mask = env.sim.dof_target_pos.clone(), torch.tensor([True, False, False, True])
        env.task.reset(mask)
        assert (env.task.thrust[mask] == 0.0).all() and (env.task.thrust[~mask] == pytest.approx(1.1, abs=1e-5))
        assert torch.equal(env.sim.dof_target_pos[~mask], targets[~mask])
        assert torch.equal(env.sim.dof_target_pos[mask], env.sim.dof_pos[mask])


def test_thrusts_are_saved(env):
    place(env, thrust=0.4)
    state = env.get_state()
    other = make("Quadcopter", 4, seed=3)
    other.reset()
    other.load_state(state)
    assert torch.equal(other.task.state().thrust, torch.full((4, 4), 0.4))
    torch.testing.assert_close(fly(other, [0.1] * 12, 5), fly(env, [0.1] * 12, 5), rtol=0, atol=0)


class TestTermination:
    @pytest.mark.parametrize(
        "pos, over",
        [((2.99, 0, 1), False), ((3.01, 0, 1), True), ((0, 0, 3.99), False), ((0, 0, 4.01), True),
         ((0, 0, 0.31), False), ((0, 0, 0.29), True), ((2.2, 2.2, 1.0), True)],
    )  # fmt: skip
    def test_too_far_or_too_low(self, env, pos, over):
        place(env, tuple(float(x) for x in pos))
        assert env.task.terminated().tolist() == [over] * 4

    def test_time_limit_is_not_a_termination(self, env):
        place(env, thrust=0.6169)
        env.progress[:2] = 497
        result = env.step(torch.zeros(4, 12))
        assert env.max_episode_length == 498
        assert result.time_out.tolist() == [True, True, False, False] and not result.terminated.any()
        assert env.task.thrust[:2].abs().max() == 0.0 and env.task.thrust[2:].min() > 0.6

    def test_hovering_counts_within_twenty_centimetres(self, env):
        for x, hovering in ((0.19, True), (0.21, False)):
            place(env, (x, 0.0, 1.0))
            metrics = env.task.metrics()
            assert metrics["hovering"].tolist() == [hovering] * 4
            assert metrics["final_distance"].tolist() == pytest.approx([x] * 4, abs=1e-6)


class TestActions:
    def test_joint_targets_integrate_and_stop_at_thirty_degrees(self, env):
        place(env)
        fly(env, [1.0, -1.0, 0.5] + [0.0] * 9, 1)
        assert env.sim.dof_target_pos[0, :4].tolist() == pytest.approx([0.25133, -0.25133, 0.12566, 0.0], abs=1e-5)
        fly(env, [1.0, -1.0, 0.5] + [0.0] * 9, 3)
        assert env.sim.dof_target_pos[0, :3].tolist() == pytest.approx([math.pi / 6, -math.pi / 6, 0.50265], abs=1e-5)

    def test_thrusts_integrate_between_nought_and_two_newtons(self, env):
        place(env)
        seen = []
        for a in (0.25, 0.25, 1.0, -0.1, -1.0):
            fly(env, [0.0] * 8 + [a, 0.0, 0.0, -a], 1)
            seen.append(env.task.thrust[0].tolist())
        assert [row[0] for row in seen] == pytest.approx([0.5, 1.0, 2.0, 1.8, 0.0], abs=1e-6)
        assert [row[3] for row in seen] == pytest.approx([0.0, 0.0, 0.0, 0.2, 2.0], abs=1e-6)

    def test_joints_follow_their_targets(self):
        """A stiff drive, as PhysX's: the mean error after a step of random motion is below a hundredth of the range."""
        env = make("Quadcopter", 16)
        env.reset()
        g, errors = torch.Generator().manual_seed(0), []
        for _ in range(60):
            env.task.apply(2 * torch.rand(16, 12, generator=g) - 1)
            env.sim.step()
            errors.append((env.sim.dof_pos - env.sim.dof_target_pos).abs().mean())
        assert torch.stack(errors).mean() < 0.005


class TestFlight:
    def test_masses_are_those_of_the_shapes(self, env):
        chassis, arm, rotor = 50 * math.pi * 0.01 * 0.03, 200 * 4 / 3 * math.pi * 1e-6, 1000 * math.pi * 0.0016 * 0.01
        model = env.sim.model
        assert model.body_mass[1:].tolist() == pytest.approx([chassis] + 4 * [arm, rotor])
        assert model.body_mass.sum() == pytest.approx(0.25154, abs=1e-5)
        cylinder = [rotor * (3 * 0.0016 + 1e-4) / 12] * 2 + [rotor * 0.0016 / 2]
        assert model.body_inertia[3].tolist() == pytest.approx(cylinder)

    def test_inertia_of_the_brake_is_the_whole_aircraft_s(self, env):
        """MuJoCo's mass matrix of the free joint, all rotor joints at 0."""
        model = env.sim.model
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, full)
        assert np.diag(full)[3:6] == pytest.approx([INERTIA_ACROSS, INERTIA_ACROSS, INERTIA_ALONG], rel=1e-3)

    def test_hover_thrust_balances_the_weight(self, env):
        place(env, thrust=0.25154 * G / 4)
        end = fly(env, [0.0] * 12, 100)[-1]
        assert end[:, :3].sub(torch.tensor([0.0, 0.0, 1.0])).abs().max() < 2e-3 and end[:, 10:].abs().max() < 1e-3

    @pytest.mark.parametrize("thrust", [0.0, MAX_THRUST])
    def test_vertical_acceleration(self, env, thrust):
        """z after n physics steps of semi-implicit Euler: a h^2 n (n + 1) / 2."""
        place(env, thrust=thrust)
        a, n = 4 * thrust / 0.251537 - G, 20
        end = fly(env, [0.0] * 12, n // 2)[-1, 0]
        assert end[2].item() - 1 == pytest.approx(a * 0.005**2 * n * (n + 1) / 2, rel=1e-3)
        assert end[9].item() == pytest.approx(a * 0.005 * n, rel=1e-3) and end[:2].abs().max() < 1e-5

    def test_thrust_points_along_the_tilted_aircraft(self, env):
        """Rolled by 90 degrees about x, up is -y: full thrust pushes there."""
        half = math.sqrt(0.5)
        place(env, quat=(half, 0.0, 0.0, half), thrust=MAX_THRUST)
        velocity = fly(env, [0.0] * 12, 1)[0, 0, 7:10]
        assert velocity.tolist() == pytest.approx([0.0, -8 / 0.25154 * 0.01, -G * 0.01], abs=2e-3)

    def test_more_thrust_in_front_lifts_the_nose(self, env):
        """Rotors 0 and 3 are at x = 0.145 m cos 45: the torque is 2 x 1 N x 0.1025 m about -y."""
        place(env, thrust=0.5)
        spin = fly(env, [0.0] * 8 + [0.25, -0.25, -0.25, 0.25], 1)[0, 0, 10:]
        assert spin[1].item() == pytest.approx(-0.205 / INERTIA_ACROSS * 0.01, rel=0.05)
        assert spin[[0, 2]].abs().max() < 1e-3

    def test_rotors_rolled_alike_turn_the_aircraft_about_its_axis(self, env):
        """Rolled by 0.3 rad about the outward axis each thrust pushes clockwise (seen from above)."""
        place(env, joints=(0.0, 0.3) * 4, thrust=0.8)
        end = fly(env, [0.0] * 12, 3)[-1, 0]
        angle = 4 * 0.8 * math.sin(0.3) * 0.145 / INERTIA_ALONG * 0.03
        assert end[12].item() == pytest.approx(-angle, rel=0.05) and end[10:12].abs().max() < 1e-3

    def test_a_quarter_turn_is_a_symmetry(self, env):
        """What one arm does, done by the next one: the same flight, turned by 90 degrees."""
        n, g = 4, torch.Generator().manual_seed(1)
        place(env)
        joints = 0.2 * torch.randn(1, 8, generator=g)
        q = torch.cat([joints.roll(2 * k, 1) for k in range(n)])
        everyone = torch.ones(n, dtype=torch.bool)
        env.sim.set_state(everyone, q, torch.zeros(n, 8), env.sim.root_state.clone(), dof_target_pos=q)
        for _ in range(15):
            a = 0.4 * torch.randn(12, generator=g)
            actions = torch.stack([torch.cat((a[:8].roll(2 * k), a[8:].roll(k))) for k in range(n)])
            env.step(actions)
        root = env.sim.root_state[:, 0]
        assert root[0, 10:].norm() > 0.3  # it did tumble
        for k in range(1, n):
            c, s = round(math.cos(k * math.pi / 2)), round(math.sin(k * math.pi / 2))
            turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
            for part in (slice(0, 3), slice(7, 10), slice(10, 13)):
                torch.testing.assert_close(root[k, part], turn @ root[0, part], rtol=1e-3, atol=1e-4)


class TestSpinLimit:
    @pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.0, -0.8)])
    def test_a_fast_spin_is_braked_within_two_steps(self, env, axis):
        place(env, spin=tuple(40.0 * x for x in axis))
        speed = fly(env, [0.0] * 12, 2)[..., 10:].norm(dim=-1)
        assert speed[0].max() < 14.0 and speed[1].max() < 12.7

    def test_slower_spins_are_left_alone_beside_fast_ones(self, env):
        place(env, spin=(0.0, 0.0, 12.0))
        root = env.sim.root_state.clone()
        root[1, 0, 12] = 30.0
        env.sim.set_state(torch.arange(4) == 1, root_state=root)
        spin = fly(env, [0.0] * 12, 1)[0, :, 12]
        assert spin[[0, 2, 3]].tolist() == pytest.approx([12.0] * 3, abs=1e-3)
        assert spin[1].item() == pytest.approx(12.566, abs=0.2)

    def test_torque(self):
        """I (limit - spin) / dt: across, along, and nothing below the limit."""
        spin = torch.tensor([[30.0, 0.0, 0.0], [0.0, 0.0, -30.0], [3.0, 4.0, 0.0]])
        got = spin_brake(spin, torch.tensor([[0.0, 0.0, 1.0]]).repeat(3, 1), 10.0, 0.01)
        expected = torch.tensor([[-2000 * INERTIA_ACROSS, 0, 0], [0, 0, 2000 * INERTIA_ALONG], [0, 0, 0]])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)

    def test_it_can_be_switched_off(self):
        env = make("Quadcopter", 1, "task.physics.max_spin=null")
        place(env, spin=(0.0, 0.0, 40.0))
        assert fly(env, [0.0] * 12, 2)[-1, 0, 12].item() == pytest.approx(40.0, rel=0.02)


def test_heuristic_names():
    with pytest.raises(UserError, match="'h13'.*bad.*default"):
        make("Quadcopter", 1, "heuristic=h13")
    env = make("Quadcopter", 1, "heuristic=bad")
    place(env)
    assert env.task.rewards().heuristic.item() == pytest.approx(4.0) and env.task.rewards().task.item() == 1.0
