"""Shared pieces of the analytic suite's tests: building a task, rolling policies out, and scripted optimal policies."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Sequence, Tuple

import torch
from torch import Tensor

from hepo_isaac.config import plain
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.locate import task_class, task_names
from hepo_isaac.overrides import compose
from hepo_isaac.sim.registry import make_simulation
from tasks.suite.push2d_heuristics import CLOSED, RADIUS

CPU = torch.device("cpu")


def config(name: str, **settings: Any) -> Dict[str, Any]:
    """The task's shipped settings with some changed; heuristic "default" is the task's first."""
    cfg = plain(compose(["task=" + name]))["task"]
    cfg.update(settings)
    if cfg["heuristic"] == "default":
        cfg["heuristic"] = next(iter(task_class(name).heuristics))
    return cfg


SUITE = [name for name in task_names() if config(name).get("engines") == ["analytic"]]


def make(name: str, num_envs: int, seeds: Sequence[int] = (0,), random_start: bool = False, **settings: Any) -> TaskEnv:
    cls, cfg = task_class(name), config(name, **settings)
    sim = make_simulation("analytic", cls.scene(cfg, "analytic"), num_envs, CPU)
    streams = Streams([torch.Generator().manual_seed(s) for s in seeds], num_envs, CPU, sim.may_select)
    return TaskEnv(cls(cfg, sim, streams), random_start)


def returns(env: TaskEnv, policy: Callable[[Any], Tensor]) -> Tuple[Tensor, Tensor]:
    """(N,) sums of r and of h over one episode per env; observations are checked to stay within +-5."""
    env.reset()
    total, alive = torch.zeros(env.num_envs, 2), torch.ones(env.num_envs, 1)
    for _ in range(env.max_episode_length):
        assert env.task.observe().abs().max() <= 5.0
        result = env.step(policy(env.task.state()))
        total += alive * result.rewards
        alive *= 1.0 - result.done.unsqueeze(1).float()
    assert not alive.any()
    return total[:, 0], total[:, 1]


def score(name: str, task_return: float) -> float:
    """(J - J_random) / (J_optimal - J_random)."""
    scores = config(name)["scores"]
    return (task_return - scores["random"]) / (scores["optimal"] - scores["random"])


# -- scripted policies: state -> actions; TaskEnv clamps them to +-1 -----------------------------------------------
def _to(pos: Tensor, target: Sequence[float], speed: float) -> Tensor:
    return (torch.tensor(target) - pos) / speed


def open_drawer(s: Any) -> Tensor:
    """Reach with closing fingers, pull, hold still."""
    grasped = (s.offset.norm(dim=1) < RADIUS) & (s.gap < CLOSED)
    still = torch.zeros_like(s.offset)
    pull = torch.where((s.opening < 0.36).unsqueeze(1), torch.tensor([-1.0, 0.0]), still)
    xy = torch.where(grasped.unsqueeze(1), pull, -s.offset / 0.1)
    return torch.cat((xy, -torch.ones(len(xy), 1)), 1)


def flee(s: Any) -> Tensor:
    """To the far corner with open fingers."""
    return torch.stack((-torch.ones_like(s.gap), torch.sign(s.pos[:, 1]), torch.ones_like(s.gap)), 1)


def hover(s: Any) -> Tensor:
    """Onto the handle with closed fingers, no pull."""
    return torch.cat((-s.offset / 0.1, -torch.ones(len(s.offset), 1)), 1)


def around_the_cup(s: Any) -> Tensor:
    """Left out of the cup while rising to its arm, over it, right, and down behind the bottom."""
    x, y, side, v = s.pos[:, 0], s.pos[:, 1].abs(), torch.sign(s.pos[:, 1]), 0.15
    left = ((-0.3001 - x) / v).clamp(-1.0, 1.0)
    free = x + v * left < -0.3
    rise = (torch.where(free, 0.5001, 0.4999) - y) / v
    over = torch.where(x + v > 0.3, torch.full_like(x, -1.0), torch.zeros_like(x))
    below = (y <= 0.5) & (x <= 0.3)
    a_x = torch.where(below, left, torch.where(x <= 0.3, torch.ones_like(x), (0.7 - x) / v))
    a_y = torch.where(below, rise, torch.where(x <= 0.3, over, -y / v))
    return torch.stack((a_x, side * a_y), 1)


def brake_at_origin(s: Any) -> Tensor:
    """The speed from which 0.03 per step^2 can still brake, halved near the origin."""
    wanted = -torch.sign(s.pos) * torch.minimum((0.06 * s.pos.abs() + 0.015**2).sqrt() - 0.015, s.pos.abs())
    return (wanted - s.vel) / 0.03


def balance_and_run(s: Any) -> Tensor:
    v = (s.speed + 0.05).clamp_max(1.0)
    return torch.stack((torch.ones_like(v), -s.lean * (1.0 + 0.2 * v) / 0.1), 1)


def constant(action: float) -> Callable[[Any], Tensor]:
    return lambda s: torch.full((len(next(iter(vars(s).values()))), 1), action)


class CarPlan:
    """Right, left, right again: open loop from rest, with switching times tried out on the car's equations.

    Without a clock in the state it counts its own calls; a car at rest between its stretches is at a start.
    """

    def __init__(self) -> None:
        self.table: Dict[int, Tuple[int, int]] = {}

    def __call__(self, s: Any) -> Tensor:
        if bool(((s.v == 0.0) & (s.x > -0.61) & (s.x < -0.39)).all()):
            self.time, cells = 0, ((s.x + 0.6) * 100.0).round().long().tolist()
            for cell in set(cells) - set(self.table):
                self.table[cell] = self.plan(cell / 100.0 - 0.6)
            self.first, self.second = torch.tensor([self.table[c] for c in cells]).unbind(1)
        left = (self.time >= self.first) & (self.time < self.second)
        self.time += 1
        return torch.where(left, -1.0, 1.0).unsqueeze(1)

    @staticmethod
    def plan(start: float) -> Tuple[int, int]:
        """Switching times (first, second) with the fewest steps to x = 0.5."""
        best = (1000, 0, 0)
        for first in range(30):
            for length in range(30):
                x, v, steps = start, 0.0, 0
                while x < 0.5 and steps < best[0]:
                    a = -1.0 if first <= steps < first + length else 1.0
                    v = max(-0.14, min(0.14, v + 0.006 * a - 0.01 * math.cos(3.0 * x)))
                    x, steps = max(-1.2, x + v), steps + 1
                    v = 0.0 if x == -1.2 else v
                best = min(best, (steps if x >= 0.5 else 1000, first, first + length))
        return best[1], best[2]


OPTIMAL: Dict[str, Callable[[Any], Tensor]] = {
    "Push2D": open_drawer,
    "Honeypot": constant(1.0),
    "Maze2D": around_the_cup,
    "TwoArm": constant(1.0),
    "QuadraticPoint": constant(0.25),
    "TwoPeaks": lambda s: (0.8 - s.x).unsqueeze(1) / 0.08,
    "KeyDoor": lambda s: torch.where(
        s.has.unsqueeze(1) > 0.5, _to(s.pos, (0.7, -0.7), 0.1), _to(s.pos, (-0.62, 0.62), 0.1)
    ),
    "Survival": balance_and_run,
    "RingRace": constant(1.0),
    "EffortReach": lambda s: (s.goal - s.pos) / 0.1 + 0.8 * s.pos,
    "MountainCar": CarPlan(),
    "Park2D": brake_at_origin,
}
