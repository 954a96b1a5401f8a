"""Ant: heuristic, observation, resets and physics against the published numbers and an independent restatement."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from tasks.robots.ant import Ant, default_heuristic, two_sided_heuristic
from tests.kolmogorov import ONE_PER_MILLE, uniform_statistic
from tests.tasks.robots import actions, make
from tests.tasks.walkers import (
    geometry,
    put,
    ranges,
    resets,
    restated_motion,
    scatter,
    steps_from_anywhere,
    turned,
)


@pytest.fixture(scope="module")
def env():
    env = make("Ant", 32)
    env.reset()
    yield env
    env.close()


# ---- heuristic -------------------------------------------------------------------------------------------------------


def _restated_heuristic(before, root, q_scaled, qd, a):
    """The published h of one env, in float64; q_scaled are the joints in their ranges."""
    h = 0.5 + restated_motion(before, root)
    h -= 0.005 * sum(x * x for x in a)
    h -= 0.05 * sum(abs(x * 0.2 * v) for x, v in zip(a, qd))
    h -= 0.1 * sum(1 for x in q_scaled if x > 0.99)
    return -2.0 if root[2] < 0.31 else h


def test_heuristic_equals_its_restatement(env):
    seen, values = steps_from_anywhere(env, low=0.2)
    expected = np.array([_restated_heuristic(*row) for row in seen])
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-4, atol=2e-3)
    fallen = expected == -2.0
    assert 0 < fallen.sum() < len(seen) and (np.concatenate([row[2] for row in seen]) > 0.99).any()


def test_heuristic_at_rest_in_the_start_pose(env):
    """0.5 alive + 0.1 up + 0.5 heading - 0.1 each for ankles 2 and 3, which start at their upper limit."""
    env.reset()
    put(env)
    state = env.task.state()
    assert sum(default_heuristic(state).values())[0].item() == pytest.approx(1.1 - 0.2)
    assert sum(two_sided_heuristic(state).values())[0].item() == pytest.approx(1.1 - 0.4)
    limits = default_heuristic(state)["limits"]
    put(env, q=torch.where(torch.arange(8) % 2 == 1, env.sim.dof_lower, torch.zeros(8)))
    assert limits[0].item() == pytest.approx(-0.2)
    assert default_heuristic(env.task.state())["limits"][0].item() == 0.0  # nothing at the lower limits


def test_costs_by_hand(env):
    state = env.task.state()
    state.actions = torch.full((32, 8), -0.5)
    state.dof_vel = torch.full((32, 8), 10.0)
    terms = default_heuristic(state)
    assert terms["action_cost"][0].item() == pytest.approx(-0.005 * 8 * 0.25)
    assert terms["energy"][0].item() == pytest.approx(-0.05 * 8 * 0.5 * 0.2 * 10.0)


def test_names_of_heuristics():
    assert list(Ant.heuristics) == ["default", "two_sided"]


# ---- observation -----------------------------------------------------------------------------------------------------


def _restated_observation(root, q_scaled, qd, sensors, a):
    """The published observation of one env, in float64."""
    g = geometry(root)
    return np.concatenate(
        (
            [root[2]],
            g["velocity"],
            g["spin"],
            [g["yaw"], g["roll"], g["to_target"], g["up"], g["heading"]],
            q_scaled,
            0.2 * qd,
            0.1 * sensors,
            a,
        )
    )


# Here each column may have a constant factor against the published one (environments clip at +-5).
FACTORS = np.array([1.0] + [0.1] * 6 + [0.5] * 3 + [1.0] * 2 + [1.0] * 8 + [0.25] * 8 + [0.1] * 24 + [1.0] * 8)


def test_observation_equals_its_restatement(env):
    scatter(env, 11)
    move = actions(env, 11, 1)[0]
    env.task.apply(move)
    env.sim.step()
    obs = env.task.observe().double().numpy()
    sim = env.sim
    columns = (sim.root_state[:, 0], sim.dof_pos, sim.dof_vel, sim.force_sensor.flatten(1), move)
    root, q, qd, sensors, a = (x.double().numpy() for x in columns)
    q = ranges(env, q)
    assert obs.shape == (32, 60)
    for i in range(32):
        expected = FACTORS * _restated_observation(root[i], q[i], qd[i], sensors[i], a[i])
        np.testing.assert_allclose(obs[i], expected, atol=1e-4, rtol=1e-4)
    assert np.abs(sensors).max() > 0.1 and np.abs(obs[:, 20:28]).max() > 0.1


def test_yaw_jumps_at_zero(env):
    """Published: yaw and roll are in [0, 2 pi), the angle to the target is not wrapped."""
    put(env, quat=turned(0.1))
    assert env.task.observe()[0, 7:10].tolist() == pytest.approx([0.05, 0.0, -0.05], abs=1e-3)
    put(env, quat=turned(-0.1))
    jumped = 0.5 * (2 * math.pi - 0.1)
    assert env.task.observe()[0, 7:10].tolist() == pytest.approx([jumped, 0.0, -jumped], abs=1e-3)


# ---- resets ----------------------------------------------------------------------------------------------------------


def test_resets_draw_the_published_distributions():
    """10,000 resets: hips uniform within 0.2 rad, speeds within 0.1 rad/s, half of the ankles at their limit."""
    drawn = resets("Ant", 20)
    q, qd = drawn["q"].double(), drawn["qd"].double()
    for hip in (0, 2, 4, 6):
        assert uniform_statistic(q[:, hip], -0.2, 0.2) < ONE_PER_MILLE
    for joint in range(8):
        assert uniform_statistic(qd[:, joint], -0.1, 0.1) < ONE_PER_MILLE
    start = math.radians(30.0)
    for ankle, sign in ((1, 1), (3, -1), (5, -1), (7, 1)):
        bent = sign * q[:, ankle] - start  # away from the limit
        clamped = bent < 1e-5
        assert clamped.double().mean().item() == pytest.approx(0.5, abs=0.02)
        assert uniform_statistic(bent[~clamped], 0.0, 0.2) < ONE_PER_MILLE
    both = np.corrcoef(torch.cat((q, qd), 1).numpy().T)
    assert np.abs(both - np.eye(16)).max() < 0.05


# ---- physics ---------------------------------------------------------------------------------------------------------


def test_masses_and_joints(env):
    model = env.sim.model
    mass = {model.body(b).name.split("/")[-1]: model.body_mass[b] for b in range(1, model.nbody)}
    assert mass["torso"] == pytest.approx(0.4839, abs=1e-4)
    assert mass["front_left_leg"] == pytest.approx(0.0392, abs=1e-4)
    assert mass["right_back_foot"] == pytest.approx(0.0676, abs=1e-4)
    assert sum(mass.values()) == pytest.approx(0.911, abs=1e-3)
    assert env.sim.dof_names == ["ant/%s_%d" % (joint, leg) for leg in range(1, 5) for joint in ("hip", "ankle")]
    degrees = np.degrees(np.stack((env.sim.dof_lower, env.sim.dof_upper), 1)).round().tolist()
    assert degrees == [[-40, 40], [30, 100], [-40, 40], [-100, -30], [-40, 40], [-100, -30], [-40, 40], [30, 100]]
    np.testing.assert_allclose(model.dof_damping[6:], 0.1)
    np.testing.assert_allclose(model.dof_armature[6:], 0.01)
    np.testing.assert_allclose(model.jnt_stiffness, 0.0)


def test_lowest_point_of_the_start_pose(env):
    """0.077 m above the ground: the foot's capsule ends 0.4 sqrt(2) sin(30 deg) below the root's 0.44 m."""
    assert 0.44 - 0.4 * math.sqrt(2) * 0.5 - 0.08 == pytest.approx(0.077, abs=1e-3)
    put(env)
    model, data = env.sim.model, mujoco.MjData(env.sim.model)
    data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
    mujoco.mj_forward(model, data)
    feet = [g for g in range(model.ngeom) if model.geom(g).name.endswith("foot")]
    ends = [
        data.geom_xpos[g] + s * model.geom_size[g, 1] * data.geom_xmat[g].reshape(3, 3)[:, 2]
        for g in feet
        for s in (-1, 1)
    ]
    assert len(feet) == 4 and min(end[2] for end in ends) - 0.08 == pytest.approx(0.077, abs=1e-3)


def test_an_action_is_a_torque(env):
    """15 N m at action 1 in each motor, and the first move follows from inertia: the hips' accelerations are opposite
    for opposite torques."""
    env.reset()
    put(env, pos=[0.0, 0.0, 3.0])
    move = torch.zeros(32, 8)
    move[0], move[1] = 1.0, -0.5
    env.task.apply(move)
    env.sim.step()
    assert torch.equal(env.sim.dof_force[0], torch.full((8,), 15.0))
    assert torch.equal(env.sim.dof_force[1], torch.full((8,), -7.5))
    assert (env.sim.dof_vel[0, ::2] > 1.0).all() and (env.sim.dof_vel[1, ::2] < -0.5).all()
    assert env.sim.dof_vel[2].abs().max() < 1e-4


def test_standing_ant_carries_its_weight_on_its_feet(env):
    """At rest the feet hand the weight of torso and legs up to them: what the ground pushes, less their own weight."""
    env.reset()
    put(env)
    for _ in range(180):
        env.task.apply(torch.zeros(32, 8))
        env.sim.step()
    assert env.sim.root_state[:, 0, 7:].abs().max() < 0.02 and not env.task.terminated().any()
    model, data = env.sim.model, mujoco.MjData(env.sim.model)
    data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
    mujoco.mj_forward(model, data)
    load = np.zeros(3)
    for i, foot in enumerate(Ant.feet):
        rotation = data.xmat[model.body("ant/" + foot).id].reshape(3, 3)
        force = rotation @ env.sim.force_sensor[0, i, :3].double().numpy()
        assert force[2] > 0.5
        load += force
    weight = (0.91088 - 4 * 0.067595) * 9.81
    np.testing.assert_allclose(load, [0.0, 0.0, weight], atol=0.1)


def test_no_self_collision(env):
    """Only the ground touches the ant."""
    robot = env.sim.model.geom_bodyid > 0
    assert (env.sim.model.geom_conaffinity[robot] == 0).all()


def test_joint_limits_hold_under_full_torque(env):
    """Pressed against their stops by 15 N m the joints rest at most 0.04 rad beyond them."""
    env.reset()
    put(env, pos=[0.0, 0.0, 50.0])
    for _ in range(60):
        env.task.apply(torch.ones(32, 8))
        env.sim.step()
    beyond = env.sim.dof_pos - env.sim.dof_upper
    assert beyond.min() > -0.01 and beyond.max() < 0.04
