"""Train and evaluate with an agent built as rl-games' Runner builds it, and hand the agent to Runner's factories.

Runner itself imports torch's compiler, 2.3 s and 125 MB that nothing here uses, so that the commands of this project do
what it does without it. ``register`` is for programs with a Runner of their own; both train the same (tests/agents/
test_agent.py).
"""

from __future__ import annotations

import random
from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np
import torch

from hepo_isaac.agents.agent import HepoAgent
from hepo_isaac.agents.player import HepoPlayer

AGENT_NAME = "hepo_continuous"
VECENV_TYPE = "HEPO_ISAAC"
ENV_NAME = "hepo_isaac"


def runner_params(cfg: Mapping[str, Any], seeds: List[int]) -> Dict[str, Any]:
    """rl-games' ``params`` from a resolved configuration.

    Args:
        cfg: keys num_envs (of one run), device, torch_threads, algo (the method) and train; update_threads if it is
            another number.
        seeds: one per run trained side by side.
    """
    return {
        # rl-games takes seed 0 for "no seed"; our generators are seeded from ``seeds`` either way.
        "seed": int(seeds[0]) or 1,
        "torch_threads": cfg["torch_threads"],
        "update_threads": cfg.get("update_threads", cfg["torch_threads"]),
        "algo": {"name": AGENT_NAME},
        "config": {
            "env_name": ENV_NAME,
            "num_actors": int(cfg["num_envs"]) * len(seeds),
            "device": str(cfg["device"]),
            "seeds": [int(s) for s in seeds],
            "method": dict(cfg["algo"]),
            "train": dict(cfg["train"]),
            "reward_shaper": {},  # Runner wants one; scaling is pointless under value and advantage normalisation
            "torch_compile": False,  # nor would Runner's compiling of ``agent.model`` accelerate this agent
        },
    }


def register(runner: Any) -> None:
    """Put the agent and its player into the factories of an rl-games Runner, under AGENT_NAME."""
    runner.algo_factory.register_builder(AGENT_NAME, lambda **kwargs: HepoAgent(**kwargs))
    runner.player_factory.register_builder(AGENT_NAME, lambda params: HepoPlayer(params, params["config"]["vec_env"]))


def register_env(vec_env: Any) -> None:
    """Make ``vec_env`` what rl-games creates for ENV_NAME."""
    from rl_games.common import env_configurations, vecenv

    vecenv.register(VECENV_TYPE, lambda config_name, num_actors, **kwargs: vec_env)
    env_configurations.register(ENV_NAME, {"vecenv_type": VECENV_TYPE, "env_creator": lambda **kwargs: vec_env})


def prepare_process(params: Mapping[str, Any]) -> None:
    """What Runner sets for the whole process: seeds, torch's threads, and TF32 for matrix products on a GPU."""
    torch.manual_seed(params["seed"])
    np.random.seed(params["seed"])
    random.seed(params["seed"])
    torch.set_num_threads(int(params["torch_threads"]))
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")


def build_agent(params: Dict[str, Any], vec_env: Any, observer: Any) -> HepoAgent:
    """An agent on ``vec_env`` with rl-games' ``params``, see runner_params."""
    config = {**params["config"], "vec_env": vec_env, "features": {"observer": observer}}
    return HepoAgent("run", {**params, "config": config})


def run_training(cfg: Mapping[str, Any], vec_env: Any, observer: Any) -> HepoAgent:
    """Train.

    Args:
        cfg: resolved configuration, see runner_params, plus ``seed`` or ``run_seeds`` (one per run).
        vec_env: an RlGamesVecEnv with num_envs environments per run.
        observer: see HepoAgent; to continue, its ``after_init`` calls the agent's ``set_full_state_weights``.
    """
    params = runner_params(cfg, [int(s) for s in cfg.get("run_seeds") or [cfg["seed"]]])
    prepare_process(params)
    agent = build_agent(params, vec_env, observer)
    agent.train()
    return agent


def run_evaluation(
    cfg: Mapping[str, Any],
    vec_env: Any,
    checkpoint: Dict[str, Any],
    episodes: int,
    deterministic: bool = True,
    policy: str = "pi",
    record: bool = False,
    at: Optional[Callable[[int], None]] = None,
) -> Dict[str, Any]:
    """Play whole episodes of one policy.

    Args:
        cfg: resolved configuration, see runner_params.  vec_env: environments that start all episodes at step 0.
        checkpoint: the agent part of a checkpoint.  policy: "pi" or "pi_h".
        record: keep env 0's first episodes as engine states for a film.  at: told the number of each control step.

    Returns:
        Lists with one entry per episode (return_task, return_heuristic, episode_length and the task's metrics) and
        ``trajectory``.
    """
    params = runner_params(cfg, [int(cfg["seed"])])
    params["config"]["player"] = {
        "episodes": episodes,
        "deterministic": deterministic,
        "policy": policy,
        "record": record,
        **({} if at is None else {"at": at}),
    }
    prepare_process(params)
    player = HepoPlayer(params, vec_env)
    player.set_weights(checkpoint)
    player.run()
    return player.result
