"""Environments as rsl_rl wants them (extra ``[peers]``): ``OnPolicyRunner(RslRlVecEnv(env), config).learn(…)``."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import torch
from torch import Tensor

from hepo_isaac.api.vector import HepoVectorEnv
from hepo_isaac.errors import UserError

try:
    from rsl_rl.env import VecEnv
    from tensordict import TensorDict
except ImportError as error:
    text = "hepo_isaac.api.rsl_rl needs rsl_rl (%s): pip install -c constraints.txt -e '.[peers]'"
    raise UserError(text % error) from error


class RslRlVecEnv(VecEnv):
    """A HepoVectorEnv with torch output as an ``rsl_rl.env.VecEnv``.

    Groups of observations: "policy", and "critic" (the observation and, behind it, what only critics see) where the
    task has such states; ``obs_groups={"actor": ["policy"], "critic": ["critic"]}`` uses it. In ``extras``:
    ``time_outs``, and J and H of the episodes that ended, NaN where none did, under ``log``.
    """

    def __init__(self, env: HepoVectorEnv) -> None:
        if env.output != "torch":
            raise UserError("RslRlVecEnv takes environments made with output='torch', got output=%r" % env.output)
        self.env = env
        self.num_envs, self.num_actions = env.num_envs, env.single_action_space.shape[0]
        self.max_episode_length = env.max_episode_length
        self.device, self.cfg = env.device, env.settings
        self._obs = self._reset()

    @property
    def episode_length_buf(self) -> Tensor:
        """(N,) steps of the running episodes; rsl_rl sets it to spread first episodes over time."""
        return self.env.task_env.progress

    @episode_length_buf.setter
    def episode_length_buf(self, steps: Tensor) -> None:
        self.env.task_env.progress.copy_(steps)

    def reset(self) -> Tuple[TensorDict, Dict[str, Any]]:
        """Begin an episode in every env."""
        self._obs = self._reset()
        return self._obs, {}

    def get_observations(self) -> TensorDict:
        """Of the current state."""
        return self._obs

    def step(self, actions: Tensor) -> Tuple[TensorDict, Tensor, Tensor, Dict[str, Any]]:
        """Observations, rewards (N,), dones (N,) and extras of one control step."""
        obs, rewards, terminated, truncated, infos = self.env.step(actions)
        final, ended = infos["final_info"], infos["_final_info"]
        log = {"/" + name: _mean(final[name], ended) for name in ("task_return", "heuristic_return")}
        self._obs = self._groups(obs, infos)
        return self._obs, rewards, terminated | truncated, {"time_outs": truncated, "log": log}

    def close(self) -> None:
        """Free the engine."""
        self.env.close()

    def _reset(self) -> TensorDict:
        return self._groups(*self.env.reset())

    def _groups(self, obs: Tensor, infos: Dict[str, Any]) -> TensorDict:
        groups = {"policy": obs}
        if "state" in infos:
            groups["critic"] = torch.cat((obs, infos["state"]), 1)
        return TensorDict(groups, batch_size=[self.num_envs])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean where ``mask``, NaN where it is nowhere true; without a look at the mask, which on a GPU would wait."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum()
