"""Whether the physics lets a dexterous task be done: a cross-entropy search for one sequence of actions.

``python -m hepo_isaac.studies.dexterous_search [--rounds 40] [--peak 10] DoorOpenOutward …`` prints h per step of
random and of the best sequence, its highest h, its steps with success, and how many worlds went bad before their end.
All worlds start in one state; a step after the end counts -0.5. A sequence scores its sum of h, ``peak`` times its
highest h and 20 for each step of success: without a peak, no throw is found, which leaves the hand for a moment's gain.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import robot_tasks
from hepo_isaac.overrides import compose
from hepo_isaac.sim.engines import CPU_ENGINE

WORLDS, ROUNDS, KNOTS, STEPS, ELITE = 64, 40, 8, 80, 8
SPREAD, HELD = 0.7, 0.6  # of the first sequences, and the part of it that a sequence keeps from knot to knot
PEAK_WEIGHT, SUCCESS_WEIGHT, AFTER_END = 10.0, 20.0, -0.5


class Best(NamedTuple):
    """The best sequence so far: score, knots (KNOTS, A), sum of h, steps with success, highest h."""

    score: float
    knots: Tensor
    h: float
    success: float
    peak: float


def played(env: Any, start: Tuple[Tensor, Tensor, Tensor], knots: Tensor) -> Dict[str, Tensor]:
    """Per world, over an episode's first STEPS: sums of h and success, highest h, steps that went bad and that were
    lived through."""
    task, sim = env.task, env.sim
    pose, roots, goal = start
    task.goal, task._version = goal.clone(), -1
    everyone = torch.ones(WORLDS, dtype=torch.bool)
    sim.set_state(everyone, pose, torch.zeros_like(pose), root_state=roots, dof_target_pos=pose)
    alive = torch.ones(WORLDS)
    found = {name: torch.zeros(WORLDS) for name in ("h", "success", "bad", "steps")}
    found["peak"] = torch.full((WORLDS,), -1e9)
    for t in range(STEPS):
        place = t * KNOTS / STEPS
        k, share = int(place), place - int(place)
        task.apply(knots[:, k] * (1.0 - share) + knots[:, min(k + 1, KNOTS - 1)] * share)
        sim.step()
        rewards = task.rewards()
        h, lives = rewards.heuristic, alive > 0.0
        found["h"] += torch.where(lives, h, torch.full_like(alive, AFTER_END))
        found["peak"] = torch.where(lives, torch.maximum(found["peak"], h), found["peak"])
        found["success"] += alive * rewards.task * (env.max_episode_length - (1 if env.num_actions > 20 else 0))
        found["bad"] += alive * sim.bad_envs
        found["steps"] += alive
        alive = alive * (~(task.terminated() | sim.bad_envs)).float()
    return found


def search(task: str, rounds: int = ROUNDS, peak: float = PEAK_WEIGHT) -> str:
    """One line about a task."""
    given = ["task=" + task, "device=cpu", "sim=" + CPU_ENGINE, "sim.threads=1", "num_envs=%d" % WORLDS, "seed=0"]
    env = make_env(plain(resolve(compose(given), given, cuda=False)), random_start=False)
    env.reset()
    began = time.process_time()
    sources = (env.sim.dof_pos, env.sim.root_state, env.task.goal)  # type: ignore[attr-defined]
    start = tuple(x[:1].expand(WORLDS, *x.shape[1:]).clone() for x in sources)
    generator = torch.Generator().manual_seed(0)
    mean, spread = torch.zeros(KNOTS, env.num_actions), torch.full((KNOTS, env.num_actions), SPREAD)
    best: Optional[Best] = None
    bad, steps, random = 0.0, 0.0, 0.0
    for turn in range(rounds):
        kept, own = (torch.randn(WORLDS, k, env.num_actions, generator=generator) for k in (1, KNOTS))
        tried = (mean + spread * (HELD * kept + (1.0 - HELD**2) ** 0.5 * own)).clamp(-1.0, 1.0)
        tried[0] = mean.clamp(-1.0, 1.0)
        if best is not None:
            tried[1] = best.knots
        found = played(env, start, tried)  # type: ignore[arg-type]
        bad, steps = bad + found["bad"].sum().item(), steps + found["steps"].sum().item()
        random = found["h"].mean().item() if turn == 0 else random
        score = (found["h"] + peak * found["peak"] + SUCCESS_WEIGHT * found["success"]).nan_to_num(-1e6)
        first = int(score.argmax())
        if best is None or score[first] > best.score:
            numbers = [found[name][first].item() for name in ("h", "success", "peak")]
            best = Best(score[first].item(), tried[first].clone(), *numbers)
        top = tried[score.topk(ELITE).indices]
        mean, spread = 0.3 * mean + 0.7 * top.mean(0), (0.3 * spread + 0.7 * top.std(0)).clamp(min=0.05)
    env.close()
    assert best is not None
    return "%s: h %.3f -> %.3f a step, highest %.3f; success in %.1f of %d steps; %d of %d steps bad; %.0f s of CPU" % (
        *(task, random / STEPS, best.h / STEPS, best.peak, best.success, STEPS),
        *(bad, steps, time.process_time() - began),
    )


def main() -> None:
    """Search for the tasks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["bidex"], help="dexterous tasks; all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of %d sequences" % WORLDS)
    parser.add_argument("--peak", type=float, default=PEAK_WEIGHT, help="what the highest h counts")
    args = parser.parse_args()
    names: List[str] = robot_tasks(args.tasks)
    torch.set_num_threads(1)  # as in training; more would count as CPU
    for name in names:
        print(search(name, args.rounds, args.peak), flush=True)


if __name__ == "__main__":
    main()
