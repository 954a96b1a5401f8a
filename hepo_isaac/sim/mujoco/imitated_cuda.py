"""A CUDA device that is not there: Warp compiles for it, captures on it, and launches nothing.

After ``install()`` Warp sees one NVIDIA GPU of the architecture asked for. Its own Python and its own NVRTC run as on
that GPU, so the kernels land in Warp's cache under the names by which the real one finds them; torch's CPU device plays
cuda:0. Device memory is host memory that nobody touches: copies and fills are done, kernels are not, and a tensor that
a kernel should have written stays as it was. The Record says what happened, and what CUDA would have refused.

    record = install(90)                                       # before anything calls wp.init()
    sim = MujocoWarpSimulation(spec, 4096, device="cpu")       # takes the imitated GPU for it
    sim.step()
    assert not record.illegal, record.illegal

One process, one installation: it replaces parts of Warp and of torch.cuda for good.
"""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

import numpy as np
import torch

from hepo_isaac.sim.mujoco.imitated_driver import ARCHITECTURES, Driver, Library, Record, caller

_installed: Dict[int, Record] = {}


def install(architecture: int = 90, stubs: str = "") -> Record:
    """Make Warp see one imitated GPU, and torch's CPU device play cuda:0, in this process.

    Args:
        architecture: compute capability times ten, one of ARCHITECTURES.
        stubs: a folder for a kernel cache of empty files: nothing is compiled, ``compiled`` says what would have been.
            A cache that a real GPU reads must never hold them. "" compiles into Warp's own cache.

    Returns:
        The record of all that follows; the same one when called again with the same architecture.

    Raises:
        ValueError: the architecture is none of ARCHITECTURES.
        RuntimeError: Warp is already initialised, or another architecture is installed.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError("no architecture %s; one of: %s" % (architecture, ", ".join(map(str, ARCHITECTURES))))
    if architecture in _installed:
        return _installed[architecture]
    from warp._src import build, context

    if _installed or context.runtime is not None:
        raise RuntimeError("a GPU can be imitated only before Warp is initialised, and one architecture per process")
    record = _installed[architecture] = Record()
    driver = Driver(record, architecture)
    load = context.Runtime.load_dll

    def load_dll(self: Any, path: str) -> Any:
        library = load(self, path)
        return Library(library, driver) if os.path.basename(path) == "warp.so" else library

    compile_ = build.build_cuda

    def build_cuda(path: str, arch: int, output: str, **kwargs: Any) -> None:
        record.compiled.append(os.path.splitext(os.path.basename(path))[0])
        if stubs:
            open(output, "wb").close()
        else:
            compile_(path, arch, output, **kwargs)

    context.Runtime.load_dll, build.build_cuda = load_dll, build_cuda
    if stubs:
        import warp as wp

        wp.config.kernel_cache_dir = stubs
    _ask_host_once(context, record)
    _lend_torch(context, driver)
    return record


def _ask_host_once(context: Any, record: Record) -> None:
    """Outside of a capture Warp reads on the host whether a loop goes on. No kernel ever ends one here, so its body
    runs once, and the read is noted."""
    import warp as wp

    loop, branch = context.capture_while, context.capture_if

    def captured(condition: Any, stream: Any) -> bool:
        device = condition.device
        return not device.is_cuda or device.captures.get(stream or device.stream) is not None

    def capture_while(condition: Any, while_body: Any, stream: Any = None, **kwargs: Any) -> Any:
        if captured(condition, stream):
            return loop(condition, while_body, stream, **kwargs)
        record.waits["condition of a loop: " + caller()] += 1
        return while_body(**kwargs)

    def capture_if(
        condition: Any, on_true: Any = None, on_false: Any = None, stream: Any = None, **kwargs: Any
    ) -> None:
        if captured(condition, stream):
            return branch(condition, on_true, on_false, stream, **kwargs)
        record.waits["condition of a branch: " + caller()] += 1
        for body in (on_true, on_false):
            if body is not None:
                body(**kwargs)
        return None

    for name, function in (("capture_while", capture_while), ("capture_if", capture_if)):
        setattr(context, name, function)
        setattr(wp, name, function)


class _Stream:
    """torch.cuda.Stream, on which nothing runs; the default one has the handle 0, as CUDA's has."""

    device = torch.device("cpu")
    _handles = itertools.count(0x900000, 16)

    def __init__(self, device: Any = None, priority: int = 0, cuda_stream: Optional[int] = None) -> None:
        self.cuda_stream = next(self._handles) if cuda_stream is None else cuda_stream

    def wait_stream(self, stream: Any) -> None:
        """There is nothing to wait for."""


class _HostView:
    """A Warp array as numpy sees memory of the host; it keeps the array alive as long as numpy has it."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__array_interface__ = array.__cuda_array_interface__


def _lend_torch(context: Any, driver: Driver) -> None:
    """Let torch's CPU device be cuda:0 for Warp, and torch.cuda's streams be there."""
    import warp as wp
    from warp._src import torch as bridge

    streams = [_Stream(cuda_stream=0)]

    @contextmanager
    def stream(other: Any) -> Iterator[None]:
        streams.append(other or streams[-1])
        try:
            yield
        finally:
            streams.pop()

    def to_torch(array: Any, requires_grad: Any = None) -> torch.Tensor:
        return torch.as_tensor(np.asarray(_HostView(array)))

    def device_from_torch(device: Any) -> Any:
        return context.runtime.cuda_devices[0]

    for function in (to_torch, device_from_torch):
        setattr(bridge, function.__name__, function)
        setattr(wp, function.__name__, function)
    replaced = {
        "Stream": _Stream,
        "stream": stream,
        "current_stream": lambda device=None: streams[-1],
        "default_stream": lambda device=None: streams[0],
        "is_current_stream_capturing": lambda: streams[-1].cuda_stream in driver.capturing,
        "synchronize": lambda device=None: driver.wait("torch.cuda.synchronize"),
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
