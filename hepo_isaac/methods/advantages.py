"""Generalised advantage estimation, standardisation and mixing of advantages.

Shapes: T horizon, ``...`` any batch shape, C value channels. Source: Schulman et al. 2016 for GAE.
"""

from __future__ import annotations

from typing import Tuple

import torch
from torch import Tensor

from hepo_isaac import ranks

# Below this spread an advantage carries no signal, only critic noise that standardising would blow up to one.
MIN_ADVANTAGE_STD = 1e-6


def _errors(
    rewards: Tensor,
    values: Tensor,
    last_values: Tensor,
    terminated: Tensor,
    time_out: Tensor,
    final_values: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tuple[Tensor, Tensor]:
    """TD errors (T, ..., C), and the weight (T, ..., 1) with which the next step's advantage enters: 0 at an end."""
    successor = torch.cat((values[1:], last_values.unsqueeze(0)), 0)
    successor = torch.where(time_out.unsqueeze(-1), final_values, successor)
    successor = torch.where(terminated.unsqueeze(-1), torch.zeros_like(successor), successor)
    delta = rewards + gamma * successor - values
    decay = (gamma * gae_lambda) * (~(terminated | time_out)).unsqueeze(-1).to(rewards.dtype)
    return delta, decay


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
    delta, decay = _errors(rewards, values, last_values, terminated, time_out, final_values, gamma, gae_lambda)
    advantages = torch.empty_like(delta)
    running = torch.zeros_like(last_values)
    for t in range(rewards.shape[0] - 1, -1, -1):
        running = torch.addcmul(delta[t], decay[t], running)
        advantages[t] = running
    return advantages


def vtrace(
    rewards: Tensor,
    values: Tensor,
    last_values: Tensor,
    terminated: Tensor,
    time_out: Tensor,
    final_values: Tensor,
    ratio: Tensor,
    gamma: float,
    gae_lambda: float,
    ratio_max: float = 1.0,
) -> Tensor:
    """Advantages of a policy on another one's rows: GAE whose traces and errors are weighted by truncated ratios.

    With rho_t = min(ratio_max, pi(a_t|s_t) / behaviour(a_t|s_t)) and TD errors delta_t of pi's own critic:
    A_t = delta_t + gamma lambda acc_{t+1}, acc_t = rho_t delta_t + gamma lambda rho_t acc_{t+1} (Espeholt et al.
    2018, with a lambda). At ratio 1 this is ``gae``. The action's own ratio is left to the surrogate.

    Args:
        ratio: (T, ...), the rest as for ``gae``.

    Returns:
        (T, ..., C).
    """
    rho = ratio.clamp(max=ratio_max).unsqueeze(-1)
    delta, decay = _errors(rewards, values, last_values, terminated, time_out, final_values, gamma, gae_lambda)
    advantages = torch.empty_like(delta)
    following = torch.zeros_like(last_values)
    for t in range(rewards.shape[0] - 1, -1, -1):
        advantages[t] = torch.addcmul(delta[t], decay[t], following)
        following = rho[t] * advantages[t]
    return advantages


def standardize(advantages: Tensor, dim: Tuple[int, ...], correction: int = 0) -> Tensor:
    """Zero mean and unit spread over ``dim`` (of the population; ``correction=1`` of the sample, as released code
    does); all zero where the spread is below 1e-6."""
    std, mean = ranks.std_mean(advantages, dim, correction, keepdim=True)
    centred = advantages - mean
    return torch.where(std > MIN_ADVANTAGE_STD, centred / (std + 1e-8), torch.zeros_like(centred))


def constrained_weights(alpha: Tensor, heuristic_weight: float, mixing: str = "ratio") -> Tensor:
    """Weights (..., 2) of the standardised [r, h] advantages for the policy that maximises (1+alpha) r + lambda h.

    "ratio" divides by 1+alpha, so the task reward keeps its scale: [1, lambda / (1 + alpha)]; "convex" is the second
    released variant, [b, lambda (1 - b)] with b = alpha / (1 + alpha), which starts at h alone.

    Raises:
        ValueError: unknown mixing.
    """
    if mixing == "ratio":
        w = heuristic_weight / (1.0 + alpha)
        return torch.stack((torch.ones_like(w), w), -1)
    if mixing == "convex":
        share = alpha / (1.0 + alpha)
        return torch.stack((share, heuristic_weight * (1.0 - share)), -1)
    raise ValueError("unknown mixing %r; valid: ratio, convex" % mixing)


def lagrangian_weights(nu: Tensor) -> Tensor:
    """Weights (..., 2) of the standardised [r, h] advantages of PPO-Lagrangian: [nu, 1] / (1 + nu)."""
    return torch.stack((nu, torch.ones_like(nu)), -1) / (1.0 + nu).unsqueeze(-1)
