"""Sharing memory between Isaac Gym's buffers and torch."""

from typing import Optional, Sequence

import torch

from .gymapi import Tensor

def wrap_tensor(
    gym_tensor: Tensor, offsets: Optional[Sequence[int]] = ..., counts: Optional[Sequence[int]] = ...
) -> torch.Tensor:
    """A torch tensor over the engine's own memory; a block of it where offsets and counts are given."""

def unwrap_tensor(torch_tensor: torch.Tensor) -> Tensor:
    """A handle to a contiguous torch tensor. It does not keep the tensor alive."""
