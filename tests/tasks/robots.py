"""Building any task that runs on a physics engine, and its golden trajectory.

``python -m tests.tasks.robots <Task> ...`` records golden trajectories anew, after a change meant to alter them.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, Dict, List

import torch

from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.overrides import compose
from tests.tasks.sampled import CHOSEN, OTHERS

GOLDEN = Path(__file__).parent / "golden"
ENVS, SEGMENTS, STEPS = 2, 10, 10  # of a golden trajectory: 100 control steps


@functools.cache
def settings(task: str, engine: str, *overrides: str) -> Any:
    """The resolved configuration of ``python train.py task=<task> <overrides>``."""
    given = ["task=" + task, "device=cpu", "sim=" + engine, *overrides]
    return plain(resolve(compose(given), given, cuda=False))


def make(task: str, num_envs: int, *overrides: str, seed: int = 0, engine: str = "mujoco_batch") -> TaskEnv:
    """Environments of a task with one thread; ``overrides`` as on the command line."""
    threads = ("sim.threads=1",) if engine == "mujoco_batch" else ()
    cfg: Dict[str, Any] = {**settings(task, engine, *threads, *overrides), "num_envs": num_envs, "seed": seed}
    return make_env(cfg, random_start=False)


def actions(env: TaskEnv, seed: int, steps: int) -> torch.Tensor:
    """(steps, N, K) uniform on [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(steps, env.num_envs, env.num_actions, generator=generator) - 1.0


def play(env: TaskEnv, moves: torch.Tensor) -> Dict[str, torch.Tensor]:
    """Observations, rewards, terms and engine state after each of the moves (steps, N, K)."""
    seen: Dict[str, List[torch.Tensor]] = {}
    for move in moves:
        result = env.step(move)
        kept = {"obs": result.obs, "rewards": result.rewards, "terms": result.terms, "done": result.done}
        kept.update(dof_pos=env.sim.dof_pos, dof_vel=env.sim.dof_vel, root_state=env.sim.root_state)
        for name, value in kept.items():
            seen.setdefault(name, []).append(value.clone())
    return {name: torch.stack(values) for name, values in seen.items()}


def record(task: str) -> Dict[str, Any]:
    """A golden trajectory: 100 steps of fixed random actions in segments of ten, each with the state it starts from.

    Contacts are chaotic: a last bit that another CPU rounds differently is visible after a hundred steps, hardly after
    ten. Of the 22 dexterous tasks, whose observations are long and whose code is one, 20 steps, a time limit in them.
    """
    env = make(task, ENVS)
    env.reset()
    count = SEGMENTS
    if task in (*CHOSEN, *OTHERS):
        count, env.progress[1] = 2, env.max_episode_length - 5
    moves = actions(env, 1, count * STEPS)
    segments = []
    for k in range(count):
        start = env.get_state()
        segments.append({"start": start, "seen": play(env, moves[k * STEPS : (k + 1) * STEPS])})
    env.close()
    return {"moves": moves, "segments": segments}


def main() -> None:
    """Record the tasks named on the command line."""
    GOLDEN.mkdir(exist_ok=True)
    for task in sys.argv[1:]:
        torch.save(record(task), GOLDEN / (task + ".pt"))
        print("%s: %d kB" % (task, (GOLDEN / (task + ".pt")).stat().st_size // 1024))


if __name__ == "__main__":
    main()
