"""rl-games' IVecEnv around a TaskEnv: rewards travel as (N, 2) [r, h] (``value_size=2``)."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import gymnasium
import numpy as np
from rl_games.common.ivecenv import IVecEnv
from torch import Tensor

from hepo_isaac.envs.task_env import OBS_CLIP, TaskEnv
from hepo_isaac.errors import Notice


class RlGamesVecEnv(IVecEnv):
    """Adapter; everything stays a tensor on the simulation's device."""

    def __init__(self, env: TaskEnv) -> None:
        self.env = env

    def get_env_info(self) -> Dict[str, Any]:
        """Spaces, value_size 2 and the episode length. The last ``state_size`` columns of the observation space are
        for critics alone."""
        low, high = np.full(self.env.num_obs, -OBS_CLIP, np.float32), np.full(self.env.num_obs, OBS_CLIP, np.float32)
        one = np.ones(self.env.num_actions, np.float32)
        return {
            "observation_space": gymnasium.spaces.Box(low, high),
            "action_space": gymnasium.spaces.Box(-one, one),
            "state_size": self.env.num_states,
            "value_size": 2,
            "agents": 1,
            "max_episode_length": self.env.max_episode_length,
        }

    def reset(self, random_start: Optional[bool] = None) -> Tensor:
        """Start every env; ``random_start`` overrides the environment's own setting."""
        return self.env.reset(random_start)

    def step(self, actions: Tensor) -> Tuple[Tensor, Tensor, Tensor, Dict[str, Any]]:
        """Returns obs (N, O), rewards (N, 2), dones (N,) bool and infos: time_outs, terminated, final_obs, counted,
        bad, faults (N, .), terms and metrics (N, .) and their names."""
        result = self.env.step(actions)
        infos = {
            "time_outs": result.time_out,
            "terminated": result.terminated,
            "final_obs": result.final_obs,
            "counted": result.counted,
            "bad": result.bad,
            "faults": result.faults,
            "terms": result.terms,
            "metrics": result.metrics,
            "term_names": result.term_names,
            "metric_names": result.metric_names,
        }
        if result.potential is not None:
            infos["potential"], infos["final_potential"] = result.potential, result.final_potential
        return result.obs, result.rewards, result.done, infos

    def potential(self) -> Optional[Tensor]:
        """(N,) Phi of the states of the current observations, or None where no potential is asked for."""
        return self.env.potential()

    def keep_states(self, steps: int) -> None:
        """See TaskEnv.keep_states."""
        self.env.keep_states(steps)

    def bad_states(self, most: int) -> List[Dict[str, Any]]:
        """See TaskEnv.bad_states."""
        return self.env.bad_states(most)

    def statistics(self) -> Dict[str, Tensor]:
        """Counters since the start, as () tensors on the device."""
        return {"overflow": self.env.sim.overflow_count}

    def notices(self) -> List[Notice]:
        """What went otherwise than asked for in the engine, see Simulation.notices."""
        return self.env.sim.notices()

    @property
    def names(self) -> Dict[str, str]:
        """Of the task, the heuristic and the potential in use, for what is said of them."""
        return self.env.names

    def get_env_state(self) -> Dict[str, Any]:
        return self.env.get_state()

    def set_env_state(self, env_state: Dict[str, Any]) -> Tensor:
        """Restore the environments; returns the current observations."""
        return self.env.load_state(env_state)
