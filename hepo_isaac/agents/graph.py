"""Run a function as a captured CUDA graph, so that its hundred small kernels cost one launch."""

from __future__ import annotations

import traceback
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.cuda import first_cause, no_garbage_collection

# Real steps taken before capture: they initialise cuBLAS and the autograd engine on the side stream.
_WARM_UP = 3


class CapturedStep:
    """Calls ``function(*tensors)``; on CUDA it is captured after a few calls and replayed from then on.

    The function must be free of host reads, work on tensors of constant shape, and change state only in place;
    tensors it reads besides its arguments must stay where they are. If capture fails the step goes on eagerly:
    ``why_eager`` says why in a line and ``failure`` has the whole traceback (both "" while all is well).

    Args:
        function: takes tensors, returns one tensor.
        enabled: False always calls the function directly, as does a device without graphs.
        device: where it runs.
    """

    def __init__(self, function: Callable[..., Tensor], enabled: bool, device: torch.device) -> None:
        self._function, self._device = function, device
        self._enabled = enabled and device.type == "cuda"
        self.why_eager = "" if self._enabled else "off or not on CUDA"
        self.failure = ""
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
        # The stream is named because torch's own belongs to the current device, which need not be this one. Only this
        # thread's calls may break the capture: other threads (writers of metrics, Warp's cache) are not part of it.
        stream = torch.cuda.Stream(self._device)
        capture = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        before = torch.cuda.current_stream(self._device)
        try:
            with no_garbage_collection(), capture:
                self._output = self._function(*self._inputs)
        except Exception as error:  # whatever it was, the eager step below works or raises it again
            self._enabled, self._inputs, self._output = False, [], None
            self.why_eager = "capture failed: %s" % first_cause(error)
            self.failure = traceback.format_exc()
            return False
        finally:
            # Where ending a failed capture raises, torch leaves the capture's stream current.
            torch.cuda.set_stream(before)
        self._graph = graph
        return True
