"""hepo-isaac bench --peers: other libraries' PPO really trains on our environments, and what is missing is said."""

from __future__ import annotations

import sys
from typing import Any, List

import pytest
import torch

from hepo_isaac.agents.config import train_config
from hepo_isaac.envs.make import make_env
from hepo_isaac.errors import UserError
from hepo_isaac.runs.machine import peers
from hepo_isaac.runs.machine.bench import PEERS
from hepo_isaac.runs.machine.rig import settings

BUILDERS = {"rl-games": peers.rl_games, "CleanRL": peers.cleanrl, "skrl": peers.skrl, "SB3": peers.sb3}


def test_the_table_has_every_peer() -> None:
    assert tuple(BUILDERS) == PEERS


def test_a_peer_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skrl", None)
    with pytest.raises(UserError, match=r"skrl is not installed .*pip install 'hepo-isaac\[peers\]'"):
        peers.make_peers(settings("QuadraticPoint", 8, "ppo_h"))


def test_a_task_whose_critics_see_more_is_refused() -> None:
    with pytest.raises(UserError, match="ShadowHand: its critics see states of their own"):
        peers.make_peers(settings("ShadowHand", 4, "ppo_h", "budget=cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_learns_to_balance(name: str) -> None:
    """Without this a peer that skips its update, or sees another reward, would be timed all the same."""
    if name in ("skrl", "SB3"):
        pytest.importorskip({"skrl": "skrl", "SB3": "stable_baselines3"}[name])
    torch.manual_seed(0)
    cfg = settings("Cartpole", 64, "ppo_h", "budget=cpu", "device=cpu", "train.minibatch_size=512")
    env = make_env(cfg)
    means: List[float] = []
    step = env.step

    def watched(actions: torch.Tensor) -> Any:
        result = step(actions)
        means.append(float(result.rewards[:, 1].mean()))
        return result

    env.step = watched  # type: ignore[method-assign]
    train = train_config({**cfg["train"], "learning_rate": 1e-3})
    iterate = BUILDERS[name](peers.Problem(env, train, seed=1))
    times = [iterate() for _ in range(60)]
    assert all(rollout > 0.0 and update > 0.0 for rollout, update in times)
    assert len(means) == 60 * train.horizon_length
    first, last = (sum(part) / len(part) for part in (means[:64], means[-64:]))
    assert last > first + 0.2, (first, last)
