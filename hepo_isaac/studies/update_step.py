"""The table of docs/performance.md: an update with the compiled step against one with the eager step, in turns.

    python -m hepo_isaac.studies.update_step            # thread CPU of nine updates of each, one thread; two minutes

Rows are random, as many and as wide as the task's cpu budget gives; no environment is built.
"""

from __future__ import annotations

import statistics
import time
from typing import Dict, List, Tuple

import torch

from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.learner import Learner
from hepo_isaac.agents.minibatch import Batch
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.runs.machine.rig import settings

# task, algo, runs side by side, sizes of what is observed, of that for critics alone, and of actions
CASES: Tuple[Tuple[str, str, int, int, int, int], ...] = (
    ("FrankaCabinet", "hepo", 1, 23, 0, 9),
    ("FrankaCabinet", "ppo_h", 1, 23, 0, 9),
    ("Ant", "hepo", 1, 60, 0, 8),
    ("ShadowHand", "hepo", 1, 398, 187, 20),
    ("Push2D", "hepo", 10, 6, 0, 3),
)
ENVS = {"Push2D": 128}
TURNS = 9


def learner(case: Tuple[str, str, int, int, int, int], fused: bool) -> Learner:
    """A learner of the case's method with the task's cpu budget."""
    task, algo, runs, obs, states, actions = case
    envs = ENVS.get(task, 512)
    cfg = settings(task, envs, algo, "budget=cpu", "device=cpu")
    train = train_config({**cfg["train"], "fused": fused})
    generators = [torch.Generator().manual_seed(seed) for seed in range(runs)]
    device = torch.device("cpu")
    return Learner(method_from_config(cfg["algo"]), train, envs * runs, obs, actions, generators, device, states)


def rows(of: Learner, obs: int, actions: int) -> Batch:
    """Random rows; a policy's own block is the first half or the second."""
    runs, policies, count = of.num_runs, of.num_policies, of.plan.run_rows
    block = torch.arange(count) // of.plan.block_rows
    per_run = of.plan.policies_per_run
    own = [(block == p % per_run).float() for p in range(policies)]
    taken = torch.randn(runs, count, actions)
    density = -0.5 * taken.square().sum(-1) - 0.919 * actions
    return Batch(
        obs=torch.randn(runs, count, obs),
        actions=taken,
        mean=0.3 * torch.randn(policies, count, actions),
        old_values=torch.randn(policies, count, 2),
        returns=torch.randn(policies, count, 2),
        advantage=torch.randn(policies, count),
        on_policy=torch.stack(own),
        log_prob=density.repeat_interleave(per_run, 0),
    )


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| | eager, ms | compiled, ms | ratio |\n|---|---|---|---|")
    for case in CASES:
        task, algo, runs, obs, _, actions = case
        pair = {fused: learner(case, fused) for fused in (False, True)}
        batch = rows(pair[True], obs, actions)
        times: Dict[bool, List[float]] = {False: [], True: []}
        for turn in range(TURNS + 1):
            for fused, one in pair.items():
                began = time.thread_time()
                one.update(batch)
                if turn:
                    times[fused].append(1e3 * (time.thread_time() - began))
        (eager, least_eager), (mine, least) = ((statistics.median(t), min(t)) for t in times.values())
        name = "%s %s%s" % (task, algo, " × %d runs" % runs if runs > 1 else "")
        numbers = (eager, least_eager, mine, least, eager / mine, least_eager / least)
        print("| %s | %.0f, %.0f | %.0f, %.0f | %.2f, %.2f |" % (name, *numbers), flush=True)


if __name__ == "__main__":
    main()
