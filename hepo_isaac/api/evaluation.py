"""``hepo_isaac.evaluate``: what a policy, anybody's, is worth in environments: J and H of whole episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch

from hepo_isaac.api.vector import HepoVectorEnv
from hepo_isaac.errors import UserError
from hepo_isaac.runs.play.evaluate import Estimate, estimate


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns of whole episodes, each a mean with its standard error and n.

    task_return, heuristic_return: J and H.  episode_length: control steps.  metrics: the task's own numbers at the end
    of an episode, by name.  score: J with random actions at 0 and the best known J at 1, None where the task's file
    does not say.  diverged: episodes that the physics cut off; they count nowhere else.
    """

    task_return: Estimate
    heuristic_return: Estimate
    episode_length: Estimate
    metrics: Dict[str, Estimate]
    score: Optional[float] = None
    diverged: int = 0

    def __str__(self) -> str:
        parts = ["J = " + self.task_return.text(), "H = " + self.heuristic_return.text()]
        parts += ["%s = %s" % (name, value.text()) for name, value in self.metrics.items()]
        return ", ".join(parts) + " over %d episodes" % self.task_return.n


def evaluate(
    policy: Callable[[Any], Any], env: HepoVectorEnv, episodes: int = 100, seed: Optional[int] = None
) -> Evaluation:
    """Play whole episodes, the same number in every env, so that short ones are not favoured.

    Args:
        policy: observations (N, O) to actions (N, K), in arrays or tensors as ``env`` has them.
        env: made by ``hepo_isaac.make``; it is reset.  episodes: at least so many.  seed: of the reset.

    Raises:
        UserError: environments of somebody else, or no episodes.
    """
    inner = getattr(env, "unwrapped", env)
    if not isinstance(inner, HepoVectorEnv):
        raise UserError("evaluate takes environments of hepo_isaac.make, got a %s" % type(env).__name__)
    if isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 1:
        raise UserError("episodes must be a whole number of at least 1, got %r" % (episodes,))
    share = -(-episodes // inner.num_envs)
    played = np.zeros(inner.num_envs, dtype=int)
    rows: Dict[str, List[np.ndarray]] = {}
    diverged = 0
    obs, _ = inner.reset(seed=seed, options={"random_start": False})
    for _ in range(share * inner.max_episode_length * 2):  # twice: a diverged episode is played again
        with torch.no_grad():
            actions = policy(obs)
        obs, _, terminated, truncated, infos = inner.step(actions)
        done = _host(terminated) | _host(truncated)
        if not done.any():
            continue
        final = infos["final_info"]
        lost = done & _host(final["diverged"])
        due = done & ~lost & (played < share)
        diverged += int((lost & (played < share)).sum())
        for name in ("task_return", "heuristic_return", "episode_length"):
            rows.setdefault(name, []).append(_host(final[name])[due])
        for name, value in final["metrics"].items():
            if not name.startswith("_"):
                rows.setdefault("metrics/" + name, []).append(_host(value)[due])
        played += due
        if (played >= share).all():
            break
    found = {name: estimate(np.concatenate(parts)) for name, parts in rows.items()}
    nothing = estimate([])
    task_return = found.get("task_return", nothing)
    return Evaluation(
        task_return,
        found.get("heuristic_return", nothing),
        found.get("episode_length", nothing),
        {name[len("metrics/") :]: value for name, value in found.items() if name.startswith("metrics/")},
        _score(task_return.mean, inner.scores),
        diverged,
    )


def _score(task_return: float, scores: Dict[str, float]) -> Optional[float]:
    if "random" not in scores or "optimal" not in scores:
        return None
    return (task_return - scores["random"]) / (scores["optimal"] - scores["random"])


def _host(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
