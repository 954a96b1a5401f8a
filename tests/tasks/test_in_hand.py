"""What the in-hand tasks share, against the published numbers and an independent restatement; on AllegroHand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from tasks.robots.in_hand import (
    InHandState,
    absolute_targets,
    default_heuristic,
    pen_rotation,
    random_rotation,
    relative_targets,
    reset_pose,
    rotation_angle,
    task_reward,
    with_positive_w,
)
from tests.kolmogorov import ONE_PERCENT, uniform_statistic
from tests.tasks.hands import make
from tests.tasks.robots import play

TASK = "AllegroHand"
DT, SIM_DT = 0.03334, 0.01667


def axis(name, angle):
    """Rotation matrix about a coordinate axis."""
    c, s = math.cos(angle), math.sin(angle)
    rows = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(rows[name])


def matrix(quat):
    """Rotation matrix of a quaternion xyzw, by rotating the axes with q v q*."""
    x, y, z, w = (float(v) for v in quat)
    v = np.array([x, y, z])
    return np.stack([e + 2 * w * np.cross(v, e) + 2 * np.cross(v, np.cross(v, e)) for e in np.eye(3)], 1)


def angle_between(a, b):
    """Rotation angle from the trace of the relative rotation."""
    return math.acos(max(-1.0, min(1.0, (np.trace(matrix(a) @ matrix(b).T) - 1) / 2)))


def uniform(*shape, seed=0):
    return 2.0 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1.0


def place_object(env, pos=None, quat=None, vel=None):
    """Put every env's object somewhere; the hand stays."""
    roots = env.sim.root_state.clone()
    for columns, value in ((slice(0, 3), pos), (slice(3, 7), quat), (slice(7, 13), vel)):
        if value is not None:
            roots[:, 1, columns] = torch.as_tensor(value)
    env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), root_state=roots)


def set_goal(env, quat):
    env.task.set_goal(torch.as_tensor(quat))


def hold(env):
    """Actions that keep the targets where they are."""
    lower, upper = env.sim.dof_lower, env.sim.dof_upper
    return (2.0 * env.sim.dof_target_pos - lower - upper) / (upper - lower)


@pytest.fixture(scope="module")
def shared():
    env = make(TASK, 64)
    yield env
    env.close()


@pytest.fixture
def env(shared):
    shared.reset()
    return shared


# ---- formulas --------------------------------------------------------------------------------------------------------
def _state(distance, angle, reached, penalty, actions):
    blank = torch.zeros(1, 4)
    return InHandState(
        distance=torch.tensor([distance]),
        angle=torch.tensor([angle]),
        reached=torch.tensor([reached]),
        fallen=torch.tensor([penalty != 0.0]),
        penalty=torch.tensor([penalty]),
        object_pos=blank,
        object_quat=blank,
        object_linvel=blank,
        object_angvel=blank,
        goal_pos=blank,
        goal_quat=blank,
        relative_quat=blank,
        dof_pos=blank,
        actions=torch.tensor([actions]),
    )


@pytest.mark.parametrize(
    "distance, angle, reached, penalty, actions, expected",
    [
        (0.04, 1.9, False, 0.0, [0.0, 0.0], -0.4 + 0.5),
        (0.1, 0.4, False, 0.0, [1.0, -0.5], -1.0 + 2.0 - 0.0002 * 1.25),
        (0.0, 0.0, True, 0.0, [0.0, 0.0], 10.0 + 250.0),
        (0.24, 3.1, False, -50.0, [0.0, 0.0], -2.4 + 1 / 3.2 - 50.0),
    ],
)
def test_heuristic_by_hand(distance, angle, reached, penalty, actions, expected):
    terms = default_heuristic(_state(distance, angle, reached, penalty, actions))
    assert list(terms) == ["distance", "rotation", "action_penalty", "goal_bonus", "fall_penalty"]
    assert sum(terms.values()).item() == pytest.approx(expected, rel=1e-6)


def test_task_reward_is_a_599th_per_goal():
    assert task_reward(torch.tensor([True, False]), 599).tolist() == pytest.approx([1 / 599, 0.0])


def test_rewards_equal_their_restatement(env):
    """From positions and quaternions, with rotation matrices instead of quaternion products."""
    n = env.num_envs
    quats = torch.nn.functional.normalize(uniform(2, n, 4, seed=1), dim=-1)
    quats[1, ::4] = quats[0, ::4] + 0.03 * uniform(n // 4, 4, seed=2)  # some are near the goal
    quats[1] = torch.nn.functional.normalize(quats[1], dim=-1)
    pos = torch.tensor([0.0, -0.2, 0.52]) + 0.2 * uniform(n, 3, seed=3)
    actions = uniform(n, 16, seed=4)
    place_object(env, pos, quats[0])
    set_goal(env, quats[1])
    env.task._actions.copy_(actions)
    rewards = env.task.rewards()
    expected_h, expected_r = [], []
    for p, q, goal, a in zip(pos.double().numpy(), *quats.double().numpy(), actions.double().numpy()):
        d, theta = math.dist(p, (0.0, -0.2, 0.52)), angle_between(q, goal)
        hit = theta <= 0.1
        expected_h.append(-10 * d + 1 / (theta + 0.1) - 0.0002 * sum(v * v for v in a) + (250 if hit else 0))
        expected_r.append(1 / 599 if hit else 0.0)
    np.testing.assert_allclose(rewards.heuristic.numpy(), expected_h, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rewards.task.numpy(), expected_r, rtol=1e-6)
    assert 0 < sum(r > 0 for r in expected_r) < n


def test_angle_ignores_the_sign_of_a_quaternion_and_never_exceeds_pi():
    q = torch.tensor([[math.sin(0.2), 0.0, 0.0, math.cos(0.2)], [1.0, 1e-4, 0.0, 0.0]])
    assert rotation_angle(q).tolist() == pytest.approx([0.4, math.pi], abs=1e-3)
    torch.testing.assert_close(rotation_angle(-q), rotation_angle(q))


def test_rotations_are_products_of_turns_about_axes():
    u = uniform(40, 2)
    for quat, pen, (u1, u2) in zip(random_rotation(u), pen_rotation(u), u.tolist()):
        np.testing.assert_allclose(matrix(quat), axis("x", math.pi * u1) @ axis("y", math.pi * u2), atol=1e-6)
        # oddity: the pen's spin reuses the first number
        expected = axis("x", math.pi / 2 + 0.3 * u1) @ axis("z", math.pi * u1)
        np.testing.assert_allclose(matrix(pen), expected, atol=1e-6)


def test_absolute_targets_span_the_joint_range():
    lower, upper, previous = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 0.5]])
    a = torch.tensor([[-1.0, 0.5]])
    assert absolute_targets(a, previous, 1.0, lower, upper).tolist() == [[-1.0, 1.5]]
    assert absolute_targets(a, previous, 0.3, lower, upper)[0].tolist() == pytest.approx([0.05, 0.8])


def test_relative_targets_move_by_a_third_of_a_radian():
    lower, upper, previous = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 0.9]])
    got = relative_targets(torch.tensor([[-1.0, 1.0]]), previous, SIM_DT, lower, upper)
    assert got[0].tolist() == pytest.approx([0.5 - 0.3334, 0.9 + 0.3334])
    assert relative_targets(torch.tensor([[1.0, -4.0]]), previous, 1.0, lower, upper).tolist() == [[1.0, 0.0]]


# ---- resets ----------------------------------------------------------------------------------------------------------
def test_reset_pose_is_a_fifth_of_the_range():
    lower, upper = torch.tensor([-0.5, 0.279]), torch.tensor([1.7, 1.571])
    pose = reset_pose(uniform(10_000, 2), lower, upper)
    assert uniform_statistic((pose[:, 0] / 0.2 + 0.5) / 2.2) < ONE_PERCENT
    # 0.2 U(0.279, 1.571) lies under the lower limit 86 % of the time; those start at it
    assert (pose[:, 1] == lower[1]).float().mean().item() == pytest.approx(0.8642, abs=0.012)
    assert pose[:, 1].min() == lower[1] and pose[:, 1].max() <= 0.2 * 1.571


def test_a_reset_uses_its_numbers_as_published(env, monkeypatch):
    u = uniform(64, 24)
    monkeypatch.setattr(env.task.streams, "rand", lambda *shape, mask=None: 0.5 * (u + 1.0))
    env.task.reset(torch.ones(64, dtype=torch.bool))
    held, sim = env.sim.root_state[:, 1], env.sim
    torch.testing.assert_close(held[:, :3], torch.tensor([0.0, -0.2, 0.56]) + 0.01 * u[:, :3])
    torch.testing.assert_close(held[:, 3:7], random_rotation(u[:, 3:5]), atol=1e-6, rtol=0)
    assert held[:, 7:].abs().max() == 0.0 and sim.dof_vel.abs().max() == 0.0
    state = env.task.state()
    torch.testing.assert_close(state.goal_quat, random_rotation(u[:, 5:7]), atol=1e-6, rtol=0)
    assert state.goal_pos.unique(dim=0).flatten().tolist() == pytest.approx([0.0, -0.2, 0.52])
    expected = reset_pose(u[:, 8:], sim.dof_lower, sim.dof_upper)
    torch.testing.assert_close(sim.dof_pos, expected)
    torch.testing.assert_close(sim.dof_target_pos, expected)
    # log-uniform between 0.1 (u = -1) and 0.001 (u = 1)
    torch.testing.assert_close(env.task.push_probability, 10.0 ** (-1.0 - (u[:, 7:8] + 1.0)))


def test_a_first_observation_has_no_action(env):
    env.step(uniform(64, 16))
    assert env.task.observe()[:, 72:].abs().max() > 0.5
    assert env.reset()[:, 72:].abs().max() == 0.0


# ---- goals -----------------------------------------------------------------------------------------------------------
class TestGoals:
    def _reach(self, env, where=slice(None), off=0.0):
        """Let the objects of ``where`` fall, turned by ``off`` from a goal that was just drawn."""
        env.task.reached = torch.zeros(env.num_envs, dtype=torch.bool)
        place_object(env, (0.0, -0.2, 0.66), (0.0, 0.0, 0.0, 1.0))
        set_goal(env, (math.sin(1.0), 0.0, 0.0, math.cos(1.0)))
        env.task.goal[where, 3:] = torch.tensor([math.sin(off / 2), 0.0, 0.0, math.cos(off / 2)])

    def test_a_reached_goal_pays_and_is_replaced_one_step_later(self, env):
        self._reach(env, slice(0, 2))
        goals = env.task.goal.clone()
        before = env.progress.clone()
        result = env.step(hold(env))
        assert result.rewards[:, 0].tolist() == pytest.approx([1 / 599] * 2 + [0.0] * 62)
        assert (result.rewards[:2, 1] > 250.0).all() and (result.rewards[2:, 1] < 5.0).all()
        torch.testing.assert_close(result.obs[:, 61:68], goals)  # the hit still shows the old goal
        assert not result.done.any()
        pos = env.sim.root_state[:, 1].clone()
        result = env.step(hold(env))
        changed = (env.task.goal != goals).any(1)
        assert changed[:2].all() and not changed[2:].any()
        assert torch.equal(env.task.goal[:, :3], goals[:, :3])
        assert result.rewards[:, 0].abs().max() == 0.0
        assert torch.equal(env.progress, before + 2)  # the clock runs on, the object falls on
        assert (env.sim.root_state[:, 1, 2] < pos[:, 2]).all()
        metrics = dict(zip(result.metric_names, result.metrics.unbind(1)))
        assert metrics["goals"].tolist() == [1.0] * 2 + [0.0] * 62 == metrics["goal_reached"].tolist()

    def test_goals_add_up_and_a_reset_forgets_them(self, env):
        for count in (1, 2, 3):
            self._reach(env)
            result = env.step(hold(env))
            assert result.metrics[:, result.metric_names.index("goals")].tolist() == [count] * 64
        env.task.reset(torch.arange(64) < 8)
        assert env.task.successes.tolist() == [0.0] * 8 + [3.0] * 56
        assert env.task.reached.tolist() == [False] * 8 + [True] * 56

    def test_every_hit_draws_a_goal_of_its_own(self, env):
        seen = []
        for _ in range(2):
            self._reach(env)
            env.step(hold(env))
            env.step(hold(env))
            seen.append(env.task.goal[:, 3:].clone())
        goals = torch.cat(seen)
        assert len(goals.unique(dim=0)) == 128
        # Rx(pi u1) Ry(pi u2): x/w = tan(pi u1 / 2), y/w = tan(pi u2 / 2)
        for column in (0, 1):
            u = torch.atan2(goals[:, column], goals[:, 3]) / math.pi
            assert uniform_statistic(u.remainder(1.0)) < ONE_PERCENT

    def test_asking_twice_counts_once(self, env):
        self._reach(env)
        env.step(hold(env))
        env.task.rewards()
        assert env.task.successes.tolist() == [1.0] * 64

    @pytest.mark.parametrize("kind, tolerance", [("block", 0.1), ("egg", 0.1), ("pen", 0.2)])
    def test_tolerance(self, kind, tolerance):
        env = make(TASK, 2, "task.object_type=" + kind)
        env.reset()
        for off, reached in ((tolerance - 0.005, True), (tolerance + 0.005, False)):
            self._reach(env, off=off)
            assert env.task.state().reached.tolist() == [reached] * 2

    def test_position_is_not_part_of_a_goal(self, env):
        self._reach(env)
        place_object(env, (0.15, -0.1, 0.66))
        assert env.task.state().reached.all()

    def test_a_pen_starts_flat_but_its_goals_are_like_the_others(self):
        env = make(TASK, 256, "task.object_type=pen")
        env.reset()
        axes = [matrix(q)[:, 2] for q in env.sim.root_state[:, 1, 3:7]]
        assert max(abs(a[2]) for a in axes) <= math.sin(0.3) + 1e-5
        assert env.sim.root_state[:, 1, 2].tolist() == pytest.approx([0.52] * 256, abs=0.0101)
        tilt = [abs(matrix(q)[2, 2]) for q in env.task.goal[:, 3:]]
        assert max(tilt) > 0.9 and min(tilt) < 0.1
        assert env.task.goal[:, 2].tolist() == pytest.approx([0.48] * 256)

    def test_a_saved_hit_still_gets_its_new_goal(self):
        one, other = make(TASK, 2), make(TASK, 2, seed=7)
        one.reset()
        other.reset()
        self._reach(one)
        one.step(hold(one))
        obs = other.load_state(one.get_state())
        torch.testing.assert_close(obs, one.task.observe().clamp(-5.0, 5.0), rtol=0, atol=0)
        moves = uniform(4, 2, 16)
        expected, seen = play(one, moves), play(other, moves)
        for name, values in expected.items():
            assert torch.equal(values, seen[name]), name


# ---- ends of an episode ----------------------------------------------------------------------------------------------
def test_falling_ends_an_episode_for_good(env):
    pos = torch.tensor([0.0, -0.2, 0.52]).repeat(64, 1)
    pos[:32, 0] += 0.2405
    pos[32:, 0] += 0.2395
    place_object(env, pos)
    assert env.task.terminated().tolist() == [True] * 32 + [False] * 32
    result = env.step(hold(env))
    assert result.terminated[:32].all() and not result.time_out.any()
    assert result.metrics[:32, result.metric_names.index("dropped")].tolist() == [1.0] * 32


def test_an_episode_lasts_599_steps():
    env = make(TASK, 2)
    env.reset()
    assert env.max_episode_length == 599
    env.progress[0] = 598
    result = env.step(hold(env))
    assert result.time_out.tolist() == [True, False] and not result.terminated.any()


def test_fall_penalty():
    env = make(TASK, 2, "task.fall_penalty=-50.0")
    env.reset()
    place_object(env, torch.tensor([[0.5, -0.2, 0.52], [0.0, -0.2, 0.6]]))
    terms = env.task.rewards().terms
    assert terms["fall_penalty"].tolist() == [-50.0, 0.0]


class TestConsecutiveSuccesses:
    """With max_consecutive_successes a goal restarts the clock, and the episode ends with the last of them."""

    @pytest.fixture
    def env(self):
        env = make(TASK, 2, "task.max_consecutive_successes=2", "task.fall_penalty=-50.0", "task.episode_length=5")
        env.reset()
        return env

    def test_the_cap_ends_it(self, env):
        for expected in (False, True):
            TestGoals()._reach(env, 0)
            assert env.step(hold(env)).terminated.tolist() == [expected, False]

    def test_time_without_a_goal_ends_it_at_half_the_penalty(self, env):
        TestGoals()._reach(env, slice(0, 0))
        for _ in range(3):
            assert not env.step(hold(env)).done.any()
        TestGoals()._reach(env, 0)
        result = env.step(hold(env))
        assert not result.done.any()
        result = env.step(hold(env))  # the fifth step: only the env that reached a goal goes on
        assert result.terminated.tolist() == [False, True]
        assert result.terms[:, result.term_names.index("fall_penalty")].tolist() == [0.0, -25.0]


# ---- actions and pushes ----------------------------------------------------------------------------------------------
def test_actions_are_targets_within_the_limits(env):
    for action, expected in ((-1.0, env.sim.dof_lower), (1.0, env.sim.dof_upper)):
        env.step(torch.full((64, 16), action))
        torch.testing.assert_close(env.sim.dof_target_pos, expected.expand(64, 16))


def test_relative_control_starts_from_the_pose():
    env = make(TASK, 2, "task.use_relative_control=true")
    env.reset()
    start = env.sim.dof_pos.clone()
    env.step(torch.full((2, 16), 0.1))
    torch.testing.assert_close(env.sim.dof_target_pos, start + 20 * SIM_DT * 0.1)


def test_moving_average_starts_from_the_pose():
    env = make(TASK, 2, "task.actions_moving_average=0.3")
    env.reset()
    start = env.sim.dof_pos.clone()
    env.step(torch.ones(2, 16))
    torch.testing.assert_close(env.sim.dof_target_pos, 0.7 * start + 0.3 * env.sim.dof_upper)


class TestPushes:
    def test_there_are_none_by_default(self, env):
        env.step(hold(env))
        assert env.task.push.abs().max() == 0.0

    def test_a_push_moves_the_object_in_its_own_frame_and_fades(self):
        env = make(TASK, 2, "task.force_scale=1.0e-9")
        env.reset()
        place_object(env, (0.0, -0.2, 0.65), (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)))
        env.task.push_probability.zero_()
        env.task.push[0] = torch.tensor([0.2, 0.0, 0.0])  # N along its x, which is the world's y
        env.step(hold(env))
        fade = 0.99 ** (SIM_DT / 0.08)
        velocity = env.sim.root_state[:, 1, 7:10]
        assert velocity[0, 1].item() == pytest.approx(0.2 * fade / 0.10985 * DT, rel=1e-3)
        assert velocity[1, :2].abs().max() < 1e-6 and abs(velocity[0, 0].item()) < 1e-4
        assert env.task.push[0].tolist() == pytest.approx([0.2 * fade, 0.0, 0.0])

    def test_new_pushes_are_normal_and_proportional_to_mass(self):
        env = make(TASK, 200, "task.force_scale=2.0")
        env.reset()
        env.task.push_probability.fill_(1.0)
        draws = []
        for _ in range(10):
            env.task._apply_pushes()
            draws.append(env.task.push.clone())
        scaled = torch.cat(draws).flatten() / (2.0 * 0.10985)
        cdf = 0.5 * (1.0 + torch.erf(scaled / math.sqrt(2.0)))
        assert uniform_statistic(cdf) < ONE_PERCENT
        env.task.push_probability.fill_(0.1)
        env.task._apply_pushes()
        fresh = (env.task.push != draws[-1] * 0.99 ** (SIM_DT / 0.08)).any(1).float().mean().item()
        assert fresh == pytest.approx(0.1, abs=0.07)

    def test_a_reset_takes_them_away(self):
        env = make(TASK, 2, "task.force_scale=1.0")
        env.reset()
        env.task.push.fill_(1.0)
        env.task.reset(torch.tensor([True, False]))
        assert env.task.push.tolist() == [[0.0] * 3, [1.0] * 3]
        assert ((env.task.push_probability >= 0.001) & (env.task.push_probability <= 0.1)).all()


# ---- choices ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "override, message",
    [
        ("task.object_type=ball", "unknown object type of AllegroHand 'ball'.*block, egg, pen"),
        ("task.observation_type=openai", "unknown observation type of AllegroHand 'openai'.*full_no_vel, full_state"),
    ],
)
def test_unknown_names(override, message):
    with pytest.raises(UserError, match=message):
        make(TASK, 1, override)


def test_a_critic_may_see_the_full_state():
    env = make(TASK, 2, "task.observation_type=full_no_vel", "task.asymmetric_observations=true")
    full = make(TASK, 2)
    assert (env.task.num_obs, env.task.num_states, full.num_obs, full.task.num_states) == (50, 88, 88, 0)
    env.reset()
    full.reset()
    move = uniform(2, 16)
    env.step(move)
    expected = full.step(move).obs
    assert torch.equal(env.task.critic_state().clamp(-5.0, 5.0), expected)


def test_of_q_and_minus_q_one_can_be_observed():
    quat = torch.nn.functional.normalize(uniform(200, 4), dim=1)
    one = with_positive_w(quat)
    assert (one[:, 3] >= 0.0).all()
    assert {math.copysign(1.0, w) for w in (one * quat).sum(1).tolist()} == {1.0, -1.0}
    assert torch.allclose((one * quat).sum(1).abs(), torch.ones(200))
    env, published = (make(TASK, 2, "task.observe_one_sign=" + choice) for choice in ("true", "false"))
    for e in (env, published):
        e.reset()
        set_goal(e, [0.0, 0.0, 0.0, 1.0])
        place_object(e, quat=[[0.6, 0.0, 0.0, -0.8], [0.6, 0.0, 0.0, 0.8]])
    seen, usual = env.task.observe(), published.task.observe()
    assert torch.equal(seen[0, 68:72], -usual[0, 68:72])
    seen[0, 68:72] *= -1.0
    assert torch.equal(seen, usual)
    assert torch.equal(env.task.rewards().heuristic, published.task.rewards().heuristic)
