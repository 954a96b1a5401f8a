"""The task contract: what one file in ``tasks/`` provides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.heuristic import Heuristic, HeuristicFunction, find_heuristic
from hepo_isaac.envs.interface import ActionGroup, ObsSlice
from hepo_isaac.envs.streams import Streams
from hepo_isaac.errors import UserError
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import SceneSpec


def for_engine(values: Mapping[str, Any], engine: str) -> Any:
    """What a task's file says for ``engine``: the entry whose key its name begins with, as mujoco for mujoco_batch.

    Raises:
        UserError: there is none.
    """
    for key, value in values.items():
        if engine.startswith(key):
            return value
    raise UserError("the task's file has no settings for sim=%s, only for: %s" % (engine, ", ".join(values)))


@dataclass
class Rewards:
    """Rewards of one control step.

    task: (N,) r, what is wanted.  heuristic: (N,) h, the hand-written shaping.
    terms: name -> (N,) pieces of h (and anything worth plotting), logged as episode sums.
    """

    task: Tensor
    heuristic: Tensor
    terms: Dict[str, Tensor] = field(default_factory=dict)


class Task(ABC):
    """Reads a Simulation and defines observations, actions, rewards and resets; never owns the step loop.

    Class attributes:
        name: as in ``task=<name>``.  num_obs, num_actions: sizes O and K; an instance may have another num_obs where
            its configuration chooses among observations.
        heuristics: name -> shaping, what ``heuristic=<name>`` chooses among; the first is the default.
    Instance attributes:
        sim: the engine.  streams: source of all randomness, drawn with the mask it is used for.
        heuristic: the shaping of this run, called with ``state()``; returns (h (N,), its terms by name).
        heuristic_name: its name.  max_episode_length: control steps until the time limit.
        num_states: size S of what only critics see (asymmetric observations), 0 if there is none.
    """

    name: ClassVar[str]
    num_obs: int
    num_actions: int
    heuristics: ClassVar[Mapping[str, Heuristic]]
    num_states: int = 0

    @classmethod
    @abstractmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        """Describe the scene from the task's configuration; ``engine`` picks that engine's drive gains."""

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        """Bind to a built simulation.

        Args:
            cfg: the ``task`` group of the configuration; ``episode_length`` and ``heuristic`` are read here.

        Raises:
            UserError: there is no such heuristic.
        """
        self.sim, self.streams = sim, streams
        self.max_episode_length = int(cfg["episode_length"])
        self.heuristic: HeuristicFunction = self.find_heuristic(str(cfg["heuristic"]))
        self.heuristic_name = self.heuristic.name

    @classmethod
    def find_heuristic(cls, name: str) -> HeuristicFunction:
        """One of ``heuristics`` by name, or a user's ``package.module:function``; UserError if there is none."""
        return find_heuristic(name, cls.heuristics, cls.name)

    @abstractmethod
    def apply(self, actions: Tensor) -> None:
        """Turn actions (N, K) in [-1, 1] into drive commands."""

    @abstractmethod
    def observe(self) -> Tensor:
        """Observations (N, O) of the current state."""

    def obs_layout(self) -> List[ObsSlice]:
        """What the O columns of ``observe`` are, for who feeds an exported policy; by default nothing is known."""
        return [ObsSlice("observation", self.num_obs, "", meaning="the task does not declare its observation")]

    def action_layout(self) -> List[ActionGroup]:
        """What the K columns of ``apply`` become, for who carries out an exported policy's actions."""
        names = tuple("action_%d" % k for k in range(self.num_actions))
        return [ActionGroup(names, "", "", 1.0, meaning="the task does not declare its actions")]

    def critic_state(self) -> Tensor:
        """(N, S) what only critics see of the current state; asked for where num_states is not 0."""
        raise NotImplementedError("%s has no states for critics" % type(self).__name__)

    @abstractmethod
    def state(self) -> Any:
        """Dataclass of (N, .) tensors that heuristics and potentials are functions of, of the current instant."""

    def rewards(self) -> Rewards:
        """Rewards of the step just simulated: ``task_reward`` and the heuristic of ``state()``."""
        state = self.state()
        task = self.task_reward(state)  # first: what a heuristic is and does must not matter to r
        heuristic, terms = self.heuristic(state)
        return Rewards(task, heuristic, terms)

    def task_reward(self, state: Any) -> Tensor:
        """(N,) r of the step that ended in ``state``; every task defines it, or ``rewards``."""
        raise NotImplementedError("%s defines neither task_reward nor rewards" % type(self).__name__)

    def terminated(self) -> Tensor:
        """(N,) bool: the episode is over for good (no value is bootstrapped). Default: never."""
        return torch.zeros(self.sim.num_envs, dtype=torch.bool, device=self.sim.device)

    @abstractmethod
    def reset(self, mask: Tensor) -> None:
        """Start a new episode in the envs of ``mask`` (N,) bool; nothing else may change."""

    def metrics(self) -> Dict[str, Tensor]:
        """name -> (N,) numbers whose value at the end of an episode is worth reporting (e.g. success)."""
        return {}

    def marker_poses(self) -> Dict[str, Tensor]:
        """name -> (N, 7) position m and quaternion xyzw of each of the scene's markers; asked for by films alone."""
        return {}

    def get_state(self) -> Dict[str, Any]:
        """State the task itself carries across steps, for exact resume: tensors with a row per env (N, …), scalars and
        numbers; a tensor that all envs have in common stands under the key "shared" (envs/rows.py)."""
        return {}

    def load_state(self, state: Dict[str, Any]) -> None:
        """Restore what get_state returned."""


@dataclass(frozen=True)
class StepResult:
    """What TaskEnv.step returns for N envs.

    obs: (N, O + S) the observation to act on next, and behind it what only critics see; after an episode end it is the
        first of the new episode.
    rewards: (N, 2) the pair [r, h], rl-games' ``value_size=2`` layout.
    terminated, time_out, done: (N,) bool. time_out and terminated exclude each other.
    final_obs: (N, O + S) the observation the step really ended in; differs from obs only where ``done``.
    terms: (N, len(term_names)) reward terms of this step.  metrics: (N, len(metric_names)).
    counted: (N,) bool, False while an env is in a first episode that a random start phase cut short.
    bad: (N,) bool, worlds that diverged in this step (they are in ``terminated`` too).
    faults: (N, len(FAULTS)) bool, what in a sound world was NaN, infinite or absurd in this step (faults.py) and has
        been replaced by 0.
    potential, final_potential: (N,) Phi of the states of ``obs`` and ``final_obs``, or None where none is asked for.
    """

    obs: Tensor
    rewards: Tensor
    terminated: Tensor
    time_out: Tensor
    done: Tensor
    final_obs: Tensor
    terms: Tensor
    metrics: Tensor
    term_names: Tuple[str, ...]
    metric_names: Tuple[str, ...]
    counted: Tensor
    bad: Tensor
    faults: Tensor
    potential: Optional[Tensor] = None
    final_potential: Optional[Tensor] = None
