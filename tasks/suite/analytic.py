"""Base of the analytic suite: tasks of a few equations without physics, whose optimum is known (docs/suite.md).

A task is five functions of a small dataclass of (N, .) tensors. ``apply`` integrates them, since ``sim.step`` of
sim=analytic does nothing. All dynamics and rewards are stationary: the time limit is bootstrapped by the agent, so a
state without a clock is Markov for it. Lengths and times have no unit; one step is one unit of time.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import fields
from typing import Any, Callable, ClassVar, Dict, Mapping

import torch
from torch import Tensor

from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Task
from hepo_isaac.sim.base import Simulation
from hepo_isaac.sim.spec import SceneSpec

Heuristic = Callable[[Any], Dict[str, Tensor]]


class AnalyticTask(Task):
    """Boilerplate of a task of the suite.

    Class attributes:
        num_uniforms: uniform numbers that one start state is made of.
    """

    num_uniforms: ClassVar[int] = 0

    @classmethod
    def scene(cls, cfg: Mapping[str, Any], engine: str) -> SceneSpec:
        return SceneSpec(actors=(), control_dt=1.0, substeps=1)

    def __init__(self, cfg: Mapping[str, Any], sim: Simulation, streams: Streams) -> None:
        super().__init__(cfg, sim, streams)
        self.configure(cfg)
        self._state = self.start(torch.zeros(sim.num_envs, self.num_uniforms, device=sim.device))

    # -- what a task of the suite defines ----------------------------------------------------------------------
    def configure(self, cfg: Mapping[str, Any]) -> None:  # noqa: B027
        """Read the task's own settings."""

    @abstractmethod
    def start(self, uniform: Tensor) -> Any:
        """Start state from uniform (N, num_uniforms) on [0, 1)."""

    @abstractmethod
    def advance(self, state: Any, actions: Tensor) -> Any:
        """State after one step with actions (N, K) in [-1, 1]; a pure function."""

    @abstractmethod
    def observation(self, state: Any) -> Tensor:
        """(N, O) within +-5, Markov."""

    @abstractmethod
    def success(self, state: Any) -> Tensor:
        """(N,) bool, reported at the end of an episode."""

    def over(self, state: Any) -> Tensor:
        """(N,) bool, terminated. Default: never."""
        return torch.zeros(self.sim.num_envs, dtype=torch.bool, device=self.sim.device)

    @classmethod
    @abstractmethod
    def optimal_return(cls, cfg: Mapping[str, Any]) -> float:
        """The greatest expected undiscounted sum of r over an episode from a random start."""

    # -- the Task contract -------------------------------------------------------------------------------------
    def apply(self, actions: Tensor) -> None:
        self._state = self.advance(self._state, actions)

    def state(self) -> Any:
        return self._state

    def observe(self) -> Tensor:
        return self.observation(self._state)

    def terminated(self) -> Tensor:
        return self.over(self._state)

    def metrics(self) -> Dict[str, Tensor]:
        return {"success": self.success(self._state)}

    def reset(self, mask: Tensor) -> None:
        fresh = self.start(self.streams.rand(self.num_uniforms, mask=mask))
        chosen = {}
        for f in fields(fresh):
            new, old = getattr(fresh, f.name), getattr(self._state, f.name)
            chosen[f.name] = torch.where(mask.view(-1, *[1] * (new.dim() - 1)), new, old)
        self._state = type(fresh)(**chosen)

    def get_state(self) -> Dict[str, Any]:
        return {f.name: getattr(self._state, f.name).clone() for f in fields(self._state)}

    def load_state(self, state: Dict[str, Any]) -> None:
        device = self.sim.device
        self._state = type(self._state)(**{name: value.to(device).clone() for name, value in state.items()})


def indicator(condition: Tensor) -> Tensor:
    """1[condition] as float32."""
    return condition.to(torch.float32)


def spread(uniform: Tensor, low: float, high: float) -> Tensor:
    """Uniform numbers on [0, 1) moved to [low, high)."""
    return low + (high - low) * uniform


def reach_steps(offset: Tensor, speed: float, radius: float) -> Tensor:
    """Fewest steps to come within ``radius`` of a point, moving each axis at most ``speed`` per step.

    After n steps the reachable set is a box of half-width n speed, so n is the first for which the box's nearest
    corner is inside: |max(|offset| - n speed, 0)| < radius.

    Args:
        offset: (M, 2) from the point.

    Returns:
        (M,) float32.
    """
    longest = int(offset.abs().max().item() / speed) + 1  # host read: an optimum is computed once, never in a step
    n = speed * torch.arange(longest + 1).view(-1, 1, 1)
    outside = (offset.abs() - n).clamp_min(0.0).norm(dim=-1) >= radius
    return outside.sum(0).to(torch.float32)


def midpoints(*counts: int) -> Tensor:
    """(prod(counts), len(counts)) midpoints of a regular grid on the unit cube, to average over start states."""
    axes = [(torch.arange(c) + 0.5) / c for c in counts]
    return torch.cartesian_prod(*axes).view(-1, len(counts))
