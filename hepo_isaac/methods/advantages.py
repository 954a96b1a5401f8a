"""Generalised advantage estimation, standardisation and mixing of advantages.

Shapes: T horizon, ``...`` any batch shape, C value channels. Source: Schulman et al. 2016 for GAE.
"""

from __future__ import annotations

from typing import Optional, Tuple

import torch
from torch import Tensor

# Below this spread an advantage carries no signal, only critic noise that standardising would blow up to one.
MIN_ADVANTAGE_STD = 1e-6


def gae(
    rewards: Tensor,
    values: Tensor,
    last_values: Tensor,
    terminated: Tensor,
    time_out: Tensor,
    final_values: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Advantages of every reward channel in one backward scan.

    A step that ends its episode does not look into the next one: its successor value is 0 after a termination
    and the value of the true final observation after a time limit, and the trace stops there.

    Args:
        rewards, values: (T, ..., C), value of the observation acted on.
        last_values: (..., C), value of the observation after the last step.
        terminated, time_out: (T, ...) bool, exclusive.
        final_values: (T, ..., C) or broadcastable, value of the observation an episode ended in; read only where
            ``time_out`` is true, so it may hold anything elsewhere.

    Returns:
        (T, ..., C) advantages; ``advantages + values`` are the critic's targets.
    """
    successor = torch.cat((values[1:], last_values.unsqueeze(0)), 0)
    successor = torch.where(time_out.unsqueeze(-1), final_values, successor)
    successor = torch.where(terminated.unsqueeze(-1), torch.zeros_like(successor), successor)
    delta = rewards + gamma * successor - values
    decay = (gamma * gae_lambda) * (~(terminated | time_out)).unsqueeze(-1).to(rewards.dtype)
    advantages = torch.empty_like(delta)
    running = torch.zeros_like(last_values)
    for t in range(rewards.shape[0] - 1, -1, -1):
        running = torch.addcmul(delta[t], decay[t], running)
        advantages[t] = running
    return advantages


def standardize(advantages: Tensor, dim: Tuple[int, ...]) -> Tensor:
    """Zero mean and unit (population) spread over ``dim``; all zero where the spread is below 1e-6."""
    std, mean = torch.std_mean(advantages, dim=dim, correction=0, keepdim=True)
    centred = advantages - mean
    return torch.where(std > MIN_ADVANTAGE_STD, centred / (std + 1e-8), torch.zeros_like(centred))


def constrained_weights(alpha: Tensor, heuristic_weight: float, unit_norm: bool = False) -> Tensor:
    """Weights (..., 2) of the standardised [r, h] advantages for the policy that maximises (1+alpha) r + lambda h.

    Divided by 1+alpha, so the task reward keeps its scale: [1, lambda / (1 + alpha)]; with ``unit_norm`` also by
    sqrt(1 + w^2), so the mixture of two uncorrelated unit advantages keeps unit spread.
    """
    w = heuristic_weight / (1.0 + alpha)
    weights = torch.stack((torch.ones_like(w), w), -1)
    return weights / weights.norm(dim=-1, keepdim=True) if unit_norm else weights


def contrast(own: Tensor, cross: Tensor, mode: str, pooled_std: Optional[Tensor] = None) -> Tensor:
    """Estimate of J(pi) - J(pi_H) in units of the advantage spread, one per run; its descent is alpha's step.

    By the performance-difference lemma the mean, over data of one policy, of the advantage measured with the
    *other* policy's critic estimates the gap between the two.

    Args:
        own: (S, 2, M) task advantages on each policy's own rows, its own critic (policy 0 is pi, 1 is pi_H).
        cross: (S, 2, M) task advantages on the other policy's rows with this policy's critic: ``cross[:, 0]`` is
            pi's critic on pi_H's rows.
        mode: "raw_gae" pools one spread over everything and is not centred; "standardized" standardises each
            critic's advantages over all rows first (the released code, scaled by one half).

    Returns:
        (S,) positive where pi is better.
    """
    if mode == "raw_gae":
        if pooled_std is None:
            pooled_std = torch.cat((own, cross), -1).std(dim=(1, 2), correction=0)
        gap = 0.5 * (cross[:, 1].mean(-1) - cross[:, 0].mean(-1))
        return torch.where(pooled_std > MIN_ADVANTAGE_STD, gap / (pooled_std + 1e-8), torch.zeros_like(gap))
    if mode == "standardized":
        rows = own.shape[-1]
        z = standardize(torch.cat((own, cross), -1), dim=(-1,))[..., rows:]
        return 0.5 * (z[:, 1].mean(-1) - z[:, 0].mean(-1))
    raise ValueError("unknown contrast %r; valid: raw_gae, standardized" % mode)
