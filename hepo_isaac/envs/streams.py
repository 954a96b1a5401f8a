"""Random numbers for environments: one stream per run, so that runs trained side by side cannot touch each other."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence

import torch
from torch import Tensor

Draw = Callable[[torch.Generator, Sequence[int]], Tensor]


class Streams:
    """Draws for N envs, of which each run owns a contiguous block of N / S and a generator of its own.

    What one run draws depends on nothing another run does: with ``mask``, a block none of whose envs is selected
    draws nothing on an engine that can tell (``may_select``), and every block draws on one that cannot.

    Args:
        generators: one per run, on ``device``.  num_envs: N, a multiple of the number of runs.
        may_select: the simulation's; says whether a mask may be true anywhere.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        num_envs: int,
        device: torch.device,
        may_select: Callable[[Tensor], bool] = lambda mask: True,
    ) -> None:
        if num_envs % len(generators):
            raise ValueError("num_envs=%d cannot be split among %d runs" % (num_envs, len(generators)))
        self.generators, self.num_envs, self.device = list(generators), num_envs, device
        self._block, self.may_select = num_envs // len(generators), may_select

    def rand(self, *shape: int, mask: Optional[Tensor] = None) -> Tensor:
        """(N, *shape) uniform on [0, 1); rows of unselected blocks are 0."""
        return self._draw(lambda g, size: torch.rand(size, generator=g, device=self.device), shape, mask)

    def randn(self, *shape: int, mask: Optional[Tensor] = None) -> Tensor:
        """(N, *shape) standard normal; rows of unselected blocks are 0."""
        return self._draw(lambda g, size: torch.randn(size, generator=g, device=self.device), shape, mask)

    def randint(self, high: int, *shape: int, mask: Optional[Tensor] = None) -> Tensor:
        """(N, *shape) int64 uniform on 0 … high - 1; rows of unselected blocks are 0."""
        return self._draw(lambda g, size: torch.randint(high, size, generator=g, device=self.device), shape, mask)

    def _draw(self, draw: Draw, shape: Sequence[int], mask: Optional[Tensor]) -> Tensor:
        size = (self._block, *shape)
        blocks: List[Tensor] = []
        for run, generator in enumerate(self.generators):
            mine = None if mask is None else mask[run * self._block : (run + 1) * self._block]
            if mine is None or self.may_select(mine):
                blocks.append(draw(generator, size))
            else:
                blocks.append(torch.zeros_like(blocks[0]) if blocks else self._nothing(draw, size))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def _nothing(self, draw: Draw, size: Sequence[int]) -> Tensor:
        """Zeros of the dtype a draw has, without drawing from anyone's stream."""
        return torch.zeros_like(draw(torch.Generator(self.device), size))

    def get_state(self) -> List[Any]:
        """One generator state per run."""
        return [g.get_state() for g in self.generators]

    def set_state(self, states: Sequence[Any]) -> None:
        """Restore what get_state returned."""
        for generator, state in zip(self.generators, states):
            generator.set_state(state)
