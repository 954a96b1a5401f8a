"""Whole episodes, the same number in every environment: the loop under every evaluation and film."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator

import torch
from torch import Tensor


@dataclass
class EpisodeStep:
    """One control step of N envs. The sums of ended episodes are cleared when the next step is asked for.

    sums: (N, 2) r and h, and length: (N,) steps, of the running episode, this step included.
    ended: (N,) bool, an episode ended that is among its env's share.  lost: (N,) bool, one did that its world's
        diverging physics cut off; it counts nowhere, and its env plays another one.  infos: the environment's.
    """

    sums: Tensor
    length: Tensor
    ended: Tensor
    lost: Tensor
    infos: Dict[str, Any]


def play_shares(
    env: Any,
    act: Callable[[Tensor], Tensor],
    share: int,
    obs: Tensor,
    before_step: Callable[[Tensor], None] = lambda finished: None,
) -> Iterator[EpisodeStep]:
    """Play until every env of ``env`` (a vec_env) has finished ``share`` episodes. What an env plays beyond its share
    does not count: it would favour short episodes.

    Args:
        act: observations (N, O) to actions (N, K).  obs: (N, O) first observations, of a reset.
        before_step: told (N,) how many episodes each env has finished, before each step.
    """
    n, device = obs.shape[0], obs.device
    sums, length = torch.zeros(n, 2, device=device), torch.zeros(n, device=device)
    finished = torch.zeros(n, device=device)
    for _ in range(share * int(env.get_env_info()["max_episode_length"])):
        before_step(finished)
        obs, rewards, done, infos = env.step(act(obs))
        sums += rewards
        length += 1.0
        due, whole = finished < share, done & ~infos["bad"]
        yield EpisodeStep(sums, length, whole & due, done & infos["bad"] & due, infos)
        finished += whole
        sums.masked_fill_(done.unsqueeze(1), 0.0)
        length.masked_fill_(done, 0.0)
        if bool((finished >= share).all()):  # host read: an evaluation stops when it has all episodes
            break
