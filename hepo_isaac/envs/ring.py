"""The last states of every world, so that how one of them went bad can be looked at afterwards."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

import torch
from torch import Tensor

from hepo_isaac.sim.base import Simulation

FIELDS = ("dof_pos", "dof_vel", "root_state")  # what Simulation.set_state takes


class StateRing:
    """Poses, velocities and actions of the last ``length`` control steps, kept on the device and read when asked for.

    Args:
        length: at least the steps between two looks, or what went bad early is overwritten.
        actions: (N, K) of any step, for their shape.
    """

    def __init__(self, sim: Simulation, length: int, actions: Tensor) -> None:
        self._sim, self._length, self._steps = sim, length, 0
        like: Dict[str, Tensor] = {name: getattr(sim, name) for name in FIELDS}
        like["action"] = actions
        self._rows = {name: torch.zeros(length, *x.shape, dtype=x.dtype, device=x.device) for name, x in like.items()}
        self._bad_at = torch.full((sim.num_envs,), -1, dtype=torch.int64, device=sim.device)

    def before_step(self, actions: Tensor) -> None:
        """Keep the state that ``actions`` (N, K) will be taken in."""
        at = self._steps % self._length
        for name in FIELDS:
            self._rows[name][at].copy_(getattr(self._sim, name))
        self._rows["action"][at].copy_(actions)
        self._steps += 1

    def note(self, bad: Tensor) -> None:
        """(N,) worlds that diverged in the step just taken; the first time since the last look counts."""
        first = bad & (self._bad_at < 0)
        self._bad_at = torch.where(first, torch.full_like(self._bad_at, self._steps - 1), self._bad_at)

    def take(self, most: int) -> List[Dict[str, Any]]:
        """Up to ``most`` worlds that went bad since the last call: env, and (T, …) of each field on the CPU, the last
        row the state in which the fatal action was taken. Reads the device."""
        when = self._bad_at.cpu()  # host read: asked for between iterations, and only where a world went bad
        found = []
        for env in when.ge(0).nonzero().flatten().tolist()[:most]:  # host read: of a tensor that is on the host
            last = int(when[env])
            steps = range(max(0, last + 1 - self._length, self._steps - self._length), last + 1)
            if not steps:  # nobody looked for so long that its states are overwritten
                continue
            at = torch.tensor([step % self._length for step in steps], dtype=torch.int64)
            rows = {k: x[at.to(x.device), env].cpu() for k, x in self._rows.items()}  # host read: they go to a file
            found.append({"env": env, **rows})
        self._bad_at.fill_(-1)
        return found


def restore(sim: Simulation, states: Mapping[str, Tensor], row: int) -> None:
    """Put row ``row`` of what ``take`` returned into every world of ``sim``."""
    everyone = torch.ones(sim.num_envs, dtype=torch.bool, device=sim.device)
    given = {name: states[name][row].to(sim.device).expand_as(getattr(sim, name)).clone() for name in FIELDS}
    sim.set_state(everyone, **given)
