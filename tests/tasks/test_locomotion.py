"""What Ant and Humanoid share: progress, posture, resets, episodes; and that their worlds are mirror-symmetric."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from tasks.robots.locomotion import approach, posture_bonus, wrap
from tests.tasks.robots import actions, make, play
from tests.tasks.walkers import DT, everyone, geometry, put, scatter, speed_to_target

FALL = {"Ant": (0.31, -2.0), "Humanoid": (0.8, -1.0)}
START = {"Ant": 0.44, "Humanoid": 1.34}
# Reflection in the plane y = 0: which joint takes each joint's place, and with which sign.
MIRROR = {
    "Ant": ([6, 7, 4, 5, 2, 3, 0, 1], [-1, 1] * 4),
    "Humanoid": (
        [0, 1, 2, *range(9, 15), *range(3, 9), 18, 19, 20, 15, 16, 17],
        [-1, 1, -1, *([1, 1, 1, 1, 1, -1] * 2), *([1] * 6)],
    ),
}
MIRRORED_ROOT = torch.tensor([1, -1, 1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1.0])


@pytest.fixture(scope="module", params=["Ant", "Humanoid"])
def env(request):
    env = make(request.param, 16)
    env.reset()
    yield env
    env.close()


class TestApproach:
    def test_equals_the_difference_of_distances(self):
        g = torch.Generator().manual_seed(0)
        before, after, target = 20 * torch.randn(3, 200, 2, generator=g)
        got = approach(before, after, target)
        b, a, t = (x.double().numpy() for x in (before, after, target))
        expected = [math.dist(t[i], b[i]) - math.dist(t[i], a[i]) for i in range(200)]
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)

    def test_a_crawl_is_not_lost_in_a_kilometre(self):
        """0.001 m/s: the published difference of float32 potentials is a multiple of 0.0039 m/s."""
        target = torch.tensor([1000.0, 0.0])
        before = torch.tensor([[0.1, 0.3], [0.1, 0.3]])
        after = before + torch.tensor([[0.001 * DT, 0.0], [-0.001 * DT, 0.0]])
        speed = approach(before, after, target) / DT
        assert speed.tolist() == pytest.approx([0.001, -0.001], rel=2e-3)
        potential = [-(target - x).norm(dim=1) / DT for x in (before, after)]
        assert (potential[1] - potential[0]).abs()[0].item() in (0.0, 0.00390625)


def test_wrap():
    assert wrap(torch.tensor([0.0, 3.1, 3.2, -3.2, 7.0])).tolist() == pytest.approx(
        [0.0, 3.1, 3.2 - 2 * math.pi, 2 * math.pi - 3.2, 7.0 - 2 * math.pi], abs=1e-6
    )


def test_posture_bonus_thresholds():
    """0.1 above 0.93 and nothing at it; 0.5 from 0.8 on, in proportion below and negative backwards."""
    up, heading = posture_bonus(torch.tensor([0.929, 0.931, 1.0, -1.0]), torch.tensor([0.4, 0.8, 1.0, -1.0]))
    assert up.tolist() == pytest.approx([0.0, 0.1, 0.1, 0.0])
    assert heading.tolist() == pytest.approx([0.25, 0.5, 0.5, -0.625])


class TestState:
    def test_geometry_equals_its_restatement(self, env):
        scatter(env)
        state, roots = env.task.state(), env.sim.root_state[:, 0].double().numpy()
        for i, root in enumerate(roots):
            expected = geometry(root)
            for field in ("velocity", "spin", "up", "heading"):
                np.testing.assert_allclose(getattr(state, field)[i].numpy(), expected[field], atol=2e-5)
            seen = state.angles[i].double().numpy()
            wanted = np.array([expected["yaw"], expected["roll"], expected["to_target"]])
            np.testing.assert_allclose(np.exp(1j * seen), np.exp(1j * wanted), atol=2e-5)
            assert state.height[i].item() == pytest.approx(root[2])

    def test_progress_is_the_change_of_potential(self, env):
        for seed in range(3):
            scatter(env, seed)
            before = env.sim.root_state[:, 0].double().numpy()
            reward = env.step(actions(env, seed, 1)[0]).rewards[:, 0]
            after = env.sim.root_state[:, 0].double().numpy()  # nobody is low enough to be reset
            expected = [speed_to_target(b, a) for b, a in zip(before, after)]
            np.testing.assert_allclose(reward.numpy(), expected, rtol=1e-4, atol=2e-4)
            assert reward.abs().max() > 0.5

    def test_a_new_episode_starts_without_progress(self, env):
        env.reset()
        play(env, actions(env, 0, 5))
        moving = env.task.state()
        assert (moving.progress != 0).all() and (moving.distance != 0).all()
        speed = moving.progress.clone()
        mask = torch.arange(16) % 2 == 0
        env.task.reset(mask)
        fresh = env.task.state()
        for value in (fresh.progress, fresh.distance, fresh.actions, fresh.foot_load.flatten(1)):
            assert value[mask].abs().max() == 0.0
        assert torch.equal(fresh.progress[~mask], speed[~mask])
        env.task.state()
        reward = env.step(torch.zeros(16, env.num_actions)).rewards[:, 0]
        assert reward.abs().max() < 10.0  # and no jump in its first step

    def test_reading_twice_changes_nothing(self, env):
        env.reset()
        env.step(actions(env, 1, 1)[0])
        first = env.task.rewards()
        again = env.task.rewards()
        assert torch.equal(first.task, again.task) and torch.equal(first.heuristic, again.heuristic)

    def test_progress_survives_saving(self, env):
        env.reset()
        play(env, actions(env, 2, 4))
        other = make(env.task.name, 16, seed=7)
        other.reset()
        other.task.state()
        other.load_state(env.get_state())
        for field in ("progress", "distance", "actions", "heading"):
            assert torch.equal(getattr(other.task.state(), field), getattr(env.task.state(), field)), field
        assert env.task.state().progress.abs().max() > 0


class TestEpisode:
    def test_a_reset_puts_the_root_at_its_place_at_rest(self, env):
        play(env, actions(env, 0, 3))
        env.reset()
        expected = torch.tensor([0.0, 0.0, START[env.task.name], 0.0, 0.0, 0.0, 1.0] + [0.0] * 6)
        assert torch.equal(env.sim.root_state[:, 0], expected.expand(16, 13))

    def test_a_low_root_is_a_fall_and_replaces_h(self, env):
        threshold, value = FALL[env.task.name]
        env.reset()
        heights = torch.full((16,), threshold + 0.02)
        heights[::2] = threshold - 0.02
        pos = torch.zeros(16, 3)
        pos[:, 2] = heights
        roll = {"Ant": math.pi, "Humanoid": math.pi / 2}[env.task.name]  # so that nothing touches the ground
        put(env, pos=pos, quat=[math.sin(roll / 2), 0.0, 0.0, math.cos(roll / 2)], lin=[1.0, 0.0, 0.0])
        result = env.step(torch.zeros(16, env.num_actions))
        assert result.terminated[::2].all() and not result.time_out.any()
        assert torch.equal(result.done, result.terminated) and not result.done[1::2].any()
        torch.testing.assert_close(result.rewards[::2, 1], torch.full((8,), value))
        assert result.rewards[::2, 0].min() > 0.9  # the task reward of that step stays
        assert result.metrics[::2, result.metric_names.index("fell")].all()
        # TaskEnv has put them back
        assert (env.sim.root_state[::2, 0, 2] - START[env.task.name]).abs().max() < 1e-6

    def test_threshold_of_a_fall(self, env):
        """The published comparison is strict: a root exactly there still stands."""
        threshold, value = FALL[env.task.name]
        env.reset()
        state = env.task.state()
        state.height = torch.tensor([threshold, math.nextafter(threshold, 0) - 1e-6] * 8)
        total = torch.stack(list(env.task.heuristics["default"](state).values())).sum(0)
        assert env.task.terminated().tolist() == [False, True] * 8
        assert (total[::2] > 0).all() and torch.allclose(total[1::2], torch.tensor(value), atol=1e-6)

    def test_time_limit(self, env):
        env.reset()
        assert env.max_episode_length == 999
        env.progress[:] = 997
        assert not env.step(torch.zeros(16, env.num_actions)).done.any()
        result = env.step(torch.zeros(16, env.num_actions))
        assert result.time_out.all() and not result.terminated.any()

    def test_metrics(self, env):
        env.reset()
        pos = torch.zeros(16, 3)
        pos[:, 0], pos[:, 2] = torch.linspace(-15.0, 15.0, 16), 3.0
        put(env, pos=pos)
        metrics = env.task.metrics()
        torch.testing.assert_close(metrics["distance"], pos[:, 0], rtol=1e-5, atol=1e-5)
        assert torch.equal(metrics["walked"], pos[:, 0] > 10.0)
        pos[:, 1] = 30.0  # sideways is not towards the target
        put(env, pos=pos)
        expected = [1000 - math.hypot(1000 - x, 30.0) for x in pos[:, 0].tolist()]
        np.testing.assert_allclose(env.task.metrics()["distance"].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_free_fall(env):
    """Without torque and contact everything falls alike: semi-implicit Euler's g h^2 n (n + 1) / 2."""
    put(env, pos=[0.0, 0.0, 4.0], q=torch.zeros(env.num_actions) if env.task.name == "Humanoid" else None)
    for _ in range(12):
        env.task.apply(torch.zeros(16, env.num_actions))
        env.sim.step()
    n, h = 24, DT / 2
    fallen = 4.0 - env.sim.root_state[:, 0, 2]
    assert fallen.tolist() == pytest.approx([9.81 * h * h * n * (n + 1) / 2] * 16, rel=2e-3)


@pytest.mark.parametrize("task, heuristic", [("Ant", "two_sided"), ("Humanoid", "default")])
def test_the_world_is_mirror_symmetric(task, heuristic):
    """Reflected states and actions lead to reflected states and the same rewards. (A hip's upper limit is reflected to
    a lower one, so the Ant's published one-sided cost is not symmetric.)"""
    env = make(task, 16, "heuristic=" + heuristic)
    index, signs = MIRROR[task]
    index, signs = torch.tensor(index), torch.tensor(signs, dtype=torch.float32)
    env.reset()
    sim = env.sim
    q, qd = sim.dof_pos[:8].clone(), sim.dof_vel[:8].clone()
    q, qd = torch.cat((q, q[:, index] * signs)), torch.cat((qd, qd[:, index] * signs))
    sim.set_state(everyone(env), q, qd)
    moves = actions(env, 4, 20)[:, :8]
    moves = torch.cat((moves, moves[..., index] * signs), 1)
    compared = 0
    for move in moves:
        result = env.step(move)
        if result.done.any():
            break
        compared += 1
        torch.testing.assert_close(sim.dof_pos[8:], sim.dof_pos[:8, index] * signs, rtol=0, atol=1e-3)
        torch.testing.assert_close(sim.root_state[8:, 0], sim.root_state[:8, 0] * MIRRORED_ROOT, rtol=0, atol=5e-3)
        torch.testing.assert_close(result.rewards[8:, 0], result.rewards[:8, 0], rtol=1e-3, atol=5e-3)
        shaping = (result.rewards[8:, 1] - result.rewards[:8, 1]).abs()
        assert shaping.median() < 5e-3 and shaping.max() < 0.25  # a joint at its limit's threshold may count or not
    assert compared >= 10
    assert sim.root_state[:, 0, 1].abs().max() > 1e-3


def test_friction_is_the_mean_of_foot_and_ground():
    """PhysX averages; here the robot's own coefficient decides, so it is the average."""
    for task, expected in (("Ant", 1.25), ("Humanoid", 1.0)):
        model = make(task, 1).sim.model
        robot = model.geom_bodyid > 0
        np.testing.assert_allclose(model.geom_friction[robot, 0], expected)
        assert (model.geom_condim[robot] == 3).all() and model.geom_priority[robot].min() > model.geom_priority[~robot]


@pytest.mark.parametrize("task", ["Ant", "Humanoid"])
def test_unknown_heuristic(task):
    with pytest.raises(UserError, match="unknown heuristic of %s 'defualt': did you mean 'default'" % task):
        make(task, 1, "heuristic=defualt")
