"""Rewards of the dexterous tasks against an independent restatement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.tasks import dexterous as own
from tests.tasks.dexterous import TABLE, shared
from tests.tasks.robots import actions


@pytest.fixture(scope="module", params=sorted(TABLE))
def env(request):
    return shared(request.param)


def short(env):
    return env.task.name[len("ShadowHand") :]


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
