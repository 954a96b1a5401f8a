"""Environments as Stable-Baselines3 wants them (extra ``[peers]``): ``PPO("MlpPolicy", Sb3VecEnv(env)).learn(…)``."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

import numpy as np

from hepo_isaac.api.vector import HepoVectorEnv
from hepo_isaac.errors import UserError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise UserError(
        "hepo_isaac.api.sb3 needs Stable-Baselines3 (%s): pip install -c constraints.txt -e '.[peers]'" % error
    ) from error


class Sb3VecEnv(VecEnv):
    """A HepoVectorEnv with numpy output as a ``stable_baselines3.common.vec_env.VecEnv``.

    SB3's environments start anew within a step too, and say the last observation of an ended episode in
    ``infos[i]["terminal_observation"]`` and a time limit in ``infos[i]["TimeLimit.truncated"]``. The episode's return
    and length are in ``infos[i]["episode"]``, where SB3's Monitor puts them, J and H in
    ``infos[i]["task_return"]`` and ``infos[i]["heuristic_return"]``.
    """

    def __init__(self, env: HepoVectorEnv) -> None:
        if env.output != "numpy":
            raise UserError("Sb3VecEnv takes environments made with output='numpy', got output=%r" % env.output)
        self.env = env
        self.render_mode = env.render_mode
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions = np.zeros(env.action_space.shape, np.float32)
        self._returns, self._began = np.zeros(env.num_envs), time.time()

    def reset(self) -> np.ndarray:
        """(N, O) first observations; the seed is that of the last ``seed`` call, once."""
        seed = next((s for s in self._seeds if s is not None), None)
        obs, _ = self.env.reset(seed=seed)
        self._reset_seeds()
        self._returns[:] = 0.0
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, np.float32)

    def step_wait(self) -> Tuple[np.ndarray, np.ndarray, np.ndarray, List[Dict[str, Any]]]:
        obs, rewards, terminated, truncated, told = self.env.step(self._actions)
        self._returns += rewards
        done = terminated | truncated
        infos: List[Dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            final, seconds = told["final_info"], round(time.time() - self._began, 6)
            infos[i] = {
                "terminal_observation": told["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {"r": float(self._returns[i]), "l": int(final["episode_length"][i]), "t": seconds},
                "task_return": float(final["task_return"][i]),
                "heuristic_return": float(final["heuristic_return"][i]),
            }
        self._returns[done] = 0.0
        return obs, rewards, done, infos

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[Optional[np.ndarray]]:
        return list(self.env.render() or ())

    def get_attr(self, attr_name: str, indices: Any = None) -> List[Any]:
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def has_attr(self, attr_name: str) -> bool:
        return hasattr(self.env, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> List[Any]:
        found = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [found] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Type[Any], indices: Any = None) -> List[bool]:
        return [False] * len(list(self._get_indices(indices)))
