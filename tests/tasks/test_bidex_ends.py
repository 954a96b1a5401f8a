"""Every end and every success of the dexterous tasks, on purpose."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tasks.dexterous import TABLE, joints, place, shared, straight


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


def test_either_egg_and_either_cube_ends_it():
    for name, things in (("TwoCatchUnderarm", ("egg", "other")), ("ReOrientation", ("cube", "other"))):
        for thing in things:
            assert ends(shared(name), **{thing: (0.0, -0.5, 0.201)}) == (False, False)
            assert ends(shared(name), **{thing: (0.0, -0.5, 0.199)}) == (False, True)


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


FAR = {"DoorOpenInward": 1.5, "DoorOpenOutward": 1.5, "DoorCloseInward": 1.5, "DoorCloseOutward": 3.0, "Pen": 1.5}
FAR.update(Scissors=1.75, BlockStack=0.75, PushBlock=1.2, GraspAndPlace=1.5)


@pytest.mark.parametrize("name", sorted(FAR))
@pytest.mark.parametrize("k", [0, 1])
def test_a_hand_that_is_far_from_its_point_ends_an_episode(name, k):
    env = shared(name)
    env.reset()
    assert not env.task.terminated()[0]
    back = -torch.tensor(env.task.record.hands[k].finger)
    start, low, high = env.sim.root_state.clone(), 0.0, 0.4
    for _ in range(12):  # halves the interval that the end is in, to 0.1 mm
        middle = 0.5 * (low + high)
        roots = start.clone()
        roots[:, k, :3] += middle * back
        env.sim.set_state(torch.ones(4, dtype=torch.bool), root_state=roots)
        over, reach = env.task.terminated()[0].item(), env.task.state().reach[0, k].item()
        assert over == (reach >= FAR[name])
        low, high = (low, middle) if over else (middle, high)
    assert 0.001 < low < 0.399 and abs(reach - FAR[name]) < 1e-3


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


def turned(quat, angle):
    """A quaternion (4,) turned further by an angle about an axis of its own that is none of the object's."""
    x, y, z, w = quat.double().tolist()
    p, q, r, s = *(math.sin(0.5 * angle) * part for part in (0.48, 0.6, 0.64)), math.cos(0.5 * angle)
    product = [w * p + x * s + y * r - z * q, w * q - x * r + y * s + z * p, w * r + x * q - y * p + z * s]
    return torch.tensor([*product, w * s - x * p - y * q - z * r], dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("ReOrientation", 0.1), ("Spin", 2.0 * math.asin(0.09983 / 1.28062)), ("UpsideDown", 0.15603)],
)
def test_what_is_turned_to_its_goal_is_a_success(name, tolerance):
    env = shared(name)
    env.reset()
    things = {thing.name: env.task.goal[0, k].clone() for k, thing in enumerate(env.task.record.objects())}
    for off, r in ((tolerance + 2e-3, 0.0), (tolerance - 2e-3, 1.0), (0.0, 1.0), (math.pi, 0.0)):
        place(env, **{thing: torch.cat((goal[:3], turned(goal[3:], off))) for thing, goal in things.items()})
        assert env.task.rewards().task[0].item() * 599 == pytest.approx(r, abs=1e-5), off
    assert env.task.metrics()["solved"][0] and env.task.goals_reached[0] == 2.0
    for flip, r in ((math.pi, name == "Spin"), (2.0 * math.pi, True)):  # a pen's ends are alike in Spin only
        quats = {thing: flipped(goal[3:], flip) for thing, goal in things.items()}
        place(env, **{thing: torch.cat((things[thing][:3], quat)) for thing, quat in quats.items()})
        assert env.task.rewards().task[0].item() * 599 == pytest.approx(float(r), abs=1e-5)


def flipped(quat, angle):
    """A quaternion (4,) turned by an angle about the object's own y axis."""
    x, y, z, w = quat.tolist()
    s, c = math.sin(0.5 * angle), math.cos(0.5 * angle)
    return torch.tensor([x * c - z * s, y * c + w * s, z * c + x * s, w * c - y * s])


# What the tests above and below reach of each record's ends, by measure.
ENDS = {
    **dict.fromkeys(("Over", "CatchUnderarm", "TwoCatchUnderarm", "ReOrientation", "SwingCup"), {"height"}),
    **dict.fromkeys(("CatchAbreast", "CatchOver2Underarm"), {"height", "drift"}),
    **dict.fromkeys(("Spin", "UpsideDown"), {"distance"}),
    **dict.fromkeys(FAR, {"reach"}),
    "LiftUnderarm": {"height", "palm"},
    "Kettle": {"left_height"},
    "BottleCap": {"right_height", "right_palm", "left_palm"},
    "Switch": set(),
}


def test_no_end_is_left_out():
    assert {name: {end.measure for end in shared(name).task.record.ends} for name in TABLE} == ENDS


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
    env = shared("Switch", faithful=True)
    env.reset()
    for angle, expected in ((0.0, 0.017), (0.5585, -0.005)):
        joints(env, rocker=angle)
        state = env.task.state()
        assert (1.4 - state.right[0, 2] - state.left[0, 2]).item() == pytest.approx(expected, abs=1e-3)
        assert env.task.rewards().task[0].item() == 0.0
