"""One control step on MuJoCo Warp against the same step on MuJoCo C, and what rounding alone does to the latter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.task import StepResult
from hepo_isaac.envs.task_env import TaskEnv

NUDGE = 2.0**-24  # float32's rounding of a number of order one
# A step is called chaotic where MuJoCo C itself, from a state rounded differently, departs by more than this.
CHAOTIC = 1e-5


@dataclass
class Departures:
    """How far Warp (``off``) and nudged MuJoCo C (``chaos``) are off MuJoCo C, both (steps, N), of 1 + |value|."""

    off: Tensor
    chaos: Tensor

    @property
    def calm(self) -> Tensor:
        """(steps, N) where a comparison means something."""
        return self.chaos <= CHAOTIC

    def share(self, bound: float) -> float:
        """Share of the calm steps that agree within ``bound``."""
        return (self.off[self.calm] <= bound).float().mean().item()

    def worst(self) -> float:
        """Largest departure of a calm step."""
        return self.off[self.calm].max().item()


class Trio:
    """The same task on Warp, on MuJoCo C, and on MuJoCo C from states nudged by float32's rounding.

    Args:
        warp, reference, nudged: environments of one task and number, those on MuJoCo C with the same seed.
    """

    def __init__(self, warp: TaskEnv, reference: TaskEnv, nudged: TaskEnv) -> None:
        self.warp, self.reference, self.nudged = warp, reference, nudged
        # A GPU draws other random numbers, so there only what comes before a reset is compared.
        self._same_draws = warp.device.type == "cpu"
        if self._same_draws:
            # On a GPU nobody may ask whether any world is done; here all three ask, and so draw the same numbers.
            sim: Any = warp.sim
            sim.may_select = warp.task.streams.may_select = reference.sim.may_select
        self._generator = torch.Generator().manual_seed(0)
        for env in (warp, reference, nudged):
            env.reset(random_start=False)

    def align(self) -> None:
        """Put everything that MuJoCo C's environments are now into the other two, and forget all warm starts."""
        sim = self.reference.sim
        state = [x.clone() for x in (sim.dof_pos, sim.dof_vel, sim.root_state, sim.dof_target_pos)]
        nudged = [x + NUDGE * x.abs().clamp(min=1.0) * self._signs(x) for x in state[:3]]
        for env, values in ((self.warp, state), (self.reference, state), (self.nudged, nudged + state[3:])):
            everyone = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
            env.sim.set_state(everyone, *(x.to(env.device) for x in values))
            if env is not self.reference:
                env.task.load_state(_copy(self.reference.task.get_state(), env.device))
                env.progress.copy_(self.reference.progress)
                if self._same_draws:
                    env.task.streams.set_state(self.reference.task.streams.get_state())

    def _signs(self, like: Tensor) -> Tensor:
        return 2.0 * torch.randint(2, like.shape, generator=self._generator) - 1.0

    def step(self, move: Tensor) -> Tuple[Tensor, Tensor]:
        """(N,) how far Warp, and how far the nudged MuJoCo C, are off MuJoCo C after this step."""
        warp, reference, nudged = (self._seen(env, env.step(move.to(env.device))) for env in self._all())
        return distance(warp, reference), distance(nudged, reference)

    def _all(self) -> Tuple[TaskEnv, TaskEnv, TaskEnv]:
        return self.warp, self.reference, self.nudged

    def _seen(self, env: TaskEnv, result: StepResult) -> List[Tensor]:
        """What of a step is compared, each (N, ...), on the host."""
        compared = [result.final_obs, result.rewards, result.terms, result.done.float()]
        after = [result.obs, env.sim.root_state[..., :7], env.sim.dof_pos]
        if not self._same_draws:
            kept = ~result.done
            after = [x * kept.reshape(-1, *[1] * (x.dim() - 1)) for x in after]
        return [x.to("cpu", copy=True) for x in (*compared, *after)]

    def sound(self) -> bool:
        """No world diverged and no buffer overflowed on Warp."""
        return int(self.warp.bad_count) == 0 and int(self.warp.sim.overflow_count) == 0


def distance(mine: List[Tensor], its: List[Tensor]) -> Tensor:
    """(N,) largest difference relative to 1 + |value|."""
    off = [((a - b).abs() / (1.0 + b.abs())).reshape(len(a), -1).amax(1) for a, b in zip(mine, its) if a.numel()]
    return torch.stack(off).amax(0)


def _copy(state: Dict[str, Any], device: torch.device) -> Dict[str, Any]:
    return {name: x.to(device, copy=True) if isinstance(x, Tensor) else x for name, x in state.items()}


def single_steps(trio: Trio, moves: Tensor, steps: int) -> Departures:
    """Single control steps from MuJoCo C's states, under ``moves`` (T, N, K): the first ``steps`` and the last ones.

    Those between them only lead on.
    """
    trio.reference.reset(random_start=False)
    rows = []
    for k, move in enumerate(moves):
        if steps <= k < len(moves) - steps:
            trio.reference.step(move)
        else:
            trio.align()
            rows.append(trio.step(move))
    return Departures(*(torch.stack(x) for x in zip(*rows)))
