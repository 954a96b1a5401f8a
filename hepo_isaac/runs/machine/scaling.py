"""Weak scaling: one run on 1, 2, … processes with as many environments each, through torchrun as a user starts it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from hepo_isaac.errors import UserError
from hepo_isaac.overrides import compose
from hepo_isaac.runs.machine.jobs import Outcome, Reporter
from hepo_isaac.runs.machine.ratios import summary
from hepo_isaac.runs.machine.rig import settings
from hepo_isaac.runs.machine.ticker import Ticker

ITERATIONS, WARM_UP = 12, 3


def bench_scaling(task: str, envs: int, processes: Sequence[int], blocks: int) -> Dict[str, Any]:
    """Steps/s of each number of processes, and its ratio to that of one times that number; medians over ``blocks``
    turns, in which each number of processes trains once.

    Args:
        envs: of each process, which has one thread, or a GPU of its own.
    """
    counts = sorted({1, *processes})
    speeds: Dict[int, List[float]] = {count: [] for count in counts}
    ticker = Ticker("%s, one run on several processes" % task, blocks * len(counts), sys.stderr, unit="trainings")
    for block in range(blocks):
        for at, count in enumerate(counts):
            speeds[count].append(_steps_per_second(task, envs, count))
            ticker.at(block * len(counts) + at + 1, "turn %d of %d" % (block + 1, blocks))
    found: Dict[str, Any] = {}
    for count in counts:
        ratios = [fast / (count * alone) for fast, alone in zip(speeds[count], speeds[1])]
        found["steps/s of %d process(es)" % count] = summary(speeds[count])
        if count > 1:
            found["efficiency of %d processes" % count] = summary(ratios)
    return found


def _steps_per_second(task: str, envs: int, count: int) -> float:
    threads = ["torch_threads=1", "update_threads=1"]
    if "threads" in settings(task, envs, "hepo")["sim"]:
        threads.append("sim.threads=1")
    return train_on(task, envs, count, ITERATIONS, *threads)[0]


def train_on(task: str, envs: int, count: int, iterations: int, *overrides: str) -> Tuple[float, List[str]]:
    """Train with HEPO on ``count`` processes that torchrun starts; returns the median steps/s after the first few
    iterations, and the warnings of the run.

    Raises:
        UserError: it does not train.
    """
    minibatch = count * int(settings(task, envs, "hepo")["train"]["minibatch_size"])
    given = ["task=" + task, "num_envs=%d" % (count * envs), "train.minibatch_size=%d" % minibatch, "plot=false"]
    given += ["train.max_iterations=%d" % iterations, "evaluation_episodes=0", "tensorboard=false", *overrides]
    compose(given)  # raises what is wrong with them, before anything is started
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=%d" % count]
        command += ["-m", "hepo_isaac.cli", "train", *given, "run_root=" + folder]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        files = list(Path(folder).glob("*/*/*/metrics.csv"))
        if done.returncode or not files:
            print(done.stderr, file=sys.stderr)
            raise UserError("%d processes did not train: %s" % (count, (said or ["see above"])[0]))
        with files[0].open(encoding="utf-8") as lines:
            speeds = sorted(float(row["env_steps_per_second"]) for row in list(csv.DictReader(lines))[WARM_UP:])
        described = json.loads((files[0].parent / "metadata.json").read_text(encoding="utf-8"))
    return speeds[len(speeds) // 2], [str(warning["text"]) for warning in described.get("warnings", [])]


def ranks_job(report: Reporter, task: str, envs: int) -> None:
    """Train on all GPUs of this machine, a process each: NCCL, and the gradient step captured with its reductions."""

    def check() -> Outcome:
        import torch

        count = max(1, torch.cuda.device_count())
        speed, warnings = train_on(task, envs, count, 12)
        said = "%d process(es) of %d envs: %.0f steps/s%s" % (count, envs, speed, "".join("; " + w for w in warnings))
        return Outcome(not warnings, said, {"processes": count, "num_envs": envs, "steps_per_second": speed})

    report.run("torchrun", check)
