"""Every robot task on MuJoCo Warp (on the CPU) against MuJoCo C. Slow: kernels compile for minutes.

Single control steps start from MuJoCo C's states, so that nothing accumulates; free runs do not. A step is compared
where MuJoCo C itself, nudged by float32's rounding, does not depart by more than 1e-5 (tests/tasks/warp_parity.py).
"""

from __future__ import annotations

import pytest
import torch

from hepo_isaac.envs.heuristic import COMPARED_CALLS
from hepo_isaac.locate import robot_tasks
from tests.host_reads import HostReads
from tests.tasks.robots import make
from tests.tasks.sampled import CHOSEN, without_others

pytest.importorskip("mujoco_warp")
pytestmark = pytest.mark.slow

from tests.tasks.warp_parity import Departures, free_run, single_steps, three  # noqa: E402

TASKS = without_others(robot_tasks(engine="mujoco_warp"))
BOUND = 1e-4  # of 1 + |value|
# Its observation holds the fingertips' forces and torques times ten; twice the largest departure seen.
BOUNDS = {"ShadowHand": 4e-4, "ShadowHandDoorOpenOutward": 4e-4, "ShadowHandPen": 6e-4}
# An egg, against which either engine's search for the contact stops elsewhere: ShadowHand with an egg departs as far.
BOUNDS["ShadowHandOver"] = 0.03
SHARES = {"ShadowHandOver": 0.7}
# Fingers on an object multiply what has accumulated before their chaos shows.
FREE_BOUNDS = {"AllegroHand": 1e-3, "ShadowHand": 1e-3}
# Least share of steps that are calm; in a free run an impact ends it. Cubes that lie on a table hit it all the time.
CALM_SINGLE = {"ShadowHand": 0.7, "ShadowHandOver": 0.75, "ShadowHandSpin": 0.6}
CALM_SINGLE.update(ShadowHandDoorOpenOutward=0.8, ShadowHandPen=0.8)
CALM_FREE = {"AllegroHand": 0.3, "Ant": 0.4, "FrankaCubeStack": 0.15, "Humanoid": 0.45}


@pytest.mark.parametrize("task", TASKS)
def test_a_step_does_what_mujoco_c_does(task):
    """With the solver's rounding refined away, all that is left is float32."""
    trio = three(task, refine=True)
    run = single_steps(trio)
    assert run.calm.float().mean() >= CALM_SINGLE.get(task, 0.9)
    assert run.worst() <= BOUNDS.get(task, BOUND)
    assert trio.sound()


@pytest.mark.parametrize("task", TASKS)
def test_a_step_as_shipped_is_off_by_rounding_only(task):
    trio = three(task)
    run = single_steps(trio)
    assert run.worst() <= max(1e-3, BOUNDS.get(task, BOUND))
    assert run.share(BOUND) >= SHARES.get(task, 0.9)
    assert trio.sound()


# Two hands press each other and what they hold from the first steps on: no free run of a dexterous task is calm.
@pytest.mark.parametrize("task", [task for task in TASKS if task not in CHOSEN])
def test_ten_steps_with_resets_go_the_same_way(task):
    trio = three(task, refine=True)
    run = free_run(trio)
    assert run.calm.float().mean() >= CALM_FREE.get(task, 0.7)
    assert run.worst() <= FREE_BOUNDS.get(task, BOUND)
    assert trio.reference.progress[::2].max() < 10  # half of the worlds were reset
    assert trio.sound()


CHANGED = [
    ("Ant", "task.physics.friction=1.2"),
    ("Anymal", "task.physics.drives.mujoco.stiffness=86.5"),
    ("AllegroHand", "task.physics.drive.mujoco.damping=0.103"),
    ("BallBalance", "task.physics.drives.mujoco.lower.damping=103.0"),
    ("FrankaCabinet", "task.physics.drives.mujoco.arm.stiffness=410.0"),
    ("ShadowHand", "task.physics.drives.mujoco.finger.stiffness=1.03"),
]


@pytest.mark.parametrize(("task", "change"), CHANGED)
def test_a_parameter_off_by_a_few_per_cent_is_seen(task, change):
    run = single_steps(three(task, refine=True, warp=(change,)))
    assert _red(run, task)


def test_a_sensor_off_by_a_few_per_cent_is_seen():
    trio = three("Ant", refine=True)
    step = trio.warp.sim.step

    def skewed() -> None:
        step()
        trio.warp.sim.force_sensor *= 1.03

    trio.warp.sim.step = skewed
    assert _red(single_steps(trio), "Ant")


def _red(run: Departures, task: str) -> bool:
    return run.worst() > 3.0 * BOUNDS.get(task, BOUND)


@pytest.mark.parametrize("task", TASKS)
def test_a_step_with_resets_reads_nothing_on_the_host(task):
    env = make(task, 8, engine="mujoco_warp")
    env.reset()
    moves = torch.zeros(8, env.num_actions)
    for _ in range(COMPARED_CALLS):  # in its first calls a heuristic is compared with what it was given
        env.step(moves)
    env.progress[:4] = env.max_episode_length - 1
    with HostReads() as reads:
        result = env.step(moves)
    assert reads.found == []
    assert result.done[:4].all()
