"""The agent's part of a checkpoint file."""

from __future__ import annotations

from typing import Any, Dict

import torch


def load_agent(file: str) -> Dict[str, Any]:
    """What ``get_full_state_weights`` returned when the checkpoint was written, with all tensors on the CPU.

    Random generators take their states from the CPU alone; everything else is copied to the device where it lives.
    """
    return dict(torch.load(file, map_location="cpu", weights_only=True)["agent"])
