"""Whether the physics lets a dexterous task be done: a cross-entropy search for one sequence of actions.

``python -m hepo_isaac.studies.dexterous_search DoorOpenOutward …`` prints h per step of random and of the best
sequence, its steps with success, and how many worlds went bad before their end. All worlds start in one state; a
step after the end counts -0.5.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import robot_tasks
from hepo_isaac.overrides import compose

WORLDS, ROUNDS, KNOTS, STEPS, ELITE = 48, 14, 6, 80, 6
SUCCESS_WEIGHT, AFTER_END = 20.0, -0.5


def played(env: Any, start: Tuple[Tensor, Tensor, Tensor], knots: Tensor) -> Dict[str, Tensor]:
    """Per world, over an episode's first STEPS: sums of h and success, steps that went bad, steps lived through."""
    task, sim = env.task, env.sim
    pose, roots, goal = start
    task.goal, task._version = goal.clone(), -1
    everyone = torch.ones(WORLDS, dtype=torch.bool)
    sim.set_state(everyone, pose, torch.zeros_like(pose), root_state=roots, dof_target_pos=pose)
    alive = torch.ones(WORLDS)
    found = {name: torch.zeros(WORLDS) for name in ("h", "success", "bad", "steps")}
    for t in range(STEPS):
        place = t * KNOTS / STEPS
        k, share = int(place), place - int(place)
        task.apply(knots[:, k] * (1.0 - share) + knots[:, min(k + 1, KNOTS - 1)] * share)
        sim.step()
        rewards = task.rewards()
        found["h"] += torch.where(alive > 0.0, rewards.heuristic, torch.full_like(alive, AFTER_END))
        found["success"] += alive * rewards.task * (env.max_episode_length - (1 if env.num_actions > 20 else 0))
        found["bad"] += alive * sim.bad_envs
        found["steps"] += alive
        alive = alive * (~(task.terminated() | sim.bad_envs)).float()
    return found


def search(task: str) -> str:
    """One line about a task."""
    given = ["task=" + task, "device=cpu", "sim=mujoco_batch", "sim.threads=1", "num_envs=%d" % WORLDS, "seed=0"]
    env = make_env(plain(resolve(compose(given), given, cuda=False)), random_start=False)
    env.reset()
    began = time.process_time()
    sources = (env.sim.dof_pos, env.sim.root_state, env.task.goal)  # type: ignore[attr-defined]
    start = tuple(x[:1].expand(WORLDS, *x.shape[1:]).clone() for x in sources)
    generator = torch.Generator().manual_seed(0)
    mean, spread = torch.zeros(KNOTS, env.num_actions), torch.full((KNOTS, env.num_actions), 0.7)
    best: Optional[Tuple[float, Tensor, float, float]] = None
    bad, steps, random = 0.0, 0.0, 0.0
    for turn in range(ROUNDS):
        tried = (mean + spread * torch.randn(WORLDS, *mean.shape, generator=generator)).clamp(-1.0, 1.0)
        tried[0] = mean.clamp(-1.0, 1.0)
        if best is not None:
            tried[1] = best[1]
        found = played(env, start, tried)  # type: ignore[arg-type]
        bad, steps = bad + found["bad"].sum().item(), steps + found["steps"].sum().item()
        random = found["h"].mean().item() if turn == 0 else random
        score = (found["h"] + SUCCESS_WEIGHT * found["success"]).nan_to_num(-1e6)
        first = int(score.argmax())
        if best is None or score[first] > best[0]:
            best = score[first].item(), tried[first].clone(), found["h"][first].item(), found["success"][first].item()
        top = tried[score.topk(ELITE).indices]
        mean, spread = 0.3 * mean + 0.7 * top.mean(0), (0.3 * spread + 0.7 * top.std(0)).clamp(min=0.05)
    env.close()
    assert best is not None
    return "%s: h %.3f -> %.3f a step; success in %.1f of %d steps; %d of %d steps bad; %.0f s of CPU" % (
        *(task, random / STEPS, best[2] / STEPS, best[3], STEPS),
        *(bad, steps, time.process_time() - began),
    )


def main() -> None:
    """Search for the tasks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["bidex"], help="dexterous tasks; all by default")
    names: List[str] = robot_tasks(parser.parse_args().tasks)
    torch.set_num_threads(1)  # as in training; more would count as CPU
    for name in names:
        print(search(name), flush=True)


if __name__ == "__main__":
    main()
