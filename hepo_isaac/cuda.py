"""What every layer that captures CUDA graphs needs, without importing anything that needs a GPU."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import Iterator, Union

import torch


def with_index(device: Union[str, torch.device]) -> torch.device:
    """The device, with the first GPU for a "cuda" that names none: Warp knows no such device."""
    device = torch.device(device)
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect now and not again inside: a collection during a capture may free device memory, which CUDA forbids."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def first_cause(error: BaseException) -> str:
    """Type and first line of the exception that started a chain.

    Ending a capture that something broke raises once more, with a message that says only that it was broken.
    """
    while error.__cause__ is not None or error.__context__ is not None:
        before = error.__cause__ or error.__context__
        assert before is not None
        error = before
    lines = str(error).strip().splitlines()
    return "%s: %s" % (type(error).__name__, lines[0] if lines else "no message")
