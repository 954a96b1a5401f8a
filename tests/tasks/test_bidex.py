"""The dexterous tasks: records, hands, rewards against an independent restatement, ends and successes on purpose."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class, task_settings, tasks_module, tasks_package
from tests.kolmogorov import ONE_PER_MILLE, uniform_statistic
from tests.tasks import dexterous as own
from tests.tasks.robots import actions, make, play
from tests.tasks.sampled import CHOSEN, OTHERS

TASKS = tasks_module("bidex").TASKS
hand, measures, record = (tasks_module("bidex." + name) for name in ("hand", "measures", "record"))
# Published: steps of an episode, sizes of observation and action.
TABLE = {
    "Over": (75, 398, 40),
    "CatchUnderarm": (75, 422, 52),
    "CatchAbreast": (150, 422, 52),
    "CatchOver2Underarm": (75, 422, 52),
    "TwoCatchUnderarm": (75, 446, 52),
    "ReOrientation": (600, 422, 40),
    "Spin": (599, 211, 20),
    "UpsideDown": (599, 211, 20),
    **{"Door" + name: (250, 417, 52) for name in ("OpenInward", "OpenOutward", "CloseInward", "CloseOutward")},
    "Pen": (125, 417, 52),
    "Scissors": (150, 417, 52),
    "SwingCup": (150, 417, 52),
    "Kettle": (125, 417, 52),
    "BottleCap": (125, 420, 52),
    "LiftUnderarm": (500, 417, 52),
    "Switch": (125, 417, 52),
    "BlockStack": (250, 428, 52),
    "PushBlock": (125, 428, 52),
    "GraspAndPlace": (500, 425, 52),
}


@functools.cache
def shared(name, *overrides):
    """Four environments of a task, the same ones in every test: each puts them where it wants them."""
    return make("ShadowHand" + name, 4, *overrides)


@pytest.fixture(scope="module", params=sorted(TABLE))
def env(request):
    return shared(request.param)


def short(env):
    return env.task.name[len("ShadowHand") :]


def straight(env):
    """All hands at joint angles 0, things where episodes start."""
    env.reset()
    n, d = env.num_envs, len(env.sim.dof_names)
    everyone = torch.ones(n, dtype=torch.bool)
    pose = env.task._posture.expand(n, d)
    env.sim.set_state(everyone, pose, torch.zeros(n, d), root_state=env.sim.root_state.clone(), dof_target_pos=pose)


def place(env, **poses):
    """Things at positions (3,) or poses (7,), at rest, in all envs."""
    roots = env.sim.root_state.clone()
    for name, pose in poses.items():
        pose = torch.as_tensor(pose, dtype=torch.float32)
        roots[:, env.sim.actor_index(name), : pose.shape[-1]] = pose
    roots[..., 7:] = 0.0
    env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), root_state=roots)


# ---- records ---------------------------------------------------------------------------------------------------------
def test_every_task_is_in_the_table_and_has_both_names():
    assert {"ShadowHand" + name for name in TABLE} == set(TASKS)
    assert set(TABLE) == set(tasks_package().DEXTEROUS)
    for name, cls in TASKS.items():
        assert task_class(name) is cls and task_class(name[len("ShadowHand") :]) is cls


def test_they_are_a_group_of_tasks():
    from hepo_isaac.locate import robot_tasks

    assert set(robot_tasks(["bidex"])) == set(TASKS) < set(robot_tasks())
    assert robot_tasks(["Over", "Ant"]) == ["ShadowHandOver", "Ant"]


def test_the_default_run_has_one_of_each_family():
    assert sorted(TASKS[name].record.family for name in CHOSEN) == sorted(measures.FAMILIES)
    assert OTHERS | set(CHOSEN) == set(TASKS)


def test_sizes_and_lengths_are_the_published_ones(env):
    steps, observation, action = TABLE[short(env)]
    assert (env.max_episode_length, env.num_obs, env.num_actions) == (steps, observation, action)
    assert env.reset().shape == (4, observation)
    assert type(env.task).num_obs == observation


OVER = TASKS["ShadowHandOver"].record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"family": "thrown"}, "unknown family of task ShadowHandOver 'thrown': did you mean 'throw'?"),
        ({"success": measures.Condition("distanc")}, "unknown measure of task ShadowHandOver 'distanc'"),
        ({"observed": ("state:eg",)}, "unknown point or object of task ShadowHandOver 'eg'"),
        ({"observed": ("stat:egg",)}, "unknown observed part of task ShadowHandOver 'stat'"),
        ({"observed": ("egg",)}, "task ShadowHandOver observes 'egg'; expected <kind>:<name>"),
        (
            {"points": (record.Point("right", "eg/object"),)},
            "unknown object of point right of task ShadowHandOver 'eg'",
        ),
        ({"points": (record.Point("right", "egg/object"),)}, "task ShadowHandOver needs the points right, left"),
        ({"start_turn": "some"}, "unknown start rotation of task ShadowHandOver 'some'"),
    ],
)
def test_a_record_that_cannot_be_is_one_sentence(change, said):
    with pytest.raises(UserError) as caught:
        replace(OVER, **change)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_short_names_on_the_command_line():
    from hepo_isaac.aliases import translate
    from hepo_isaac.overrides import check_overrides

    assert translate(["task=Over", "algo=hepo"]) == ["task=ShadowHandOver", "algo=hepo"]
    assert translate(["task=Spin,ShadowHandOver,Ant"]) == ["task=ShadowHandSpin,ShadowHandOver,Ant"]
    assert translate(["task=ShadowHand"]) == ["task=ShadowHand"]
    with pytest.raises(UserError, match="did you mean 'ShadowHandCatchAbreast'"):
        check_overrides(translate(["task=CatchAbrest"]))


# ---- hands -----------------------------------------------------------------------------------------------------------
def test_hands_are_where_their_record_says(env):
    """Straight fingers along f, the palm's centre 8 cm ahead of the palm and 2 cm before it, the thumb at f x n."""
    straight(env)
    for side, pose in zip(("right", "left"), env.task.record.hands):
        f, n = (np.array(axis) / np.linalg.norm(axis) for axis in (pose.finger, pose.palm))
        body = env.sim.body_state[0, env.sim.body_index(side + "/palm"), :3].numpy()
        np.testing.assert_allclose(body, np.array(pose.position) + 0.29 * f - 0.01 * n, atol=1e-3)
        np.testing.assert_allclose(own.palm(env, side, 0), body + 0.08 * f + 0.02 * n, atol=1e-3)
        ff, mf, rf, lf, th = own.tips(env, side, 0) - body
        if not env.task.record.posture:
            np.testing.assert_allclose(mf, 0.189 * f + 0.011 * np.cross(f, n), atol=1e-3)
            assert ff @ np.cross(f, n) > mf @ np.cross(f, n) > rf @ np.cross(f, n) > lf @ np.cross(f, n)
            assert th @ np.cross(f, n) > 0.09 and abs(th @ n - 0.009) < 1e-3


def test_overs_fingertips():
    env = shared("Over")
    straight(env)
    wanted = [(-0.033, -0.475, 0.49), (-0.011, -0.479, 0.49), (0.011, -0.475, 0.49), (0.034, -0.468, 0.49)]
    np.testing.assert_allclose(own.tips(env, "right", 0), [*wanted, (-0.098, -0.383, 0.499)], atol=1e-3)
    np.testing.assert_allclose(own.palm(env, "right", 0), (0, -0.37, 0.51), atol=1e-6)


def test_the_drag_is_of_the_assets_mass():
    model = mujoco.MjModel.from_xml_path(str(record.HELD / "shadow_hand.xml"))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert (model.nbody - 1, model.njnt, model.ntendon) == (26, 24, 4)
    mass, frame = model.body_mass, data.body("forearm").xmat.reshape(3, 3)
    centre = mass @ data.xipos / mass.sum()
    inertia = np.zeros((3, 3))
    for b in range(1, model.nbody):
        turn, arm = data.ximat[b].reshape(3, 3), data.xipos[b] - centre
        inertia += turn @ np.diag(model.body_inertia[b]) @ turn.T
        inertia += mass[b] * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    assert mass.sum() == pytest.approx(hand.MASS, abs=1e-3)
    np.testing.assert_allclose(frame.T @ (centre - data.body("forearm").xpos), hand.COM, atol=2e-3)
    np.testing.assert_allclose(np.diag(frame.T @ inertia @ frame), hand.INERTIA, atol=2e-4)


def test_a_floating_hand_is_pushed_at_the_published_speed():
    """3.33 force m/s, with time constant 10 ms; at rest it stays where it is, and sinks not at all."""
    env = shared("CatchUnderarm")
    straight(env)
    start = env.sim.root_state[:, :2].clone()
    hold = (2.0 * (0.0 - env.task._lower) / (env.task._upper - env.task._lower) - 1.0).view(2, 20)
    moves = torch.zeros(4, 2, 26)
    moves[..., 6:] = hold
    moves[1, 0, 0], moves[1, 1, 2] = 1.0, -1.0
    for _ in range(12):
        env.step(moves.view(4, -1))
    place_away = env.sim.root_state[:, :2] - start
    assert place_away[0, :, :3].abs().max() < 4e-3  # the egg falls onto one
    speed = 0.05 * 0.01667e5 / (100.0 * 5.011)
    assert env.sim.root_state[1, 0, 7].item() == pytest.approx(speed, rel=0.02)
    assert env.sim.root_state[1, 1, 9].item() == pytest.approx(-speed, rel=0.02)
    moves[..., :6] = 0.0
    env.step(moves.view(4, -1))
    assert env.sim.root_state[1, 0, 7].item() == pytest.approx(speed * math.exp(-100.0 * 0.01667), abs=0.15 * speed)


# Of the published tasks: fingertip sums D, palm distances e and h at the start of an episode, by forward kinematics;
# right and left. Things stand as published where that is not where they stand here.
STARTS = {
    "DoorOpenInward": ((1.053, 1.167), (0.234, 0.239), -0.221, {}),
    "DoorOpenOutward": ((1.011, 1.094), (0.229, 0.231), -0.105, {}),
    "DoorCloseInward": ((0.639, 0.773), (0.177, 0.180), 0.588, {}),
    "DoorCloseOutward": ((2.648, 2.652), (0.616, 0.612), 0.700, {}),
    "Pen": ((1.245, 1.382), (0.280, 0.292), 0.0, {"pen": (0.0, 0.0, 0.6)}),
    "Scissors": ((1.534, 1.262), (0.301, 0.217), -0.795, {"scissors": (0.0, 0.0, 0.6)}),
    "GraspAndPlace": ((0.948, 1.067), (0.226, 0.244), 0.037, {}),
    "PushBlock": ((1.067, 1.067), (0.244, 0.244), 3.265, {}),
    "BlockStack": ((0.539, 0.540), (0.145, 0.145), 0.421, {}),
    "SwingCup": ((1.163, 1.057), (0.174, 0.175), -2.219, {}),
    "BottleCap": ((0.806, None), (0.164, 0.049), 1.146, {}),
    "LiftUnderarm": ((None, None), (0.145, 0.145), -0.091, {}),
}
FAITHFUL = {
    "Switch": ((0.716, 0.716), (0.179, 0.179), 1.398, {}),
    "PushBlock": ((1.067, 1.067), (0.244, 0.244), 2.029, {}),
    "Kettle": ((0.923, 1.342), (0.223, 0.325), -1.265, {}),
}


@pytest.mark.parametrize(
    ("name", "faithful"), [(n, "false") for n in sorted(STARTS)] + [(n, "true") for n in sorted(FAITHFUL)]
)
def test_starts_are_what_forward_kinematics_says(name, faithful):
    """Each distance to 1 mm, so a sum of five to 5 mm."""
    env = shared(name, *(["task.faithful=true"] if faithful == "true" else []))
    env.reset()
    sums, palms, h, placed = (STARTS if faithful == "false" else FAITHFUL)[name]
    place(env, **placed)
    state, rewards = env.task.state(), env.task.rewards()
    for k in range(2):
        assert palms[k] == pytest.approx(state.palm[0, k].item(), abs=1e-3)
        if sums[k]:
            assert sums[k] == pytest.approx(state.reach[0, k].item(), abs=5e-3)
    assert h == pytest.approx(rewards.heuristic[0].item(), abs=1e-2)
    assert rewards.task[0].item() == 0.0 and not env.task.terminated()[0]


# ---- rewards ---------------------------------------------------------------------------------------------------------
def throw(kappa, *eggs):
    def restated(env, row):
        h, total = 0.0, 0.0
        for k, egg in enumerate(eggs):
            goal = env.task.goal[row, k].double().numpy()
            d = np.linalg.norm(own.root(env, egg, row)[:3] - goal[:3])
            total += d
            h += np.exp(-0.2 * (kappa * d + own.angle_between(own.root(env, egg, row)[3:7], goal[3:])))
        return h, float(total <= 0.03 * len(eggs))

    return restated


def in_hand(kappa, bonus, tolerance, things, symmetric=False):
    def restated(env, row):
        h, angles = -0.0002 * np.square(env.task.last_action[row].double().numpy()).sum(), []
        for k, thing in enumerate(things):
            goal, held = env.task.goal[row, k].double().numpy(), own.root(env, thing, row)
            angle = own.angle_between(held[3:7], goal[3:])
            if symmetric:
                x, y, z, w = goal[3:]
                angle = min(angle, own.angle_between(held[3:7], np.array([-z, w, x, -y])))  # goal Ry(pi)
            h += kappa * np.linalg.norm(held[:3] - goal[:3]) + 1.0 / (angle + 0.1)
            angles.append(angle)
        return h + bonus * (angles[-1] <= tolerance), np.mean([a <= tolerance for a in angles])

    return restated


def distances(env, row, right, left):
    """D and e of both hands, from where their points are."""
    found = []
    for side, point in (("right", right), ("left", left)):
        tips, palm = own.tips(env, side, row), own.palm(env, side, row)
        found.append((np.linalg.norm(tips - point, axis=1).sum(), np.linalg.norm(palm - point)))
    return found


def joint(env, row, name):
    return env.sim.dof_pos[row, env.sim.dof_index(name)].item()


def door(inward, constant, closing):
    def restated(env, row):
        q = [joint(env, row, "door/hinge_" + side) for side in "rl"]
        s = 1.0 if inward else -1.0
        right, left = 0.4265 - 0.39 * np.cos(q[0]) + 0.04 * s * np.sin(q[0]), 0.4204 - 0.39 * np.cos(q[1])
        left = -(left + 0.04 * s * np.sin(q[1]))
        x = [s * (h + 0.39 * np.sin(a)) + 0.04 * np.cos(a) for h, a in zip((0.0085, 0.0056), q)]
        z = 0.7 + 0.0167 * s
        (d_r, _), (d_l, _) = distances(env, row, np.array([x[0], right, z]), np.array([x[1], left, z]))
        gap = abs(right - left)
        h = constant - d_r - d_l + (d_r < 0.5) * (d_l < 0.5) * (1.0 - 2.0 * gap if closing else 2.0 * gap)
        return h, float(gap <= 0.5 if closing else gap >= 0.5)

    return restated


def pen(env, row):
    right, left = own.at(env, "pen/cap", (0, 0, -0.1), row), own.at(env, "pen/pen", (0, 0, 0.07), row)
    (d_r, _), (d_l, _) = distances(env, row, right, left)
    apart = np.linalg.norm(right - left)
    return np.exp(-10 * d_r) + np.exp(-10 * d_l) + (d_r < 0.75) * (d_l < 0.75) * (5 * apart - 0.8), float(apart >= 0.3)


def scissors(env, row):
    right = own.at(env, "scissors/upper", (0.1, -0.2, 0), row)
    (d_r, _), (d_l, _) = distances(env, row, right, own.at(env, "scissors/lower", (-0.1, -0.15, 0), row))
    q = joint(env, row, "scissors/hinge")
    return 2 - d_r - d_l + (d_r < 0.7) * (d_l < 0.7) * 5 * (0.59 + q), float(q >= -0.3)


def cup(env, row):
    right, left = (own.at(env, "cup/cup", (x, 0, 0), row) for x in (0.062, -0.06))
    (d_r, _), (d_l, _) = distances(env, row, right, left)
    yaw = np.array([0, 0, np.sin(0.75 * np.pi), np.cos(0.75 * np.pi)])
    angle = own.angle_between(own.root(env, "cup", row)[3:7], yaw)
    return -d_r - d_l + (d_r < 0.4) * (d_l < 0.4) * (1 / (angle + 0.1) - 1), float(angle <= 0.785)


def kettle(env, row):
    spout, left = own.at(env, "kettle/kettle", (-0.2, 0, 0.07), row), own.at(env, "bucket/bucket", (0, 0, 0.045), row)
    (d_r, _), (d_l, _) = distances(env, row, own.at(env, "kettle/kettle", (0.15, 0, 0), row), left)
    apart = np.linalg.norm(left - spout)
    return 1 - d_r - d_l + (d_r < 0.7) * (d_l < 0.7) * (0.5 - 2 * apart), float(apart <= 0.05)


def bottle(env, row):
    root = own.root(env, "bottle", row)[:3]
    (d_r, _), (_, e_l) = distances(env, row, own.at(env, "bottle/bottle", (0, 0, 0.15), row), root)
    out = np.linalg.norm(own.at(env, "bottle/bottle", (-0.0075, -0.007, joint(env, row, "bottle/slide")), row) - root)
    return 2 - d_r - e_l + (d_r <= 0.3) * 30 * out, float(out >= 0.03)


def lift(env, row):
    right, left = (own.at(env, "pot/pot", (0, y, 0.06), row) for y in (0.15, -0.15))
    (_, e_r), (_, e_l) = distances(env, row, right, left)
    d = np.linalg.norm(own.root(env, "pot", row)[:3] - (0, -0.6, 0.85))
    return 0.2 - e_r - e_l + (e_r < 0.08) * (e_l < 0.08) * 3 * (0.385 - d), float(d <= 0.05)


def switch(env, row):
    q = [joint(env, row, "%s_switch/rocker" % side) for side in ("right", "left")]
    points = [np.array([0.0109 + 0.035 * np.cos(a), y, 0.6917 - 0.035 * np.sin(a)]) for a, y in zip(q, (0.2, -0.2))]
    (d_r, _), (d_l, _) = distances(env, row, *points)
    pressed = 1.4 - points[0][2] - points[1][2]
    return 2 - d_r - d_l + 50 * pressed, float(pressed >= 0.05)


def stack(env, row):
    right, left = (own.root(env, side + "_cube", row)[:3] for side in ("right", "left"))
    (d_r, _), (d_l, _) = distances(env, row, right, left)
    d1, d2 = np.linalg.norm(left - (0, 0, 0.675)), np.linalg.norm(right - (0, 0, 0.625))
    bonus = (d1 < 0.07) * (d2 < 0.07) * 50 * (0.05 - abs(0.675 - left[2]))
    return 1.5 - d_r - d_l + (d_r < 0.5) * (d_l < 0.5) * 2 * (0.24 - d1 - d2) + bonus, float(bonus >= 1)


def push(env, row):
    right, left = (own.root(env, side + "_cube", row)[:3] for side in ("right", "left"))
    (d_r, _), (d_l, _) = distances(env, row, right, left)
    to = np.linalg.norm(right - (-0.2, 0.2, 0.625)), np.linalg.norm(left - (-0.2, -0.2, 0.625))
    return 1.2 - d_r + 1.2 - d_l + 5 - 5 * to[0] - 5 * to[1], 0.5 * (to[0] <= 0.1) + 0.5 * (to[1] <= 0.1)


def bucket(env, row):
    right, left = own.root(env, "bucket", row)[:3], own.root(env, "left_cube", row)[:3]
    (d_r, _), (d_l, _) = distances(env, row, right, left)
    apart = np.linalg.norm(right - left)
    return np.exp(-10 * d_r) + np.exp(-10 * d_l) + 2 * np.exp(-10 * apart), float(apart <= 0.2)


PEN = 2.0 * math.asin(math.sin(0.1) / 1.2806248)
RESTATED = {
    "Over": throw(50, "egg"),
    "CatchUnderarm": throw(50, "egg"),
    "CatchAbreast": throw(50, "egg"),
    "CatchOver2Underarm": throw(20, "egg"),
    "TwoCatchUnderarm": throw(50, "egg", "other"),
    "ReOrientation": in_hand(-10, 500, 0.1, ["cube", "other"]),
    "Spin": in_hand(0.1, 250, PEN, ["pen"], symmetric=True),
    "UpsideDown": in_hand(-10, 250, PEN, ["pen"]),
    "DoorOpenInward": door(True, 2, False),
    "DoorOpenOutward": door(False, 2, False),
    "DoorCloseInward": door(True, 2, True),
    "DoorCloseOutward": door(False, 6, True),
    "Pen": pen,
    "Scissors": scissors,
    "SwingCup": cup,
    "Kettle": kettle,
    "BottleCap": bottle,
    "LiftUnderarm": lift,
    "Switch": switch,
    "BlockStack": stack,
    "PushBlock": push,
    "GraspAndPlace": bucket,
}


def test_rewards_are_what_the_restatement_says(env):
    """On states that random actions lead to, and with the hands put to their points, where gates are open."""
    divisor = TABLE[short(env)][0] - (len(env.task.record.hands) == 2)
    env.reset()
    seen, open_gates = [], 0
    for step, move in enumerate(actions(env, 4, 5)):
        if step == 3 and env.task.record.points:
            bring_hands(env, 0.02)
        else:
            env.task.apply(move)
            env.sim.step()
        rewards = env.task.rewards()
        for row in range(env.num_envs):
            h, s = RESTATED[short(env)](env, row)
            assert rewards.heuristic[row].item() == pytest.approx(h, rel=2e-3, abs=2e-3)
            assert rewards.task[row].item() == pytest.approx(s / divisor, abs=1e-6)
            seen.append(h)
        open_gates += (rewards.terms.get("bonus", torch.zeros(1)) != 0.0).any().item()
    assert len(set(seen)) > 4
    assert open_gates or not env.task.record.points


def bring_hands(env, above):
    """Floating hands with their fingertips' middle at their points, ``above`` m to the side of the palm."""
    roots = env.sim.root_state.clone()
    points = {"right": env.task.state().right, "left": env.task.state().left}
    for k, side in enumerate(("right", "left")):
        for row in range(env.num_envs):
            middle = torch.from_numpy(own.tips(env, side, row).mean(0)).float()
            n = torch.tensor(env.task.record.hands[k].palm)
            roots[row, k, :3] += points[side][row] - middle - above * n / n.norm()
            if env.task.record.constants.get("by", ("reach", "reach"))[k] == "palm":
                roots[row, k, :3] = (
                    env.sim.root_state[row, k, :3]
                    + points[side][row]
                    - torch.from_numpy(own.palm(env, side, row)).float()
                )
    env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), root_state=roots)


# ---- starts and goals ------------------------------------------------------------------------------------------------
def test_starts_of_overs_hands_and_egg_are_as_published():
    """0.2 (lower + width u), moved into the limits; one sample for both hands; egg within 1 cm of its place."""
    env = make("ShadowHandOver", 2000)
    draws, eggs = [], []
    for _ in range(5):
        env.task.reset(torch.ones(2000, dtype=torch.bool))
        draws.append(env.sim.dof_pos.clone())
        eggs.append(env.sim.root_state[:, 2, :3] - torch.tensor([0.0, -0.39, 0.54]))
    q, egg = torch.cat(draws), torch.cat(eggs)
    assert torch.equal(q[:, :24], q[:, 24:])
    lower, upper = env.sim.dof_lower[:24], env.sim.dof_upper[:24]
    share = (q[:, :24] / 0.2 - lower) / (upper - lower)  # u on [-1, 1) where the limits leave it alone
    inside = (q[:, :24] > lower + 1e-6) & (q[:, :24] < upper - 1e-6)
    lowest = torch.maximum(torch.tensor(-1.0), (lower / 0.2 - lower) / (upper - lower))
    for j in range(24):
        u = share[inside[:, j], j]
        assert uniform_statistic(((u - lowest[j]) / (1.0 - lowest[j])).unsqueeze(1)) < ONE_PER_MILLE, j
    assert uniform_statistic(egg / 0.02 + 0.5) < ONE_PER_MILLE
    env.close()


def test_goals_and_starts_turn_independently():
    env = make("ShadowHandOver", 4000)
    env.reset()
    start, goal = env.sim.root_state[:, 2, 3:7], env.task.goal[:, 0, 3:]
    for quat in (start, goal):  # Rx(pi u1) Ry(pi u2) takes z to (sin y, - sin x cos y, cos x cos y)
        x, y, z, w = quat.unbind(1)
        x_angle = 2.0 * torch.atan2(x, w)
        flat = torch.where(
            w.abs() + x.abs() < 1e-3, torch.zeros_like(w), torch.remainder(x_angle + math.pi, 2 * math.pi)
        )
        assert uniform_statistic((flat / (2 * math.pi)).unsqueeze(1)) < ONE_PER_MILLE
    together = torch.corrcoef(torch.cat((start.abs(), goal.abs()), 1).T)[:4, 4:]
    assert together.abs().max() < 0.06
    env.close()


def test_only_the_second_cube_turns_the_goals_on():
    env = shared("ReOrientation")
    env.reset()
    roots = env.sim.root_state.clone()
    roots[0, 2, 3:7] = env.task.goal[0, 0, 3:]
    roots[1, 3, 3:7] = env.task.goal[1, 1, 3:]
    env.sim.set_state(torch.ones(4, dtype=torch.bool), root_state=roots)
    rewards = env.task.rewards()
    assert rewards.terms["goal_bonus"].tolist() == [0.0, 500.0, 0.0, 0.0]
    torch.testing.assert_close(rewards.task * 599, torch.tensor([0.5, 0.5, 0.0, 0.0]))
    before = env.task.goal.clone()
    env.task.apply(torch.zeros(4, 40))
    assert (env.task.goal[:, :, 3:] != before[:, :, 3:]).any(2).any(1).tolist() == [False, True, False, False]
    assert torch.equal(env.task.goal[:, 0, 3:], env.task.goal[:, 1, 3:])


def test_a_pens_goal_advances_by_ten_degrees_and_never_goes_back():
    env = shared("Spin")
    env.reset()
    first = env.task.goal[:, 0, 3:].clone()
    place(env, pen=torch.cat((torch.tensor([0.0, -0.39, 0.52]), first[0])))
    assert (env.task.rewards().task > 0).all()
    env.task.apply(torch.zeros(4, 20))
    second = env.task.goal[:, 0, 3:].clone()
    env.task.reset(torch.tensor([True, False, False, False]))
    third = env.task.goal[:, 0, 3:]
    for quat, angle in ((second[0], 10), (third[0], 20), (third[1], 10)):
        assert math.degrees(own.angle_between(first[0].double().numpy(), quat.double().numpy())) == pytest.approx(
            angle, abs=0.01
        )


# ---- ends and successes, on purpose ----------------------------------------------------------------------------------
def ends(env, **poses):
    straight(env)
    before = env.task.terminated()
    place(env, **poses)
    return before.any().item(), env.task.terminated().all().item()


LOW = {"Over": 0.199, "CatchUnderarm": 0.099, "CatchAbreast": 0.199, "CatchOver2Underarm": 0.299}
LOW.update(TwoCatchUnderarm=0.199)
HIGH = {name: height + 0.002 for name, height in LOW.items()}


@pytest.mark.parametrize("name", sorted(LOW))
def test_an_egg_that_falls_ends_an_episode(name):
    env = shared(name)
    assert ends(env, egg=(0.0, -0.5, HIGH[name])) == (False, False)
    assert ends(env, egg=(0.0, -0.5, LOW[name])) == (False, True)


def test_the_other_egg_and_the_other_cube_end_it_too():
    for name, low in (("TwoCatchUnderarm", 0.199), ("ReOrientation", 0.199)):
        assert ends(shared(name), other=(0.0, -0.5, low)) == (False, True)


@pytest.mark.parametrize("name", ["CatchAbreast", "CatchOver2Underarm"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_hand_that_drifts_ends_an_episode(name, side):
    env = shared(name)
    straight(env)
    start = env.sim.root_state[0, env.sim.actor_index(side), :3].clone()
    assert ends(env, **{side: start + torch.tensor([0.0, 0.0, 0.085])}) == (False, False)
    assert ends(env, **{side: start + torch.tensor([0.0, 0.0, 0.115])}) == (False, True)


@pytest.mark.parametrize("name", ["Spin", "UpsideDown"])
def test_a_pen_that_is_far_away_ends_an_episode(name):
    env = shared(name)
    env.reset()
    goal = env.task.goal[0, 0, :3]
    assert ends(env, pen=goal + torch.tensor([0.239, 0.0, 0.0])) == (False, False)
    assert ends(env, pen=goal + torch.tensor([0.241, 0.0, 0.0])) == (False, True)


@pytest.mark.parametrize("name", ["Over", "CatchUnderarm", "CatchAbreast", "CatchOver2Underarm", "TwoCatchUnderarm"])
def test_an_egg_at_its_goal_is_a_success(name):
    env = shared(name)
    env.reset()
    goals = {thing.name: env.task.goal[0, k] for k, thing in enumerate(env.task.record.objects())}
    assert env.task.rewards().task.max() == 0.0
    place(env, **goals)
    assert env.task.rewards().task[0].item() == pytest.approx(1.0 / (TABLE[name][0] - 1))
    assert env.task.rewards().heuristic[0].item() == pytest.approx(len(goals), abs=1e-3)
    assert env.task.metrics()["solved"].tolist()[0]
    shift = torch.tensor([0.0, 0.031 * len(goals), 0.0, 0.0, 0.0, 0.0, 0.0])
    place(env, egg=goals["egg"] + shift)
    assert env.task.rewards().task[0].item() == 0.0 and env.task.metrics()["solved"][0]


def joints(env, **angles):
    """Joints of things at these values, in all envs."""
    q = env.sim.dof_pos.clone()
    for name, angle in angles.items():
        for column, dof in enumerate(env.sim.dof_names):
            if dof.endswith("/" + name):
                q[:, column] = angle
    env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), q, torch.zeros_like(q))


FAR = {"DoorOpenInward": 1.5, "DoorOpenOutward": 1.5, "DoorCloseInward": 1.5, "DoorCloseOutward": 3.0, "Pen": 1.5}
FAR.update(Scissors=1.75, BlockStack=0.75, PushBlock=1.2, GraspAndPlace=1.5)


@pytest.mark.parametrize("name", sorted(FAR))
@pytest.mark.parametrize("k", [0, 1])
def test_a_hand_that_is_far_from_its_point_ends_an_episode(name, k):
    env = shared(name)
    env.reset()
    assert not env.task.terminated()[0]
    back = -torch.tensor(env.task.record.hands[k].finger)
    before = 0.0
    for _ in range(400):
        roots = env.sim.root_state.clone()
        roots[:, k, :3] += 0.001 * back
        env.sim.set_state(torch.ones(1, dtype=torch.bool), root_state=roots)
        if env.task.terminated()[0]:
            break
        before = env.task.state().reach[0, k].item()
    assert before < FAR[name] <= env.task.state().reach[0, k].item() <= before + 0.006


@pytest.mark.parametrize(
    ("name", "sound", "over"),
    [
        ("SwingCup", {"cup": (0.0, 0.0, 0.301)}, {"cup": (0.0, 0.0, 0.299)}),
        ("LiftUnderarm", {"pot": (0.0, -0.6, 0.44)}, {"pot": (0.0, -0.6, 0.299)}),
        ("LiftUnderarm", {"right": (0.0, 0.09, 0.45)}, {"right": (0.0, 0.12, 0.45)}),
        ("LiftUnderarm", {"left": (0.0, -1.29, 0.45)}, {"left": (0.0, -1.32, 0.45)}),
        ("Kettle", {"bucket": (0.0, -0.3, 0.156)}, {"bucket": (0.0, -0.3, 0.154)}),
        ("BottleCap", {"bottle": (0.0, -0.6, 0.39)}, {"bottle": (0.0, -0.6, 0.38)}),
        ("BottleCap", {"right": (0.0, -1.35, 0.45)}, {"right": (0.0, -1.45, 0.45)}),
        ("BottleCap", {"left": (0.0, -0.10, 0.45)}, {"left": (0.0, 0.0, 0.45)}),
    ],
)
def test_other_ends_of_table_tasks(name, sound, over):
    env = shared(name)
    env.reset()
    place(env, **sound)
    assert not env.task.terminated()[0]
    place(env, **over)
    assert env.task.terminated()[0]


def test_nothing_but_time_ends_a_switch():
    env = shared("Switch")
    env.reset()
    place(env, right=(3.0, 0.0, 3.0))
    assert not env.task.terminated()[0]


HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("name", "short_of_it", "there", "r"),
    [
        # Published thresholds of the hinges: 1.01 rad inward, 1.21 rad outward.
        ("DoorOpenInward", {"hinge_r": 1.0, "hinge_l": 1.0}, {"hinge_r": 1.03, "hinge_l": 1.03}, 1.0),
        ("DoorOpenOutward", {"hinge_r": 1.2, "hinge_l": 1.2}, {"hinge_r": 1.23, "hinge_l": 1.23}, 1.0),
        ("DoorCloseInward", {"hinge_r": 1.03, "hinge_l": 1.03}, {"hinge_r": 1.0, "hinge_l": 1.0}, 1.0),
        ("DoorCloseOutward", {"hinge_r": 1.23, "hinge_l": 1.23}, {"hinge_r": 1.2, "hinge_l": 1.2}, 1.0),
        ("Pen", {"slide": 0.129}, {"slide": 0.131}, 1.0),
        ("Scissors", {"hinge": -0.301}, {"hinge": -0.299}, 1.0),
        ("BottleCap", {"slide": 0.0281}, {"slide": 0.0283}, 1.0),
        ("Switch", {"rocker": 0.49}, {"rocker": 0.5}, 1.0),
        (
            "SwingCup",
            {"cup": (0.0, 0.0, 0.684, 0.0, 0.0, math.sin(0.97), math.cos(0.97))},
            {"cup": (0.0, 0.0, 0.684, 0.0, 0.0, math.sin(0.75 * math.pi), math.cos(0.75 * math.pi))},
            1.0,
        ),
        ("LiftUnderarm", {"pot": (0.0, -0.6, 0.799)}, {"pot": (0.0, -0.6, 0.801)}, 1.0),
        ("Kettle", {"bucket": (0.0, -0.2, 0.448)}, {"bucket": (0.0, -0.2, 0.450)}, 1.0),
        ("BlockStack", {"left_cube": (0.0, 0.0, 0.675)}, {"right_cube": (0.0, 0.0, 0.625)}, 1.0),
        ("PushBlock", {"right_cube": (0.0, 0.2, 0.625)}, {"right_cube": (-0.101, 0.2, 0.625)}, 0.5),
        ("PushBlock", {"left_cube": (-0.101, -0.2, 0.625)}, {"right_cube": (-0.101, 0.2, 0.625)}, 1.0),
        ("GraspAndPlace", {"left_cube": (0.0, 0.0, 0.63)}, {"left_cube": (0.0, 0.01, 0.63)}, 1.0),
    ],
)
def test_success_of_table_tasks_is_where_it_was_published(name, short_of_it, there, r):
    """Joints or things put just short of success, and just there."""
    env = shared(name)
    env.reset()
    for where, expected in ((short_of_it, r - 0.5 if name == "PushBlock" else 0.0), (there, r)):
        move = joints if isinstance(next(iter(where.values())), float) else place
        move(env, **where)
        assert env.task.rewards().task[0].item() * (TABLE[name][0] - 1) == pytest.approx(expected)


def test_with_its_published_switches_nobody_can_succeed():
    """1.4 - z - z from 0.017 unpressed to -0.005 pressed, and 0.05 is wanted."""
    env = shared("Switch", "task.faithful=true")
    env.reset()
    for angle, expected in ((0.0, 0.017), (0.5585, -0.005)):
        joints(env, rocker=angle)
        state = env.task.state()
        assert (1.4 - state.right[0, 2] - state.left[0, 2]).item() == pytest.approx(expected, abs=1e-3)
        assert env.task.rewards().task[0].item() == 0.0


@pytest.mark.parametrize("name", sorted(TABLE))
def test_nothing_starts_deep_inside_something_else(name):
    """Without the published spread of joints, which puts fingers up to 1 cm into each other and into what they catch;
    and but for what a hand holds from the start."""
    env = shared(name)
    straight(env) if env.task.record.spread else env.reset()
    model = env.sim.model
    data = mujoco.MjData(model)
    for row in range(env.num_envs):
        data.qpos[:] = env.render_state(row)["qpos"].numpy()
        mujoco.mj_forward(model, data)
        for contact in data.contact:
            owners = {model.body(model.geom_bodyid[g]).name.split("/")[0] for g in contact.geom}
            held = name in ("Spin", "UpsideDown", "BottleCap")
            if len(owners) == 2 and not (held and owners & {"right", "left"}):
                assert contact.dist > -1e-3, owners


# ---- observations ----------------------------------------------------------------------------------------------------
def test_the_columns_of_a_floating_task():
    env = shared("CatchUnderarm")
    env.reset()
    play(env, actions(env, 8, 3))
    obs, sim = env.task.observe(), env.sim
    for k, start in enumerate((0, 199)):
        block, mine = obs[:, start : start + 199], slice(24 * k, 24 * k + 24)
        low, high = sim.dof_lower[mine], sim.dof_upper[mine]
        torch.testing.assert_close(
            block[:, :24], 2.0 * (sim.dof_pos[:, mine] - low) / (high - low) - 1.0, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(block[:, 24:48], 0.2 * sim.dof_vel[:, mine])
        torch.testing.assert_close(block[:, 48:72], 10.0 * sim.dof_force[:, mine])
        tips = [sim.body_index("%s/%sdistal" % (("right", "left")[k], f)) for f in ("ff", "mf", "rf", "lf", "th")]
        torch.testing.assert_close(block[:, 72:137], sim.body_state[:, tips].flatten(1))
        torch.testing.assert_close(block[:, 137:167], 10.0 * sim.force_sensor[:, 5 * k : 5 * k + 5].flatten(1))
        torch.testing.assert_close(block[:, 167:170], sim.root_state[:, k, :3])
        roll, pitch, yaw = block[:, 170:173].double().unbind(1)
        z = torch.stack(
            (
                roll.cos() * pitch.sin() * yaw.cos() + roll.sin() * yaw.sin(),
                roll.cos() * pitch.sin() * yaw.sin() - roll.sin() * yaw.cos(),
                roll.cos() * pitch.cos(),
            ),
            1,
        )
        for row in range(2):
            quat = sim.root_state[row, k, 3:7].double().numpy()
            np.testing.assert_allclose(z[row], own.turned(quat, (0, 0, 1)), atol=1e-5)
        torch.testing.assert_close(block[:, 173:199], env.task.last_action[:, 26 * k : 26 * k + 26])
    egg = sim.root_state[:, 2]
    torch.testing.assert_close(obs[:, 398:408], egg[:, :10])
    torch.testing.assert_close(obs[:, 408:411], 0.2 * egg[:, 10:])
    torch.testing.assert_close(obs[:, 411:418], env.task.goal[:, 0])


def test_what_the_configuration_says_is_what_the_records_need():
    for name in TASKS:
        cfg = task_settings(name)
        task, train = cfg["task"], cfg["train"]
        assert task["name"] == name and task["faithful"] is False
        two = len(TASKS[name].record.hands) == 2
        assert (train["gamma"], train["normalize_input"]) == ((0.96, False) if two else (0.99, True))
        assert task["budgets"]["paper"]["num_envs"] == (2048 if two else 16384)
        assert train["network"]["units"] == ([512, 256, 128] if two else [512, 512, 256, 128])
