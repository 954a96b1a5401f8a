"""BallBalance's formulas and start against an independent restatement, its mechanism against the closed form."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from tasks.robots.ball_balance import (
    GOAL,
    TRAY_HEIGHT,
    BallState,
    ball_start,
    default_heuristic,
    task_reward,
    tray_wrench,
)
from tests.kolmogorov import ONE_PERCENT, uniform_statistic
from tests.tasks.robots import actions, make

FLAT = [0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0]  # a level tray half a metre up
REST = TRAY_HEIGHT + 0.01 + 0.1  # height of a ball that lies on the tray at joint angles 0
AZIMUTHS = [0.0, 2 * math.pi / 3, 4 * math.pi / 3]
BALL_WEIGHT = 200 * 4 / 3 * math.pi * 0.1**3 * 9.81  # N


@pytest.fixture(scope="module")
def env():
    return make("BallBalance", 3)


def drop(env, pos, vel=(0.0, 0.0, 0.0), spin=(0.0, 0.0, 0.0)):
    """Put the ball of every env somewhere and the robot into its initial pose."""
    env.reset()
    roots = env.sim.root_state.clone()
    roots[:, 1] = torch.tensor([[*pos, 0.0, 0.0, 0.0, 1.0, *vel, *spin]])
    env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), root_state=roots)


def hold(env, targets, steps):
    """Steer the lower legs' targets to (3,) rad and wait."""
    for _ in range(steps):
        error = torch.as_tensor(targets, dtype=torch.float32) - env.sim.dof_target_pos[:, 1::2]
        result = env.step(error / 0.2)
    return result


# ---- rewards ---------------------------------------------------------------------------------------------------------


def test_default_heuristic_equals_its_restatement():
    g = torch.Generator().manual_seed(0)
    s = BallState(torch.randn(500, 3, generator=g), 3 * torch.randn(500, 3, generator=g))
    expected = [
        1 / (1 + math.dist(p, (0, 0, 0.7))) / (1 + math.hypot(*v))
        for p, v in zip(s.ball_pos.tolist(), s.ball_vel.tolist())
    ]
    np.testing.assert_allclose(default_heuristic(s).numpy(), expected, rtol=1e-5)


def test_heuristic_by_hand():
    s = BallState(torch.tensor([GOAL, (0.3, 0.4, 0.7), (0.0, 0.0, 0.669)]), torch.zeros(3, 3))
    assert default_heuristic(s).tolist() == pytest.approx([1.0, 1 / 1.5, 0.9699], abs=1e-4)
    s.ball_vel[:] = torch.tensor([0.0, 3.0, -4.0])
    assert default_heuristic(s).tolist() == pytest.approx([1 / 6, 1 / 9, 0.9699 / 6], abs=1e-4)


def test_task_reward_is_the_share_of_the_episode_survived():
    assert task_reward(torch.tensor([False, True]), 498).tolist() == pytest.approx([1 / 498, 0.0])


def test_a_fallen_ball_ends_the_episode(env):
    drop(env, (2.0, 0.0, 0.16), vel=(0.0, 0.0, 0.0))
    assert not env.step(torch.zeros(3, 3)).done.any()  # 0.159 m
    drop(env, (2.0, 0.0, 0.16), vel=(0.0, 0.0, -2.0))
    result = env.step(torch.zeros(3, 3))
    assert result.terminated.all() and not result.time_out.any()
    assert (result.rewards[:, 0] == 0.0).all() and (result.metrics == 0.0).all()
    assert (result.final_obs[:, 8] < 0.15).all() and (result.obs[:, 8] >= 1.0).all()


def test_a_ball_that_lies_still_survives(env):
    drop(env, (0.0, 0.0, REST))
    env.progress[:] = 0
    results = [env.step(torch.zeros(3, 3)) for _ in range(498)]
    assert [r.done.any().item() for r in results] == [False] * 497 + [True]
    assert results[-1].time_out.all() and (results[-1].metrics == 1.0).all()
    assert sum(r.rewards[:, 0] for r in results).tolist() == pytest.approx([1.0] * 3, abs=1e-4)
    assert results[300].rewards[0, 1].item() == pytest.approx(0.97, abs=0.002)


def test_unknown_heuristic():
    with pytest.raises(UserError, match="unknown heuristic of BallBalance 'dflt': did you mean 'default'"):
        make("BallBalance", 1, "heuristic=dflt")


# ---- observations, actions and resets --------------------------------------------------------------------------------


def matrix(q):
    """Rotation matrix of an xyzw quaternion."""
    x, y, z, w = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def restated_wrench(tray, point, force):
    """Sensor readings of one env from the place of contact in the world, sensor by sensor."""
    rotation = matrix(tray[3:])
    sensors = []
    for a in AZIMUTHS:
        place = tray[:3] + rotation @ [0.4 * math.cos(a), 0.4 * math.sin(a), 0.0]
        sensors.append(np.concatenate((rotation.T @ force, rotation.T @ np.cross(point - place, force))))
    return [sensor[k] for k in (0, 3, 4, 5) for sensor in sensors]


def test_wrench_of_a_ball_on_top():
    """It touches one radius below its centre, along the tray's normal."""
    rng = np.random.default_rng(0)
    quat = rng.normal(size=(50, 4)) * [0.2, 0.2, 1.0, 1.0]
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    tray = np.concatenate((rng.normal(size=(50, 3)), quat), 1)
    force = rng.normal(size=(50, 3)) * 10
    ball, expected = [], []
    for pose, push in zip(tray, force):
        normal = matrix(pose[3:]) @ [0.0, 0.0, 1.0]
        point = pose[:3] + matrix(pose[3:]) @ [*rng.uniform(-0.35, 0.35, 2), 0.01]
        ball.append(point + 0.1 * normal)
        expected.append(restated_wrench(pose, point, push))
    got = tray_wrench(*(torch.tensor(np.array(x), dtype=torch.float32) for x in (tray, ball, force)))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_wrench_by_hand():
    """8 N down at (0.2, 0.1) of a level tray, 0.2 m short of the first sensor; a ball beside it touches the rim."""
    got = tray_wrench(torch.tensor([FLAT]), torch.tensor([[0.2, 0.1, 0.61]]), torch.tensor([[0.0, 0.0, -8.0]]))[0]
    assert got[:3].tolist() == [0.0, 0.0, 0.0]
    assert got[[3, 6, 9]].tolist() == pytest.approx([-0.8, -1.6, 0.0], abs=1e-5)
    got = tray_wrench(torch.tensor([FLAT]), torch.tensor([[0.6, 0.0, 0.5]]), torch.tensor([[-5.0, 2.0, 0.0]]))[0]
    assert got[:3].tolist() == [-5.0] * 3
    assert got[[3, 6, 9]].tolist() == pytest.approx([0.0, 0.0, 0.1 * 2.0], abs=1e-5)


def test_wrench_of_a_ball_in_the_air_is_zero(env):
    assert (env.reset()[:, 12:] == 0.0).all()


def test_the_point_of_contact_is_the_engines():
    """On a moving tilted tray the torques are those of the force at the place where MuJoCo finds the contact."""
    env = make("BallBalance", 8)
    env.reset()
    model, seen = env.sim.model, 0
    data = mujoco.MjData(model)
    for move in 0.2 * actions(env, 0, 60):
        env.step(move)
        roots, force = env.sim.root_state.double().numpy(), env.sim.contact_force[:, 0].double().numpy()
        got = env.task.observe()[:, 12:]
        for k in np.flatnonzero(np.linalg.norm(force, axis=1) > 1.0):
            data.qpos[:] = env.sim.render_state(int(k))["qpos"].numpy()
            mujoco.mj_forward(model, data)
            if data.ncon == 1:
                expected = restated_wrench(roots[k, 0, :7], data.contact.pos[0], force[k])
                # The engine puts it half the penetration deeper, up to 3 mm in an impact.
                slack = 3e-3 * np.linalg.norm(force[k]) / 20 + 1e-5
                np.testing.assert_allclose(got[k].numpy(), np.array(expected) / 20, atol=slack)
                seen += 1
    assert seen > 20


def test_observation_layout(env):
    drop(env, (0.2, -0.1, 0.9), vel=(1.0, 2.0, -3.0))
    q, qd = torch.arange(6.0).repeat(3, 1) / 10, torch.arange(6.0).repeat(3, 1) / 5
    env.sim.set_state(torch.ones(3, dtype=torch.bool), q, qd)
    obs = env.task.observe()[1]
    assert obs.shape == (24,)
    assert obs[:6].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.2, 0.6, 1.0])  # lower legs only
    assert obs[6:12].tolist() == pytest.approx([0.2, -0.1, 0.9, 1.0, 2.0, -3.0])
    assert (obs[12:] == 0.0).all()


def test_a_resting_ball_is_felt(env):
    drop(env, (0.2, 0.1, REST))
    for _ in range(40):
        env.step(torch.zeros(3, 3))
    assert env.sim.contact_force[0, 0].tolist() == pytest.approx([0.0, 0.0, -BALL_WEIGHT], abs=0.1)
    x, y = env.sim.root_state[0, 1, :2].tolist()
    torques = env.task.observe()[0, 15:].reshape(3, 3)  # axis, sensor
    for i, a in enumerate(AZIMUTHS):
        expected = [-(y - 0.4 * math.sin(a)) * BALL_WEIGHT, (x - 0.4 * math.cos(a)) * BALL_WEIGHT, 0.0]
        assert (20 * torques[:, i]).tolist() == pytest.approx(expected, abs=0.05)


def test_actions_integrate_the_lower_legs_targets(env):
    env.reset()
    env.task.apply(torch.tensor([[1.0, -0.5, 0.0]]).repeat(3, 1))
    assert env.sim.dof_target_pos[0].tolist() == pytest.approx([0.0, 0.2, 0.0, -0.1, 0.0, 0.0])
    for _ in range(20):
        env.task.apply(torch.tensor([[1.0, -0.5, 0.0]]).repeat(3, 1))
    limits = [0.0, math.pi / 2, 0.0, -70 / 180 * math.pi, 0.0, 0.0]
    assert env.sim.dof_target_pos[0].tolist() == pytest.approx(limits)


def test_start_of_the_ball_is_distributed_as_published():
    """Kolmogorov-Smirnov on 10,000 starts, 1 % level."""
    u = torch.rand(10_000, 4, generator=torch.Generator().manual_seed(0))
    start = ball_start(u, torch.zeros(10_000, 13).index_fill(1, torch.tensor([6, 12]), 1.0))
    x, y, z, vx, vy, vz = start[:, [0, 1, 2, 7, 8, 9]].double().unbind(1)
    distance, speed = torch.hypot(x, y), torch.hypot(vx, vy)
    share = (distance - 0.001) / 0.499
    draws = {
        "distance": share,
        "direction": torch.atan2(y, x) / (2 * math.pi) + 0.5,
        "height": z - 1.0,
        "pace": speed / (5.0 * share),
    }
    for name, draw in draws.items():
        assert uniform_statistic(draw) < ONE_PERCENT, name
    assert (torch.corrcoef(torch.stack(list(draws.values()))) - torch.eye(4)).abs().max().item() < 0.05
    assert ((x * vx + y * vy) / (distance * speed)).max().item() == pytest.approx(-1.0, abs=1e-3)  # straight inward
    assert (vz == -5.0).all()
    assert (start[:, 6] == 1.0).all() and (start[:, 12] == 1.0).all() and (start[:, 3:6] == 0.0).all()


def test_reset_puts_the_robot_back(env):
    env.reset()
    for move in actions(env, 0, 10):
        env.step(move)
    env.task.reset(torch.tensor([False, True, False]))
    sim = env.sim
    assert sim.root_state[1, 0].tolist() == pytest.approx([0, 0, TRAY_HEIGHT, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], abs=1e-6)
    assert (sim.dof_pos[1] == 0).all() and (sim.dof_vel[1] == 0).all() and (sim.dof_target_pos[1] == 0).all()
    assert (sim.root_state[1, 1, 10:] == 0).all()  # the ball does not spin


# ---- the mechanism ---------------------------------------------------------------------------------------------------


def feet_error(sim):
    """Largest distance (m) of a foot from its place on the floor, over all worlds."""
    model, worst = sim.model, 0.0
    data = mujoco.MjData(model)
    for k in range(sim.num_envs):
        data.qpos[:] = sim.render_state(k)["qpos"].numpy()
        mujoco.mj_kinematics(model, data)
        for leg, a in enumerate(AZIMUTHS):
            body = model.body("robot/lower_leg%d" % leg).id
            foot = data.xpos[body] + data.xmat[body].reshape(3, 3) @ [0.0, 0.0, 0.18]
            worst = max(worst, math.dist(foot, (0.4 * math.cos(a), 0.4 * math.sin(a), 0.02)))
    return worst


def test_masses(env):
    mass = {name: env.sim.model.body(name).mass[0] for name in ("robot/tray", "robot/upper_leg1", "ball/ball")}
    assert mass == pytest.approx({"robot/tray": 1.5708, "robot/upper_leg1": 0.4859, "ball/ball": 0.8378}, abs=1e-4)
    assert env.sim.model.body_mass.sum() == pytest.approx(4.486 + 0.838, abs=1e-3)


def test_the_robot_stands_still_on_its_feet(env):
    drop(env, (0.0, 0.0, REST))
    assert feet_error(env.sim) < 1e-5
    for _ in range(100):
        env.step(torch.zeros(3, 3))
    tray = env.sim.root_state[0, 0]
    assert tray[:7].tolist() == pytest.approx([0, 0, TRAY_HEIGHT, 0, 0, 0, 1], abs=1e-3)
    assert tray[7:].abs().max().item() < 1e-3
    assert feet_error(env.sim) < 1e-3


def test_an_impact_moves_the_feet_by_millimetres(env):
    env.reset()
    worst = 0.0
    for _ in range(50):
        env.step(torch.zeros(3, 3))
        worst = max(worst, feet_error(env.sim))
    assert worst < 5e-3


def test_random_commands_do_not_tear_the_feet_off():
    env = make("BallBalance", 4)
    env.reset()
    worst, upper = 0.0, 0.0
    for move in actions(env, 1, 120):
        env.step(move)
        worst = max(worst, feet_error(env.sim))
        upper = max(upper, env.sim.dof_pos[:, ::2].abs().max().item())
    assert worst < 0.04
    assert upper < math.pi / 4 + 0.06  # the passive joints' stops hold against the drives


@pytest.mark.parametrize("angle", [-0.6, 0.6])
def test_the_tray_follows_the_legs(env, angle):
    """Equal legs are isosceles triangles over the feet: height 0.05 + 0.72 cos(45° - q / 2)."""
    drop(env, (0.0, 0.0, REST))
    hold(env, [angle] * 3, 100)
    sim = env.sim
    assert sim.dof_pos[0, 1::2].tolist() == pytest.approx([angle] * 3, abs=0.01)
    assert sim.dof_pos[0, ::2].tolist() == pytest.approx([-angle / 2] * 3, abs=0.01)
    assert sim.root_state[0, 0, 2].item() == pytest.approx(0.05 + 0.72 * math.cos(math.pi / 4 - angle / 2), abs=4e-3)
    assert feet_error(sim) < 1e-3


def test_a_longer_leg_raises_its_side(env):
    drop(env, (0.0, 0.0, 1.5))
    hold(env, [0.3, 0.0, 0.0], 30)
    up = matrix(env.sim.root_state[0, 0, 3:7].tolist())[:, 2]
    assert up[0] < -0.05 and abs(up[1]) < 1e-3  # the first leg is at +x


def test_the_ball_hardly_bounces(env):
    drop(env, (0.0, 0.0, 1.0), vel=(0.0, 0.0, -5.0))
    speeds = []
    for _ in range(40):
        env.step(torch.zeros(3, 3))
        speeds.append(env.sim.root_state[0, 1, 9].item())
    assert min(speeds) < -5.5 and max(speeds) < 0.1 * 5.6


def test_a_sliding_ball_comes_to_roll(env):
    """Friction turns a slide of v0 into rolling at 5/7 v0, whatever its coefficient; no rolling resistance."""
    drop(env, (0.0, 0.0, REST), vel=(0.3, 0.0, 0.0))
    for _ in range(30):
        env.step(torch.zeros(3, 3))
    ball = env.sim.root_state[0, 1]
    assert ball[7].item() == pytest.approx(0.3 * 5 / 7, rel=0.02)
    assert ball[11].item() == pytest.approx(0.3 * 5 / 7 / 0.1, rel=0.02)


def test_a_turn_of_the_scene_by_a_leg_turns_what_happens():
    """Three envs, each a third of a turn on, with the actions handed on from leg to leg.

    With the shipped friction pyramid, which has corners, the ball is 5 mm off after the 40 steps.
    """
    env = make("BallBalance", 3, "+task.physics.options.mujoco.cone=elliptic")
    env.reset()
    c, s = [torch.tensor([f(a) for a in AZIMUTHS]) for f in (math.cos, math.sin)]
    roots = env.sim.root_state.clone()

    def turned(x, y):
        return torch.stack((c * x - s * y, s * x + c * y), 1)

    roots[:, 1] = 0.0
    roots[:, 1, 6] = 1.0
    roots[:, 1, :2], roots[:, 1, 2] = turned(0.1, 0.05), 0.8
    roots[:, 1, 7:9], roots[:, 1, 9] = turned(0.2, -0.1), -1.0
    env.sim.set_state(torch.ones(3, dtype=torch.bool), root_state=roots)
    for move in 0.2 * actions(env, 4, 40)[:, 0]:
        env.step(torch.stack([move.roll(k) for k in range(3)]))
    ball = env.sim.root_state[:, 1]
    x, y = ball[0, :2].tolist()
    torch.testing.assert_close(ball[:, :2], turned(x, y), rtol=0, atol=1e-3)
    torch.testing.assert_close(ball[:, 2], ball[:1, 2].expand(3), rtol=0, atol=1e-3)
    q = env.sim.dof_pos.reshape(3, 3, 2)
    for k in range(3):
        torch.testing.assert_close(q[k].roll(-k, 0), q[0], rtol=0, atol=1e-3)


def test_a_state_feedback_keeps_most_balls():
    """The tray tilts against where the ball is and goes; after 2.5 s those that are still there are settled."""
    env = make("BallBalance", 16)
    env.reset()
    legs = torch.tensor([[math.cos(a), math.sin(a)] for a in AZIMUTHS])
    alive = torch.ones(16, dtype=torch.bool)
    for _ in range(250):
        ball = env.sim.root_state[:, 1]
        lean = ball[:, :2] + 0.5 * ball[:, 7:9]
        target = 0.5 * (lean.unsqueeze(1) * legs).sum(2)
        result = env.step((target - env.sim.dof_target_pos[:, 1::2]) / 0.2)
        alive &= ~result.terminated
    assert alive.float().mean().item() > 0.8
    assert result.rewards[alive, 1].median().item() > 0.8
