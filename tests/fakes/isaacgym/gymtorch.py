"""Sharing memory with torch, as the real gymtorch does: the handle of an unwrapped tensor does not keep it alive."""

from __future__ import annotations

from typing import Optional, Sequence

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from isaacgym._binding import checked
from isaacgym.gymapi import Tensor


@checked
def wrap_tensor(
    gym_tensor: Tensor, offsets: Optional[Sequence[int]] = None, counts: Optional[Sequence[int]] = None
) -> torch.Tensor:
    if gym_tensor._buffer is None:
        raise RuntimeError("wrap_tensor takes what an acquire_*_tensor call returned")
    view = gym_tensor._buffer
    for axis, size in enumerate(gym_tensor.shape):
        start = 0 if offsets is None else offsets[axis]
        count = size - start if counts is None else counts[axis]
        view = view.narrow(axis, start, count)
    return view


@checked
def unwrap_tensor(torch_tensor: torch.Tensor) -> Tensor:
    if not torch_tensor.is_contiguous():
        raise RuntimeError("Input tensor must be contiguous")
    gym_tensor = Tensor()
    gym_tensor.data_address = torch_tensor.data_ptr()
    gym_tensor.device = torch_tensor.device.index or 0 if torch_tensor.device.type != "cpu" else -1
    gym_tensor.shape = tuple(torch_tensor.shape)
    gym_tensor._dtype = str(torch_tensor.dtype)
    owner = StorageWeakRef(torch_tensor.untyped_storage())
    offset, shape, stride = torch_tensor.storage_offset(), gym_tensor.shape, torch_tensor.stride()
    dtype = torch_tensor.dtype

    def read() -> torch.Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(owner.cdata)
        if storage is None:
            raise RuntimeError("the torch tensor behind a gymapi.Tensor was freed before the call that reads it")
        return torch.empty(0, dtype=dtype, device=storage.device).set_(storage, offset, shape, stride)

    gym_tensor._read = read
    return gym_tensor
