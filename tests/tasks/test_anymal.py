"""Anymal's formulas, resets, observations and physics against the published numbers and an independent restatement."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.envs.heuristic import HeuristicFunction
from hepo_isaac.errors import UserError
from tasks.robots.anymal import (
    JOINTS,
    LEGS,
    STANCE,
    Anymal,
    AnymalState,
    bad_heuristic,
    bad_unclipped_heuristic,
    default_heuristic,
    start_state,
    task_reward,
    tracking_errors,
)
from tests.kolmogorov import ONE_IN_3000, uniform_statistic
from tests.tasks.robots import actions, make


@pytest.fixture(scope="module")
def env():
    env = make("Anymal", 4)
    env.reset()
    yield env
    env.close()


def turn(axis, angle):
    """(4,) xyzw quaternion."""
    axis = np.asarray(axis, dtype=float)
    return [*(math.sin(angle / 2) * axis / np.linalg.norm(axis)), math.cos(angle / 2)]


def matrix(q):
    """Rotation matrix of an xyzw quaternion: columns are the turned axes, by v' = v + 2 w (u x v) + 2 u x (u x v)."""
    u, w = np.asarray(q[:3], dtype=float), float(q[3])
    return np.stack([v + 2 * w * np.cross(u, v) + 2 * np.cross(u, np.cross(u, v)) for v in np.eye(3)], 1)


def place(env, quat=(0.0, 0.0, 0.0, 1.0), height=2.0, linear=(0.0,) * 3, angular=(0.0,) * 3, q=STANCE, qd=None):
    """Put every env into one state; rows of commands and actions stay as they are."""
    n = env.num_envs
    root = torch.tensor([[0.0, 0.0, height, *quat, *linear, *angular]]).repeat(n, 1).unsqueeze(1)
    pose = torch.as_tensor(q, dtype=torch.float32).expand(n, 12).clone()
    velocity = torch.zeros(n, 12) if qd is None else torch.as_tensor(qd, dtype=torch.float32).expand(n, 12).clone()
    env.sim.set_state(torch.ones(n, dtype=torch.bool), pose, velocity, root_state=root, dof_target_pos=pose)


def random_state(n=300, seed=0):
    """Rewards depend on few fields; errors and torques are spread so that h is clipped in some rows."""
    g = torch.Generator().manual_seed(seed)
    velocity, commands = torch.randn(n, 2, 3, generator=g), torch.randn(n, 3, generator=g)
    near = torch.rand(n, 1, generator=g) ** 2  # some rows follow their commands closely
    commands = torch.stack((velocity[:, 0, 0], velocity[:, 0, 1], velocity[:, 1, 2]), 1) + near * commands
    linear_error, angular_error = tracking_errors(velocity, commands)
    torque = 80.0 * (2 * torch.rand(n, 12, generator=g) - 1) * torch.rand(n, 1, generator=g)
    nothing = torch.zeros(n, 3)
    return AnymalState(
        linear_error, angular_error, velocity[:, 0], velocity[:, 1], commands, nothing, nothing,
        torch.zeros(n, 12), torch.zeros(n, 12), torque, torch.zeros(n, 12),
    )  # fmt: skip


def restated(s, i):
    """(r, h, unclipped bad h) of row i, in float64, from velocities and commands instead of errors."""
    v, w, c = (x[i].double().numpy() for x in (s.linear_velocity, s.angular_velocity, s.commands))
    e_v, e_w = (c[0] - v[0]) ** 2 + (c[1] - v[1]) ** 2, (c[2] - w[2]) ** 2
    effort = sum(float(t) ** 2 for t in s.torque[i])
    dt = 0.02
    h = dt * 1.0 * math.exp(-e_v / 0.25) + dt * 0.5 * math.exp(-e_w / 0.25) - dt * 2.5e-5 * effort
    return -e_v - e_w, max(0.0, h), -dt * 1.0 * e_v - dt * 0.5 * e_w - dt * 2.5e-5 * effort


class TestRewards:
    def test_they_equal_their_restatement(self):
        s = random_state()
        expected = np.array([restated(s, i) for i in range(300)])
        h, _ = HeuristicFunction("default", default_heuristic)(s)
        bad, _ = HeuristicFunction("bad_unclipped", bad_unclipped_heuristic)(s)
        np.testing.assert_allclose(task_reward(s.linear_error, s.angular_error), expected[:, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(h, expected[:, 1], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(bad, expected[:, 2], rtol=1e-4, atol=1e-7)
        assert 0.1 < (expected[:, 1] == 0).mean() < 0.9  # both sides of the clipping were taken

    def test_numbers_computed_by_hand(self):
        """Told (1, 0, 0.5), doing (0.5, 0, 0): e_v = e_w = 0.25; one joint at 40 N m."""
        velocity = torch.tensor([[[0.5, 0.0, 9.0], [9.0, 9.0, 0.0]]])
        errors = tracking_errors(velocity, torch.tensor([[1.0, 0.0, 0.5]]))
        assert [e.item() for e in errors] == [0.25, 0.25]
        s = random_state(1)
        s.linear_error, s.angular_error = errors
        s.torque = torch.tensor([[40.0] + [0.0] * 11])
        terms = {name: value.item() for name, value in default_heuristic(s).items()}
        expected = {"linear_velocity": 0.02 / math.e, "angular_velocity": 0.01 / math.e, "torque": -8e-4}
        assert terms == pytest.approx(expected, rel=1e-5)
        assert task_reward(*errors).item() == -0.5
        unclipped = {"linear_velocity": -0.005, "angular_velocity": -0.0025, "torque": -8e-4}
        assert {k: v.item() for k, v in bad_unclipped_heuristic(s).items()} == pytest.approx(unclipped, rel=1e-5)

    def test_bounds(self):
        """h is in [0, 0.03] and exactly 0 where clipped; the published bad variant is always exactly 0."""
        s = random_state(seed=1)
        h, terms = HeuristicFunction("default", default_heuristic)(s)
        assert (h >= 0).all() and (h <= 0.03).all()
        clipped = h == 0
        assert clipped.any() and all((term[clipped] == 0).all() for term in terms.values())
        assert torch.equal(bad_heuristic(s), torch.zeros(300))
        s.linear_error, s.angular_error, s.torque = torch.zeros(300), torch.zeros(300), torch.zeros(300, 12)
        assert HeuristicFunction("default", default_heuristic)(s)[0].tolist() == pytest.approx([0.03] * 300)

    def test_with_the_bonus_standing_is_never_worse_than_falling(self):
        """The largest command is (2, 1, 1): e_v + e_w = 6 standing still; published it earns -6 in every step."""
        errors = tracking_errors(torch.zeros(1, 2, 3), torch.tensor([[-2.0, 1.0, -1.0]]))
        assert [task_reward(*errors, alive_bonus=bonus).item() for bonus in (0.0, 6.0)] == [-6.0, 0.0]
        env = make("Anymal", 2, "task.alive_bonus=6.0")
        env.reset()
        result = env.step(torch.zeros(2, 12))
        error = dict(zip(result.metric_names, result.metrics.T))["tracking_error"]
        torch.testing.assert_close(result.rewards[:, 0], 6.0 - error)
        env.close()

    def test_a_heuristic_sees_velocities_in_the_robots_frame(self, env):
        """Facing +y and drifting along +y is moving forward; the torques are the drives'."""
        place(env, turn((0, 0, 1), math.pi / 2), linear=(0.0, 0.7, 0.1), angular=(0.2, 0.0, 0.3))
        s = env.task.state()
        assert s.linear_velocity[0].tolist() == pytest.approx([0.7, 0.0, 0.1], abs=1e-6)
        assert s.angular_velocity[0].tolist() == pytest.approx([0.0, -0.2, 0.3], abs=1e-6)
        assert s.base_position[0].tolist() == pytest.approx([0.0, 0.0, 2.0])
        env.sim.step()
        assert env.task.state().torque is env.sim.dof_force

    def test_names(self):
        assert list(Anymal.heuristics) == ["default", "bad", "bad_unclipped"]
        with pytest.raises(UserError, match="'worse'.*bad"):
            make("Anymal", 1, "heuristic=worse")


class TestObservation:
    def test_layout_and_scales(self, env):
        quat = turn((1, 2, 3), 0.8)
        linear, angular = np.array([0.3, -0.4, 0.5]), np.array([-0.6, 0.7, 0.8])
        offset, speed = 0.01 * np.arange(12), 0.1 * np.arange(12) - 0.5
        moves = actions(env, 5, 1)[0]
        env.task.apply(moves)
        place(env, quat, linear=linear, angular=angular, q=np.array(STANCE) + offset, qd=speed)
        obs, command = env.task.observe(), env.task.state().commands
        rotation = matrix(quat)
        for i in range(4):
            expected = np.concatenate(
                (
                    2.0 * rotation.T @ linear,
                    0.25 * rotation.T @ angular,
                    rotation @ [0.0, 0.0, -1.0],
                    command[i].numpy() * [2.0, 2.0, 0.25],
                    offset,
                    0.05 * speed,
                    moves[i].numpy(),
                )
            )
            np.testing.assert_allclose(obs[i], expected, atol=2e-6)

    @pytest.mark.parametrize(
        "quat, published, corrected",
        [
            (turn((1, 0, 0), 0.3), (0.0, 0.2955, -0.9553), (0.0, -0.2955, -0.9553)),
            # yaw 1, then pitch 0.3 about the robot's own y
            (
                [-math.sin(0.5) * math.sin(0.15), math.cos(0.5) * math.sin(0.15), math.sin(0.5) * math.cos(0.15),
                 math.cos(0.5) * math.cos(0.15)],
                (-0.1597, -0.2487, -0.9553),
                (0.2955, 0.0, -0.9553),
            ),
        ],
    )  # fmt: skip
    def test_gravity_as_published_and_corrected(self, quat, published, corrected):
        for option, expected in (("published", published), ("corrected", corrected)):
            env = make("Anymal", 1, "task.projected_gravity=" + option)
            place(env, quat)
            assert env.task.observe()[0, 6:9].tolist() == pytest.approx(expected, abs=1e-4)
            env.close()

    def test_unknown_gravity(self):
        with pytest.raises(UserError, match="task.projected_gravity 'right': .*corrected, published"):
            make("Anymal", 1, "task.projected_gravity=right")


class TestReset:
    def test_draws_are_uniform_and_independent(self):
        """Kolmogorov-Smirnov on 10,000 draws of every number, and no two of them correlate."""
        u = torch.rand(10_000, 27, generator=torch.Generator().manual_seed(0))
        stance = torch.tensor(STANCE)
        pose, velocity, commands = start_state(u, stance)
        scaled = torch.cat((pose / stance - 0.5, (velocity + 0.1) / 0.2, 0.5 + commands / torch.tensor([4.0, 2, 2])), 1)
        assert uniform_statistic(scaled) < ONE_IN_3000
        correlation = np.corrcoef(scaled.T.numpy()) - np.eye(27)
        assert np.abs(correlation).max() < 0.05
        assert commands.abs().amax(0).tolist() == pytest.approx([2.0, 1.0, 1.0], abs=1e-3)
        assert -(commands**2).sum(1).mean().item() == pytest.approx(-2.0, abs=0.05)  # E[r] standing still

    def test_root_and_commands(self, env):
        env.reset()
        for move in actions(env, 3, 4):
            env.step(move)
        before = env.task.state().commands.clone()
        obs = env.task.observe()
        env.task.reset(torch.tensor([True, False, True, False]))
        after, fresh = env.task.state().commands, env.task.observe()
        assert (before != after).any(1).tolist() == [True, False, True, False]
        assert env.sim.root_state[0, 0].tolist() == pytest.approx([0, 0, 0.62, 0, 0, 0, 1] + [0] * 6)
        assert (fresh[0, 36:] == 0).all() and torch.equal(fresh[1], obs[1])  # the new episode has not acted yet
        assert env.sim.dof_vel[0].abs().max().item() <= 0.1


class TestEnd:
    @pytest.mark.parametrize("quat", [turn((1, 0, 0), math.pi), turn((1, 0, 0), math.pi / 2)])
    def test_it_is_over_on_the_back_and_on_the_side(self, env, quat):
        place(env, quat, height=0.4)
        assert any(env.step(torch.zeros(4, 12)).terminated.all().item() for _ in range(30))

    @pytest.mark.parametrize("force, over", [((0.6, 0.0, 0.79), False), ((0.0, 0.0, 1.001), True)])
    def test_one_newton(self, env, force, over):
        for body in range(5):
            env.sim.contact_force.zero_()
            env.sim.contact_force[:, body] = torch.tensor(force)
            assert env.task.terminated().tolist() == [over] * 4
        env.sim.contact_force.zero_()

    def test_bodies_that_count(self, env):
        assert env.sim.spec.contact_bodies == ("anymal/base", *("anymal/%s_THIGH" % leg for leg in LEGS))

    def test_time_limit(self):
        env = make("Anymal", 2)
        env.reset()
        assert env.max_episode_length == 2499
        env.progress[0] = 2498
        result = env.step(torch.zeros(2, 12))
        assert result.time_out.tolist() == [True, False] and not result.terminated.any()
        metric = dict(zip(result.metric_names, result.metrics[0].tolist()))
        assert metric["survived"] == 1.0
        assert metric["tracking_error"] == pytest.approx(-result.rewards[0, 0].item(), rel=1e-5)
        env.close()

    def test_metrics_average_over_the_episode(self, env):
        env.reset()
        task, total = env.task, torch.zeros(4)
        for move in 0.1 * actions(env, 2, 3):
            result = env.step(move)
            total -= result.rewards[:, 0]
        error = task.metrics()["tracking_error"]
        torch.testing.assert_close(error, total / 3)
        task._error_sum.copy_(torch.tensor([0.3, 0.8, 0.3, 0.8]))  # of three steps: means 0.1 and 0.27
        env.sim.contact_force[2:, 0, 2] = 50.0
        metrics = {name: value.tolist() for name, value in task.metrics().items()}
        assert metrics["survived"] == [True, True, False, False]
        assert metrics["tracked"] == [True, False, False, False]
        env.sim.contact_force.zero_()


class TestActions:
    def test_targets(self, env):
        env.task.apply(torch.full((4, 12), 0.5))
        assert env.sim.dof_target_pos[0].tolist() == pytest.approx([x + 0.25 for x in STANCE])

    def test_drives_hold_80_newton_metres_at_most(self):
        """Far from its target every drive gives 85 times the error, up to 80 N m."""
        env = make("Anymal", 1)
        for error, torque in ((0.5, 42.5), (2.0, 80.0)):
            place(env, q=np.array(STANCE))
            env.sim.set_dof_target_pos(torch.tensor([STANCE]) + error)
            model, data = env.sim.model, mujoco.MjData(env.sim.model)
            data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
            data.ctrl[:] = env.sim.dof_target_pos[0].numpy()
            mujoco.mj_forward(model, data)
            assert data.actuator_force.tolist() == pytest.approx([torque] * 12, rel=1e-3)
        env.close()


class TestRobot:
    def test_masses(self, env):
        """The published URDF with its fixed links merged: 52.135 kg in all."""
        model = env.sim.model
        mass = {model.body(b).name: model.body_mass[b] for b in range(1, model.nbody)}
        assert mass["anymal/base"] == pytest.approx(26.373, abs=1e-3)
        for leg in LEGS:
            parts = [mass["anymal/%s_%s" % (leg, part)] for part in ("HIP", "THIGH", "SHANK")]
            assert parts == pytest.approx([2.781, 3.071, 0.58842], abs=1e-4)
        assert sum(mass.values()) == pytest.approx(52.135, abs=1e-3)
        base = model.body("anymal/base")
        assert base.ipos.tolist() == pytest.approx([-0.0178, -0.0002, 0.0085], abs=1e-4)
        assert sorted(base.inertia) == pytest.approx([0.2145, 1.785, 1.836], abs=1e-3)

    def test_joints(self, env):
        assert env.sim.dof_names == JOINTS
        lower, upper = env.sim.dof_lower.view(4, 3), env.sim.dof_upper.view(4, 3)
        assert lower[:, 0].tolist() == pytest.approx([-0.72, -0.72, -0.49, -0.49])
        assert upper[:, 0].tolist() == pytest.approx([0.49, 0.49, 0.72, 0.72])
        assert upper[:, 1:].unique().tolist() == pytest.approx([9.42478])

    def test_feet(self, env):
        """Feet at the stance, against the URDF's chain of offsets multiplied out with rotation matrices; at the start
        the soles are 7.7 cm above the ground."""
        place(env, height=0.62)
        model, data = env.sim.model, mujoco.MjData(env.sim.model)
        data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
        mujoco.mj_kinematics(model, data)
        for i, leg in enumerate(LEGS):
            front, left = (1 if leg[1] == "F" else -1), (1 if leg[0] == "L" else -1)
            haa, hfe, kfe = STANCE[3 * i : 3 * i + 3]
            x, y = matrix(turn((1, 0, 0), haa)), np.array((0.0, 1.0, 0.0))
            foot = np.array((0.08795 * front, 0.01305 * left, -0.33797 + 0.0225))
            foot = np.array((0.0, 0.1003 * left, -0.285)) + matrix(turn(y, kfe)) @ foot
            foot = np.array((0.0599 * front, 0.08381 * left, 0.0)) + matrix(turn(y, hfe)) @ foot
            foot = np.array((0.2999 * front, 0.104 * left, 0.62)) + x @ foot
            spheres = [g for g in range(model.ngeom) if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_SPHERE]
            assert min(np.abs(data.geom_xpos[g] - foot).max() for g in spheres) < 1e-5
            assert foot[2] - 0.03 == pytest.approx(0.077, abs=1e-3)

    def test_it_stands_and_the_ground_carries_its_weight(self):
        """With zero actions it lands from 0.62 m, stands on its feet at half a metre, and hardly slides."""
        env = make("Anymal", 4)
        env.reset()
        place(env, height=0.62)
        env.task._commands.zero_()
        for k in range(250):
            result = env.step(torch.zeros(4, 12))
            assert not result.done.any()
            if k == 149:
                start = env.sim.root_state[:, 0, :3].clone()
        drift = (env.sim.root_state[:, 0, :3] - start).abs().max().item()
        assert drift < 0.005  # in two seconds
        assert env.sim.root_state[0, 0, 2].item() == pytest.approx(0.5, abs=0.02)
        assert env.sim.dof_vel.abs().max().item() < 0.1
        assert result.rewards[:, 1].min().item() > 0.025  # nobody tells it to move: h is nearly full
        model, data = env.sim.model, mujoco.MjData(env.sim.model)
        data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
        data.ctrl[:] = env.sim.dof_target_pos[0].numpy()
        mujoco.mj_forward(model, data)
        lift, wrench = 0.0, np.zeros(6)
        for c in range(data.ncon):
            mujoco.mj_contactForce(model, data, c, wrench)
            lift += float(data.contact[c].frame[2] * wrench[0])
        assert abs(lift) == pytest.approx(52.135 * 9.81, rel=0.02)
        env.close()

    def test_it_lands_as_with_a_far_finer_step(self):
        """16 physics steps and no armature: the base is never more than 1 cm elsewhere in the first second."""
        heights = []
        for overrides in ((), ("task.physics.substeps=16", "task.physics.drives.mujoco.armature=0.0")):
            env = make("Anymal", 1, *overrides)
            place(env, height=0.62)
            heights.append([(env.step(torch.zeros(1, 12)), env.sim.root_state[0, 0, 2].item())[1] for _ in range(50)])
            env.close()
        np.testing.assert_allclose(heights[0], heights[1], atol=0.01)
        assert min(heights[0]) < 0.45  # it did land

    def test_falling_freely(self):
        """From 2 m the base and all falls by g t^2 / 2 while nothing touches the ground."""
        env = make("Anymal", 1)
        place(env, height=2.0)
        env.sim.set_dof_target_pos(torch.tensor([STANCE]))
        for _ in range(20):
            env.sim.step()
        com = _centre_of_mass(env)
        place(env, height=2.0)
        fallen = _centre_of_mass(env)[2] - com[2]
        h, n = 0.01, 40  # semi-implicit Euler: g h^2 n (n + 1) / 2
        assert fallen == pytest.approx(9.81 * h * h * n * (n + 1) / 2, rel=1e-3)
        env.close()

    def test_mirror_images_move_as_mirror_images(self):
        """The robot mirrored left to right, told the mirrored actions, does the mirrored thing. Not exactly so: the
        base's own mass distribution is not quite symmetric."""
        env = make("Anymal", 2)
        env.reset()
        place(env, height=0.62)
        swap = torch.tensor([6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5])
        sign = torch.tensor([-1.0, 1.0, 1.0] * 4)
        g = torch.Generator().manual_seed(0)
        for _ in range(12):
            move = 0.5 * (2 * torch.rand(12, generator=g) - 1)
            env.step(torch.stack((move, (move * sign)[swap])))
        q = env.sim.dof_pos
        assert (q[0] - torch.tensor(STANCE)).abs().max().item() > 0.1
        torch.testing.assert_close(q[1], (q[0] * sign)[swap], rtol=0, atol=0.02)
        a, b = env.sim.root_state[:, 0, :3]
        torch.testing.assert_close(b, a * torch.tensor([1.0, -1.0, 1.0]), rtol=0, atol=0.01)
        env.close()


def _centre_of_mass(env):
    data = mujoco.MjData(env.sim.model)
    data.qpos[:] = env.sim.render_state(0)["qpos"].numpy()
    mujoco.mj_kinematics(env.sim.model, data)
    mujoco.mj_comPos(env.sim.model, data)
    return data.subtree_com[0].copy()
