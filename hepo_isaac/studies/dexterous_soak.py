"""Whether the dexterous tasks stand what a policy may do to them: random actions, and full force.

``python -m hepo_isaac.studies.dexterous_soak [--steps 10000] [--envs 16] [task …]`` prints, for each task and kind of
action, the worlds that diverged, the buffers that overflowed, contacts per world and step, episodes with a success, J
and h, and environment steps per second of CPU. Actions are uniform in [-1, 1] and new in every step, or full: each -1
or 1, held for ten steps, so that hands reach their top speed and press with all they have.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any, Dict

import torch
from torch import Tensor

from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import robot_tasks
from hepo_isaac.overrides import compose
from hepo_isaac.sim.engines import CPU_ENGINE

HELD = {"random": 1, "full": 10}  # control steps that an action lasts


@dataclass
class Soak:
    """What was counted. bad: diverged worlds.  overflows: steps of a world with a full buffer.  solved: episodes with
    a success, of ``episodes`` that ended.  J: mean sum of r of these.  h: mean per step.  speed: steps/s of CPU."""

    bad: int
    overflows: int
    contacts: float
    solved: int
    episodes: int
    J: float
    h: float
    speed: float


def soak(task: str, kind: str, envs: int, steps: int, *more: str) -> Soak:
    """``envs`` worlds of ``task`` for ``steps`` control steps with actions of ``kind`` (HELD); more: overrides."""
    given = ["task=" + task, "device=cpu", "sim=" + CPU_ENGINE, "sim.threads=1", "num_envs=%d" % envs, "seed=0"]
    given += ["budget=cpu", *more]
    env: Any = make_env(plain(resolve(compose(given), given, cuda=False)))
    contacts = env.sim.batch.bind("ncon")
    env.reset()
    generator = torch.Generator().manual_seed(0)
    found: Dict[str, float] = dict.fromkeys(("bad", "contacts", "solved", "episodes", "J", "h"), 0.0)
    returns, actions = torch.zeros(envs), torch.zeros(envs, env.num_actions)
    began = time.process_time()
    for t in range(steps):
        if t % HELD[kind] == 0:
            actions = _drawn(kind, actions, generator)
        result = env.step(actions)
        returns += result.rewards[:, 0]
        ended = result.done & ~result.bad
        found["bad"] += float(result.bad.sum())
        found["contacts"] += float(contacts.mean())
        found["episodes"] += float(ended.sum())
        found["J"] += float(returns[ended].sum())
        found["solved"] += float(result.metrics[ended, result.metric_names.index("solved")].sum())
        found["h"] += float(result.rewards[:, 1].mean())
        returns.masked_fill_(result.done, 0.0)
    speed = envs * steps / (time.process_time() - began)
    overflows = int(env.sim.overflow_count)
    env.close()
    episodes = max(1.0, found["episodes"])
    return Soak(
        bad=int(found["bad"]),
        overflows=overflows,
        contacts=found["contacts"] / steps,
        solved=int(found["solved"]),
        episodes=int(found["episodes"]),
        J=found["J"] / episodes,
        h=found["h"] / steps,
        speed=speed,
    )


def _drawn(kind: str, like: Tensor, generator: torch.Generator) -> Tensor:
    actions = 2.0 * torch.rand(like.shape, generator=generator) - 1.0
    return actions if kind == "random" else actions.sign()


def main() -> None:
    """Soak the tasks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["bidex"], help="dexterous tasks; all by default")
    parser.add_argument("--envs", type=int, default=16, help="worlds side by side")
    parser.add_argument("--steps", type=int, default=10000, help="control steps of each world")
    parser.add_argument("--kinds", nargs="+", default=list(HELD), choices=list(HELD), help="which actions")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in training; more would count as CPU
    for task in robot_tasks(args.tasks):
        for kind in args.kinds:
            found = soak(task, kind, args.envs, args.steps)
            print(
                "%s, %s, %d x %d steps: %d bad, %d overflows, %.1f contacts, solved %d of %d episodes, J %.5f, h %.3f, "
                "%.0f steps/s"
                % (
                    *(task, kind, args.envs, args.steps, found.bad, found.overflows, found.contacts),
                    *(found.solved, found.episodes, found.J, found.h, found.speed),
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
