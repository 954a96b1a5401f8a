"""What an iteration of HEPO costs in iterations of PPO: both in turns in one process, as hepo-isaac bench does it."""

from __future__ import annotations

import json
from pathlib import Path

from hepo_isaac.runs.bench import bench_algorithms
from hepo_isaac.runs.metadata import collect

FILE = Path(__file__).resolve().parent / "timing.json"
TASKS = {"Push2D": 128, "FrankaCabinet": 512}  # task: environments
TURNS = 15


def measure() -> None:
    """Write timing.json; two minutes."""
    ratios = {task: bench_algorithms(task, envs, TURNS) for task, envs in TASKS.items()}
    about = collect()
    record = {"tasks": ratios, "date": about["started"], "git": about["git"], "hardware": about["hardware"]}
    FILE.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
