"""Where the host waits for the device: torch's own detector with the line that asks, and what CUPTI counts."""

from __future__ import annotations

import collections
import os
import traceback
import warnings
from typing import Any, Callable, Counter, Dict

import torch

# Calls of CUDA's runtime and driver that return when the device has done its work.
_WAITING = ("ynchronize", "cudaMemcpy", "cuMemcpyDtoH_v2", "cuMemcpyHtoD_v2")
# What torch's detector says of a wait. It also remarks, once a process, that "synchronization debug mode" is new.
_WAITED = "called a synchronizing"
_PACKAGE = os.sep + "hepo_isaac" + os.sep
_TASKS = os.sep + "tasks" + os.sep


class HostWaits:
    """Context manager; ``found`` counts the waits of torch by the lines of ours that asked for them.

    Elsewhere than on CUDA it finds nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.found: Counter[str] = collections.Counter()

    def __enter__(self) -> HostWaits:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = self._seen
        if self._on_gpu:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *error: Any) -> None:
        if self._on_gpu:
            torch.cuda.set_sync_debug_mode("default")
        self._caught.__exit__(*error)

    def _seen(self, message: Any, *about: Any, **more: Any) -> None:
        if _WAITED in str(message):
            self.found[asking_line()] += 1

    def said(self) -> str:
        """In a few words."""
        return ", ".join("%s ×%d" % pair for pair in self.found.most_common()) or "none"


def asking_line() -> str:
    """The two innermost lines of ours on the stack, innermost first."""
    frames = [f for f in traceback.extract_stack()[:-2] if _PACKAGE in f.filename or _TASKS in f.filename]
    return " < ".join("%s:%d" % (os.path.basename(f.filename), f.lineno or 0) for f in reversed(frames[-2:]))


def profiled(work: Callable[[], None], device: torch.device) -> Dict[str, Any]:
    """Run ``work`` under torch's profiler, which on CUDA asks CUPTI and so sees Warp's calls too.

    Returns:
        waits (calls that wait, by name; one synchronisation is this function's own), busy_s (the device's kernels),
        table (text, the longest first).
    """
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=kinds) as profiler:
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
    averages = profiler.key_averages()
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    waiting = {e.key: e.count for e in averages if e.key in _WAITING or _WAITING[0] in e.key}
    busy = sum(float(getattr(e, "self_device_time_total", 0.0)) for e in averages) / 1e6
    return {"waits": waiting, "busy_s": busy, "table": averages.table(sort_by=order, row_limit=60)}
