"""Ingenuity's formulas, targets, forces and flight against hand-computed numbers and independent restatements."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from tasks.robots.flight import FlightState
from tasks.robots.ingenuity import default_heuristic, draw_target, rotor_forces
from tests.kolmogorov import ONE_PERCENT, uniform_statistic
from tests.tasks.robots import make

MASS, G = 1.500117, 3.721
COM = 0.0117800  # m above the lower rotor
INERTIA = 2 * 3.98197e-3 + 2.0736e-4 + (0.0864 + 0.706858) * COM**2 + 0.706858 * (0.025 - COM) ** 2  # about x or y
LEVEL = (0.0, 0.0, 0.0, 1.0)
HOVER = MASS * G / 40  # action of both rotors that carries the weight


@pytest.fixture(scope="module")
def env():
    return make("Ingenuity", 4)


def place(env, pos=(0.0, 0.0, 1.0), quat=LEVEL, vel=(0.0,) * 3, spin=(0.0,) * 3, target=(0.0, 0.0, 1.0)):
    """The same state and target in every env, at the beginning of an episode."""
    everyone = torch.ones(env.num_envs, dtype=torch.bool)
    env.task.reset(everyone)
    env.task.target = torch.tensor(target).repeat(env.num_envs, 1)
    env.sim.set_state(everyone, root_state=torch.tensor([*pos, *quat, *vel, *spin]).repeat(env.num_envs, 1, 1))
    env.progress.zero_()


def push(*rotors):
    """(1, 6) actions of the two rotors, (x, y, z) each."""
    return torch.tensor([[*rotors[0], *rotors[1]]])


def fly(env, action, steps):
    """The root states (N, 13) after each of some steps with the same action (1, 6)."""
    seen = []
    for _ in range(steps):
        env.step(action.expand(env.num_envs, 6))
        seen.append(env.sim.root_state[:, 0].clone())
    return torch.stack(seen)


class TestFormulas:
    def test_heuristic_equals_its_restatement(self):
        n, g = 300, torch.Generator().manual_seed(0)
        offset, quat, spin = (torch.randn(n, k, generator=g) for k in (3, 4, 3))
        quat = quat / quat.norm(dim=1, keepdim=True)
        none = torch.zeros(n, 0)
        s = FlightState(offset, offset.square().sum(1), offset, quat, spin, spin, none, none, none)
        got = torch.stack(tuple(default_heuristic(s).values())).sum(0)
        expected = []
        for d, (x, y, z, w), (_, _, turn) in zip(*(v.double().numpy() for v in (offset, quat, spin))):
            position = 1 / (1 + float(d @ d))
            tilt = abs(1 - (w * w - x * x - y * y + z * z))
            expected.append(position + position * (5 / (1 + tilt * tilt) + 1 / (1 + turn * turn)))
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_by_hand(self, env):
        """2 m away, lying on the side, turning at 1 rad/s: P = 1/5, U = 5/2, S = 1/2."""
        half = math.sqrt(0.5)
        place(env, pos=(2.0, 0.0, 1.0), quat=(half, 0.0, 0.0, half), spin=(3.0, 0.0, 1.0))
        rewards = env.task.rewards()
        assert rewards.task.tolist() == pytest.approx([0.2] * 4)
        assert rewards.heuristic.tolist() == pytest.approx([0.2 + 0.2 * (2.5 + 0.5)] * 4)
        assert list(rewards.terms) == ["position", "upright", "spin"]

    def test_at_rest_on_the_target_both_are_at_their_maximum(self, env):
        place(env, pos=(3.0, -2.0, 1.5), target=(3.0, -2.0, 1.5))
        rewards = env.task.rewards()
        assert rewards.task.tolist() == pytest.approx([1.0] * 4)
        assert rewards.heuristic.tolist() == pytest.approx([7.0] * 4)


def test_observation_layout(env):
    half = math.sqrt(0.5)
    quat, spin = (0.0, half, 0.0, half), (math.pi, -math.pi / 2, 0.5)
    place(env, (0.3, -0.6, 1.9), quat, (1.0, 2.0, 3.0), spin, target=(3.3, 0.0, 1.0))
    expected = [1.0, 0.2, -0.3, 0.0, half, 0.0, half, 0.5, 1.0, 1.5, 1.0, -0.5, 0.5 / math.pi]
    assert env.task.observe()[0].tolist() == pytest.approx(expected, abs=1e-6)


class TestTargets:
    def test_redraws_are_uniform(self):
        env = make("Ingenuity", 128)
        env.reset()
        seen = []
        for _ in range(79):
            env.task.clock.fill_(1000)
            env.task.apply(torch.zeros(128, 6))
            seen.append(env.task.target.clone())
        share = (torch.cat(seen)[:10_000] - torch.tensor([-5.0, -5.0, 1.0])) / torch.tensor([10.0, 10.0, 1.0])
        assert uniform_statistic(share) < ONE_PERCENT
        assert share.min() >= 0.0 and share.max() <= 1.0

    def test_a_redraw_is_often_too_far_away(self):
        """Published: two targets are more than 8 m apart with a probability of 0.15, and that ends the episode."""
        a, b = draw_target(torch.rand(2, 10_000, 3, generator=torch.Generator().manual_seed(1)))
        assert ((a - b).norm(dim=1) > 8.0).float().mean().item() == pytest.approx(0.151, abs=0.01)

    def test_resets_start_around_the_pad_with_targets_anywhere(self):
        env = make("Ingenuity", 128)
        everyone = torch.ones(128, dtype=torch.bool)
        seen = []
        for _ in range(79):
            env.task.reset(everyone)
            seen.append(torch.cat((env.sim.root_state[:, 0], env.task.target), 1))
        values = torch.cat(seen)[:10_000]
        low, high = torch.tensor([[-1.5, -1.5, 0.8, -5.0, -5.0, 1.0], [1.5, 1.5, 2.5, 5.0, 5.0, 2.0]])
        share = (values[:, [0, 1, 2, 13, 14, 15]] - low) / (high - low)
        assert uniform_statistic(share) < ONE_PERCENT
        assert (torch.corrcoef(share.T) - torch.eye(6)).abs().max() < 0.05
        assert torch.equal(values[:, 3:13], torch.tensor([*LEVEL] + [0.0] * 6).repeat(10_000, 1))

    def test_a_target_lasts_499_steps_and_the_next_ones_500(self, env):
        """The published counter starts a real episode at 1 (its reset step is left out) and redraws at 500, 1000, …"""
        place(env)
        changed = []
        for step in range(1, 1999):
            before = env.task.target.clone()
            env.task.apply(torch.zeros(4, 6))
            if not torch.equal(env.task.target, before):
                assert (env.task.target != before).any(1).all()
                changed.append(step)
        assert changed == [500, 1000, 1500] and env.max_episode_length == 1998

    def test_only_due_envs_draw(self, env):
        place(env)
        env.task.clock += torch.tensor([498, 499, 500, 999])
        before = env.task.target.clone()
        result = env.step(torch.full((4, 6), HOVER))
        assert (env.task.target != before).any(1).tolist() == [False, True, False, True]
        # Rewards of that step belong to the new target, unseen by the action.
        distance = (env.task.target - env.sim.root_state[:, 0, :3]).norm(dim=1)
        alive = ~result.done
        assert alive[[0, 2]].all()
        torch.testing.assert_close(result.rewards[alive, 0], 1 / (1 + distance[alive] ** 2))
        assert (result.terminated == (result.metrics[:, 1] > 8.0)).all()

    def test_a_reset_starts_the_clock_and_the_target_anew(self, env):
        place(env)
        env.task.clock.fill_(300)
        before, mask = env.task.target.clone(), torch.tensor([False, True, True, False])
        env.task.reset(mask)
        assert env.task.clock.tolist() == [300, 1, 1, 300]
        assert torch.equal((env.task.target != before).any(1), mask)

    def test_target_and_clock_are_saved(self, env):
        place(env, target=(1.0, 2.0, 1.5))
        env.task.clock.fill_(497)
        other = make("Ingenuity", 4, seed=3)
        other.reset()
        obs = other.load_state(env.get_state())
        assert torch.equal(obs, env.task.observe().clamp(-5.0, 5.0))
        action = push((0.1, 0.0, HOVER), (0.0, 0.1, HOVER))
        torch.testing.assert_close(fly(other, action, 8), fly(env, action, 8), rtol=0, atol=0)
        assert torch.equal(other.task.target, env.task.target) and (env.task.target[:, 0] != 1.0).all()


class TestTermination:
    @pytest.mark.parametrize(
        "pos, target, over",
        [((0, 0, 0.51), (0, 0, 1), False), ((0, 0, 0.49), (0, 0, 1), True), ((0, 0, 1), (7.99, 0, 1), False),
         ((0, 0, 1), (8.01, 0, 1), True), ((0, 0, 8.9), (0, 0, 1), False), ((5, 5, 1), (-1, -1, 1), True)],
    )  # fmt: skip
    def test_too_far_or_too_low(self, env, pos, target, over):
        place(env, tuple(map(float, pos)), target=tuple(map(float, target)))
        assert env.task.terminated().tolist() == [over] * 4

    def test_time_limit_is_not_a_termination(self, env):
        place(env)
        env.progress[:2] = 1997
        result = env.step(torch.zeros(4, 6))
        assert result.time_out.tolist() == [True, True, False, False] and not result.terminated.any()


class TestForces:
    def test_mapping(self):
        """Vertical ±20 N; lateral the clamped fraction of it, changing sign with it; 0:3 are the lower rotor's."""
        got = rotor_forces(push((0.1, -1.0, 1.0), (0.2, 0.15, -0.5)))
        expected = torch.tensor([[[2.0, -4.0, 20.0], [-2.0, -1.5, -10.0]]])
        torch.testing.assert_close(got, expected)
        assert rotor_forces(push((1.0, 1.0, 0.0), (1.0, 1.0, 0.0))).abs().max() == 0.0

    def test_masses_are_those_of_the_shapes(self, env):
        disc = 1000 * math.pi * 0.15**2 * 0.01
        model = env.sim.model
        assert model.body_mass[1:].tolist() == pytest.approx([50 * 0.12**3, disc, disc])
        assert model.body_mass.sum() == pytest.approx(MASS, abs=1e-5)
        assert model.body_inertia[2].tolist() == pytest.approx([3.98197e-3, 3.98197e-3, 7.95216e-3], rel=1e-4)
        assert disc * 0.025 / MASS == pytest.approx(COM, abs=1e-6)

    def test_hovering_takes_the_weight_on_mars(self, env):
        place(env)
        end = fly(env, push((0.0, 0.0, HOVER), (0.0, 0.0, HOVER)), 200)[-1]
        assert end[:, :3].sub(torch.tensor([0.0, 0.0, 1.0])).abs().max() < 1e-3 and end[:, 10:].abs().max() < 1e-4

    @pytest.mark.parametrize("action", [0.0, 1.0, -0.3])
    def test_vertical_acceleration(self, env, action):
        """z after n physics steps of semi-implicit Euler: a h^2 n (n + 1) / 2."""
        place(env, pos=(0.0, 0.0, 3.0))
        a, n = 40 * action / MASS - G, 20
        end = fly(env, push((0.0, 0.0, action), (0.0, 0.0, action)), n // 2)[-1, 0]
        assert end[2].item() - 3 == pytest.approx(a * 0.005**2 * n * (n + 1) / 2, rel=1e-3)
        assert end[9].item() == pytest.approx(a * 0.005 * n, rel=1e-3) and end[:2].abs().max() < 1e-6

    def test_opposite_lateral_thrusts_turn_it(self, env):
        """±4 N on rotors 0.025 m apart: a torque of 0.1 N m about y, and none about the axis."""
        place(env, pos=(0.0, 0.0, 3.0))
        root = fly(env, push((-1.0, 0.0, 1.0), (1.0, 0.0, 1.0)), 1)[0, 0]
        assert root[10:].tolist() == pytest.approx([0.0, 0.1 / INERTIA * 0.01, 0.0], abs=2e-4)

    def test_the_force_turns_with_the_body(self, env):
        """Rolled by 90 degrees about x, up is -y."""
        half = math.sqrt(0.5)
        place(env, pos=(0.0, 0.0, 3.0), quat=(half, 0.0, 0.0, half))
        velocity = fly(env, push((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)), 1)[0, 0, 7:10]
        assert velocity.tolist() == pytest.approx([0.0, -40 / MASS * 0.01, -G * 0.01], abs=1e-3)

    def test_it_cannot_turn_about_its_axis(self, env):
        """No action has a yaw torque, and a symmetric top at rest about its axis stays so: body-frame spin z is 0."""
        place(env, pos=(0.0, 0.0, 4.0), target=(0.0, 0.0, 4.0))
        g = torch.Generator().manual_seed(0)
        for _ in range(40):
            result = env.step(2 * torch.rand(4, 6, generator=g) - 1)
            assert not result.done.any()
        quat, spin = env.sim.root_state[:, 0, 3:7], env.sim.root_state[:, 0, 10:]
        x, y, z, w = quat.unbind(1)
        axis = torch.stack((2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)), 1)
        assert spin.norm(dim=1).max() > 0.2 and (axis * spin).sum(1).abs().max() < 5e-3


def test_heuristic_names():
    with pytest.raises(UserError, match="'bad'.*default"):
        make("Ingenuity", 1, "heuristic=bad")
