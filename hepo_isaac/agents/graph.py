"""Run a function as a captured CUDA graph, so that its hundred small kernels cost one launch."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor

# Real steps taken before capture: they initialise cuBLAS and the autograd engine on the side stream.
_WARM_UP = 3


class CapturedStep:
    """Calls ``function(*tensors)``; on CUDA it is captured after a few calls and replayed from then on.

    The function must be free of host reads, work on tensors of constant shape, and change state only in place;
    tensors it reads besides its arguments must stay where they are. If capture fails the step goes on eagerly and
    ``why_eager`` says why.

    Args:
        function: takes tensors, returns one tensor.
        enabled: False always calls the function directly, as does a device without graphs.
        device: where it runs.
    """

    def __init__(self, function: Callable[..., Tensor], enabled: bool, device: torch.device) -> None:
        self._function, self._device = function, device
        self._enabled = enabled and device.type == "cuda"
        self.why_eager = "" if self._enabled else "off or not on CUDA"
        self._calls = 0
        self._graph: Optional[Any] = None
        self._inputs: List[Tensor] = []
        self._output: Optional[Tensor] = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run one step; the result is the caller's to keep."""
        if not self._enabled:
            return self._function(*inputs)
        if self._graph is None:
            if self._calls < _WARM_UP:
                self._calls += 1
                return self._on_side_stream(inputs)
            if not self._capture(inputs):
                return self._function(*inputs)
        assert self._graph is not None and self._output is not None
        for static, given in zip(self._inputs, inputs):
            static.copy_(given)
        self._graph.replay()
        return self._output.clone()

    def _on_side_stream(self, inputs: Tuple[Tensor, ...]) -> Tensor:
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            output = self._function(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(side)
        return output

    def _capture(self, inputs: Tuple[Tensor, ...]) -> bool:
        """Record the step (without running it); False if that is not possible."""
        self._inputs = [x.clone() for x in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._output = self._function(*self._inputs)
        except RuntimeError as error:
            self._enabled, self.why_eager = False, "capture failed: %s" % str(error).splitlines()[0]
            return False
        self._graph = graph
        return True
