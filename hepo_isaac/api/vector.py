"""The environments of a task as a gymnasium.vector.VectorEnv with same-step autoreset."""

from __future__ import annotations

import functools
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hepo_isaac.api.infos import EpisodeSums, converted, masked, rows_as_objects, step_facts
from hepo_isaac.api.rewards import RewardFunction, checked_reward
from hepo_isaac.config import LARGEST_SEED
from hepo_isaac.envs.faults import FAULTS, sentence
from hepo_isaac.envs.make import reseed
from hepo_isaac.envs.task import StepResult
from hepo_isaac.envs.task_env import OBS_CLIP, TaskEnv
from hepo_isaac.errors import UserError
from hepo_isaac.runs.play.frames import FrameSource

OUTPUTS = ("numpy", "torch")
RENDER_MODES = ("rgb_array",)
OPTIONS = ("random_start",)
# gymnasium 0.29, that of Python 3.8, has no such enumeration
SAME_STEP: Any = getattr(getattr(gymnasium.vector, "AutoresetMode", None), "SAME_STEP", "SameStep")


def _apart(method: Any) -> Any:
    """Run a method outside of the caller's autograd and inference modes: what the engine keeps between two steps must
    be ordinary tensors, whoever asked for which step."""

    @functools.wraps(method)
    def apart(self: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return method(self, *args, **kwargs)

    return apart


class HepoVectorEnv(gymnasium.vector.VectorEnv):
    """N environments of one task; made by ``hepo_isaac.make``, which says what the arguments mean.

    Attributes:
        num_envs: N.  device: where physics and tensors are.  output: "numpy" or "torch".
        single_observation_space, single_action_space: Box (O,) and Box (K,) in [-1, 1]; the batched ones are (N, O)
            and (N, K).  state_space: Box (S,) of what only critics see, or None; see ``state``.
        max_episode_length: control steps until the time limit.  scores: J of random actions and the best known J, {}
            where the task's file does not say.  settings: the resolved configuration.
    """

    metadata: Dict[str, Any] = {
        "autoreset_mode": SAME_STEP,
        "render_modes": list(RENDER_MODES),
        "render_fps": 60.0,
    }

    def __init__(
        self,
        env: TaskEnv,
        settings: Mapping[str, Any],
        reward: RewardFunction,
        output: str = "numpy",
        render_mode: Optional[str] = None,
        render_envs: Sequence[int] = (0,),
        random_start: bool = False,
    ) -> None:
        self._env, self._reward, self.output, self.settings = env, reward, output, dict(settings)
        self.num_envs, self.device = env.num_envs, env.device
        self.num_states = env.num_states
        num_obs = env.num_obs - env.num_states
        self.single_observation_space = _box(OBS_CLIP, num_obs)
        self.single_action_space = _box(1.0, env.num_actions)
        self.observation_space = _box(OBS_CLIP, self.num_envs, num_obs)
        self.action_space = _box(1.0, self.num_envs, env.num_actions)
        self.state_space = _box(OBS_CLIP, self.num_states) if self.num_states else None
        self.max_episode_length = env.max_episode_length
        self.scores: Dict[str, float] = {str(k): float(v) for k, v in (settings["task"].get("scores") or {}).items()}
        self.metadata = {**type(self).metadata, "render_fps": 1.0 / env.sim.spec.control_dt}
        self.spec, self.closed = None, False
        self.render_mode, self.render_envs = render_mode, tuple(render_envs)
        self._frames: Optional[FrameSource] = None
        self._random_start = random_start
        self._current: Optional[Tensor] = None  # (N, O + S) of the last reset or step
        self._episodes = EpisodeSums(self.num_envs, self.device)

    # -- gymnasium ---------------------------------------------------------------------------------------------
    @_apart
    def reset(
        self, *, seed: Optional[int] = None, options: Optional[Dict[str, Any]] = None
    ) -> Tuple[Any, Dict[str, Any]]:
        """Begin an episode in every env.

        Args:
            seed: of all that is random from here on; None goes on where the random numbers are.
            options: {"random_start": True} lets first episodes begin at a random time of theirs.

        Returns:
            (N, O) observations, and infos with ``state`` (N, S) where only critics see more.
        """
        self._check_open("reset")
        random_start = self._options(options)
        if seed is not None:
            if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < LARGEST_SEED:
                raise UserError("seed must be a whole number from 0 to %d, got %r" % (LARGEST_SEED - 1, seed))
            self._np_random, self._np_random_seed = gymnasium.utils.seeding.np_random(int(seed))
            reseed(self._env, int(seed))
        self._current = self._env.reset(random_start)
        self._episodes.clear()
        return self._obs(self._current), self._with_masks(self._state_of(self._current))

    @_apart
    def step(self, actions: Any) -> Tuple[Any, Any, Any, Any, Dict[str, Any]]:
        """Advance one control step with actions (N, K), clamped to [-1, 1].

        Returns:
            obs (N, O), of the next episode where one ended; rewards (N,), terminations and truncations (N,) bool, and
            infos: task_reward, heuristic_reward, reward_terms, metrics, diverged and counted of this step, state, and
            final_obs and final_info where an episode ended. docs/python_api.md has them one by one.

        Raises:
            UserError: not reset yet or closed, actions of another shape or type or not finite, or a number of the
                task or the heuristic that is not finite (on a CPU; on a GPU infos has ``faults``).
        """
        self._check_open("step")
        if self._current is None:
            raise UserError("step() before reset(): expected env.reset() first, which returns the first observations")
        result = self._env.step(self._actions(actions))
        if self.device.type == "cpu":
            self._check_faults(result)
        self._current = result.obs
        task, heuristic = self._out(result.rewards[:, 0]), self._out(result.rewards[:, 1])
        reward = checked_reward(self._reward, task, heuristic)
        return (
            self._obs(result.obs),
            reward,
            self._out(result.terminated),
            self._out(result.time_out),
            self._infos(result),
        )

    def render(self) -> Optional[Tuple[np.ndarray, ...]]:
        """A picture (height, width, 3) uint8 of each env of ``render_envs``, drawn without a display.

        Raises:
            UserError: no render_mode, nothing to draw, or no way to draw on this machine.
        """
        self._check_open("render")
        if self.render_mode is None:
            raise UserError("render() without a render_mode: make the environment with render_mode='rgb_array'")
        if self._current is None:
            raise UserError("render() before reset(): expected env.reset() first")
        if self._frames is None:
            scene = getattr(self._env.sim, "scene", None)
            if scene is None:
                raise UserError(
                    "%s cannot be drawn: engine %s has no scene; choose another engine"
                    % (self._env.names["task"], self.settings["sim"]["name"])
                )
            self._frames = FrameSource(scene.spec_text, self.settings["task"].get("camera"))
        pictures = []
        for index in self.render_envs:
            state = self._env.render_state(index)
            qpos, markers = (state[key].double().cpu().numpy() for key in ("qpos", "markers"))
            pictures.append(self._frames.frame(qpos, markers))
        return tuple(pictures)

    def close(self, **kwargs: Any) -> None:
        """Free the engine and the renderer; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        if self._frames is not None:
            self._frames.close()
        self._env.close()

    def state(self) -> Any:
        """(N, S) what only critics see of the current state, or None where there is no such thing."""
        self._check_open("state")
        if self._current is None or not self.num_states:
            return None
        return self._out(self._current[:, -self.num_states :])

    def call(self, name: str, *args: Any, **kwargs: Any) -> Tuple[Any, ...]:
        """A method or attribute as gymnasium's own vectors give it, a tuple with one for each env. All N are one object
        here, so it holds the same N times; but pictures are those of ``render_envs``."""
        found = getattr(self, name)
        found = found(*args, **kwargs) if callable(found) else found
        return found if name == "render" else (found,) * self.num_envs

    def get_attr(self, name: str) -> Tuple[Any, ...]:
        """See ``call``."""
        return self.call(name)

    # -- names -------------------------------------------------------------------------------------------------
    @property
    def task_name(self) -> str:
        """As in ``task=``."""
        return self._env.names["task"]

    @property
    def heuristic_name(self) -> str:
        """Of the shaping in use."""
        return self._env.names["heuristic"]

    @property
    def task_env(self) -> TaskEnv:
        """What this is around: the project's own step loop, with tensors throughout."""
        return self._env

    # -- pieces ------------------------------------------------------------------------------------------------
    def _check_open(self, call: str) -> None:
        if self.closed:
            raise UserError("%s() of a closed environment: make a new one with hepo_isaac.make" % call)

    def _options(self, options: Optional[Dict[str, Any]]) -> bool:
        for name in options or {}:
            if name not in OPTIONS:
                raise UserError("reset has no option %r; it has: %s" % (name, ", ".join(OPTIONS)))
        return bool((options or {}).get("random_start", self._random_start))

    def _actions(self, actions: Any) -> Tensor:
        expected = "(%d, %d)" % self.action_space.shape
        if isinstance(actions, (list, tuple)):
            actions = np.asarray(actions)
        if not isinstance(actions, (np.ndarray, Tensor)):
            raise UserError("actions are a %s; expected an array or tensor %s" % (type(actions).__name__, expected))
        floats = actions.dtype.is_floating_point if isinstance(actions, Tensor) else actions.dtype.kind == "f"
        if not floats:
            raise UserError("actions are %s; expected floating-point numbers in [-1, 1]" % actions.dtype)
        if tuple(actions.shape) != self.action_space.shape:
            raise UserError("actions have shape %s; expected %s" % (tuple(actions.shape), expected))
        on_host = isinstance(actions, np.ndarray) or actions.device.type == "cpu"
        found = torch.as_tensor(actions).detach().clone()  # the copy of an inference tensor is an ordinary one
        if on_host and not bool(torch.isfinite(found).all()):
            env = int((~torch.isfinite(found)).any(1).nonzero()[0])
            raise UserError("actions of env %d are NaN or infinite; expected finite numbers in [-1, 1]" % env)
        return found.to(self.device, torch.float32)

    def _check_faults(self, result: StepResult) -> None:
        if bool(result.faults.any()):
            counts = result.faults.sum(0).tolist()
            first = next(index for index, count in enumerate(counts) if count)
            raise UserError(sentence(FAULTS[first], int(counts[first]), self._env.names))

    def _out(self, values: Tensor) -> Any:
        """As the user asked for, and no view of anything the engine writes to."""
        if self.output == "torch":
            return values.clone()
        found = values.cpu().numpy()
        return found.copy() if values.device.type == "cpu" else found

    def _obs(self, values: Tensor) -> Any:
        return self._out(values[:, : self.single_observation_space.shape[0]])

    def _state_of(self, values: Tensor) -> Dict[str, Any]:
        return {"state": values[:, -self.num_states :]} if self.num_states else {}

    def _with_masks(self, facts: Dict[str, Any]) -> Dict[str, Any]:
        """Facts of all envs as the user gets them."""
        found = converted(facts, self._out)
        return masked(found, np.ones(self.num_envs, dtype=bool)) if self.output == "numpy" else found

    def _infos(self, result: StepResult) -> Dict[str, Any]:
        facts = step_facts(result)
        final = {**facts, **self._episodes.add(result), **self._state_of(result.final_obs)}
        facts.update(self._state_of(result.obs))
        if self.device.type != "cpu":
            facts["faults"] = result.faults
        infos = self._with_masks(facts)
        if self.output == "torch":
            # no look at what ended: on a GPU it would wait for the step
            infos["final_obs"], infos["_final_obs"] = self._obs(result.final_obs), result.done.clone()
            infos["final_info"], infos["_final_info"] = converted(final, self._out), result.done.clone()
            return infos
        done = self._out(result.done)
        if done.any():
            infos["final_obs"] = rows_as_objects(self._obs(result.final_obs), done)
            infos["_final_obs"], infos["_final_info"] = done, done.copy()
            infos["final_info"] = masked(converted(final, self._out), done)
        return infos


def _box(bound: float, *shape: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-bound, bound, shape, np.float32)
