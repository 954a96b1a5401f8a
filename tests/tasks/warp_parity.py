"""MuJoCo Warp (on the CPU) against MuJoCo C on the robot tasks, for hepo_isaac/runs/parity/steps.py.

``python -m tests.tasks.warp_parity [Task ...]`` prints the table of docs/parity/warp.md.
"""

from __future__ import annotations

import sys
from typing import Tuple

import torch

from hepo_isaac.locate import robot_tasks
from hepo_isaac.runs.parity import steps as parity
from hepo_isaac.runs.parity.steps import Departures, Trio
from tests.tasks.robots import actions, make

ENVS, STEPS, LATER, RESET_AT = 16, 10, 30, 3


def three(task: str, refine: bool = False, warp: Tuple[str, ...] = ()) -> Trio:
    """A task's three environments; ``warp`` are overrides of Warp's alone, ``refine`` is its engine's option."""
    settings = ("sim.refine=%s" % str(refine).lower(), *warp)
    return Trio(make(task, ENVS, *settings, engine="mujoco_warp"), make(task, ENVS), make(task, ENVS))


def single_steps(trio: Trio, seed: int = 1) -> Departures:
    """Single control steps from MuJoCo C's states: the first ten of an episode, and ten after LATER more."""
    return parity.single_steps(trio, actions(trio.reference, seed, 2 * STEPS + LATER), STEPS)


def free_run(trio: Trio, seed: int = 1) -> Departures:
    """Runs from the same states without realignment; half of the worlds start a new episode at step RESET_AT.

    Chaos accumulates: from its first chaotic step to the end of an episode a world counts as chaotic.
    """
    reference = trio.reference
    reference.reset()
    reference.progress[::2] = reference.max_episode_length - RESET_AT
    trio.align()
    rows, so_far = [], torch.zeros(reference.num_envs)
    for move in actions(reference, seed, STEPS):
        off, chaos = trio.step(move)
        so_far = torch.maximum(so_far, chaos)
        rows.append((off, so_far.clone()))
    return Departures(*(torch.stack(x) for x in zip(*rows)))


def buffers(task: str, num_envs: int = 64, steps: int = 200) -> Tuple[int, int, int, int]:
    """Most contacts and constraint rows of a world seen at the end of a control step of random actions on MuJoCo C,
    and Warp's buffers for them."""
    env, sizes = make(task, num_envs), make(task, 1, engine="mujoco_warp").sim
    env.reset()
    bind = env.sim.batch.bind
    most = [0, 0]
    for move in actions(env, 2, steps):
        env.step(move)
        most = [max(a, int(bind(name)[:].max())) for a, name in zip(most, ("ncon", "nefc"))]
    return most[0], most[1], int(sizes.wp_data.naconmax), int(sizes.wp_data.njmax)


def agreeing(run: Departures, bound: float) -> int:
    """Number of first steps in which all worlds agree within ``bound``."""
    return int((run.off <= bound).all(1).to(torch.int64).cumprod(0).sum())


def main() -> None:
    """Print one row per task named on the command line, or per robot task."""
    print("| task | calm | one step | of these ≤ 1e-4 | one step, refined | ten steps | refined | contacts | rows |")
    print("|---|---|---|---|---|---|---|---|---|")
    for task in sys.argv[1:] or robot_tasks():
        trio, other = three(task), three(task, refine=True)
        shipped, refined, runs = single_steps(trio), single_steps(other), (free_run(trio), free_run(other))
        ncon, nefc, nconmax, njmax = buffers(task)
        cells = (
            task,
            "%.3f" % refined.calm.float().mean().item(),
            "%.0e" % shipped.worst(),
            "%.3f" % shipped.share(1e-4),
            "%.0e" % refined.worst(),
            *("%d, %.0e" % (agreeing(run, 1e-4), run.worst()) for run in runs),
            "%d of %d" % (ncon, nconmax),
            "%d of %d" % (nefc, njmax),
        )
        print("| %s |%s" % (" | ".join(cells), "" if trio.sound() and other.sound() else " UNSOUND"), flush=True)


if __name__ == "__main__":
    main()
