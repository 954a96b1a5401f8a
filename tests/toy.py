"""A pure-torch environment with the adapter's interface, for agent tests that need no engine."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import gymnasium
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from hepo_isaac.envs.faults import FAULTS
from hepo_isaac.locate import cfg_dir
from hepo_isaac.schema import defaults


class PointMass:
    """N points on a line; action 0 pushes. r = 1[|x| < 0.1] / T, h = -|x - target|; dim A actions, only one used."""

    def __init__(
        self, num_envs: int, num_actions: int = 2, episode_length: int = 20, seed: int = 0, offset: float = 0.0
    ):
        self.num_envs, self.num_actions, self.max_episode_length = num_envs, num_actions, episode_length
        self.offset = offset
        self.generator = torch.Generator().manual_seed(seed)
        self.x = torch.zeros(num_envs)
        self.clock = torch.zeros(num_envs, dtype=torch.int64)
        self.names = {"task": "PointMass", "heuristic": "toy", "potential": "none"}
        self.bad = torch.zeros(num_envs, dtype=torch.bool)  # tests set worlds here
        self.faults = torch.zeros(num_envs, len(FAULTS), dtype=torch.bool)  # and here

    def get_env_info(self) -> Dict[str, Any]:
        box = gymnasium.spaces.Box(-np.ones(3, np.float32), np.ones(3, np.float32))
        act = gymnasium.spaces.Box(-np.ones(self.num_actions, np.float32), np.ones(self.num_actions, np.float32))
        return {
            "observation_space": box,
            "action_space": act,
            "value_size": 2,
            "max_episode_length": self.max_episode_length,
        }

    def _obs(self) -> Tensor:
        return torch.stack((self.x, self.x.abs(), self.clock / self.max_episode_length), 1)

    def reset(self, random_start=True) -> Tensor:
        self.x = 2.0 * torch.rand(self.num_envs, generator=self.generator) - 1.0
        self.clock = torch.randint(self.max_episode_length, (self.num_envs,), generator=self.generator)
        if not random_start:
            self.clock.zero_()
        return self._obs()

    def rewards(self) -> Tensor:
        task = (self.x.abs() < 0.1).float() / self.max_episode_length
        return torch.stack((task, -(self.x - self.offset).abs()), 1)

    def step(self, actions: Tensor) -> Tuple[Tensor, Tensor, Tensor, Dict[str, Any]]:
        self.x = (self.x + 0.1 * actions[:, 0].clamp(-1, 1)).clamp(-2, 2)
        self.clock = self.clock + 1
        rewards = self.rewards()
        time_out = self.clock >= self.max_episode_length
        terminated = (self.x.abs() > 1.5) & ~time_out
        done = time_out | terminated
        final_obs, ends = self._obs(), (self.x.abs() < 0.1).float().unsqueeze(1)
        fresh = 2.0 * torch.rand(self.num_envs, generator=self.generator) - 1.0
        self.x = torch.where(done, fresh, self.x)
        self.clock = torch.where(done, torch.zeros_like(self.clock), self.clock)
        infos = {
            "time_outs": time_out,
            "terminated": terminated,
            "final_obs": final_obs,
            "terms": rewards[:, 1:],
            "term_names": ("distance",),
            "metrics": ends,
            "metric_names": ("at_goal",),
            "counted": torch.ones_like(done),
            "bad": self.bad.clone(),
            "faults": self.faults.clone(),
        }
        return self._obs(), rewards, done, infos

    def keep_states(self, steps: int) -> None:
        pass

    def statistics(self) -> Dict[str, Tensor]:
        zero = torch.zeros((), dtype=torch.int64)
        return {"overflow": zero}

    def notices(self):
        return []

    def get_env_state(self) -> Dict[str, Any]:
        return {"x": self.x.clone(), "clock": self.clock.clone(), "generator": self.generator.get_state()}

    def set_env_state(self, state: Dict[str, Any]) -> Tensor:
        self.x, self.clock = state["x"].clone(), state["clock"].clone()
        self.generator.set_state(state["generator"])
        return self._obs()


def shipped(algo: str) -> Dict[str, Any]:
    """cfg/algo/<algo>.yaml: what the method says; the rest is at the defaults of the schema."""
    found = OmegaConf.to_container(OmegaConf.load(cfg_dir() / "algo" / (algo + ".yaml")))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


METHODS: Dict[str, Dict[str, Any]] = {algo: shipped(algo) for algo in ("hepo", "ppo_h", "ppo_j", "ppo_jh")}
# Worth of the other's rows and alpha's estimate from this rollout's GAE alone: what tests can restate in a few lines.
METHODS["hepo_owner"] = {**METHODS["hepo"], "foreign_advantage": "owner", "contrast": "raw_gae"}

TRAIN: Dict[str, Any] = {
    **defaults()["train"],
    "max_iterations": 5,
    "horizon_length": 8,
    "minibatch_size": 64,
    "mini_epochs": 2,
    "learning_rate": 1e-3,
    "network": {"units": [32, 16], "activation": "elu"},
}
