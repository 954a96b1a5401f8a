"""How the Warp engine launches: on torch's current stream, and each sequence of launches as one captured CUDA graph."""

from __future__ import annotations

import traceback
from contextlib import contextmanager, nullcontext
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Tuple

import torch
import warp as wp
from torch import Tensor

from hepo_isaac.cuda import first_cause, no_garbage_collection
from hepo_isaac.errors import Notice

# Warp's side of torch's streams, kept for good: the first of two objects for one stream to be deleted makes Warp
# forget the stream, also for the other one. Torch takes its streams from a pool that lives as long as the process.
_STREAMS: Dict[Tuple[str, int], Any] = {}


class LaunchGraphs:
    """Runs launch sequences by name: captured at their first run and replayed from then on, or eagerly.

    If a capture fails, everything goes on eagerly and ``notices`` says so.

    Args:
        device: torch's device.
        wanted: False launches kernel by kernel, as do the CPU and a GPU without memory pools.
        state: every tensor that the sequences change, by name; a capture's trial run is undone with it.
        on_eager: called where a capture has failed, before the sequence is launched kernel by kernel.
    """

    def __init__(
        self,
        device: torch.device,
        wanted: bool,
        state: Callable[[], Dict[str, Tensor]],
        on_eager: Callable[[], None],
    ) -> None:
        self._device, self._state, self._on_eager = device, state, on_eager
        self.wp_device = wp.device_from_torch(device)
        self._on_gpu = bool(self.wp_device.is_cuda)
        self.notices: List[Notice] = []
        self.enabled = wanted and self._on_gpu and bool(wp.is_mempool_enabled(self.wp_device))
        if wanted and self._on_gpu and not self.enabled:
            self.notices.append(
                Notice("the control step runs without a CUDA graph, slower: %s has no memory pools" % self.wp_device)
            )
        # Loops inside a graph need driver 12.4. Without them, or outside of a graph, where the host would be asked
        # after every round whether another one is needed, a solver runs its full number of iterations.
        self.loops = self.enabled and bool(wp.is_conditional_graph_supported())
        if self.enabled and not self.loops:
            self.notices.append(
                Notice("every solve runs its full number of iterations, slower: the NVIDIA driver is older than 12.4")
            )
        self._graphs: Dict[str, Any] = {}

    @contextmanager
    def launching(self) -> Iterator[None]:
        """Make Warp launch on torch's current stream, so that the two never need to wait for each other."""
        if not self._on_gpu:
            with wp.ScopedDevice(self.wp_device):
                yield
            return
        current = torch.cuda.current_stream(self._device)
        key = (str(self._device), int(current.cuda_stream))
        if key not in _STREAMS:
            _STREAMS[key] = wp.stream_from_torch(current)
        with wp.ScopedStream(_STREAMS[key], sync_enter=False):
            yield

    def run(self, name: str, sequence: Callable[[], None]) -> None:
        """Replay ``sequence`` from its graph, or run it where there are no graphs or torch is capturing one itself."""
        with self.launching():
            replay = self.enabled and not torch.cuda.is_current_stream_capturing()
            if replay and (name in self._graphs or self._capture(name, sequence)):
                wp.capture_launch(self._graphs[name])
                return
            with self._joined_capture():
                sequence()

    def names(self) -> List[str]:
        """What has been captured."""
        return sorted(self._graphs)

    def clear(self) -> None:
        """Forget all graphs: an array that they read has moved."""
        self._graphs.clear()

    def _joined_capture(self) -> ContextManager[Any]:
        """Tell Warp when its launches are becoming part of a graph that torch captures."""
        if not self._on_gpu or not torch.cuda.is_current_stream_capturing():
            return nullcontext()
        return wp.ScopedCapture(device=self.wp_device, stream=self.wp_device.stream, external=True)

    def _capture(self, name: str, sequence: Callable[[], None]) -> bool:
        """Compile by running ``sequence`` once, undo what it did, and capture it; False if CUDA refuses.

        CUDA cannot capture its default stream, on which torch usually runs, so a stream of its own is used.
        """
        kept = {key: tensor.clone() for key, tensor in self._state().items()}
        sequence()
        torch.cuda.synchronize(self._device)
        try:
            with no_garbage_collection(), wp.ScopedStream(wp.Stream(self.wp_device)):
                with wp.ScopedCapture(device=self.wp_device) as capture:
                    sequence()
                self._graphs[name] = capture.graph
        except Exception as error:  # whatever it was, launching kernel by kernel works or raises it again
            self.enabled = self.loops = False
            text = "the control step runs without a CUDA graph, several times slower: capturing %r failed (%s)"
            self.notices.append(Notice(text % (name, first_cause(error)), traceback.format_exc()))
            self._on_eager()
            return False
        finally:
            for key, tensor in self._state().items():
                tensor.copy_(kept[key])
        return True
