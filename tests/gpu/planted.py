"""What CUDA would refuse while a graph is captured, one fault per function; ``python -m tests.gpu.planted`` finds them.

Prints a JSON object: for each fault what was found, and the lines that it may name.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict

import torch

from hepo_isaac.sim.mujoco.imitated_cuda import install

RECORD = install()

import warp as wp  # noqa: E402

wp.config.log_level = wp.LOG_WARNING


@wp.kernel
def count(value: wp.array(dtype=int)):
    """A kernel that is loaded before any capture."""
    value[0] = value[0] - 1


@wp.kernel(module="unique")
def late(value: wp.array(dtype=int)):
    """A kernel with a module of its own, which nothing loads before."""
    value[0] = value[0] + 1


def nothing(value: wp.array) -> None:
    wp.launch(count, dim=1, inputs=[value])


def allocate_in_a_loop(value: wp.array) -> None:
    def body() -> None:
        wp.zeros(4, dtype=int)
        wp.launch(count, dim=1, inputs=[value])

    wp.capture_while(value, while_body=body)


def allocate_in_a_branch(value: wp.array) -> None:
    wp.capture_if(value, on_true=lambda: wp.zeros(4, dtype=int))


def allocate_without_a_pool(value: wp.array) -> None:
    with wp.ScopedMempool(value.device, False):
        wp.zeros(4, dtype=int)


def copy_to_the_host(value: wp.array) -> None:
    value.numpy()


def copy_from_the_host(value: wp.array) -> None:
    wp.array([1, 2, 3], dtype=int)


def synchronise_in_torch(value: wp.array) -> None:
    torch.cuda.synchronize()


def synchronise_a_stream(value: wp.array) -> None:
    wp.synchronize_stream()


def compute_in_torch(value: wp.array) -> None:
    torch.ones(3) * 2.0


def load_late(value: wp.array) -> None:
    wp.launch(late, dim=1, inputs=[value])


FAULTS = [
    nothing,
    allocate_in_a_loop,
    allocate_in_a_branch,
    allocate_without_a_pool,
    copy_to_the_host,
    copy_from_the_host,
    synchronise_in_torch,
    synchronise_a_stream,
    compute_in_torch,
    load_late,
]


def find(fault: Callable[[Any], None], value: Any) -> Dict[str, Any]:
    """Capture the fault and say what was found."""
    RECORD.reset()
    raised = ""
    try:
        with wp.ScopedStream(wp.Stream(value.device)), wp.ScopedCapture(device=value.device):
            fault(value)
    except Exception as error:  # Warp itself refuses some
        raised = "%s: %s" % (type(error).__name__, error)
    first = fault.__code__.co_firstlineno
    lines = ["gpu/planted.py:%d " % line for line in range(first + 1, first + 5)]
    found = {"illegal": RECORD.illegal, "late_modules": RECORD.late_modules, "unknown": RECORD.unknown}
    return {"lines": lines, "raised": raised, **{name: list(value) for name, value in found.items()}}


def main() -> None:
    """Find all faults."""
    wp.init()
    device = wp.get_device("cuda:0")
    with wp.ScopedDevice(device):
        value = wp.ones(1, dtype=int)
        wp.launch(count, dim=1, inputs=[value])
        print(json.dumps({fault.__name__: find(fault, value) for fault in FAULTS}))


if __name__ == "__main__":
    main()
