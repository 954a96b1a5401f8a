"""One control step on MuJoCo Warp against the same step on MuJoCo C, and what rounding alone does to the latter.

``python -m tests.tasks.warp_parity [Task ...]`` prints the table of docs/parity/warp.md. Warp runs on the CPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from hepo_isaac.envs.task import StepResult
from hepo_isaac.envs.task_env import TaskEnv
from tests.tasks.robots import actions, make, robot_tasks

NUDGE = 2.0**-24  # float32's rounding of a number of order one
# A step is called chaotic where MuJoCo C itself, from a state rounded differently, departs by more than this.
CHAOTIC = 1e-5
ENVS, STEPS, LATER, RESET_AT = 16, 10, 30, 3


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

    ``warp`` are overrides of the Warp side alone; ``refine`` is ``sim.refine``.
    """

    def __init__(self, task: str, num_envs: int = ENVS, refine: bool = False, warp: Tuple[str, ...] = ()) -> None:
        self.warp = make(task, num_envs, "sim.refine=%s" % str(refine).lower(), *warp, engine="mujoco_warp")
        self.reference, self.nudged = make(task, num_envs), make(task, num_envs)
        sim: Any = self.warp.sim
        # On a GPU nobody may ask whether any world is done; here all three ask, and so draw the same random numbers.
        sim.may_select = self.warp._streams._may_select = self.reference.sim.may_select
        self._generator = torch.Generator().manual_seed(0)
        for env in (self.warp, self.reference, self.nudged):
            env.reset()

    def align(self) -> None:
        """Put everything that MuJoCo C's environments are now into the other two, and forget all warm starts."""
        sim = self.reference.sim
        state = [x.clone() for x in (sim.dof_pos, sim.dof_vel, sim.root_state, sim.dof_target_pos)]
        nudged = [x + NUDGE * x.abs().clamp(min=1.0) * self._signs(x) for x in state[:3]]
        for env, values in ((self.warp, state), (self.reference, state), (self.nudged, nudged + state[3:])):
            env.sim.set_state(torch.ones(env.num_envs, dtype=torch.bool), *values)
            if env is not self.reference:
                env.task.load_state(_copy(self.reference.task.get_state()))
                env.progress.copy_(self.reference.progress)
                env._streams.set_state(self.reference._streams.get_state())

    def _signs(self, like: Tensor) -> Tensor:
        return 2.0 * torch.randint(2, like.shape, generator=self._generator) - 1.0

    def step(self, move: Tensor) -> Tuple[Tensor, Tensor]:
        """(N,) how far Warp, and how far the nudged MuJoCo C, are off MuJoCo C after this step."""
        warp, reference, nudged = (seen(env, env.step(move)) for env in (self.warp, self.reference, self.nudged))
        return distance(warp, reference), distance(nudged, reference)

    def sound(self) -> bool:
        """No world diverged and no buffer overflowed on Warp."""
        return int(self.warp.bad_count) == 0 and int(self.warp.sim.overflow_count) == 0


def seen(env: TaskEnv, result: StepResult) -> List[Tensor]:
    """What of a step is compared, each (N, ...)."""
    served = (result.obs, result.final_obs, result.rewards, result.terms, env.sim.root_state[..., :7], env.sim.dof_pos)
    return [x.clone() for x in (*served, result.done.float())]


def distance(mine: List[Tensor], its: List[Tensor]) -> Tensor:
    """(N,) largest difference relative to 1 + |value|."""
    off = [((a - b).abs() / (1.0 + b.abs())).reshape(len(a), -1).amax(1) for a, b in zip(mine, its) if a.numel()]
    return torch.stack(off).amax(0)


def _copy(state: Dict[str, Any]) -> Dict[str, Any]:
    return {name: x.clone() if isinstance(x, Tensor) else x for name, x in state.items()}


def single_steps(trio: Trio, steps: int = STEPS, later: int = LATER, seed: int = 1) -> Departures:
    """Single control steps from MuJoCo C's states: the first ``steps`` of an episode, and as many ``later`` on."""
    trio.reference.reset()
    rows = []
    for k, move in enumerate(actions(trio.reference, seed, 2 * steps + later)):
        if steps <= k < steps + later:
            trio.reference.step(move)
        else:
            trio.align()
            rows.append(trio.step(move))
    return Departures(*(torch.stack(x) for x in zip(*rows)))


def free_run(trio: Trio, steps: int = STEPS, seed: int = 1) -> Departures:
    """Runs from the same states without realignment; half of the worlds start a new episode at step RESET_AT.

    Chaos accumulates: from its first chaotic step to the end of an episode a world counts as chaotic.
    """
    reference = trio.reference
    reference.reset()
    reference.progress[::2] = reference.max_episode_length - RESET_AT
    trio.align()
    rows, so_far = [], torch.zeros(reference.num_envs)
    for move in actions(reference, seed, steps):
        off, chaos = trio.step(move)
        so_far = torch.maximum(so_far, chaos)
        rows.append((off, so_far.clone()))
    return Departures(*(torch.stack(x) for x in zip(*rows)))


def buffers(task: str, num_envs: int = 64, steps: int = 200) -> Tuple[int, int, int, int]:
    """Most contacts and constraint rows of a world seen at the end of a control step of random actions on MuJoCo C,
    and Warp's buffers for them."""
    env = make(task, num_envs)
    env.reset()
    engine: Any = env.sim
    sizes: Any = make(task, 1, engine="mujoco_warp").sim
    bind = engine.batch.bind
    most = [0, 0]
    for move in actions(env, 2, steps):
        env.step(move)
        most = [max(a, int(bind(name)[:].max())) for a, name in zip(most, ("ncon", "nefc"))]
    return most[0], most[1], int(sizes.wp_data.naconmax), int(sizes.wp_data.njmax)


def agreeing(run: Departures, bound: float) -> int:
    """Number of first steps in which all worlds agree within ``bound``."""
    return int((run.off <= bound).all(1).to(torch.int64).cumprod(0).sum())


def main() -> None:
    """Print one row per task named on the command line, or per robot task."""
    print("| task | calm | one step | of these ≤ 1e-4 | one step, refined | ten steps | refined | contacts | rows |")
    print("|---|---|---|---|---|---|---|---|---|")
    for task in sys.argv[1:] or robot_tasks():
        trio, other = Trio(task), Trio(task, refine=True)
        shipped, refined, runs = single_steps(trio), single_steps(other), (free_run(trio), free_run(other))
        ncon, nefc, nconmax, njmax = buffers(task)
        cells = (
            task,
            "%.3f" % refined.calm.float().mean().item(),
            "%.0e" % shipped.worst(),
            "%.3f" % shipped.share(1e-4),
            "%.0e" % refined.worst(),
            *("%d, %.0e" % (agreeing(run, 1e-4), run.worst()) for run in runs),
            "%d of %d" % (ncon, nconmax),
            "%d of %d" % (nefc, njmax),
        )
        print("| %s |%s" % (" | ".join(cells), "" if trio.sound() and other.sound() else " UNSOUND"), flush=True)


if __name__ == "__main__":
    main()
