"""The Kolmogorov-Smirnov test of uniform draws."""

from __future__ import annotations

import torch

# Quantiles of the statistic for many draws; of several columns the least likely counts, so they take a stricter one.
ONE_PERCENT, ONE_PER_MILLE, ONE_IN_3000 = 1.63, 1.95, 2.1


def uniform_statistic(values: torch.Tensor, low: float = 0.0, high: float = 1.0) -> float:
    """sqrt(n) times the largest distance of the distribution of n draws (n,) or (n, columns) from U(low, high); the
    largest of the columns."""
    n = len(values)
    ordered = ((values.double() - low) / (high - low)).reshape(n, -1).sort(0).values
    steps = torch.arange(n + 1, dtype=torch.float64).unsqueeze(1) / n
    distance = torch.maximum((ordered - steps[:-1]).abs(), (ordered - steps[1:]).abs())
    return float(distance.max()) * n**0.5
