"""Humanoid: heuristic, observation, resets and physics against the published numbers and an independent restatement."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from tasks.robots.humanoid import JOINTS, Humanoid, default_heuristic
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

# Published: range in degrees, stiffness, damping, armature, motor N m; the right leg and arm are the left ones' mirror.
SPINE = {
    "abdomen_z": (-45, 45, 20, 5, 0.02, 67.5),
    "abdomen_y": (-75, 30, 20, 5, 0.01, 67.5),
    "abdomen_x": (-35, 35, 10, 5, 0.01, 67.5),
}
LEG = {
    "hip_x": (-45, 15, 10, 5, 0.01, 45),
    "hip_z": (-60, 35, 10, 5, 0.01, 45),
    "hip_y": (-120, 45, 20, 5, 0.01, 135),
    "knee": (-160, 2, 5, 0.1, 0.007, 90),
    "ankle_y": (-50, 50, 2, 1, 0.006, 22.5),
    "ankle_x": (-50, 50, 2, 1, 0.006, 22.5),
}
ARM = {
    "shoulder1": (-90, 70, 10, 5, 0.01, 67.5),
    "shoulder2": (-90, 70, 10, 5, 0.01, 67.5),
    "elbow": (-90, 50, 2, 1, 0.006, 45),
}
TABLE = np.array([*SPINE.values(), *LEG.values(), *LEG.values(), *ARM.values(), *ARM.values()], dtype=float)
GEAR = TABLE[:, 5]


@pytest.fixture(scope="module")
def env():
    env = make("Humanoid", 32)
    env.reset()
    yield env
    env.close()


# ---- heuristic -------------------------------------------------------------------------------------------------------


def _restated_heuristic(before, root, q_scaled, qd, a):
    """The published h of one env, in float64; joints beyond their stops (not in PhysX) count as at them."""
    h = 2.0 + restated_motion(before, root)
    h -= 0.01 * sum(x * x for x in a)
    for j in range(21):
        strength = GEAR[j] / 135.0
        h -= 0.05 * strength * abs(a[j] * 0.1 * qd[j])
        at = min(abs(q_scaled[j]), 1.0)
        if at > 0.98:
            h -= 0.25 * (at - 0.98) / 0.02 * strength
    return -1.0 if root[2] < 0.8 else h


def test_heuristic_equals_its_restatement(env):
    seen, values = steps_from_anywhere(env, low=0.7)
    expected = np.array([_restated_heuristic(*row) for row in seen])
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-4, atol=3e-3)
    scaled = np.abs(np.concatenate([row[2] for row in seen]))
    assert 0 < (expected == -1.0).sum() < len(seen)
    assert ((scaled > 0.98) & (scaled < 1.0)).sum() > 10 and (scaled > 1.0).any()


def test_heuristic_at_rest_in_the_start_pose(env):
    """2 alive + 0.1 up + 0.5 heading; the knee is 2 of its 162 degrees below its limit, at 0.975: not charged."""
    env.reset()
    put(env)
    assert sum(default_heuristic(env.task.state()).values())[0].item() == pytest.approx(2.6)
    assert ranges(env, np.zeros(21))[6] == pytest.approx(0.9753, abs=1e-4)


def test_costs_by_hand(env):
    state = env.task.state()
    state.actions = torch.full((32, 21), -0.5)
    state.dof_vel = torch.full((32, 21), 10.0)
    state.dof_pos = torch.zeros(32, 21)
    state.dof_pos[:, 5], state.dof_pos[:, 3] = 0.99, -1.4  # hip_y half-way into the last 2 %, hip_x beyond its limit
    terms = default_heuristic(state)
    assert terms["action_cost"][0].item() == pytest.approx(-0.01 * 21 * 0.25)
    assert terms["energy"][0].item() == pytest.approx(-0.05 * 0.5 * 0.1 * 10.0 * GEAR.sum() / 135.0)
    assert terms["limits"][0].item() == pytest.approx(-0.25 * (0.5 + 45.0 / 135.0), rel=1e-4)


# ---- observation -----------------------------------------------------------------------------------------------------


def _wrapped(angle):
    return math.atan2(math.sin(angle), math.cos(angle))


def _restated_observation(root, q, q_scaled, qd, sensors, a):
    """The published observation of one env, in float64; the joint force is what motor, spring and damper apply."""
    g = geometry(root)
    force = GEAR * a - TABLE[:, 2] * q - TABLE[:, 3] * qd
    return np.concatenate(
        (
            [root[2]],
            g["velocity"],
            0.25 * g["spin"],
            [_wrapped(g["yaw"]), _wrapped(g["roll"]), _wrapped(g["to_target"]), g["up"], g["heading"]],
            q_scaled,
            0.1 * qd,
            0.01 * force,
            0.01 * sensors,
            a,
        )
    )


# Here the velocity and the feet have a constant factor against the published ones (environments clip at +-5).
FACTORS = np.array([1.0] + [0.2] * 3 + [1.0] * 71 + [0.4] * 12 + [1.0] * 21)


def test_observation_equals_its_restatement(env):
    scatter(env, 11)
    move = actions(env, 11, 1)[0]
    env.task.apply(move)
    env.sim.step()
    obs = env.task.observe().double().numpy()
    sim = env.sim
    columns = (sim.root_state[:, 0], sim.dof_pos, sim.dof_vel, sim.force_sensor.flatten(1), move)
    root, q, qd, sensors, a = (x.double().numpy() for x in columns)
    scaled = ranges(env, q)
    assert obs.shape == (32, 108)
    for i in range(32):
        expected = FACTORS * _restated_observation(root[i], q[i], scaled[i], qd[i], sensors[i], a[i])
        np.testing.assert_allclose(obs[i], expected, atol=2e-4, rtol=1e-4)
    assert np.abs(sensors).max() > 1.0


def test_angles_are_wrapped(env):
    """Unlike the Ant's: no jump at a yaw of 0."""
    for yaw in (0.1, -0.1):
        put(env, quat=turned(yaw))
        assert env.task.observe()[0, 7:10].tolist() == pytest.approx([yaw, 0.0, -yaw], abs=2e-3)
    put(env, quat=turned(math.pi - 5e-4))  # 1.34 m of height over 1 km is an angle of -0.00134
    expected = [math.pi - 5e-4, 0.0, math.pi + 5e-4 - 1.34e-3]
    assert env.task.observe()[0, 7:10].tolist() == pytest.approx(expected, abs=1e-4)


# ---- resets ----------------------------------------------------------------------------------------------------------


def test_resets_draw_the_published_distributions():
    """10,000 resets: joints uniform within 0.2 rad, speeds within 0.1 rad/s; knees stop at their limit of 2 degrees."""
    drawn = resets("Humanoid", 20)
    q, qd = drawn["q"].double(), drawn["qd"].double()
    for j, name in enumerate(JOINTS):
        assert uniform_statistic(qd[:, j], -0.1, 0.1) < ONE_PER_MILLE, name
        if not name.endswith("knee"):
            assert uniform_statistic(q[:, j], -0.2, 0.2) < ONE_PER_MILLE, name
    limit = math.radians(2.0)
    for knee in (6, 12):
        stopped = q[:, knee] > limit - 1e-5
        assert q[:, knee].max().item() == pytest.approx(limit, abs=1e-6)
        assert stopped.double().mean().item() == pytest.approx((0.2 - limit) / 0.4, abs=0.02)
        assert uniform_statistic(q[~stopped, knee], -0.2, limit) < ONE_PER_MILLE


# ---- physics ---------------------------------------------------------------------------------------------------------


def test_masses(env):
    model = env.sim.model
    mass = {model.body(b).name.split("/")[-1]: model.body_mass[b] for b in range(1, model.nbody)}
    expected = {"torso": 5.854, "head": 3.054, "lower_waist": 2.262, "pelvis": 6.616}
    limbs = {"thigh": 4.752, "shin": 2.756, "foot": 1.131, "upper_arm": 1.661, "lower_arm": 0.961, "hand": 0.268}
    expected.update({"%s_%s" % (side, limb): m for side in ("right", "left") for limb, m in limbs.items()})
    assert set(mass) == set(expected)
    for name, value in expected.items():
        assert mass[name] == pytest.approx(value, abs=1e-3), name
    assert sum(mass.values()) == pytest.approx(40.84, abs=0.01)


def test_joints_are_the_published_ones(env):
    model, sim = env.sim.model, env.sim
    names = [*SPINE, *("%s_%s" % (s, n) for s in ("right", "left") for n in LEG)]
    names += ["%s_%s" % (s, n) for s in ("right", "left") for n in ARM]
    assert sim.dof_names == ["humanoid/" + name for name in names]
    np.testing.assert_allclose(np.degrees(sim.dof_lower), TABLE[:, 0], atol=1e-3)
    np.testing.assert_allclose(np.degrees(sim.dof_upper), TABLE[:, 1], atol=1e-3)
    np.testing.assert_allclose(model.jnt_stiffness.ravel()[1:22], TABLE[:, 2])
    np.testing.assert_allclose(model.dof_damping.ravel()[6:27], TABLE[:, 3])
    np.testing.assert_allclose(model.dof_armature[6:], TABLE[:, 4])
    env.reset()
    env.task.apply(torch.full((32, 21), -1.0))
    sim.step()
    np.testing.assert_allclose(sim.dof_force[0].numpy(), -GEAR)


def test_start_pose(env):
    """The feet's capsules end 0.054 m above the ground, and nothing touches anything."""
    put(env)
    model, data = env.sim.model, mujoco.MjData(env.sim.model)
    data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
    mujoco.mj_forward(model, data)
    feet = [g for g in range(model.ngeom) if "foot" in model.geom(g).name]
    ends = [
        data.geom_xpos[g] + s * model.geom_size[g, 1] * data.geom_xmat[g].reshape(3, 3)[:, 2]
        for g in feet
        for s in (-1, 1)
    ]
    assert len(feet) == 4 and min(end[2] for end in ends) - 0.027 == pytest.approx(0.054, abs=1e-3)
    assert data.ncon == 0


def test_a_joint_in_the_air_swings_as_its_spring_damper_and_inertia_say(env):
    """The first 8.3 ms from rest: qd = M^-1 (-k q) h, solved with the engine's own mass matrix (implicit damping and
    the free root included); weightless, since gravity pulls all links alike."""
    q = torch.zeros(21)
    q[1], q[5], q[15] = 0.2, -0.4, 0.3  # abdomen_y, right hip_y, right shoulder1
    put(env, q=q, pos=[0.0, 0.0, 5.0])
    model, data = env.sim.model, mujoco.MjData(env.sim.model)
    data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
    mujoco.mj_forward(model, data)
    mass = np.zeros((27, 27))
    mujoco.mj_fullM(model, data, mass)
    h = 0.0083
    force = np.zeros(27)
    force[6:] = -TABLE[:, 2] * q.numpy()
    damped = mass + h * np.diag(np.concatenate((np.zeros(6), TABLE[:, 3])))
    expected = np.linalg.solve(damped, force * h)[6:]
    mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qvel[6:], expected, rtol=1e-3, atol=1e-3)
    assert np.abs(expected).max() > 0.4


def test_self_collision(env):
    """Legs may hit each other, neighbours along the body may not."""
    model = env.sim.model
    robot = model.geom_bodyid > 0
    assert (model.geom_conaffinity[robot] & model.geom_contype[robot]).all()


def test_feet_feel_the_ground(env):
    """Dropped on straight legs, the humanoid's feet soon push its weight up through the ankles."""
    env.reset()
    put(env)
    loads = []
    for _ in range(25):
        env.task.apply(torch.zeros(32, 21))
        env.sim.step()
        loads.append(env.sim.force_sensor[0, :, 2].sum().item())
    assert max(loads[:4]) < 30.0 and 300.0 < np.mean(loads[10:]) < 600.0
    assert env.sim.force_sensor.shape == (32, len(Humanoid.feet), 6)
