"""The dexterous tasks: records, hands, rewards against an independent restatement, ends and successes on purpose."""

from __future__ import annotations

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class, tasks_module, tasks_package
from hepo_isaac.overrides import compose
from tests.kolmogorov import ONE_PER_MILLE, uniform_statistic
from tests.tasks import dexterous as own
from tests.tasks.robots import actions, make, play

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
}


@pytest.fixture(scope="module", params=sorted(TABLE))
def env(request):
    env = make("ShadowHand" + request.param, 4)
    yield env
    env.close()


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
        ({"success": record.Condition("distanc")}, "unknown measure of task ShadowHandOver 'distanc'"),
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
    env = make("ShadowHandOver", 1)
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
    env = make("ShadowHandCatchUnderarm", 3)
    straight(env)
    start = env.sim.root_state[:, :2].clone()
    hold = (2.0 * (0.0 - env.task._lower) / (env.task._upper - env.task._lower) - 1.0).view(2, 20)
    moves = torch.zeros(3, 2, 26)
    moves[..., 6:] = hold
    moves[1, 0, 0], moves[1, 1, 2] = 1.0, -1.0
    for _ in range(12):
        env.step(moves.view(3, -1))
    place_away = env.sim.root_state[:, :2] - start
    assert place_away[0, :, :3].abs().max() < 4e-3  # the egg falls onto one
    speed = 0.05 * 0.01667e5 / (100.0 * 5.011)
    assert env.sim.root_state[1, 0, 7].item() == pytest.approx(speed, rel=0.02)
    assert env.sim.root_state[1, 1, 9].item() == pytest.approx(-speed, rel=0.02)
    moves[..., :6] = 0.0
    env.step(moves.view(3, -1))
    assert env.sim.root_state[1, 0, 7].item() == pytest.approx(speed * math.exp(-100.0 * 0.01667), abs=0.15 * speed)


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
}


def compare(env, steps):
    """h and r of a few states against the restatement."""
    divisor = TABLE[short(env)][0] - (len(env.task.record.hands) == 2)
    seen = []
    for move in actions(env, 4, steps):
        env.sim.step() if move is None else env.task.apply(move)
        env.sim.step()
        rewards = env.task.rewards()
        for row in range(env.num_envs):
            h, s = RESTATED[short(env)](env, row)
            assert rewards.heuristic[row].item() == pytest.approx(h, rel=2e-3, abs=2e-3)
            assert rewards.task[row].item() == pytest.approx(s / divisor, abs=1e-6)
            seen.append(h)
    return seen


def test_rewards_are_what_the_restatement_says(env):
    env.reset()
    assert len(set(compare(env, 4))) > 4


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
    env = make("ShadowHandReOrientation", 3)
    env.reset()
    roots = env.sim.root_state.clone()
    roots[0, 2, 3:7] = env.task.goal[0, 0, 3:]
    roots[1, 3, 3:7] = env.task.goal[1, 1, 3:]
    env.sim.set_state(torch.ones(3, dtype=torch.bool), root_state=roots)
    rewards = env.task.rewards()
    assert rewards.terms["goal_bonus"].tolist() == [0.0, 500.0, 0.0]
    torch.testing.assert_close(rewards.task * 599, torch.tensor([0.5, 0.5, 0.0]))
    before = env.task.goal.clone()
    env.task.apply(torch.zeros(3, 40))
    assert (env.task.goal[:, :, 3:] != before[:, :, 3:]).any(2).any(1).tolist() == [False, True, False]
    assert torch.equal(env.task.goal[:, 0, 3:], env.task.goal[:, 1, 3:])


def test_a_pens_goal_advances_by_ten_degrees_and_never_goes_back():
    env = make("ShadowHandSpin", 2)
    env.reset()
    first = env.task.goal[:, 0, 3:].clone()
    place(env, pen=torch.cat((torch.tensor([0.0, -0.39, 0.52]), first[0])))
    assert (env.task.rewards().task > 0).all()
    env.task.apply(torch.zeros(2, 20))
    second = env.task.goal[:, 0, 3:].clone()
    env.task.reset(torch.tensor([True, False]))
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
    env = make("ShadowHand" + name, 1)
    assert ends(env, egg=(0.0, -0.5, HIGH[name])) == (False, False)
    assert ends(env, egg=(0.0, -0.5, LOW[name])) == (False, True)


def test_the_other_egg_and_the_other_cube_end_it_too():
    for name, low in (("TwoCatchUnderarm", 0.199), ("ReOrientation", 0.199)):
        assert ends(make("ShadowHand" + name, 1), other=(0.0, -0.5, low)) == (False, True)


@pytest.mark.parametrize("name", ["CatchAbreast", "CatchOver2Underarm"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_hand_that_drifts_ends_an_episode(name, side):
    env = make("ShadowHand" + name, 1)
    straight(env)
    start = env.sim.root_state[0, env.sim.actor_index(side), :3].clone()
    assert ends(env, **{side: start + torch.tensor([0.0, 0.0, 0.085])}) == (False, False)
    assert ends(env, **{side: start + torch.tensor([0.0, 0.0, 0.115])}) == (False, True)


@pytest.mark.parametrize("name", ["Spin", "UpsideDown"])
def test_a_pen_that_is_far_away_ends_an_episode(name):
    env = make("ShadowHand" + name, 1)
    env.reset()
    goal = env.task.goal[0, 0, :3]
    assert ends(env, pen=goal + torch.tensor([0.239, 0.0, 0.0])) == (False, False)
    assert ends(env, pen=goal + torch.tensor([0.241, 0.0, 0.0])) == (False, True)


@pytest.mark.parametrize("name", ["Over", "CatchUnderarm", "CatchAbreast", "CatchOver2Underarm", "TwoCatchUnderarm"])
def test_an_egg_at_its_goal_is_a_success(name):
    env = make("ShadowHand" + name, 2)
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


# ---- observations ----------------------------------------------------------------------------------------------------
def test_the_columns_of_a_floating_task():
    env = make("ShadowHandCatchUnderarm", 2)
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
        cfg = compose(["task=" + name])
        assert cfg.task.name == name and cfg.task.faithful is False
        two = len(TASKS[name].record.hands) == 2
        assert (cfg.train.gamma, cfg.train.normalize_input) == ((0.96, False) if two else (0.99, True))
        assert cfg.task.budgets.paper.num_envs == (2048 if two else 16384)
        assert list(cfg.train.network.units) == ([512, 256, 128] if two else [512, 512, 256, 128])
