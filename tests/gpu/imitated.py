"""Robot tasks on MuJoCo Warp with an imitated GPU. The imitation is for good, so each run has a process of its own.

``python -m tests.gpu.imitated TASK…`` prints a JSON object per task, number of environments and way of launching.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any, Dict

import torch

from hepo_isaac.sim.base import RANDOMIZABLE
from hepo_isaac.sim.mujoco.imitated_cuda import install
from hepo_isaac.sim.mujoco.imitated_driver import Record
from tests.tasks.robots import make

FEW, MANY = 64, 4096
CASES = ((FEW, True), (MANY, True), (FEW, False))


def play(record: Record, task: str, num_envs: int, graph: bool = True, loops: bool = False) -> Dict[str, Any]:
    """Build, reset, two steps and a reset of every other environment, and what the GPU was asked for.

    ``waits`` are those of the second step and the reset: the first makes and compiles. ``loops`` plants a fault: loops
    whose end the host has to ask for.
    """
    record.reset()
    start = time.time()
    env = make(task, num_envs, "budget=paper", "sim.graph=%s" % str(graph).lower(), engine="mujoco_warp")
    if loops:
        env.sim.wp_model.opt.graph_conditional = True
    still, half = torch.zeros(num_envs, env.num_actions), torch.arange(num_envs) % 2 == 0
    env.reset()
    env.step(still)
    env.task.reset(half)
    record.waits.clear()
    env.step(still)
    env.task.reset(half)
    waits = dict(record.waits)
    if num_envs == FEW:
        everything_else(env.sim)
    found = {name: list(getattr(record, name)) for name in ("illegal", "late_modules", "unknown", "compiled")}
    counts = {name: getattr(record, name) for name in ("launches", "captures", "replays", "peak_bytes")}
    return {"task": task, "num_envs": num_envs, "graph": graph, "waits": waits, **found, **counts} | {
        "seconds": round(time.time() - start, 1)
    }


def everything_else(sim: Any) -> None:
    """What randomisation, operational space control and a resumed run call besides."""
    everyone = torch.ones(sim.num_envs, dtype=torch.bool)
    for field in RANDOMIZABLE:
        columns = 3 if field == "gravity" else len(sim.randomizable_names(field))
        if columns:
            sim.randomize(field, everyone, torch.ones(sim.num_envs, columns))
    sim.mass_matrix()
    sim.jacobian(sim.body_names[0])
    sim.load_state(sim.get_state())
    sim.step()
    sim.reset(everyone)


def main() -> None:
    """Play every case of the tasks named on the command line; ``--loops`` plants the fault of play()."""
    record = install()
    torch.set_num_threads(1)
    for task in sys.argv[1:]:
        if task == "--loops":
            continue
        for num_envs, graph in CASES:
            print(json.dumps(play(record, task, num_envs, graph, "--loops" in sys.argv)), flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
