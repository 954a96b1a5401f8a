"""PPO losses along the policy axis: every argument is (P, B) or (P, B, .), every loss is (P, B)."""

from __future__ import annotations

import math
from typing import Optional, Tuple

import torch
from torch import Tensor

_LOG_2PI = math.log(2.0 * math.pi)
# exp of a larger log-ratio overflows float32 long before it could matter behind the clip.
MAX_LOG_RATIO = 20.0


def gaussian_log_prob(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(..., ) log-density of actions (..., A) under a diagonal Gaussian."""
    z = (actions - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - (log_std + 0.5 * _LOG_2PI).sum(-1)


def gaussian_kl(old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(...,) KL(old || new) of diagonal Gaussians, (..., A) each."""
    var_ratio = torch.exp(2.0 * (old_log_std - log_std))
    shift = (mean - old_mean) * torch.exp(-log_std)
    return (log_std - old_log_std + 0.5 * (var_ratio + shift * shift) - 0.5).sum(-1)


def probability_ratio(log_prob: Tensor, behaviour_log_prob: Tensor) -> Tensor:
    """pi(a|s) / behaviour(a|s), safe against overflow."""
    return torch.exp((log_prob - behaviour_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's loss max(-rho A, -clip(rho) A) (Schulman et al. 2017)."""
    return torch.maximum(-ratio * advantage, -ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def dual_clipped_surrogate(
    ratio: Tensor, advantage: Tensor, clip: float, dual_clip: float, on_policy: Optional[Tensor] = None
) -> Tensor:
    """Clipped surrogate whose loss is also bounded by -c A for A < 0 (Ye et al. 2020), c = dual_clip > 1.

    On another policy's data rho can be in the hundreds; without the bound one such row dominates the gradient.

    Args:
        on_policy: (P, B) rows with a value above 0 are a policy's own and only clipped; None bounds every row.
    """
    loss = clipped_surrogate(ratio, advantage, clip)
    if dual_clip == math.inf:
        return loss
    bounded = advantage < 0 if on_policy is None else (advantage < 0) & (on_policy <= 0)
    return torch.where(bounded, torch.minimum(loss, -dual_clip * advantage), loss)


def clipped_value_loss(values: Tensor, old_values: Tensor, targets: Tensor, clip: float) -> Tensor:
    """Squared error, pessimistic against leaving [old - clip, old + clip] (rl-games' ``clip_value``)."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum((values - targets) ** 2, (clipped - targets) ** 2)


def mean_bound_loss(mean: Tensor, limit: float = 1.1) -> Tensor:
    """Penalty on Gaussian means beyond the action box, where clamping makes the gradient vanish."""
    excess = (mean.abs() - limit).clamp_min(0.0)
    return (excess * excess).sum(-1)


def effective_sample_fraction(ratio: Tensor, counted: Tensor) -> Tensor:
    """(P,) ESS / n = (sum rho)^2 / (n sum rho^2) of importance ratios (P, B) over the rows where ``counted`` (P, B)
    is 1; 1 where there are none."""
    used = ratio * counted
    n = counted.sum(-1)
    fraction = used.sum(-1) ** 2 / (n * (used * used).sum(-1)).clamp_min(1e-12)
    return torch.where(n > 0, fraction, torch.ones_like(fraction))


def adapt_learning_rate(
    learning_rate: Tensor, kl: Tensor, target: float, bounds: Tuple[float, float], factor: float = 1.5
) -> Tensor:
    """rl-games' adaptive rule per policy: / factor above twice the target KL, * factor below half of it."""
    lower = torch.where(kl > 2.0 * target, learning_rate / factor, learning_rate)
    higher = torch.where(kl < 0.5 * target, lower * factor, lower)
    return higher.clamp(bounds[0], bounds[1])
