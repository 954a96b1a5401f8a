"""What an exported file says of itself: whose policy it is, and what its numbers mean."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np

import hepo_isaac
from hepo_isaac.envs.interface import described
from hepo_isaac.envs.task_env import OBS_CLIP
from hepo_isaac.runs.export.source import Source
from hepo_isaac.runs.record import bundled
from hepo_isaac.runs.record.metrics_csv import read_metrics

OBSERVATION, ACTION = "observation", "action"  # names of the graph's input and output
EPISODES = 100  # of training, at least, that J is the mean of


def describe(source: Source, env: Any, policy: str) -> Dict[str, Any]:
    """Plain values, for a reader of the file."""
    task, cfg, checkpoint = env.task, source.cfg, source.checkpoint
    actions = described(task.action_layout())
    git = source.folder.metadata.get("git") or {}
    return {
        "format": "hepo_isaac policy 1",
        "task": task.name,
        "method": cfg["algo"]["name"],
        "policy": policy,
        "heuristic": cfg["heuristic"],
        "seed": cfg["seed"],
        "control_dt": float(env.sim.spec.control_dt),
        "control_dt_unit": "s",
        "joint_names": [name for group in actions for name in group["names"]],
        "observation": {
            "size": task.num_obs,
            "clip": OBS_CLIP,
            "not_finite": "counts as 0",
            "columns": "scale * quantity + shift",
            "slices": described(task.obs_layout()),
        },
        "action": {"size": task.num_actions, "low": -1.0, "high": 1.0, "groups": actions},
        "checkpoint": source.file.name,
        "iteration": checkpoint["iteration"],
        "env_steps": checkpoint["env_steps"],
        "commit": git.get("commit"),
        "uncommitted_changes": git.get("dirty"),
        "hepo_isaac": hepo_isaac.__version__,
        "J": measured(source, policy),
    }


def measured(source: Source, policy: str) -> Optional[Dict[str, Any]]:
    """J, the mean task return of an episode, of the policy at this checkpoint, and how it is known; None: unknown."""
    entry = bundled.entry_of(source.folder.path)
    if entry is not None:
        of_policy = entry["policies"].get(policy)
        return None if of_policy is None else {**of_policy["J"], "of": "whole episodes with mean actions"}
    metrics = read_metrics(source.folder.metrics_file)
    names = ("iteration", "return_task/" + policy, "episodes/" + policy)
    if any(name not in metrics for name in names):
        return None
    iteration, returns, episodes = (metrics[name] for name in names)
    known = (iteration <= source.checkpoint["iteration"]) & np.isfinite(returns) & (episodes > 0)
    returns, episodes = returns[known][::-1], episodes[known][::-1]
    if not len(episodes):
        return None
    rows = int(np.searchsorted(np.cumsum(episodes), EPISODES)) + 1
    count = float(episodes[:rows].sum())
    mean = float((returns[:rows] * episodes[:rows]).sum() / count)
    return {"mean": mean, "episodes": int(count), "of": "the last training episodes, with sampled actions"}
