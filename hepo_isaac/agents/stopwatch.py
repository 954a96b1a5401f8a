"""How long the parts of an iteration took, without making the host wait for the device to find out."""

from __future__ import annotations

import time
from typing import Any, List

import torch


class Stopwatch:
    """Marks moments; on CUDA they are events on the current stream, read when the device has passed them anyway."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: List[Any] = []

    def start(self) -> None:
        """Forget all marks and set the first one."""
        self._marks = []
        self.mark()

    def mark(self) -> None:
        """A moment between the work that is queued so far and what follows."""
        if not self._on_gpu:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def seconds(self) -> List[float]:
        """Seconds between one mark and the next; call it once the device has done all work before the last mark."""
        pairs = zip(self._marks, self._marks[1:])
        if not self._on_gpu:
            return [after - before for before, after in pairs]
        return [before.elapsed_time(after) / 1000.0 for before, after in pairs]
