"""One environment of a task as a plain gymnasium.Env."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import gymnasium
import numpy as np

from hepo_isaac.api.vector import RENDER_MODES, HepoVectorEnv
from hepo_isaac.errors import UserError


class HepoEnv(gymnasium.Env):
    """The first env of a HepoVectorEnv of one, without autoreset: an episode ends, and ``reset`` begins the next.

    Simulating one robot at a time is slow; ``hepo_isaac.make`` steps thousands together.
    """

    metadata: Dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 60.0}

    def __init__(self, vector: HepoVectorEnv) -> None:
        self._vector = vector
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        self.render_mode = vector.render_mode
        self.metadata = {**type(self).metadata, "render_fps": vector.metadata["render_fps"]}
        self._ended = False

    def reset(
        self, *, seed: Optional[int] = None, options: Optional[Dict[str, Any]] = None
    ) -> Tuple[np.ndarray, Dict[str, Any]]:
        """Begin an episode; see HepoVectorEnv.reset."""
        obs, infos = self._vector.reset(seed=seed, options=options)
        if seed is not None:
            self._np_random, self._np_random_seed = self._vector._np_random, seed
        self._ended = False
        return obs[0], _first(infos)

    def step(self, action: Any) -> Tuple[np.ndarray, float, bool, bool, Dict[str, Any]]:
        """Advance one control step with an action (K,) in [-1, 1].

        Raises:
            UserError: as HepoVectorEnv.step, and where the episode has ended.
        """
        if self._ended:
            raise UserError("step() after the end of an episode: expected env.reset() first, which begins another")
        if not isinstance(action, (list, tuple, np.ndarray)) or np.shape(action) != self.action_space.shape:
            raise UserError(
                "action has shape %s; expected an array %s" % (np.shape(action), tuple(self.action_space.shape))
            )
        obs, reward, terminated, truncated, infos = self._vector.step(np.asarray(action)[None])
        self._ended = bool(terminated[0] or truncated[0])
        if not self._ended:
            return obs[0], float(reward[0]), False, False, _first(infos)
        last, info = infos["final_obs"][0], _first(infos["final_info"])
        return last, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> Optional[np.ndarray]:
        """A picture (height, width, 3) uint8."""
        pictures = self._vector.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Free the engine and the renderer."""
        self._vector.close()


def _first(infos: Dict[str, Any]) -> Dict[str, Any]:
    """The infos of the first env, without the masks that only vectors need."""
    kept = {name: value for name, value in infos.items() if not name.startswith("_")}
    return {name: _first(value) if isinstance(value, dict) else _plain(value[0]) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    """Truth values as Python's own: gymnasium's vectors know no other as such."""
    return bool(value) if isinstance(value, np.bool_) else value
