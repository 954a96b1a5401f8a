"""Starts and goals of the dexterous tasks."""

from __future__ import annotations

import math

import mujoco
import pytest
import torch

from hepo_isaac.locate import tasks_module
from tests.kolmogorov import ONE_IN_3000, uniform_statistic
from tests.tasks import dexterous as own
from tests.tasks.dexterous import TABLE, many, place, shared, straight

TASKS = tasks_module("bidex").TASKS


N = 10_000  # draws


def drawn(quat):
    """u (N, 2) of Rx(pi u1) Ry(pi u2), half of whose angles are within a quarter turn; and how far quat is from it."""
    x, y, z, w = quat.double().unbind(1)
    u = torch.stack((torch.atan2(x, w), torch.atan2(y, w)), 1) / (0.5 * math.pi)
    return u, (x * y - z * w).abs().max().item()


def uniform(values, low=-1.0, high=1.0):
    return uniform_statistic(values, low, high) < ONE_IN_3000


def unrelated(*columns):
    """Whether no two of the columns (N,) are correlated: five standard deviations."""
    table = torch.corrcoef(torch.stack([c.double() for c in columns]))
    return (table - torch.eye(len(columns))).abs().max().item() < 5.0 / N**0.5


@pytest.mark.parametrize("name", ["Over", "CatchUnderarm", "TwoCatchUnderarm", "ReOrientation", "Spin", "UpsideDown"])
def test_joints_and_places_are_drawn_as_published(name):
    """q = 0.2 (lower + width u), u on [-1, 1) for two hands and on [0, 1) for one, moved into the limits.

    One sample for both hands; one place for all objects, within 1 cm of where they are put.
    """
    task, record = many(name, N), TASKS["ShadowHand" + name].record
    q, low = task.sim.dof_pos, -1.0 if len(record.hands) == 2 else 0.0
    if low < 0.0:
        assert torch.equal(q[:, :24], q[:, 24:])
    lower, upper = task.sim.dof_lower[:24], task.sim.dof_upper[:24]
    share = (q[:, :24] / 0.2 - lower) / (upper - lower)
    lowest = ((lower / 0.2 - lower) / (upper - lower)).clamp(min=low)  # below it the limits hold a joint
    for j in range(24):
        inside = (q[:, j] > lower[j] + 1e-6) & (q[:, j] < upper[j] - 1e-6)
        assert uniform(share[inside, j], lowest[j], 1.0), j
        assert abs(inside.float().mean() - (1.0 - lowest[j]) / (1.0 - low)) < 0.025
    rows = [(task.sim.actor_index(thing.name), torch.tensor(thing.position)) for thing in record.objects()]
    where = [task.sim.root_state[:, row, :3] - place for row, place in rows]
    assert all(torch.allclose(other, where[0], atol=1e-6) for other in where)
    assert all(uniform(where[0][:, k], -0.01, 0.01) for k in range(3))
    assert unrelated(*where[0].unbind(1), *share[:, 2:6].unbind(1))


@pytest.mark.parametrize(
    "name", ["Over", "CatchUnderarm", "CatchAbreast", "CatchOver2Underarm", "TwoCatchUnderarm", "ReOrientation"]
)
def test_starts_and_goals_turn_at_random_and_independently(name):
    """All objects by one rotation, all goals by another one."""
    task, record = many(name, N), TASKS["ShadowHand" + name].record
    starts = [task.sim.root_state[:, task.sim.actor_index(t.name), 3:7] for t in record.objects()]
    found = []
    for quats in (starts, task.goal[..., 3:].unbind(1)):
        u, off = drawn(quats[0])
        assert off < 1e-6 and uniform(u[:, 0]) and uniform(u[:, 1])
        assert all(torch.equal(other, quats[0]) for other in quats)
        found += [*u.unbind(1)]
    assert unrelated(*found)
    before = task.goal.clone()
    task.reset(torch.arange(N) < 10)
    assert torch.equal((task.goal != before).any(2).any(1), torch.arange(N) < 10)


@pytest.mark.parametrize("name", ["Spin", "UpsideDown"])
def test_a_pen_starts_tilted_and_turned_by_one_number(name):
    """Rx(pi / 2 + 0.3 u) Rz(pi u): both angles of one u, as published. The goal advances, whatever is drawn."""
    task = many(name, N)
    x, y, z, w = task.sim.root_state[:, task.sim.actor_index("pen"), 3:7].double().unbind(1)
    u = torch.atan2(z, w) / (0.5 * math.pi)
    assert uniform(u)
    torch.testing.assert_close(2.0 * torch.atan2(x.hypot(y), z.hypot(w)), 0.5 * math.pi + 0.3 * u, atol=1e-5, rtol=0)
    assert (task.goal == task.goal[:1]).all()


ALIKE = sorted(name for name in TABLE if not TASKS["ShadowHand" + name].draws(TASKS["ShadowHand" + name].record))


@pytest.mark.parametrize("name", ALIKE)
def test_the_others_start_in_one_state_as_published(name):
    task = many(name, 5)
    before = task.goal.clone(), task.sim.dof_pos.clone(), task.sim.root_state.clone()
    task.reset(torch.ones(5, dtype=torch.bool))
    for now, then in zip((task.goal, task.sim.dof_pos, task.sim.root_state), before):
        assert torch.equal(now, then) and (now == now[:1]).all()


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


DEEPEST = {"CatchAbreast": -2e-3, "TwoCatchUnderarm": -1.2e-3}  # m, of an egg in a hand, as published


@pytest.mark.parametrize("name", sorted(TABLE))
def test_nothing_starts_deep_inside_something_else(name):
    """Without the published spread of joints, places and rotations, by which fingers are up to 1 cm inside of each
    other and of what they catch; and but for what a hand holds from the start."""
    env = shared(name)
    env.reset()
    if env.task.draws(env.task.record):
        straight(env)
        place(env, **{t.name: (*t.position, 0.0, 0.0, 0.0, 1.0) for t in env.task.record.objects()})
    model = env.sim.model
    data = mujoco.MjData(model)
    for row in range(env.num_envs):
        data.qpos[:] = env.render_state(row)["qpos"].numpy()
        mujoco.mj_forward(model, data)
        for contact in data.contact:
            owners = {model.body(model.geom_bodyid[g]).name.split("/")[0] for g in contact.geom}
            held = name in ("Spin", "UpsideDown", "BottleCap")
            if len(owners) == 2 and not (held and owners & {"right", "left"}):
                assert contact.dist > DEEPEST.get(name, -1e-3), owners
