"""How fast the loose things of the dexterous tasks turn after they were thrown: physics must not speed them up.

``python -m hepo_isaac.studies.dexterous_thrown [--speeds 30 64 100] [--set key=value …] [task …]`` prints, for each
task, the highest angular speed in 20 control steps of free flight and in how many a world went bad.
"""

from __future__ import annotations

import argparse
from typing import Any, List, Tuple

import torch

from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import tasks_module
from hepo_isaac.overrides import compose
from hepo_isaac.sim.engines import CPU_ENGINE

AXES, STEPS = 16, 20


def loose(task: str) -> List[str]:
    """Names of the things of a task that nothing holds."""
    return [thing.name for thing in tasks_module("bidex").TASKS[task].record.objects() if not thing.fixed]


def thrown(task: str, speed: float, *more: str, engine: str = CPU_ENGINE) -> Tuple[float, int]:
    """(highest angular speed in rad/s, steps of a world that went bad) of what is thrown at ``speed`` about AXES axes,
    a world each, above and beside everything else; with the demonstration's two substeps, and ``more`` overrides."""
    given = ["task=" + task, "device=cpu", "sim=" + engine, "num_envs=%d" % AXES, "seed=0", "budget=demo", *more]
    given += ["sim.threads=1"] if engine == CPU_ENGINE else []
    env: Any = make_env(plain(resolve(compose(given), given, cuda=False)), random_start=False)
    env.reset()
    sim, root = env.sim, env.sim.root_state.clone()
    things = [sim.actor_index(name) for name in loose(task)]
    for k, thing in enumerate(things):
        axis = torch.randn(AXES, 3, generator=torch.Generator().manual_seed(k))
        root[:, thing, 0] += 2.0 + k
        root[:, thing, 2] += 3.0
        root[:, thing, 10:13] = speed * axis / axis.norm(dim=1, keepdim=True)
    everyone = torch.ones(AXES, dtype=torch.bool)
    sim.set_state(everyone, sim.dof_pos.clone(), torch.zeros_like(sim.dof_vel), root)
    fastest, bad = 0.0, 0
    for _ in range(STEPS):
        env.task.apply(torch.zeros(AXES, env.num_actions))
        sim.step()
        fastest = max(fastest, float(sim.root_state[:, things, 10:13].norm(dim=-1).max()))
        bad += int(sim.bad_envs.sum())
    env.close()
    return fastest, bad


def main() -> None:
    """Command line."""
    every = [name for name in tasks_module("bidex").TASKS if loose(name)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=every)
    parser.add_argument("--speeds", nargs="+", type=float, default=[30.0, 64.0, 100.0], help="rad/s")
    parser.add_argument("--engine", default=CPU_ENGINE)
    parser.add_argument("--set", nargs="+", default=[], help="settings, as on the command line of train")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for task in args.tasks:
        name = task if task.startswith("ShadowHand") else "ShadowHand" + task
        found = [
            "%.0f: %.3g, %d bad" % (speed, *thrown(name, speed, *args.set, engine=args.engine)) for speed in args.speeds
        ]
        print("%s (%s), thrown at %s" % (name, ", ".join(loose(name)), "; ".join(found)), flush=True)


if __name__ == "__main__":
    main()
