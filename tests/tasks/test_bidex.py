"""The dexterous tasks: records, hands, observations, and what is no task."""

from __future__ import annotations

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class, task_settings, tasks_module, tasks_package
from tests.tasks import dexterous as own
from tests.tasks.dexterous import TABLE, place, shared, straight
from tests.tasks.robots import actions, make, play
from tests.tasks.sampled import CHOSEN, OTHERS

TASKS = tasks_module("bidex").TASKS
hand, measures, record = (tasks_module("bidex." + name) for name in ("hand", "measures", "record"))


@pytest.fixture(scope="module", params=sorted(TABLE))
def env(request):
    return shared(request.param)


def short(env):
    return env.task.name[len("ShadowHand") :]


# ---- records ---------------------------------------------------------------------------------------------------------
def test_every_task_is_in_the_table_and_has_both_names():
    assert {"ShadowHand" + name for name in TABLE} == set(TASKS)
    assert set(TABLE) == set(tasks_package().DEXTEROUS)
    for name, cls in TASKS.items():
        assert task_class(name) is cls and task_class(name[len("ShadowHand") :]) is cls


def test_they_are_a_group_of_tasks():
    from hepo_isaac.locate import robot_tasks

    assert set(robot_tasks(["bidex"])) == set(TASKS)
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
        ({"success": measures.Condition("distanc", 1.0)}, "unknown measure of task ShadowHandOver 'distanc'"),
        ({"observed": ("state:eg",)}, "unknown point or object of task ShadowHandOver 'eg'"),
        ({"observed": ("stat:egg",)}, "unknown observed part of task ShadowHandOver 'stat'"),
        ({"observed": ("egg",)}, "task ShadowHandOver observes 'egg'; expected <kind>:<name>"),
        (
            {"points": (record.Point("right", "eg/object"),)},
            "unknown object of point right of task ShadowHandOver 'eg'",
        ),
        ({"points": (record.Point("right", "egg/object"),)}, "task ShadowHandOver needs the points right, left"),
        ({"start_turn": "some"}, "unknown start rotation of task ShadowHandOver 'some'"),
        ({"points": (record.Point("right", "egg/object"),) * 2}, "task ShadowHandOver needs the points right, left"),
        ({"pair": ("spout", "left")}, "task ShadowHandOver needs the points right, left, spout and left, or none"),
        ({"observed": ("zeros:two",)}, "task ShadowHandOver needs a number of zeros to observe, got 'two'"),
        ({"goals": OVER.goals * 2}, "task ShadowHandOver needs an object for each of its 2 goals"),
        ({"goals": ()}, "unknown point or object of task ShadowHandOver 'egg'"),
        ({"hands": OVER.hands * 2}, "task ShadowHandOver needs one hand or two, and has 4"),
        ({"constants": {"kapa": 50.0}}, "constants of task ShadowHandOver, family throw: missing a required argument"),
        ({"constants": {"kappa": 1.0, "c": 1.0}}, "family throw: got an unexpected keyword argument 'c'"),
        ({"faithful": {"thing": ()}}, "unknown faithful field of task ShadowHandOver 'thing': did you mean 'things'"),
    ],
)
def test_a_record_that_cannot_be_is_one_sentence(change, said):
    with pytest.raises(UserError) as caught:
        replace(OVER, **change)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_other_records_that_cannot_be_are_one_sentence():
    spin, door = TASKS["ShadowHandSpin"].record, TASKS["ShadowHandDoorOpenOutward"].record
    with pytest.raises(UserError, match="task ShadowHandSpin needs two hands for h of family exponential"):
        replace(spin, family="exponential", constants={"bonus": measures.Bonus("height")})
    with pytest.raises(UserError, match="unknown distance of a hand of task ShadowHandDoorOpenOutward 'reech'"):
        replace(door, constants={**door.constants, "by": ("reach", "reech")})
    with pytest.raises(UserError, match="a condition on distance needs at_least or at_most"):
        measures.Condition("distance")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # A site of these tasks is a point of a body.
        (
            {"points": tuple(record.Point(side, "egg/objct") for side in record.SIDES)},
            "the scene has no body egg/objct; it has: ",
        ),
        ({"posture": {"FFJ9": 1.0}}, "unknown joint of task ShadowHandOver 'right/FFJ9': did you mean 'right/FFJ"),
        ({"things": (replace(OVER.things[0], asset=record.HELD / "in_hand_eg.xml"),)}, "there is no asset "),
        ({"things": (replace(OVER.things[0], mass={"objct": 1.0}),)}, "'egg' names unknown body 'objct'"),
        ({"things": OVER.things * 2}, "actor names must be unique"),
        ({"ends": (measures.Condition("drift", 0.1),)}, "ShadowHandOver has nothing to take its measure 'drift' of"),
        ({"success": measures.Condition("joint", 0.1)}, "ShadowHandOver has nothing to take its measure 'joint' of"),
    ],
)
def test_a_record_that_the_scene_cannot_follow_is_one_sentence(monkeypatch, change, said):
    kind = tasks_module("bidex.task").task_of(replace(OVER, **change))
    monkeypatch.setitem(TASKS, "ShadowHandOver", kind)
    with pytest.raises(UserError) as caught:
        make("ShadowHandOver", 1)
    assert said in str(caught.value) and "\n" not in str(caught.value) and "ShadowHandOver" in str(caught.value)


def test_an_engine_without_forces_on_bodies_is_one_sentence(monkeypatch):
    from hepo_isaac.sim.mujoco.batch import MujocoBatchSimulation

    monkeypatch.setattr(MujocoBatchSimulation, "apply_body_force", None)
    said = "task=ShadowHandPen pushes its hands through apply_body_force, which MujocoBatchSimulation lacks; choose"
    with pytest.raises(UserError, match=said):
        make("ShadowHandPen", 1)
    make("ShadowHandOver", 1).close()  # whose hands are welded


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("Spin", "task.hands=2", "unknown setting 'task.hands'"),
        ("Over", "task.hands=2", "unknown setting 'task.hands'"),
        ("ShadowHand", "task.hands=2", "unknown setting 'task.hands'"),
        ("ShadowHand", "task.faithful=true", "unknown setting 'task.faithful'"),
        ("Spin", "task.physics.base_drag=1", "unknown setting 'task.physics.base_drag'"),
        ("Ant", "task.physics.base_drag=1", "unknown setting 'task.physics.base_drag'"),
    ],
)
def test_what_only_other_tasks_have_is_no_setting(task, change, said):
    from hepo_isaac.aliases import translate
    from hepo_isaac.overrides import check_overrides

    with pytest.raises(UserError) as caught:
        check_overrides(translate(["task=" + task, change]))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["-1", "inf"])
def test_a_drag_that_is_no_rate_is_refused(given):
    with pytest.raises(UserError, match="task.physics.base_drag=%s is no rate" % given):
        make("ShadowHandPen", 1, "task.physics.base_drag=" + given)


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
    place(env, egg=(0.0, 3.0, 2.0))  # far from both
    start = env.sim.root_state[:, :2].clone()
    hold = (2.0 * (0.0 - env.task._lower) / (env.task._upper - env.task._lower) - 1.0).view(2, 20)
    moves = torch.zeros(4, 2, 26)
    moves[..., 6:] = hold
    moves[1, 0, 0], moves[1, 1, 2] = 1.0, -1.0
    for _ in range(12):
        env.step(moves.view(4, -1))
    place_away = env.sim.root_state[:, :2] - start
    assert place_away[0, :, :3].abs().max() < 1e-3
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
    ("name", "faithful"), [(n, False) for n in sorted(STARTS)] + [(n, True) for n in sorted(FAITHFUL)]
)
def test_starts_are_what_forward_kinematics_says(name, faithful):
    """Each distance to 1 mm, so a sum of five to 5 mm."""
    env = shared(name, faithful=faithful)
    env.reset()
    sums, palms, h, placed = (FAITHFUL if faithful else STARTS)[name]
    place(env, **placed)
    state, rewards = env.task.state(), env.task.rewards()
    for k in range(2):
        assert palms[k] == pytest.approx(state.palm[0, k].item(), abs=1e-3)
        if sums[k]:
            assert sums[k] == pytest.approx(state.reach[0, k].item(), abs=5e-3)
    assert h == pytest.approx(rewards.heuristic[0].item(), abs=1e-2)
    assert rewards.task[0].item() == 0.0 and not env.task.terminated()[0]


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
