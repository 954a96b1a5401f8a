"""Whole episodes of a policy, kept for a film: which is worth showing, and what it looked like."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Dict, List, Mapping, Optional

import numpy as np
import torch

from hepo_isaac.runs.record.steps import Steps

RANDOM = "random"


@dataclass
class Episode:
    """One episode.

    number: among those of its policy, from 1.  task, heuristic: its J and H.  success: of the metric shown as success,
    or None.  frames: before each step, what a film shows (qpos and markers, or the tensors of an analytic task's state,
    each without a row per env).  rewards: (T, 2) r and h of the steps.
    """

    policy: str
    number: int
    task: float
    heuristic: float
    success: Optional[float]
    frames: List[Dict[str, np.ndarray]]
    rewards: np.ndarray

    def worth(self) -> Any:
        """What is better to show is greater: success, then J, then H."""
        return (self.success or 0.0, self.task, self.heuristic)


def best(episodes: List[Episode]) -> Episode:
    """The one worth showing."""
    return max(episodes, key=Episode.worth)


def about(chosen: Episode, episodes: List[Episode]) -> str:
    """Which one is shown, beside the others."""
    text = "%s: episode %d of %d, J %.4g, H %.4g; median J of all %.4g" % (
        chosen.policy,
        chosen.number,
        len(episodes),
        chosen.task,
        chosen.heuristic,
        float(np.median([e.task for e in episodes])),
    )
    if chosen.success is not None:
        text += ", success in %d" % sum((e.success or 0.0) > 0.5 for e in episodes)
    return text


@torch.no_grad()
def record(cfg: Mapping[str, Any], env: Any, act: Any, policy: str) -> List[Episode]:
    """An episode of every env of ``env`` (a TaskEnv that starts at the beginning), with its pictures.

    Args:
        act: observations (N, O) to actions (N, K).
    """
    from hepo_isaac.agents.episodes import play_shares
    from hepo_isaac.envs.rl_games import RlGamesVecEnv

    vec_env, n = RlGamesVecEnv(env), env.num_envs
    frames: List[List[Dict[str, np.ndarray]]] = [[] for _ in range(n)]
    rewards: List[List[List[float]]] = [[] for _ in range(n)]
    found: Dict[int, Episode] = {}
    before = torch.zeros(n, 2)
    name = cfg["task"].get("success")
    obs = env.reset(False)
    with Steps("playing " + policy, int(env.max_episode_length)) as progress:

        def look(finished: torch.Tensor) -> None:
            for index in range(n):
                if index not in found:
                    frames[index].append(_picture(env, index))

        for number, step in enumerate(play_shares(vec_env, act, 1, obs, look)):
            sums = step.sums.cpu()
            metrics = step.infos["metrics"].cpu()
            names = list(step.infos["metric_names"])
            for index in range(n):
                if index in found:
                    continue
                if bool(step.lost[index]):  # its world diverged: it plays another one
                    frames[index], rewards[index] = [], []
                    continue
                rewards[index].append((sums[index] - before[index]).tolist())
                if bool(step.ended[index]):
                    success = float(metrics[index, names.index(name)]) if name in names else None
                    task, heuristic = sums[index].tolist()
                    pictures = np.array(rewards[index])
                    found[index] = Episode(policy, index + 1, task, heuristic, success, frames[index], pictures)
            before = torch.where((step.ended | step.lost).cpu().unsqueeze(1), torch.zeros(n, 2), sums).clone()
            progress.at(number + 1)
    return [found[index] for index in sorted(found)]


def _picture(env: Any, index: int) -> Dict[str, np.ndarray]:
    if env.sim.spec.actors:
        return {key: x.numpy().copy() for key, x in env.render_state(index).items()}
    state = env.task.state()
    assert is_dataclass(state)
    tensors = {f.name: getattr(state, f.name) for f in fields(state)}
    return {k: x[index].double().cpu().numpy().copy() for k, x in tensors.items() if isinstance(x, torch.Tensor)}
