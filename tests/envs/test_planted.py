"""What is no number in one world of many stays there: the others go on as if it had never been, to the bit, until
random numbers are drawn: a run draws for all its worlds at once, and one that has to start again draws, too.

python -m pytest --slow tests/envs/test_planted.py        # every task
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import robot_tasks, task_names
from hepo_isaac.overrides import compose
from hepo_isaac.runs.launch import prepare

ENVS, BAD, AT, STEPS = 4, 1, 5, 14
NAN = float("nan")
ROBOTS = robot_tasks()
OFTEN = ("Ant", "FrankaCabinet", "Anymal", "Push2D")


def action(env, actions):
    actions[BAD] = NAN


def state(env, actions):
    """All velocities, through the engine's own door."""
    sim, only, root = env.sim, torch.arange(ENVS) == BAD, env.sim.root_state.clone()
    root[..., 7:] = NAN
    sim.set_state(only, sim.dof_pos.clone(), torch.full_like(sim.dof_vel, NAN), root)


def reward(env, actions):
    rewards = env.task.rewards

    def once():
        env.task.rewards = rewards
        found = rewards()
        task, heuristic = found.task.clone(), found.heuristic.clone()
        task[BAD] = heuristic[BAD] = NAN
        return dataclasses.replace(found, task=task, heuristic=heuristic)

    env.task.rewards = once


def rolled(task, plant=None):
    """Of STEPS control steps with the same actions: everything that a step returns, a row per world; in how many steps
    something was wrong with the one; and in which steps random numbers were drawn."""
    given = ["task=" + task, "num_envs=%d" % ENVS, "train.minibatch_size=%d" % ENVS, "device=cpu", "seed=3"]
    given += ["sim.threads=1"] if task in ROBOTS else []
    env = make_env(prepare(compose(given), given), random_start=False)
    source, rows, faults, drawn = torch.Generator().manual_seed(1), [], 0, []
    try:
        env.reset()
        for step in range(STEPS):
            actions = 2.0 * torch.rand(ENVS, env.num_actions, generator=source) - 1.0
            if plant is not None and step == AT:
                plant(env, actions)
            before = env.task.streams.generators[0].get_state()
            found = env.step(actions)
            drawn.append(not torch.equal(before, env.task.streams.generators[0].get_state()))
            parts = (found.obs, found.final_obs, found.rewards, found.terms, found.metrics, found.terminated)
            rows.append(torch.cat([x.reshape(ENVS, -1).double() for x in parts], 1))
            faults += int(found.faults[BAD].any() | found.bad[BAD])
    finally:
        env.close()
    return torch.stack(rows), faults, drawn


CASES = [
    pytest.param(task, plant, id="%s-%s" % (task, plant.__name__), marks=[] if task in OFTEN else [pytest.mark.slow])
    for task in task_names()
    for plant in (action, reward, state)
    if plant is not state or task in ROBOTS
]


@pytest.mark.parametrize(("task", "plant"), CASES)
def test_the_other_worlds_go_on_to_the_bit(task, plant):
    sound, nobody, drawn = rolled(task)
    broken, faults, _ = rolled(task, plant)
    others = [k for k in range(ENVS) if k != BAD]
    last = AT + 1 + [*drawn[AT + 1 :], True].index(True)
    assert torch.equal(sound[:AT], broken[:AT]) and torch.equal(sound[:last, others], broken[:last, others])
    assert broken.isfinite().all() and (nobody, faults) == (0, 1)
