"""What HEPO costs in units of PPO: time of an iteration in turns in one process, peak memory in a process each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Dict, List

from hepo_isaac.runs.machine.bench import bench_algorithms
from hepo_isaac.runs.record.metadata import collect
from hepo_isaac.studies.places import CHECKOUT, DOCS

FILE = DOCS / "claims" / "timing.json"
TASKS = {"Push2D": 128, "FrankaCabinet": 512}  # task: environments
TURNS = 15
MEMORY_TASK, MEMORY_ENVS = "FrankaCabinet", 4096  # the published batch


def measure() -> None:
    """Write timing.json; three minutes."""
    ratios = {task: bench_algorithms(task, envs, TURNS) for task, envs in TASKS.items()}
    about = collect()
    record = {
        "tasks": ratios,
        "memory": {"task": MEMORY_TASK, "num_envs": MEMORY_ENVS, "peak_mb": peak_memory()},
        "date": about["started"],
        "git": about["git"],
        "hardware": about["hardware"],
    }
    FILE.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def peak_memory() -> Dict[str, float]:
    """Peak resident memory in MB of three iterations of each method, and of ("idle") a process that only imports."""
    found = {
        "idle": _peak([sys.executable, "-c", "import torch, mujoco, hepo_isaac.runs.launch, hepo_isaac.agents.agent"])
    }
    for algo in ("ppo_h", "hepo"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "train.py", "task=" + MEMORY_TASK, "algo=" + algo, "num_envs=%d" % MEMORY_ENVS]
            command += ["budget=paper", "device=cpu", "train.max_iterations=3", "tensorboard=false", "plot=false"]
            found[algo] = _peak([*command, "run_root=" + folder])
    return found


def _peak(command: List[str]) -> float:
    """ru_maxrss of a child, which Linux gives in kB."""
    with open(os.devnull, "w") as nothing:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=nothing, stderr=nothing)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError("%s failed with status %d" % (" ".join(command), status))
    return usage.ru_maxrss / 1024.0
