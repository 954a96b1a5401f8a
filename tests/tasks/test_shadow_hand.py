"""ShadowHand's own part: observation types, joints and actions; what it shares with AllegroHand is in test_in_hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from tests.kolmogorov import ONE_PER_MILLE, uniform_statistic
from tests.tasks.hands import make

TASK = "ShadowHand"
DT = 0.01667
LIMITS = {  # published joint ranges, rad
    "WRJ1": (-0.489, 0.14),
    "WRJ0": (-0.698, 0.489),
    **{f + "J3": (-0.349, 0.349) for f in ("FF", "MF", "RF", "LF")},
    **{f + j: (0.0, 1.571) for f in ("FF", "MF", "RF", "LF") for j in ("J2", "J1", "J0")},
    "LFJ4": (0.0, 0.785),
    "THJ4": (-1.047, 1.047),
    "THJ3": (0.0, 1.222),
    "THJ2": (-0.209, 0.209),
    "THJ1": (-0.524, 0.524),
    "THJ0": (-1.571, 0.0),
}
ACTIONS = [
    *("WRJ1", "WRJ0", "FFJ3", "FFJ2", "FFJ1", "MFJ3", "MFJ2", "MFJ1", "RFJ3", "RFJ2", "RFJ1"),
    *("LFJ4", "LFJ3", "LFJ2", "LFJ1", "THJ4", "THJ3", "THJ2", "THJ1", "THJ0"),
]
PASSIVE = ["FFJ0", "MFJ0", "RFJ0", "LFJ0"]


def uniform(*shape, seed=0):
    return 2.0 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1.0


def names(env):
    return [name.split("/")[1] for name in env.sim.dof_names]


@pytest.fixture(scope="module")
def shared():
    env = make(TASK, 4)
    yield env
    env.close()


@pytest.fixture
def env(shared):
    shared.reset()
    return shared


# ---- joints and actions ----------------------------------------------------------------------------------------------
def test_joint_limits(env):
    assert len(env.sim.dof_names) == 24
    for name, low, high in zip(names(env), env.sim.dof_lower.tolist(), env.sim.dof_upper.tolist()):
        assert (low, high) == pytest.approx(LIMITS[name]), name


def test_each_action_sets_the_target_of_its_joint(env):
    """Action k of 1 in env 0, of -1 in env 1, of 0.5 in env 2; every other action is 0, the middle of its range."""
    middle = {name: 0.5 * (low + high) for name, (low, high) in LIMITS.items()}
    for k, joint in enumerate(ACTIONS):
        actions = torch.zeros(4, 20)
        actions[:3, k] = torch.tensor([1.0, -1.0, 0.5])
        env.task.apply(actions)
        low, high = LIMITS[joint]
        for row, wanted in enumerate((high, low, low + 0.75 * (high - low), middle[joint])):
            targets = dict(zip(names(env), env.sim.dof_target_pos[row].tolist()))
            expected = {**middle, joint: wanted}
            for name in ACTIONS:
                assert targets[name] == pytest.approx(expected[name], abs=1e-6), (joint, name)


def test_distal_joints_follow_no_target(env):
    """Whatever their target, nothing drives them."""
    driven = {names(env)[a.dof] for a in env.sim.scene.actuators}
    assert driven == set(ACTIONS)
    env.step(uniform(4, 20))
    columns = [names(env).index(name) for name in PASSIVE]
    assert env.sim.dof_force[:, columns].abs().max() == 0.0 and env.sim.dof_force.abs().max() > 0.1


def test_relative_control_moves_a_target_by_a_third_of_a_radian_at_most():
    env = make(TASK, 2, "task.use_relative_control=true")
    env.reset()
    start, columns = env.sim.dof_pos.clone(), env.task.columns
    env.step(torch.full((2, 20), 0.2))
    expected = torch.minimum(start + 20 * DT * 0.2, env.sim.dof_upper)
    torch.testing.assert_close(env.sim.dof_target_pos[:, columns], expected[:, columns])


# ---- resets ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind, height", [("block", 0.6), ("egg", 0.6), ("pen", 0.52)])
def test_start_and_goal_position(kind, height):
    env = make(TASK, 32, "task.object_type=" + kind)
    env.reset()
    offset = env.sim.root_state[:, 1, :3] - torch.tensor([0.0, -0.39, height])
    assert offset.abs().max() <= 0.01 and offset.abs().max() > 0.005
    torch.testing.assert_close(env.task.goal[:, :3], torch.tensor([[0.0, -0.39, height - 0.04]]).expand(32, 3))


def test_start_pose_is_uniform_on_a_fifth_of_each_range():
    env = make(TASK, 1000)
    draws = []
    for _ in range(10):
        env.task.reset(torch.ones(1000, dtype=torch.bool))
        draws.append(env.sim.dof_pos.clone())
    lower, upper = env.sim.dof_lower, env.sim.dof_upper
    assert uniform_statistic((torch.cat(draws) / 0.2 - lower) / (upper - lower)) < ONE_PER_MILLE
    correlation = torch.corrcoef(torch.cat(draws).T) - torch.eye(24)
    assert correlation.abs().max() < 0.05
    env.close()


# ---- observations ----------------------------------------------------------------------------------------------------
def _expected(env, action):
    """The published full state, one env at a time, from the engine's tensors."""
    sim, rows = env.sim, []
    for i in range(env.num_envs):
        q, lower, upper = (x.double().numpy() for x in (sim.dof_pos[i], sim.dof_lower, sim.dof_upper))
        obj = sim.root_state[i, sim.actor_index("object")].double().numpy()
        goal = env.task.goal[i].double().numpy()
        ax, ay, az, aw = obj[3:7]
        bx, by, bz, bw = goal[3:7] * [-1, -1, -1, 1]
        relative = [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]
        tips = [sim.body_state[i, sim.body_index("hand/%sdistal" % f)].numpy() for f in ("ff", "mf", "rf", "lf", "th")]
        row = {
            "joint_pos": (2 * q - upper - lower) / (upper - lower),
            "joint_vel": 0.2 * sim.dof_vel[i].numpy(),
            "joint_force": 10.0 * sim.dof_force[i].numpy(),
            "object_pose": obj[:7],
            "object_linvel": obj[7:10],
            "object_angvel": 0.2 * obj[10:],
            "goal_pose": goal,
            "relative_quat": relative,
            "fingertips": np.concatenate(tips),
            "fingertip_force": 10.0 * sim.force_sensor[i].flatten().numpy(),
            "action": action[i].numpy(),
            "fingertip_pos": np.concatenate([tip[:3] for tip in tips]),
            "object_pos": obj[:3],
        }
        rows.append({name: np.clip(value, -5.0, 5.0) for name, value in row.items()})
    return rows


PARTS = {
    "full_state": "joint_pos joint_vel joint_force object_pose object_linvel object_angvel goal_pose relative_quat "
    "fingertips fingertip_force action",
    "full": "joint_pos joint_vel object_pose object_linvel object_angvel goal_pose relative_quat fingertips action",
    "full_no_vel": "joint_pos object_pose goal_pose relative_quat fingertip_pos action",
    "openai": "fingertip_pos object_pos relative_quat action",
}


@pytest.mark.parametrize("kind, size", [("full_state", 211), ("full", 157), ("full_no_vel", 77), ("openai", 42)])
def test_observation_types(kind, size):
    env = make(TASK, 3, "task.observation_type=" + kind)
    env.reset()
    for k in range(30):  # until the block lies in the hand
        action = uniform(3, 20, seed=k)
        obs = env.step(action).obs
    assert obs.shape == (3, size) and env.num_obs == size and env.task.num_states == 0
    needed = PARTS[kind].split()
    if "fingertip_force" in needed:
        assert env.sim.force_sensor.abs().max() > 0.1
    else:  # what nobody observes is not computed
        assert env.sim.force_sensor.shape[1] == 0
        env.sim.force_sensor = torch.zeros(3, 5, 6)
    if "fingertips" not in needed:
        assert env.sim.body_state[..., 7:].isnan().all()
    expected = [np.concatenate([row[name] for name in needed]) for row in _expected(env, action)]
    np.testing.assert_allclose(obs.numpy(), expected, atol=2e-6)


def test_offsets_in_the_full_state(env):
    """Numbers of the published layout: 96 is where fingertip states begin, 161 their forces, 191 the actions."""
    action = uniform(4, 20)
    obs = env.step(action).obs
    tips = env.sim.body_state[:, 1:]
    for tip in range(5):
        torch.testing.assert_close(obs[:, 96 + 13 * tip : 99 + 13 * tip], tips[:, tip, :3])
        torch.testing.assert_close(
            obs[:, 161 + 6 * tip : 167 + 6 * tip], (10.0 * env.sim.force_sensor[:, tip]).clamp(-5, 5)
        )
    torch.testing.assert_close(obs[:, 191:], action)
    assert obs[:, 85:88].unique(dim=0).flatten().tolist() == pytest.approx([0.0, -0.39, 0.56])


def test_fingertips_are_distal_joints_not_tips():
    """At zero angles the first finger's distal joint is 7 cm beyond its knuckle, at y = -0.385 - 0.070."""
    env = make(TASK, 1)
    env.reset()
    zero = torch.zeros(1, 24)
    env.sim.set_state(torch.tensor([True]), zero, zero)
    expected = [(-0.033, -0.455), (-0.011, -0.459), (0.011, -0.455), (0.034, -0.448)]
    tips = env.sim.body_state[0, 1:, :3]
    for tip, (x, y) in zip(tips, expected):
        assert tip.tolist() == pytest.approx([x, y, 0.49], abs=1e-5)
    assert tips[4, 0].item() < -0.08 and tips[4, 1].item() > -0.4


def test_the_critic_may_see_the_full_state():
    env = make(TASK, 2, "task.observation_type=openai", "task.asymmetric_observations=true")
    full = make(TASK, 2)
    env.reset()
    full.reset()
    move = uniform(2, 20)
    seen, expected = env.step(move).obs, full.step(move).obs
    assert (env.task.num_obs, env.num_states, full.num_states) == (42, 211, 0)
    assert torch.equal(seen[:, 42:], expected) and torch.equal(seen[:, 22:42], move)


def test_joint_forces_can_be_left_out():
    env = make(TASK, 2, "task.observe_joint_force=false")
    env.reset()
    obs = env.step(uniform(2, 20)).obs
    assert obs[:, 48:72].abs().max() == 0.0 and env.sim.dof_force.abs().max() > 0.0


# ---- rewards ---------------------------------------------------------------------------------------------------------
def test_rewards_where_an_episode_starts(env):
    """At the start point, a quarter turn off: h = -10 * 0.04 + 1 / (pi / 2 + 0.1)."""
    root = env.sim.root_state.clone()
    root[:, 1, :7] = torch.tensor([0.0, -0.39, 0.6, 0.0, 0.0, 0.0, 1.0])
    env.sim.set_state(torch.ones(4, dtype=torch.bool), root_state=root)
    env.task._actions.zero_()
    env.task.set_goal(torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]))
    rewards = env.task.rewards()
    assert rewards.heuristic.tolist() == pytest.approx([-0.4 + 1.0 / (math.pi / 2 + 0.1)] * 4, rel=1e-5)
    assert rewards.task.tolist() == [0.0] * 4
    env.task.set_goal(torch.tensor([0.0, 0.0, math.sin(0.049), math.cos(0.049)]))
    rewards = env.task.rewards()
    assert rewards.task.tolist() == pytest.approx([1 / 599] * 4)
    assert rewards.heuristic.tolist() == pytest.approx([-0.4 + 1.0 / (0.098 + 0.1) + 250.0] * 4, rel=1e-4)


def test_unknown_observation_type():
    with pytest.raises(UserError, match="'full_vel'.*full_no_vel, full_state, openai"):
        make(TASK, 1, "task.observation_type=full_vel")


def test_scores_are_counts_of_goals(env):
    """Thirty goals in an episode are J = 30 / 599."""
    total = 0.0
    for _ in range(30):
        env.task.set_goal(env.sim.root_state[:, 1, 3:7])
        total += env.task.rewards().task[0].item()
    assert total == pytest.approx(0.0501, abs=1e-4)
