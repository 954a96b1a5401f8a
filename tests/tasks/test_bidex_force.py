"""The dexterous tasks under force: what once flew apart, and every task with hands that push with all they have."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from hepo_isaac.locate import tasks_module
from hepo_isaac.studies.dexterous_soak import HELD, soak
from hepo_isaac.studies.dexterous_thrown import loose, thrown
from tests.tasks.robots import actions, make

STATES = Path(__file__).parent / "states"
TASKS = tasks_module("bidex").TASKS


def pressed():
    """SwingCup's scene and the state in which two hands press each other, fingers crossed, at 4.8 and 1.7 m/s."""
    sim = make("ShadowHandSwingCup", 1).sim
    return sim, dict(np.load(STATES / "two_hands_pressing.npz"))


def test_two_hands_that_press_each_other_do_not_fly_apart():
    """MuJoCo's sparse Newton solver made 15,000 rad/s of it in two physics steps."""
    sim, state = pressed()
    for name, value in state.items():
        sim.batch.bind(name)[0] = value
    sim.batch.step(nstep=2)
    assert np.abs(sim.batch.bind("qvel")).max() < 50.0


def test_accelerations_obey_newtons_law():
    """M a = f, the least that a solver owes: the sparse one missed by all of it, 4.5 kN."""
    sim, state = pressed()
    data = mujoco.MjData(sim.model)
    for name, value in state.items():
        getattr(data, name)[:] = value
    mujoco.mj_forward(sim.model, data)
    force = np.zeros(sim.model.nv)
    mujoco.mj_mulM(sim.model, data, force, data.qacc)
    given = data.qfrc_smooth + data.qfrc_constraint
    assert np.abs(force - given).max() < 1e-6 * max(1.0, np.abs(given).max())


ON_TABLES = [name for name, task in TASKS.items() if task.record.ground and task.record.objects()[0].fixed is False]


@pytest.mark.parametrize("task", ON_TABLES)
def test_nothing_falls_through_the_floor(task):
    """Episodes that never end: whatever is dropped in 1.7 s lies on the table or the floor, its centre above it. A
    bottle of friction 50.5 fell on to 3 m below: pyramids of so much friction carry nothing."""
    env = make(task, 4)
    env.reset()
    things = [env.sim.actor_index(thing.name) for thing in env.task.record.objects()]
    for move in actions(env, 0, 100):
        env.task.apply(move)
        env.sim.step()
    assert not env.sim.bad_envs.any()
    assert env.sim.root_state[:, things, 2].min() > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("task", TASKS)
def test_no_world_diverges(task, kind):
    """16,000 steps each, 7 s of CPU; docs/parity/bidex.md has 160,000."""
    found = soak(task, kind, envs=16, steps=1000)
    assert (found.bad, found.overflows) == (0, 0)
    assert np.isfinite((found.J, found.h)).all()


@pytest.mark.parametrize("task", [name for name in TASKS if loose(name)])
def test_things_that_spin_in_the_air_do_not_speed_up(task):
    """A link of an opening pair of scissors may gain a half; with implicitfast scissors, a cup, a bottle and a pen end
    beyond 30,000 rad/s or as no number, and a pot at 590."""
    fastest, bad = thrown(task, 100.0)
    assert bad == 0 and fastest < 200.0
