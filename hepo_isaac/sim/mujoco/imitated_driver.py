"""The part of CUDA that Warp's library speaks to, imitated: devices, streams, graphs, modules, kernels, memory.

Device memory is host memory that nobody touches; copies and fills are done, kernels are not. See imitated_cuda.py.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set
from typing import Counter as CounterType

import torch
from torch.utils._python_dispatch import TorchDispatchMode

KB = 1024


class Architecture(NamedTuple):
    """What of a GPU bears on how Warp compiles and launches."""

    processors: int  # streaming multiprocessors
    shared_bytes: int  # the most shared memory of a block


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability", row "maximum amount of shared memory
# per thread block"; the number of multiprocessors is that of one card of the architecture, from its data sheet.
ARCHITECTURES = {
    80: Architecture(108, 163 * KB),  # A100
    86: Architecture(84, 99 * KB),  # A40, RTX A6000
    89: Architecture(142, 99 * KB),  # L40S
    90: Architecture(132, 227 * KB),  # H100 SXM, H200
    100: Architecture(148, 227 * KB),  # B200
    120: Architecture(188, 99 * KB),  # RTX PRO 6000 Blackwell
}
# Older than the CUDA toolkit inside Warp and young enough for it: Warp then compiles binaries and not PTX.
DRIVER_VERSION = 13000
MAX_THREADS = 1024  # of a block, on every architecture
COPIED_BYTES = 16 << 20  # larger copies and fills are skipped: they would only touch memory
_NORESERVE = 0x4000  # mmap.MAP_NORESERVE of Linux, which Python 3.8 does not name
_THEIRS = ("warp", "mujoco_warp", "torch", "contextlib")

# Functions of Warp's library that always give the same answer, without their prefix wp_cuda_.
_ANSWERS: Dict[Any, str] = {
    1: """driver_is_initialized device_get_count device_is_uva device_get_managed_memory_supported
        device_get_concurrent_managed_access_supported device_is_mempool_supported device_is_ipc_supported
        device_set_mempool_release_threshold context_is_primary stream_is_blocking graph_set_condition
        graph_check_conditional_body graph_destroy graph_exec_destroy""",
    0: """device_get_pageable_memory_access device_get_direct_managed_mem_access_from_host
        device_get_host_native_atomic_supported device_get_pci_domain_id device_get_pci_bus_id device_get_pci_device_id
        context_get_device_ordinal context_check event_query get_kernel_static_shared_memory""",
    None: """device_get_uuid device_get_memory_info context_push_current context_pop_current context_set_stream
        stream_destroy stream_register stream_unregister stream_wait_event stream_wait_stream event_destroy
        event_record unload_module""",
}
_MAKERS = ("wp_cuda_stream_create", "wp_cuda_event_create", "wp_cuda_get_kernel")  # they give a new handle
_WAITS = {
    "wp_cuda_context_synchronize": "synchronisation of the device",
    "wp_cuda_stream_synchronize": "synchronisation of a stream",
    "wp_cuda_event_synchronize": "synchronisation of an event",
}
_COMPILER = ("wp_cuda_compile", "wp_cuda_toolkit")  # NVRTC, which needs no GPU
_ALIASES = {"wp_alloc_device": "wp_alloc_device_default", "wp_free_device": "wp_free_device_default"}


@dataclass
class Record:
    """What the imitated GPU was asked for since the last ``reset``.

    illegal: what CUDA would refuse, each with the line of ours that asks for it.  late_modules: modules loaded during
    a capture.  compiled: modules that the kernel cache did not have.  waits: what makes the host wait, with its line.
    unknown: functions of Warp that this imitation does not know; it answered 0.  launches, captures, replays: numbers
    of kernel launches, of graphs captured and launched.  allocated_bytes, peak_bytes: of device memory; ``reset``
    lowers the peak to what is allocated.
    """

    illegal: List[str] = field(default_factory=list)
    late_modules: List[str] = field(default_factory=list)
    compiled: List[str] = field(default_factory=list)
    unknown: List[str] = field(default_factory=list)
    waits: CounterType[str] = field(default_factory=Counter)
    launches: int = 0
    captures: int = 0
    replays: int = 0
    allocated_bytes: int = 0
    peak_bytes: int = 0

    def reset(self) -> None:
        """Forget all but the memory that is still allocated."""
        for kept in (self.illegal, self.late_modules, self.compiled, self.unknown, self.waits):
            kept.clear()
        self.launches = self.captures = self.replays = 0
        self.peak_bytes = self.allocated_bytes


class Library:
    """Warp's library with the functions that touch a GPU replaced by the driver's. The compiler (NVRTC) and all that
    runs on the host are Warp's own."""

    def __init__(self, real: Any, driver: Driver) -> None:
        self._real, self._driver = real, driver
        driver.real = real

    def __getattr__(self, name: str) -> Any:
        call = self._driver.find(name)
        function = getattr(self._real, name) if call is None else _Function(call)
        setattr(self, name, function)  # found without __getattr__ from now on
        return function


class _Function:
    """A function of the library; takes argtypes and restype as ctypes' own do."""

    argtypes: Any = None
    restype: Any = None

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)


class Driver:
    """CUDA as Warp's library speaks to it. The methods wp_* have the names and arguments of Warp's functions.

    Args:
        record: where everything is noted.  architecture: one of ARCHITECTURES.
    """

    real: Any = None  # Warp's library

    def __init__(self, record: Record, architecture: int) -> None:
        self.record, self.limits = record, ARCHITECTURES[architecture]
        self.capturing: Dict[int, int] = {}  # stream -> number of its capture
        self._handles = itertools.count(0x10000, 16)
        self._memory: Dict[int, mmap.mmap] = {}
        self._watch: Optional[_TorchInCapture] = None
        self._bodies: Set[int] = set()  # graphs that are the body of a loop or a branch
        self._in_body = False
        self._context: Optional[int] = None
        self._answers = {"wp_cuda_" + name: answer for answer, names in _ANSWERS.items() for name in names.split()}
        self._answers.update(
            wp_cuda_driver_version=DRIVER_VERSION,
            wp_cuda_device_get_primary_context=next(self._handles),
            wp_cuda_device_get_name=b"imitated sm_%d" % architecture,
            wp_cuda_device_get_arch=architecture,
            wp_cuda_device_get_sm_count=self.limits.processors,
            wp_cuda_device_get_max_shared_memory=self.limits.shared_bytes,
        )

    def find(self, name: str) -> Optional[Callable[..., Any]]:
        """What stands for a function of Warp's library; None for one that needs no GPU."""
        if name in _ALIASES:
            name = _ALIASES[name]
        if hasattr(self, name):
            return getattr(self, name)
        if name in self._answers:
            return lambda *args: self._answers[name]
        if name in _MAKERS:
            return lambda *args: next(self._handles)
        if name in _WAITS:
            return lambda *args: self.wait(_WAITS[name])
        if name.startswith(_COMPILER) or not (name.startswith("wp_cuda_") or name.endswith("_device")):
            return None
        return partial(self._unknown, name)

    def _unknown(self, name: str, *args: Any) -> int:
        self.record.unknown.append("%s: %s" % (name, caller()))
        return 0

    def refuse(self, what: str) -> None:
        """Note what may not happen while a graph is captured."""
        if self.capturing:
            self.record.illegal.append("%s during a capture: %s" % (what, caller()))

    def wait(self, what: str) -> int:
        """Note that the host waits for the device."""
        self.refuse(what)
        self.record.waits["%s: %s" % (what, caller())] += 1
        return 0

    # -- streams ---------------------------------------------------------------------------------------------------
    def wp_cuda_context_get_current(self) -> Optional[int]:
        return self._context

    def wp_cuda_context_set_current(self, context: Any) -> None:
        self._context = _address(context) or None

    def wp_cuda_stream_is_capturing(self, stream: Any) -> int:
        return int(_address(stream) in self.capturing)

    def wp_cuda_stream_get_capture_id(self, stream: Any) -> int:
        return self.capturing.get(_address(stream), 0)

    # -- graphs ----------------------------------------------------------------------------------------------------
    def wp_cuda_graph_begin_capture(self, context: Any, stream: Any, external: int, mode: int) -> bool:
        self.record.captures += 1
        self.capturing[_address(stream)] = next(self._handles)
        self._watch = _TorchInCapture(self)
        self._watch.__enter__()
        return True

    def wp_cuda_graph_end_capture(self, context: Any, stream: Any, graph: Any) -> bool:
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            self._watch = None
        self.capturing.pop(_address(stream), None)
        graph._obj.value = next(self._handles)
        return True

    def wp_cuda_graph_pause_capture(self, context: Any, stream: Any, graph: Any) -> bool:
        self.capturing.pop(_address(stream), None)
        self._in_body = False
        graph._obj.value = next(self._handles)
        return True

    def wp_cuda_graph_resume_capture(self, context: Any, stream: Any, graph: Any) -> bool:
        self._in_body = _address(graph) in self._bodies
        self.capturing[_address(stream)] = next(self._handles)
        return True

    def wp_cuda_graph_insert_while(
        self, context: Any, stream: Any, arch: int, ptx: Any, condition: Any, body: Any, handle: Any
    ) -> bool:
        self._add_body(body)
        handle._obj.value = next(self._handles)
        return True

    def wp_cuda_graph_insert_if_else(
        self, context: Any, stream: Any, arch: int, ptx: Any, condition: Any, on_true: Any, on_false: Any
    ) -> bool:
        self._add_body(on_true)
        self._add_body(on_false)
        return True

    def _add_body(self, graph: Any) -> None:
        if graph is not None:
            graph._obj.value = next(self._handles)
            self._bodies.add(graph._obj.value)

    def wp_cuda_graph_create_exec(self, context: Any, stream: Any, graph: Any, out: Any) -> bool:
        out._obj.value = next(self._handles)
        return True

    def wp_cuda_graph_launch(self, graph: Any, stream: Any) -> bool:
        self.record.replays += 1
        return True

    # -- modules and kernels ---------------------------------------------------------------------------------------
    def wp_cuda_load_module(self, context: Any, path: bytes) -> int:
        if self.capturing:
            self.record.late_modules.append("%s: %s" % (os.path.basename(path.decode()), caller()))
        return next(self._handles)

    def wp_cuda_configure_kernel_shared_memory(self, kernel: Any, size: int) -> bool:
        return size <= self.limits.shared_bytes

    def wp_cuda_get_suggested_block_size(self, context: Any, kernel: Any, shared: int, block: Any, grid: Any) -> bool:
        block._obj.value, grid._obj.value = 512, 2 * self.limits.processors  # any: they bound a grid, nothing else
        return True

    def wp_cuda_launch_kernel(self, context: Any, kernel: Any, size: int, max_blocks: int, *args: Any) -> int:
        block, _, _, shared = args[:4]
        self.record.launches += 1
        if block > MAX_THREADS:
            self.record.illegal.append("a block of %d threads: %s" % (block, caller()))
        if shared > self.limits.shared_bytes:
            self.record.illegal.append("%d bytes of shared memory: %s" % (shared, caller()))
        return 0

    # -- memory ----------------------------------------------------------------------------------------------------
    def _allocate(self, size: int) -> int:
        size = max(1, int(size))
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._memory[address] = memory
        self.record.allocated_bytes += size
        self.record.peak_bytes = max(self.record.peak_bytes, self.record.allocated_bytes)
        return address

    def _free(self, pointer: Any) -> None:
        memory = self._memory.pop(_address(pointer), None)
        if memory is not None:
            self.record.allocated_bytes -= len(memory)

    def wp_alloc_device_async(self, context: Any, size: int, stream: Any, tag: Any) -> int:
        if self._in_body:
            self.record.illegal.append("allocation in the body of a captured loop or branch: " + caller())
        return self._allocate(size)

    def wp_alloc_device_default(self, context: Any, size: int, tag: Any) -> int:
        self.refuse("cudaMalloc")
        return self._allocate(size)

    def wp_alloc_pinned(self, size: int, tag: Any) -> int:
        self.refuse("allocation of pinned memory")
        return self._allocate(size)

    def wp_free_device_async(self, context: Any, pointer: Any, stream: Any) -> None:
        self._free(pointer)

    def wp_free_device_default(self, context: Any, pointer: Any) -> None:
        self.refuse("cudaFree")
        self._free(pointer)

    def wp_free_pinned(self, pointer: Any) -> None:
        self._free(pointer)

    def wp_memcpy_h2d(self, context: Any, to: Any, source: Any, size: int, stream: Any) -> bool:
        self.wait("copy of %d bytes from the host" % size)
        return self.wp_memcpy_d2d(context, to, source, size, stream)

    def wp_memcpy_d2h(self, context: Any, to: Any, source: Any, size: int, stream: Any) -> bool:
        self.wait("copy of %d bytes to the host" % size)
        return self.wp_memcpy_d2d(context, to, source, size, stream)

    def wp_memcpy_d2d(self, context: Any, to: Any, source: Any, size: int, stream: Any) -> bool:
        if size <= COPIED_BYTES:
            ctypes.memmove(_address(to), _address(source), size)
        return True

    def wp_memset_device(self, context: Any, to: Any, value: int, size: int, stream: Any) -> bool:
        if size <= COPIED_BYTES:
            ctypes.memset(_address(to), value, size)
        return True

    def wp_memtile_device(self, context: Any, to: Any, source: Any, size: int, repeats: int) -> None:
        if size * repeats <= COPIED_BYTES:
            tiled = ctypes.string_at(_address(source), size) * repeats
            ctypes.memmove(_address(to), tiled, len(tiled))

    def wp_array_fill_device(self, context: Any, *args: Any) -> Any:
        return self.real.wp_array_fill_host(*args)

    def wp_array_copy_device(self, context: Any, *args: Any) -> Any:
        return self.real.wp_array_copy_host(*args)


def _address(pointer: Any) -> int:
    """A pointer as a number, in any of the forms that ctypes gives it."""
    if pointer is None or isinstance(pointer, int):
        return pointer or 0
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


# This module and imitated_cuda beside it, which no reader wants to be pointed at.
_IMITATION = __name__[: -len("driver")]


def caller() -> str:
    """The innermost line of ours, and behind it the line of a library through which it came here."""
    ours, through = "", ""
    for frame, line in traceback.walk_stack(None):
        name, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        if name.startswith(("warp.", _IMITATION)):
            continue
        where = "%s:%d %s" % ("/".join(file.split(os.sep)[-2:]), line, frame.f_code.co_name)
        if name.split(".")[0] not in _THEIRS:
            ours = where
            break
        through = through or " (%s)" % where
    return ours + through


class _TorchInCapture(TorchDispatchMode):
    """Notes work that torch launches while Warp captures another stream than torch's: the graph would not hold it."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Optional[Dict[str, Any]] = None) -> Any:
        if not func.is_view and torch.cuda.current_stream().cuda_stream not in self.driver.capturing:
            self.driver.refuse("torch's %s" % func.name())
        return func(*args, **(kwargs or {}))
