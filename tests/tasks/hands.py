"""The hands as published, for their tests: the CPU's budgets change what they observe."""

from __future__ import annotations

from hepo_isaac.envs.task_env import TaskEnv
from tests.tasks import robots


def make(task: str, num_envs: int, *overrides: str, seed: int = 0, engine: str = "mujoco_batch") -> TaskEnv:
    """As robots.make, with the published budget."""
    return robots.make(task, num_envs, "budget=paper", *overrides, seed=seed, engine=engine)
