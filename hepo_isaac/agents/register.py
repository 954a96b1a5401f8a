"""Hand agents and environments to rl-games' factories and run its Runner."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from rl_games import torch_runner
from rl_games.common import env_configurations, vecenv

from hepo_isaac.agents.agent import HepoAgent
from hepo_isaac.agents.player import HepoPlayer

AGENT_NAME = "hepo_continuous"
VECENV_TYPE = "HEPO_ISAAC"
ENV_NAME = "hepo_isaac"

# The Runner reports its settings with bare prints; the run's own header says the same better.
torch_runner.print = lambda *args, **kwargs: None


def runner_params(cfg: Mapping[str, Any], seeds: List[int]) -> Dict[str, Any]:
    """rl-games' ``params`` from a resolved configuration.

    Args:
        cfg: keys num_envs (of one run), device, torch_threads, algo (the method) and train.
        seeds: one per run trained side by side.
    """
    return {
        # rl-games takes seed 0 for "no seed"; our generators are seeded from ``seeds`` either way.
        "seed": int(seeds[0]) or 1,
        "torch_threads": cfg["torch_threads"],
        "algo": {"name": AGENT_NAME},
        "config": {
            "env_name": ENV_NAME,
            "num_actors": int(cfg["num_envs"]) * len(seeds),
            "device": str(cfg["device"]),
            "seeds": [int(s) for s in seeds],
            "method": dict(cfg["algo"]),
            "train": dict(cfg["train"]),
            "reward_shaper": {},  # required by Runner; scaling is pointless under value and advantage normalisation
            "torch_compile": False,  # compiling ``agent.model`` is not how this agent is accelerated
        },
    }


def register_env(vec_env: Any) -> None:
    """Make ``vec_env`` what rl-games creates for ENV_NAME."""
    vecenv.register(VECENV_TYPE, lambda config_name, num_actors, **kwargs: vec_env)
    env_configurations.register(ENV_NAME, {"vecenv_type": VECENV_TYPE, "env_creator": lambda **kwargs: vec_env})


def run_training(cfg: Mapping[str, Any], vec_env: Any, observer: Any) -> HepoAgent:
    """Train through rl-games' Runner.

    Args:
        cfg: resolved configuration, see runner_params, plus ``seed`` or ``run_seeds`` (one per run).
        vec_env: an RlGamesVecEnv with num_envs environments per run.
        observer: see HepoAgent; to continue, its ``after_init`` calls the agent's ``set_full_state_weights``.
    """
    register_env(vec_env)
    created: List[HepoAgent] = []

    def build(**kwargs: Any) -> HepoAgent:
        agent = HepoAgent(**kwargs)
        created.append(agent)
        return agent

    runner = torch_runner.Runner(observer)
    runner.algo_factory.register_builder(AGENT_NAME, build)
    seeds = [int(s) for s in cfg.get("run_seeds") or [cfg["seed"]]]
    runner.load({"params": runner_params(cfg, seeds)})
    runner.run({"train": True, "play": False, "checkpoint": None, "sigma": None})
    return created[0]


def run_evaluation(
    cfg: Mapping[str, Any],
    vec_env: Any,
    checkpoint: Dict[str, Any],
    episodes: int,
    deterministic: bool = True,
    policy: str = "pi",
    record: bool = False,
) -> Dict[str, Any]:
    """Play whole episodes of one policy through rl-games' Runner.

    Args:
        cfg: resolved configuration, see runner_params.  vec_env: environments that start all episodes at step 0.
        checkpoint: the agent part of a checkpoint.  policy: "pi" or "pi_h".
        record: keep env 0's first episodes as engine states for a film.

    Returns:
        Lists with one entry per episode (return_task, return_heuristic, episode_length and the task's metrics) and
        ``trajectory``.
    """
    register_env(vec_env)
    created: List[HepoPlayer] = []

    def build(params: Dict[str, Any]) -> HepoPlayer:
        player = HepoPlayer(params, vec_env)
        player.set_weights(checkpoint)
        created.append(player)
        return player

    params = runner_params(cfg, [int(cfg["seed"])])
    params["config"]["player"] = {
        "episodes": episodes,
        "deterministic": deterministic,
        "policy": policy,
        "record": record,
    }
    runner = torch_runner.Runner()
    runner.player_factory.register_builder(AGENT_NAME, build)
    runner.load({"params": params})
    runner.run({"train": False, "play": True, "checkpoint": None, "sigma": None})
    return created[0].result
