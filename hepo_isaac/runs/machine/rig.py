"""One task on one engine, with the agents and the reference that checks and timings need; the engine is built once."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import torch

from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.overrides import compose
from hepo_isaac.runs.launch import prepare
from hepo_isaac.sim.engines import CPU_ENGINE, CUDA_ENGINE


def settings(task: str, num_envs: int, algo: str, *overrides: str) -> Dict[str, Any]:
    """Resolved settings, the rest as this machine chooses it by itself."""
    given = ["task=" + task, "algo=" + algo, "num_envs=%d" % num_envs, *overrides]
    return prepare(compose(given), given)


def paper_settings(task: str, device: str, num_envs: int, algo: str, *overrides: str) -> Dict[str, Any]:
    """Resolved settings of the full budget on ``device``, whatever this machine would choose by itself."""
    return {**settings(task, num_envs, algo, "budget=paper", "device=cpu", *overrides), "device": device}


def warp_settings(task: str, device: str, num_envs: int, graph: bool = True) -> Dict[str, Any]:
    """The same on MuJoCo Warp: checked as for the CPU's engine, since this machine's torch may see no GPU.

    Args:
        graph: sim.graph.
    """
    sim = {"name": CUDA_ENGINE, "graph": graph, "refine": False}
    return {**paper_settings(task, device, num_envs, "hepo", "sim=" + CPU_ENGINE), "sim": sim}


def make_agent(cfg: Dict[str, Any], env: Optional[TaskEnv] = None) -> Any:
    """A HepoAgent as rl-games' Runner would build it, on ``env`` or on one of its own."""
    from rl_games.common.algo_observer import AlgoObserver

    from hepo_isaac.agents.register import build_agent, runner_params

    vec_env = RlGamesVecEnv(make_env(cfg) if env is None else env)
    return build_agent(runner_params(cfg, [int(cfg["seed"])]), vec_env, AlgoObserver())


def captured(agent: Any) -> Tuple[Optional[bool], str]:
    """Whether everything runs from CUDA graphs, and in words: (None, ...) where there are none to be had."""
    notices: List[Any] = agent.notices()
    for notice in notices:
        print(notice.text, notice.details, sep="\n", flush=True)
    if notices:
        return False, "NOT captured: " + "; ".join(notice.text for notice in notices)
    why = agent.learner.minibatch_step.why_eager
    return (None, "update eager: " + why) if why else (True, "captured")


class Rig:
    """A robot task on MuJoCo Warp.

    Args:
        task: its name.  device: of torch; "cpu" is Warp's CPU device, or an imitated GPU.  num_envs: N.
        graph: sim.graph.
    """

    def __init__(self, task: str, device: str, num_envs: int, graph: bool = True) -> None:
        self.task, self.device, self.num_envs = task, device, num_envs
        self.graph = graph
        self._env: Optional[TaskEnv] = None

    @property
    def env(self) -> TaskEnv:
        """The environment, built when first asked for."""
        if self._env is None:
            self._env = make_env(warp_settings(self.task, self.device, self.num_envs, self.graph))
        return self._env

    def close(self) -> None:
        """Give the engine back."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def reference(self) -> TaskEnv:
        """The same task on MuJoCo C."""
        return make_env(paper_settings(self.task, "cpu", self.num_envs, "hepo", "sim=" + CPU_ENGINE))

    def agent(self, algo: str) -> Any:
        """An agent on the one environment; agents that share it may take turns, iteration by iteration."""
        cfg = paper_settings(self.task, self.device, self.num_envs, algo, "sim=" + CPU_ENGINE)
        torch.set_float32_matmul_precision("high")  # TF32, as rl-games' Runner sets it
        return make_agent(cfg, self.env)

    def actions(self, steps: int, seed: int = 7) -> torch.Tensor:
        """(steps, N, K) random actions in [-1, 1], the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(steps, self.num_envs, self.env.num_actions, generator=generator)
        return (2.0 * uniform - 1.0).to(self.env.device)

    def wait(self) -> None:
        """Until the device has done what it was asked for."""
        if self.env.device.type == "cuda":
            torch.cuda.synchronize(self.env.device)
