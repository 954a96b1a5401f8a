"""FrankaCubeStack's formulas, resets, control and physics against published numbers and independent restatements."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.envs.math import quat_rotate
from hepo_isaac.errors import UserError
from tasks.robots.franka_cube_stack import (
    DEFAULT_POSE,
    MIN_GAP,
    START_TRIES,
    CubeStackState,
    default_heuristic,
    lifted,
    reset_pose,
    stacked,
    start_places,
    task_reward,
)
from tests.kolmogorov import ONE_PERCENT, uniform_statistic
from tests.tasks.robots import actions, make, play
from tests.tasks.stacking import pick_and_place

TASK = "FrankaCubeStack"
LIMITS = np.array([87.0] * 4 + [12.0] * 3)
SPEEDS = np.array([2.175] * 4 + [2.61] * 3)


@pytest.fixture(scope="module")
def env():
    env = make(TASK, 8)
    env.reset()
    return env


def put(env, arm=DEFAULT_POSE[:7], fingers=(0.035, 0.035), speed=0.0, a=(-0.1, 0.0, 1.05), b=(0.1, 0.0, 1.06)):
    """Every env at the same joint positions and speeds, the cubes at rest at ``a`` and ``b``, unrotated."""
    n = env.num_envs
    env.progress.zero_()
    pose = torch.tensor([[*arm, *fingers]]).repeat(n, 1)
    roots = env.sim.root_state.clone()
    for cube, place in (("cube_a", a), ("cube_b", b)):
        i = env.sim.actor_index(cube)
        roots[:, i] = 0.0
        roots[:, i, :3], roots[:, i, 6] = torch.tensor(place), 1.0
    velocity = torch.full_like(pose, speed)
    env.sim.set_state(torch.ones(n, dtype=torch.bool), pose, velocity, root_state=roots, dof_target_pos=pose)


# ---- formulas --------------------------------------------------------------------------------------------------------


def random_state(n=600, seed=0):
    """States spread around the stack, so that every branch of every formula is taken by some."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    b = torch.tensor([0.0, 0.0, 1.06]) + 0.05 * normal(n, 3)
    spread = torch.tensor([0.003, 0.02, 0.2])[torch.randint(3, (n, 1), generator=g)]
    a = torch.stack((b[:, 0], b[:, 1], torch.full((n,), 1.12)), 1) + spread * normal(n, 3)
    quat = normal(2, n, 4)
    quat = quat / quat.norm(dim=-1, keepdim=True)
    grip = a + 0.04 * normal(n, 3)
    return CubeStackState(
        cube_a_pos=a,
        cube_a_quat=quat[0],
        cube_b_pos=b,
        cube_b_quat=quat[1],
        grip_pos=grip,
        left_tip=grip + 0.02 * normal(n, 3),
        right_tip=grip + 0.02 * normal(n, 3),
        finger_pos=0.04 * torch.rand(n, 2, generator=g),
        actions=2 * torch.rand(n, 7, generator=g) - 1,
    )


def restated(a, b, e, left, right):
    """The published h and the success indicator, one env at a time, in float64."""
    height = a[2] - 1.025
    d = math.dist(a, e)
    near = 1 - math.tanh(10 / 3 * (d + math.dist(a, left) + math.dist(a, right)))
    lift = height - 0.05 > 0.04
    x, y, z = b - a
    align = (1 - math.tanh(10 * math.sqrt(x * x + y * y + (z + 0.06) ** 2))) * lift
    success = math.hypot(x, y) < 0.02 and abs(height - 0.095) < 0.02 and d > 0.04
    h = 16.0 if success else 0.1 * max(near, align) + 1.5 * lift + 2.0 * align
    return h, float(success), lift, align > near


def test_heuristic_and_task_reward_equal_their_restatement():
    s = random_state()
    fields = (s.cube_a_pos, s.cube_b_pos, s.grip_pos, s.left_tip, s.right_tip)
    expected = np.array([restated(*row) for row in zip(*(f.double().numpy() for f in fields))])
    terms = default_heuristic(s)
    np.testing.assert_allclose(torch.stack(list(terms.values())).sum(0).numpy(), expected[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(task_reward(stacked(s), 299).numpy(), (expected[:, 1] / 299).astype(np.float32))
    np.testing.assert_array_equal(lifted(s).numpy(), expected[:, 2].astype(bool))
    for branch in expected[:, 1:].T:  # success, lifted, aligned: some of each
        assert 20 < branch.sum() < 580


def one(a=(0.0, 0.0, 1.12), b=(0.0, 0.0, 1.06), grip=(0.0, 0.0, 1.2)):
    s = random_state(1)
    s.cube_a_pos, s.cube_b_pos, s.grip_pos = (torch.tensor([x]) for x in (a, b, grip))
    s.left_tip = s.right_tip = s.grip_pos
    return s


@pytest.mark.parametrize(
    "state, expected",
    [
        (one(), True),
        (one(a=(0.019, 0.0, 1.12)), True),
        (one(a=(0.021, 0.0, 1.12)), False),
        (one(a=(0.015, 0.015, 1.12)), False),
        (one(a=(0.0, 0.0, 1.139)), True),
        (one(a=(0.0, 0.0, 1.141)), False),
        (one(a=(0.0, 0.0, 1.101)), True),
        (one(a=(0.0, 0.0, 1.099)), False),
        (one(grip=(0.0, 0.0, 1.161)), True),
        (one(grip=(0.0, 0.0, 1.159)), False),  # still held
        (one(b=(0.0, 0.0, 1.5)), True),  # published: B's height does not matter
    ],
)
def test_what_counts_as_stacked(state, expected):
    assert stacked(state).item() is expected
    h = torch.stack(list(default_heuristic(state).values())).sum(0).item()
    assert (h == 16.0) is expected


def test_task_reward_sums_to_the_share_of_time_stacked():
    assert 299 * task_reward(torch.tensor([True]), 299).item() == pytest.approx(1.0, rel=1e-6)
    assert task_reward(torch.tensor([False]), 299).item() == 0.0


def test_lifted_means_more_than_four_centimetres_below_the_cube():
    assert lifted(one(a=(0.0, 0.0, 1.1151))).item() and not lifted(one(a=(0.0, 0.0, 1.1149))).item()


# ---- resets ----------------------------------------------------------------------------------------------------------


def two_samples(x, y):
    """Two-sample Kolmogorov-Smirnov distance over its standard scale."""
    grid = np.concatenate((x, y))
    distance = np.abs([np.mean(x <= g) - np.mean(y <= g) for g in np.quantile(grid, np.linspace(0, 1, 400))]).max()
    return distance * math.sqrt(len(x) * len(y) / (len(x) + len(y)))


class TestStartPlaces:
    N = 10_000

    @pytest.fixture(scope="class")
    def places(self):
        g = torch.Generator().manual_seed(0)
        return start_places(torch.rand(self.N, 2 + 2 * START_TRIES, generator=g))

    def test_b_is_uniform(self, places):
        for axis in (0, 1):
            assert uniform_statistic(places[1][:, axis], -0.25, 0.25) < ONE_PERCENT

    def test_a_keeps_its_distance_inside_the_square(self, places):
        a, b = places
        assert MIN_GAP == pytest.approx(0.1697, abs=1e-4)
        assert (a - b).norm(dim=1).min() >= MIN_GAP - 1e-6 and a.abs().max() <= 0.25

    def test_a_is_distributed_as_by_unlimited_rejection(self, places):
        rng = np.random.default_rng(1)
        b = rng.uniform(-0.25, 0.25, (self.N, 2))
        a = rng.uniform(-0.25, 0.25, (self.N, 2))
        while (close := np.linalg.norm(a - b, axis=1) < MIN_GAP).any():
            a[close] = rng.uniform(-0.25, 0.25, (close.sum(), 2))
        ours = [p.double().numpy() for p in places]
        for x, y in ((ours[0][:, 0], a[:, 0]), (ours[0][:, 1], a[:, 1])):
            assert two_samples(x, y) < 1.63
        gaps = [np.linalg.norm(p - q, axis=1) for p, q in (ours, (a, b))]
        assert two_samples(*gaps) < 1.63
        angles = [np.arctan2(*(p - q).T) for p, q in (ours, (a, b))]
        assert two_samples(*angles) < 1.63

    def test_where_every_try_is_too_close_a_takes_the_farthest_corner(self):
        uniform = torch.full((1, 2 + 2 * START_TRIES), 0.6)
        a, b = start_places(uniform)
        assert b[0].tolist() == pytest.approx([0.05, 0.05]) and a[0].tolist() == [-0.25, -0.25]

    def test_the_first_good_try_is_taken(self):
        uniform = torch.full((1, 2 + 2 * START_TRIES), 0.5)
        uniform[0, 6:8] = torch.tensor([0.9, 0.1])  # B is in the middle, tries 0 and 1 are on top of it
        uniform[0, 8:10] = torch.tensor([0.0, 0.0])
        assert start_places(uniform)[0][0].tolist() == pytest.approx([0.2, -0.2])


def test_arm_noise_is_uniform_and_the_fingers_have_none():
    u = torch.rand(10_000, 7, generator=torch.Generator().manual_seed(0))
    lower, upper = torch.full((9,), -3.0), torch.full((9,), 3.0)
    q = reset_pose(torch.tensor(DEFAULT_POSE), u, lower, upper)
    for joint in (0, 1, 3):
        assert uniform_statistic(q[:, joint], DEFAULT_POSE[joint] - 0.25, DEFAULT_POSE[joint] + 0.25) < ONE_PERCENT
    assert (q[:, 7:] == 0.035).all() and q[:, 5].max() == 3.0  # 2.94 + 0.25 is past this limit


class TestReset:
    @pytest.fixture(scope="class")
    def many(self):
        env = make(TASK, 2000)
        return env, env.reset().clone()

    def test_cubes_lie_flat_on_the_table_turned_by_less_than_an_eighth(self, many):
        env, _ = many
        state = env.task.state()
        assert state.cube_a_pos[:, 2].unique().tolist() == pytest.approx([1.05])
        assert state.cube_b_pos[:, 2].unique().tolist() == pytest.approx([1.06])
        for quat in (state.cube_a_quat, state.cube_b_quat):
            assert quat[:, :2].abs().max() == 0.0
            assert uniform_statistic(2 * torch.atan2(quat[:, 2], quat[:, 3]), -0.785, 0.785) < ONE_PERCENT
        correlation = np.corrcoef(state.cube_a_quat[:, 2], state.cube_b_quat[:, 2])[0, 1]
        assert abs(correlation) < 0.08

    def test_everything_is_at_rest_and_the_observation_is_of_it(self, many):
        env, obs = many
        assert env.sim.dof_vel.abs().max() == 0.0 and env.sim.root_state[:, :, 7:].abs().max() == 0.0
        assert torch.equal(obs[:, 4:7], env.task.state().cube_a_pos)
        assert torch.equal(env.sim.dof_target_pos, env.sim.dof_pos)


def test_published_start_has_cube_b_in_the_table_from_which_it_is_pushed_out():
    env = make(TASK, 2, "task.cube_b_start=published")
    env.reset()
    start = env.task.state().cube_b_pos[:, 2].clone()
    heights = []
    for _ in range(90):
        env.step(torch.zeros(2, 7))
        heights.append(env.task.state().cube_b_pos[:, 2].clone())
    assert start.tolist() == pytest.approx([1.05, 1.05])
    assert heights[-1].tolist() == pytest.approx([1.06] * 2, abs=1e-3)
    assert torch.cat(heights).max() < 1.2


@pytest.mark.parametrize("key, valid", [("control_type", "osc"), ("cube_b_start", "resting")])
def test_unknown_options_are_refused(key, valid):
    with pytest.raises(UserError, match="unknown task.%s 'nonsense'.*%s" % (key, valid)):
        make(TASK, 1, "task.%s=nonsense" % key)


def test_an_episode_ends_at_the_time_limit_alone(env):
    put(env, a=(0.1, 0.0, 1.12))  # stacked
    env.progress[:4] = 297
    first, second = env.step(torch.zeros(8, 7)), env.step(torch.zeros(8, 7))
    assert not first.done.any() and second.time_out.tolist() == [True] * 4 + [False] * 4
    assert not second.terminated.any()
    # the reward of the last step is that of the state it ended in, and the next observation a new episode's
    assert (second.rewards[:, 0] > 0).all()
    assert (second.final_obs[:, 6] > 1.11).all() and (second.obs[:4, 6] < 1.06).all()


# ---- observations ----------------------------------------------------------------------------------------------------


class TestStartPose:
    """Published check values at the noiseless start pose."""

    @pytest.fixture(scope="class")
    def state(self, env):
        put(env)
        return env.task.state()

    @pytest.mark.parametrize(
        "field, expected",
        [
            ("grip_pos", (0.0080, 0.0, 1.2181)),
            ("left_tip", (0.0080, -0.0365, 1.2181)),
            ("right_tip", (0.0080, 0.0365, 1.2181)),
        ],
    )
    def test_points(self, state, field, expected):
        assert getattr(state, field)[0].tolist() == pytest.approx(expected, abs=1e-4)

    def test_hand_orientation(self, env, state):
        assert env.task.observe()[0, 13:17].abs().tolist() == pytest.approx([0.998, 0.0, 0.0636, 0.0], abs=1e-3)
        ahead = quat_rotate(env.task.observe()[:1, 13:17], torch.tensor([[0.0, 0.0, 0.1025]]))[0]
        hand = state.grip_pos[0] - ahead
        assert hand.tolist() == pytest.approx([-0.0050, 0.0, 1.3198], abs=1e-4)


def test_observation_layout(env):
    put(env, fingers=(0.01, 0.03), a=(-0.2, 0.1, 1.05), b=(0.2, 0.05, 1.06), speed=0.5)
    obs = env.task.observe()[0]
    assert obs.shape == (19,)
    assert obs[:7].tolist() == pytest.approx([0, 0, 0, 1, -0.2, 0.1, 1.05], abs=1e-6)
    assert obs[7:10].tolist() == pytest.approx([0.4, -0.05, 0.01], abs=1e-6)
    state = env.task.state()
    assert torch.equal(obs[10:13], state.grip_pos[0]) and obs[17:].tolist() == pytest.approx([0.01, 0.03])
    # the tips sit 1.5 mm outside the fingers' origins, along the hand's y
    gap = (state.left_tip - state.right_tip)[0]
    assert gap.norm().item() == pytest.approx(0.01 + 0.03 + 0.003, abs=1e-6)
    y = quat_rotate(obs[None, 13:17], torch.tensor([[0.0, 1.0, 0.0]]))[0]
    torch.testing.assert_close(gap / gap.norm(), y, rtol=0, atol=1e-5)


def test_joint_torque_mode_observes_all_joints_and_applies_torques():
    env = make(TASK, 2, "task.control_type=joint_tor")
    obs = env.reset()
    assert obs.shape == (2, 26) and env.num_actions == 8
    assert torch.equal(obs[:, 17:], env.sim.dof_pos)
    result = env.step(torch.tensor([[0.02, -0.02, 0.01, 0.0, 0.05, -0.05, 0.02, 1.0]] * 2))
    assert env.sim.dof_force[0, :7].tolist() == pytest.approx([1.74, -1.74, 0.87, 0.0, 0.6, -0.6, 0.24], rel=1e-4)
    assert result.obs.shape == (2, 26)
    env.step(torch.ones(2, 8))
    for _ in range(30):
        env.step(torch.tensor([[0.0] * 7 + [-1.0]] * 2))
    assert env.sim.dof_pos[:, 7:].abs().max() < 1e-3


# ---- control ---------------------------------------------------------------------------------------------------------


def published_torque(env, i, action):
    """The published OSC for one world in float64, on MuJoCo's own kinematics, inertia and Jacobian."""
    model, data = env.sim.model, mujoco.MjData(env.sim.model)
    data.qpos[:], data.qvel[:] = env.sim._qpos[i], env.sim._qvel[i]
    mujoco.mj_forward(model, data)
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, full)
    body = model.body("franka/link7").id
    rotation, origin = data.xmat[body].reshape(3, 3), data.xpos[body]
    hand, grip = origin + 0.107 * rotation[:, 2], origin + (0.107 + 0.1025) * rotation[:, 2]

    def jacobian(point):
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, linear, angular, point, body)
        return np.vstack((linear, angular))[:, :7]

    mass, j, q, qd = full[:7, :7], jacobian(hand), data.qpos[:7], data.qvel[:7]
    inverse = np.linalg.inv(mass)
    lam = np.linalg.inv(j @ inverse @ j.T)
    delta = action[:6] * np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.5])
    u = j.T @ lam @ (150.0 * delta - 2 * math.sqrt(150.0) * (jacobian(grip) @ qd))
    rest = np.array([0.0, 0.1963, 0.0, -2.6180, 0.0, 2.9416, 0.7854])
    pull = mass @ (10.0 * ((rest - q + np.pi) % (2 * np.pi) - np.pi) - 2 * math.sqrt(10.0) * qd)
    u = np.clip(u + (np.eye(7) - j.T @ lam @ j @ inverse) @ pull, -LIMITS, LIMITS)
    after = qd + env.sim.spec.control_dt * inverse @ u
    return u, mass @ (np.clip(after, -SPEEDS, SPEEDS) - qd) / env.sim.spec.control_dt, np.abs(after) / SPEEDS


@pytest.mark.parametrize("limited", [True, False])
def test_torque_equals_the_published_formula_in_random_states(limited):
    env = make(TASK, 16, "task.physics.limit_joint_speed=%s" % limited)
    env.reset()
    moves = actions(env, 4, 40)
    play(env, moves[:-1])
    expected, ratio = [], []
    for i, move in enumerate(moves[-1].double().numpy()):
        free, capped, fast = published_torque(env, i, move)
        expected.append(capped if limited else free)
        ratio.append(fast)
    env.step(moves[-1])
    error = np.abs(env.sim.dof_force[:, :7].numpy() - np.array(expected)) / np.abs(expected).max(1, keepdims=True)
    assert error.max() < 1e-4 and np.median(error.max(1)) < 2e-6
    assert (np.array(ratio) > 1).any() and (np.array(ratio) < 0.8).any()


def test_zero_action_holds_the_arm_still_and_open(env):
    put(env)
    for _ in range(60):
        env.step(torch.zeros(8, 7))
    state = env.task.state()
    assert state.grip_pos[0].tolist() == pytest.approx([0.0080, 0.0, 1.2181], abs=1e-3)
    assert state.finger_pos[0].tolist() == pytest.approx([0.04, 0.04], abs=1e-4)  # action 0 is open
    assert env.sim.dof_vel[:, :7].abs().max() < 1e-2


@pytest.mark.parametrize("axis", range(6))
def test_a_constant_command_moves_the_hand_at_its_published_speed(env, axis):
    """v = K_p / K_d delta along or about one world axis, and hardly otherwise."""
    put(env)
    action = torch.zeros(8, 7)
    action[:, axis] = 0.2 if axis < 3 else 0.1
    delta = 0.2 * 0.1 if axis < 3 else 0.1 * 0.5
    before, turned = env.task.state().grip_pos.clone(), []
    for step in range(30):
        env.step(action)
        if step == 19:
            before = env.task.state().grip_pos.clone()
            turned.append(env.task._hand_frame()[1].clone())
    travel = (env.task.state().grip_pos - before)[0] / (10 * env.sim.spec.control_dt)
    rate = delta * math.sqrt(150.0) / 2
    if axis < 3:
        assert travel[axis].item() == pytest.approx(rate, rel=0.1)
        travel[axis] = 0.0
        assert travel.abs().max() < 0.15 * rate
    else:
        relative = env.task._hand_frame()[1][0] @ turned[0][0].T
        angle = torch.stack((relative[2, 1], relative[0, 2], relative[1, 0])) / (10 * env.sim.spec.control_dt)
        assert angle[axis - 3].item() == pytest.approx(rate, rel=0.1)


def test_arm_joints_keep_to_their_speed_limit(env):
    """Without it the same commands make joints turn at more than ten times it."""

    def fastest(limited):
        env = make(TASK, 8, "task.physics.limit_joint_speed=%s" % limited)
        env.reset()
        g = torch.Generator().manual_seed(1)
        speeds = []
        for _ in range(60):
            env.step(2.0 * torch.rand(8, 7, generator=g) - 1.0)
            speeds.append(env.sim.dof_vel[:, :7].abs() / torch.tensor(SPEEDS, dtype=torch.float32))
        return torch.stack(speeds)

    with_limit, without = fastest(True), fastest(False)
    assert with_limit.max() < 2.5 and (with_limit > 1.1).float().mean() < 0.03
    assert without.max() > 5.0 and (without > 1.1).float().mean() > 0.05


# ---- physics ---------------------------------------------------------------------------------------------------------


def test_masses_and_inertias():
    model = make(TASK, 1).sim.model
    assert model.body("cube_a/cube").mass[0] == pytest.approx(1000 * 0.05**3)
    assert model.body("cube_b/cube").mass[0] == pytest.approx(1000 * 0.07**3)
    assert model.body("cube_a/cube").inertia == pytest.approx([0.125 * 0.05**2 / 6] * 3)
    assert model.body("cube_b/cube").inertia == pytest.approx([0.343 * 0.07**2 / 6] * 3)
    arm = [model.body("franka/" + name).mass[0] for name in ("link%d" % i for i in range(8))]
    assert arm == pytest.approx([3.0, 2.97, 3.0, 2.33, 2.37, 3.42, 1.44, 0.446 + 0.709])


def test_cubes_rest_on_the_table_and_fall_to_the_ground_beside_it(env):
    put(env, a=(-0.1, 0.2, 1.05), b=(0.8, 0.0, 1.06))
    for _ in range(60):
        env.step(torch.zeros(8, 7))
    a, b = env.task.state().cube_a_pos[0], env.task.state().cube_b_pos[0]
    assert a.tolist() == pytest.approx([-0.1, 0.2, 1.05], abs=2e-4)
    assert b[2].item() == pytest.approx(0.035, abs=2e-3)


def test_stacked_cube_stays_and_is_rewarded(env):
    put(env, a=(0.1, 0.01, 1.12), b=(0.1, 0.0, 1.06))
    for _ in range(60):
        result = env.step(torch.zeros(8, 7))
    assert env.task.state().cube_a_pos[0].tolist() == pytest.approx([0.1, 0.01, 1.12], abs=5e-4)
    assert result.rewards[:, 0].tolist() == pytest.approx([1 / 299] * 8) and (result.rewards[:, 1] == 16.0).all()
    assert dict(zip(result.metric_names, result.metrics[0].tolist()))["stacked"] == 1.0


def test_scripted_pick_and_place_stacks_the_cubes():
    """Through the action interface: the gripper holds the cube without slipping, and nearly every start succeeds
    within the episode (a cube close to the robot's base makes the arm fold up)."""
    env = make(TASK, 12, seed=1)
    env.reset()
    near_base = (env.task.state().cube_a_pos[:, 0] < -0.1) | (env.task.state().cube_b_pos[:, 0] < -0.1)
    seen = pick_and_place(env)
    success = seen[-2]["r"] > 0
    assert success[~near_base].float().mean() > 0.85 and env.bad_count.item() == 0
    held = [(s["a"] - s["grip"])[success] for s in seen[120:235]]
    assert (held[-1] - held[0]).norm(dim=1).max() < 0.012
    gap = torch.stack([s["fingers"].sum(1)[success] for s in seen[100:235]])
    assert gap.min() > 0.044 and gap.max() < 0.053
    lifted_h = seen[140]["h"][success]
    assert (lifted_h > 1.5).all()
