"""What robot tasks declare of their observations and actions, held against what they do."""

from __future__ import annotations

import math

import pytest
import torch

from hepo_isaac.envs.interface import ABSOLUTE, INTEGRATED, SWITCH, ActionGroup, ObsSlice, described
from hepo_isaac.locate import robot_tasks
from tests.tasks.robots import make
from tests.tasks.sampled import OTHERS

VARIANTS = [
    ("FrankaCubeStack", "task.control_type=joint_tor"),
    ("AllegroHand", "task.use_relative_control=true"),
    ("ShadowHand", "task.observation_type=openai", "task.asymmetric_observations=true"),
]
CASES = [pytest.param((name,), marks=[pytest.mark.slow] if name in OTHERS else []) for name in robot_tasks()] + VARIANTS


def full(values, size):
    return torch.as_tensor(values, dtype=torch.float32).expand(size)


def joints(env, names):
    return torch.tensor([env.sim.dof_names.index(name) for name in names])


@pytest.fixture(params=CASES, ids=" ".join)
def env(request):
    env = make(request.param[0], 3, *request.param[1:])
    env.reset()
    yield env
    env.close()


def moved(env, steps=3):
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        env.step(2.0 * torch.rand(env.num_envs, env.num_actions, generator=generator) - 1.0)
    return env.task.observe()


def test_the_columns_add_up(env):
    layout, actions = env.task.obs_layout(), env.task.action_layout()
    assert sum(part.size for part in layout) == env.task.num_obs == env.num_obs - env.num_states
    assert sum(group.size for group in actions) == env.num_actions
    for part in (*layout, *actions):
        for field in ("scale", "shift", "offset", "lower", "upper"):
            value = getattr(part, field, None)
            assert not isinstance(value, tuple) or len(value) == part.size, (part, field)
        assert not part.names or len(part.names) == part.size
        assert part.unit
    names = [part.name for part in layout]
    assert len(set(names)) == len(names)


def test_joint_columns_are_the_joints(env):
    """Positions and speeds: scale * quantity + shift of the joints that are named; what else is named alike too."""
    obs, sim, checked = moved(env), env.sim, 0
    for part in described(env.task.obs_layout()):
        column = obs[:, part["start"] : part["start"] + part["size"]]
        roots = {"root_height": (2, 3), "velocity": (7, 10), "spin": (10, 13)}
        if part["name"].endswith(("joint_pos", "joint_vel")):  # of two hands, right_joint_pos
            source = sim.dof_pos if part["name"].endswith("joint_pos") else sim.dof_vel
            quantity = source[:, joints(env, part["names"])]
        elif part["name"] in roots:
            quantity = sim.root_state[:, 0, slice(*roots[part["name"]])]
        elif part["name"] in ("actions", "action"):
            quantity = (
                env.task.last_action
                if "Hand" in env.task.name and env.num_actions == 20 and hasattr(env.task, "record")
                else env.task._actions
            )
        elif part["name"] == "ball_pos":
            quantity = sim.root_state[:, 1, :3]
        elif part["name"] == "object_pose":
            quantity = sim.root_state[:, env.task.object_row, :7]
        else:
            continue
        expected = quantity * full(part["scale"], part["size"]) + full(part["shift"], part["size"])
        torch.testing.assert_close(column, expected, rtol=1e-4, atol=1e-4)
        checked += 1
    assert checked or env.task.name == "Cartpole" or env.task.obs_layout()[0].name == "fingertip_pos"


def command(group, actions, before=0.0):
    """What the declaration says becomes of actions (N, size)."""
    scale, offset = full(group.scale, group.size), full(group.offset, group.size)
    value = {
        ABSOLUTE: offset + scale * actions,
        INTEGRATED: before + scale * actions,
        SWITCH: offset + scale * (actions >= 0),
    }[group.mode]
    low = -math.inf if group.lower is None else group.lower
    high = math.inf if group.upper is None else group.upper
    return torch.minimum(torch.maximum(value, full(low, group.size)), full(high, group.size))


def test_actions_become_what_is_declared(env, monkeypatch):
    """Joint targets and efforts as the engine gets them, from two different actions in turn."""
    sent = {}
    for kind in ("set_dof_target_pos", "set_dof_effort", "apply_body_force"):
        original = getattr(env.sim, kind)

        def spy(values, *rest, kind=kind, original=original):
            sent[kind] = values.clone()
            return original(values, *rest)

        monkeypatch.setattr(env.sim, kind, spy)
    generator = torch.Generator().manual_seed(3)
    checked = 0
    for _ in range(2):
        actions = 2.0 * torch.rand(env.num_envs, env.num_actions, generator=generator) - 1.0
        before = {
            "target": env.sim.dof_target_pos.clone(),
            "thrust": getattr(env.task, "thrust", torch.zeros(0)).clone(),
        }
        env.task.apply(actions)
        start = 0
        for group in env.task.action_layout():
            mine = actions[:, start : start + group.size]
            start += group.size
            if group.command == "joint position target":
                rows = joints(env, group.names)
                found, old = sent["set_dof_target_pos"][:, rows], before["target"][:, rows]
            elif group.command == "joint effort":
                found, old = sent["set_dof_effort"][:, joints(env, group.names)], 0.0
            elif group.command.startswith("position target of both fingers"):
                found, old = sent["set_dof_target_pos"][:, -1:], 0.0
            elif "thrust" in group.command:
                found, old = env.task.thrust, before["thrust"]
            elif group.command.startswith("vertical force"):
                found, old = env.task.thrust[:, [int(group.names[0].split("rotor")[1][0])]], 0.0
            else:
                continue
            if env.task.name == "FrankaCubeStack" and group.command == "joint effort":
                continue  # bounded further, so that no joint is faster than the Panda's may be
            torch.testing.assert_close(found, command(group, mine, old), rtol=1e-4, atol=1e-5)
            checked += 1
        env.sim.step()
    assert checked >= 2


def test_a_task_that_declares_nothing_says_so():
    parts = described([ObsSlice("a", 2, "m"), ObsSlice("b", 1, "1", scale=2.0)])
    assert [part["start"] for part in parts] == [0, 2]
    assert "names" not in parts[0]
    group = described([ActionGroup(("x", "y"), "effort", "N", (1.0, 2.0))])[0]
    assert group["names"] == ["x", "y"]
    assert "lower" not in group
    env = make("Push2D", 2, engine="analytic")
    (obs,), (action,) = env.task.obs_layout(), env.task.action_layout()
    assert (obs.size, action.size) == (env.num_obs, env.num_actions)
    assert "does not declare" in obs.meaning
    env.close()
