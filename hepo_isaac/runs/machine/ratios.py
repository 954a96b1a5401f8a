"""Measurements that alternate with what they are compared with, in three numbers."""

from __future__ import annotations

from typing import Dict, Sequence

import torch


def summary(values: Sequence[float]) -> Dict[str, float]:
    """Median and quartiles."""
    quartiles = torch.tensor(list(values), dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    return {"median": quartiles[1].item(), "q25": quartiles[0].item(), "q75": quartiles[2].item(), "n": len(values)}
