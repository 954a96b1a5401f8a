"""FrankaCabinet's formulas, resets and step against the published numbers and an independent restatement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hepo_isaac.envs.heuristic import HeuristicFunction
from hepo_isaac.errors import UserError
from tasks.robots.franka_cabinet import (
    DEFAULT_POSE,
    CabinetState,
    FrankaCabinet,
    default_heuristic,
    integrate_targets,
    reset_pose,
    task_reward,
)
from tasks.robots.franka_cabinet_heuristics import HUMAN_HEURISTICS
from tests.kolmogorov import ONE_PERCENT, uniform_statistic
from tests.tasks.franka import make, place, pose


@pytest.fixture(scope="module")
def env():
    env = make(4)
    env.reset()
    return env


@pytest.fixture(scope="module")
def start_state():
    env = make(1)
    env.reset()
    place(env, pose(1), torch.zeros(1, 10))
    return env.task.state()


class TestStartPose:
    """Published check values at the noiseless start pose."""

    @pytest.mark.parametrize(
        "field, expected",
        [
            ("gripper_pos", (0.7844, 0.0823, 0.8199)),
            ("gripper_quat", (-0.1398, 0.7309, 0.6445, -0.1756)),
            ("left_finger", (0.7591, 0.0710, 0.8287)),
            ("right_finger", (0.7576, 0.0618, 0.7593)),
            ("drawer_pos", (0.3515, 0.0100, 0.7172)),
            ("drawer_quat", (0.0, 0.0, 0.0, 1.0)),
        ],
    )
    def test_frames(self, start_state, field, expected):
        assert getattr(start_state, field)[0].tolist() == pytest.approx(expected, abs=1e-4)

    def test_distance_and_heuristic(self, start_state):
        distance = (start_state.gripper_pos - start_state.drawer_pos).norm()
        assert distance.item() == pytest.approx(0.4507, abs=1e-4)
        assert sum(default_heuristic(start_state).values()).item() == pytest.approx(1.6750, abs=1e-4)


def _random_state(n=400, seed=0):
    """States spread around the handle, so that every branch of every formula is taken by some."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    drawer = torch.tensor([0.35, 0.01, 0.72]) + 0.02 * normal(n, 3)
    quat = normal(2, n, 4)
    quat = quat / quat.norm(dim=-1, keepdim=True)
    near = torch.rand(n, 1, generator=g) ** 2
    gap = 0.03 * torch.rand(n, generator=g)
    gap[: n // 10] = 0.0
    left = drawer + near * 0.05 * normal(n, 3)
    right = left - torch.stack((torch.zeros(n), torch.zeros(n), gap), 1)
    return CabinetState(
        gripper_pos=drawer + near * 0.3 * normal(n, 3),
        gripper_quat=quat[0],
        drawer_pos=drawer,
        drawer_quat=quat[1],
        left_finger=left,
        right_finger=right,
        drawer_opening=0.42 * torch.rand(n, generator=g),
        actions=2 * torch.rand(n, 9, generator=g) - 1,
    )


def _matrix(q):
    """Rotation matrix of an xyzw quaternion (textbook form, unlike the code's cross products)."""
    x, y, z, w = (float(v) for v in q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _restated_default(p, pq, g, gq, left, right, q, a):
    """The published default heuristic, one env at a time, in float64."""
    d = math.dist(p, g)
    dist = (1 / (1 + d * d)) ** 2 * (2 if d <= 0.02 else 1)
    rp, rg = _matrix(pq), _matrix(gq)
    c1 = rp[:, 2] @ (rg @ [-1.0, 0.0, 0.0])
    c2 = rp[:, 1] @ (rg @ [0.0, 0.0, 1.0])
    rot = 0.5 * (math.copysign(c1 * c1, c1) + math.copysign(c2 * c2, c2))
    straddle = left[2] > g[2] and right[2] < g[2]
    around = 0.5 if straddle else 0.0
    fingers = (0.04 - abs(left[2] - g[2])) + (0.04 - abs(right[2] - g[2])) if straddle else 0.0
    h = 2 * dist + 0.5 * rot + 0.25 * around + 7.5 * (q * around + q) + 5 * fingers - 0.01 * float(a @ a)
    h += 0.5 if q > 0.01 else 0.0
    h += around if q > 0.2 else 0.0
    h += 2 * around if q > 0.39 else 0.0
    if left[0] < g[0] - 0.04 or right[0] < g[0] - 0.04:
        return -1.0
    return h


def _columns(state):
    """One tuple of float64 numpy values per env."""
    fields = (
        state.gripper_pos,
        state.gripper_quat,
        state.drawer_pos,
        state.drawer_quat,
        state.left_finger,
        state.right_finger,
        state.drawer_opening,
        state.actions,
    )
    return zip(*(f.double().numpy() for f in fields))


def test_default_heuristic_equals_its_restatement():
    state = _random_state()
    terms = default_heuristic(state)
    total = torch.stack(list(terms.values())).sum(0)
    expected = [_restated_default(*row) for row in _columns(state)]
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-4, atol=2e-5)
    # every branch was taken
    assert {-1.0} < set(np.round(expected, 6)) and (terms["fingers"] != 0).any() and (terms["overreach"] != 0).any()


def test_distance_reward_doubles_within_two_centimetres():
    state = _random_state(2)
    state.gripper_pos = state.drawer_pos + torch.tensor([[0.0199, 0.0, 0.0], [0.0201, 0.0, 0.0]])
    got = default_heuristic(state)["distance"]
    assert got.tolist() == pytest.approx([4 / (1 + 0.0199**2) ** 2, 2 / (1 + 0.0201**2) ** 2], rel=1e-4)


def _angle(a, b):
    """Angle between the rotations, from the trace of the relative rotation matrix."""
    cos = (np.trace(_matrix(a) @ _matrix(b).T) - 1) / 2
    return math.acos(max(-1.0, min(1.0, cos)))


def _human(name, batch_norm):
    """The 12 published human heuristics, restated per env."""

    def f(p, pq, g, gq, left, right, q, a):
        d, dp, gap, s = math.dist(p, g), p - g, math.dist(left, right), float(q > 0.39)
        quat = math.dist(pq, gq)
        straddle = left[2] > g[2] + 0.01 and right[2] < g[2] - 0.01
        return {
            "h1": lambda: 100 * s - d * d + 1000 * q * q,
            "h2": lambda: s - 0.01 * np.linalg.norm(a) - 0.5 * _angle(gq, pq) - 2 * d + 7.5 * q,
            "h3": lambda: s + 7.5 * q + 2 * math.exp(-d * d / 3),
            "h4": lambda: -2 * d - 0.5 * quat - 0.25 * 2 * math.sqrt(2) + 7.5 * s - 5 * gap - 0.01 * np.mean(a * a),
            "h5": lambda: s + 1 / (1 + d) + q - float(gap < 0.001 and batch_norm > 0.01),
            "h6": lambda: -np.abs(dp).sum() + 10 * (q - 0.39),
            "h7": lambda: -3 * d * d / 3 + 10 * q + 20 * s + 0.1 * straddle,
            "h8": lambda: s - d + 10 * q,
            "h9": lambda: s + 0.1 * d + 0.01 * quat + 100 * (d - 0.1) * gap,
            "h10": lambda: -math.dist(g, (left + right) / 2) - math.sqrt(2),
            "h11": lambda: 5 * q - d,
            "h12": lambda: s + d * d / 3,
        }[name]()

    return f


@pytest.mark.parametrize("name", sorted(HUMAN_HEURISTICS))
def test_human_heuristics_equal_their_restatement(name):
    state = _random_state(seed=1)
    batch_norm = float((state.gripper_pos - state.drawer_pos).double().norm())
    expected = [_human(name, batch_norm)(*row) for row in _columns(state)]
    got = torch.stack(list(HUMAN_HEURISTICS[name](state).values())).sum(0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=2e-3 if name == "h2" else 1e-4)


def test_wrong_sign_heuristics_pay_for_staying_away():
    """h9 and h12: with an open gripper and a closed drawer, farther is better."""
    near, far = _random_state(1), _random_state(1)
    for state, distance in ((near, 0.1), (far, 0.5)):
        state.gripper_pos = state.drawer_pos + torch.tensor([[distance, 0.0, 0.0]])
        state.right_finger = state.left_finger - torch.tensor([[0.0, 0.0, 0.05]])
        state.drawer_opening = torch.zeros(1)
    for name in ("h9", "h12"):
        values = [sum(HUMAN_HEURISTICS[name](s).values()).item() for s in (near, far)]
        assert values[1] > values[0], name


def test_task_reward_is_the_share_of_time_open():
    got = task_reward(torch.tensor([0.0, 0.39, 0.3901, 0.4]), 499)
    assert got.tolist() == pytest.approx([0.0, 0.0, 1 / 499, 1 / 499])
    assert 499 * got[-1].item() == pytest.approx(1.0, rel=1e-5)


def test_actions_integrate_targets():
    """One step of a = 1 moves an arm target by 0.1245 rad and a finger target by 0.01245 m, up to the limits."""
    lower, upper = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.04])
    speed = torch.tensor([1.0, 0.1])
    got = integrate_targets(torch.tensor([[0.0, 0.0], [0.95, 0.035]]), torch.ones(2, 2), speed, 0.0166, lower, upper)
    assert got.flatten().tolist() == pytest.approx([0.1245, 0.01245, 1.0, 0.04], rel=1e-5)


class TestReset:
    def test_draws_are_uniform_and_clamped(self):
        """Kolmogorov-Smirnov on 10,000 draws of an arm joint; the fingers pile up at their limits as published."""
        u = torch.rand(10_000, 9, generator=torch.Generator().manual_seed(0))
        lower, upper = torch.full((9,), -2.9), torch.full((9,), 2.9)
        lower[7:], upper[7:] = 0.0, 0.04
        q = reset_pose(torch.tensor(DEFAULT_POSE), u, lower, upper)
        assert uniform_statistic((q[:, 0] - DEFAULT_POSE[0]) / 0.25 + 0.5) < ONE_PERCENT
        assert ((q >= lower) & (q <= upper)).all()
        for finger in (7, 8):
            assert (q[:, finger] == 0.0).float().mean().item() == pytest.approx(0.36, abs=0.015)
            assert (q[:, finger] == 0.04).float().mean().item() == pytest.approx(0.48, abs=0.015)
        assert np.corrcoef(q[:, 7], q[:, 8])[0, 1] == pytest.approx(0.0, abs=0.03)

    def test_only_the_mask_is_touched(self, env):
        env.reset()
        for _ in range(3):
            env.step(torch.rand(4, 9) * 2 - 1)
        before = env.sim.dof_pos.clone()
        env.task.reset(torch.tensor([True, False, False, True]))
        changed = (env.sim.dof_pos != before).any(1)
        assert changed.tolist() == [True, False, False, True]

    def test_state_after_reset_is_at_rest_and_fresh(self, env):
        obs = env.reset()
        assert obs[:, 9:18].abs().max().item() == 0.0 and obs[:, 21:].abs().max().item() == 0.0
        assert torch.equal(env.sim.dof_target_pos[:, :9], env.sim.dof_pos[:, :9])
        state = env.task.state()
        torch.testing.assert_close(obs[:, 18:21], state.drawer_pos - state.gripper_pos)


def test_observation_layout(env):
    place(env, pose(4, drawer=0.2), torch.full((4, 10), 0.5))
    obs = env.task.observe()
    assert obs.shape == (4, 23)
    lower, upper = env.sim.dof_lower[:9], env.sim.dof_upper[:9]
    expected = (2 * torch.tensor(DEFAULT_POSE) - upper - lower) / (upper - lower)
    torch.testing.assert_close(obs[0, :9], expected)
    assert obs[0, 9:18].tolist() == pytest.approx([0.05] * 9, rel=1e-5)
    # closed: (0.3515, 0.01, 0.7172) - grip, plus 0.2 m of opening along x
    assert obs[0, 18:21].tolist() == pytest.approx([0.3515 + 0.2 - 0.7844, 0.01 - 0.0823, 0.7172 - 0.8199], abs=2e-4)
    assert obs[0, 21:].tolist() == pytest.approx([0.2, 0.5], rel=1e-5)


def test_same_seed_same_trajectory_other_seed_another():
    def run(seed):
        env = make(3, seed=seed)
        obs = [env.reset().clone()]
        g = torch.Generator().manual_seed(9)
        for _ in range(20):
            obs.append(env.step(2 * torch.rand(3, 9, generator=g) - 1).obs.clone())
        return torch.stack(obs)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_random_actions_keep_every_world_sound():
    env = make(64)
    env.reset()
    g = torch.Generator().manual_seed(0)
    for _ in range(160):
        result = env.step(2 * torch.rand(64, 9, generator=g) - 1)
        assert torch.isfinite(result.obs).all() and result.obs.abs().max() <= 5.0
    assert env.bad_count.item() == 0 and env.sim.overflow_count.item() == 0


def test_props_are_none_or_sixteen():
    with pytest.raises(UserError, match="num_props must be 0.*got 3"):
        make(1, num_props=3)


def test_heuristic_names():
    assert list(FrankaCabinet.heuristics) == ["default"] + ["h%d" % i for i in range(1, 13)]
    for name in FrankaCabinet.heuristics:
        env = make(2, heuristic=name)
        env.reset()
        assert env.step(torch.zeros(2, 9)).rewards.shape == (2, 2)
    with pytest.raises(UserError, match="'h13'.*h1"):
        make(2, heuristic="h13")


def test_no_matrix_product_in_a_step():
    """rl-games lets matrix products run in TF32 on a GPU: its 10-bit mantissa is a millimetre of the gripper."""
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm", "mv", "dot"):
                products.append(func)
            return func(*args, **(kwargs or {}))

    for name in FrankaCabinet.heuristics:
        env = make(2, heuristic=name)
        env.reset()
        with Products():
            env.step(torch.zeros(2, 9))
    assert products == []


def test_a_users_own_dict_of_terms_is_not_written_to():
    """A heuristic may hand out the same dict every step; a term logged by the task must not end up in its sum."""
    mine = {}

    def same_dict(state):
        mine["reach"] = -(state.gripper_pos - state.drawer_pos).norm(dim=-1)
        return mine

    env = make(2)
    env.task.heuristic = HeuristicFunction("same_dict", same_dict)
    env.reset()
    place(env, pose(2, drawer=0.3), torch.zeros(2, 10))
    for _ in range(3):
        rewards = env.task.rewards()
    assert torch.equal(rewards.heuristic, mine["reach"]) and list(mine) == ["reach"]


def test_a_potential_of_the_state_is_the_same_after_a_resume_and_knows_no_action_after_a_reset():
    """The default heuristic read as Phi(s) sees the last action, so an environment has to carry it."""
    one, other = make(3), make(3, seed=1)
    one.reset()
    for _ in range(2):
        one.step(torch.ones(3, 9))
    other.load_state(one.get_state())
    penalty = [sum(default_heuristic(e.task.state()).values()) for e in (one, other)]
    assert torch.equal(*penalty)
    one.task.reset(torch.tensor([True, False, True]))
    expected = torch.tensor([0.0, -0.01 * 9, 0.0])
    torch.testing.assert_close(default_heuristic(one.task.state())["action_penalty"], expected)
