"""The loss of a gradient step: everything that PPO adds up, term by term; methods/losses.py has the terms' formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.minibatch import Minibatch, RowWeights
from hepo_isaac.methods.losses import (
    clipped_value_loss,
    dual_clipped_surrogate,
    effective_sample_fraction,
    gaussian_kl,
    gaussian_log_prob,
    mean_bound_loss,
    probability_ratio,
)

# Per-policy statistics of a step, in the order of Loss.statistics.
STATISTICS = (
    "loss_actor",
    "loss_critic",
    "kl",
    "clip_fraction_own",
    "clip_fraction_foreign",
    "ess_foreign",
    "grad_norm",
)


@dataclass
class Loss:
    """total, actor and critic (P,); ratio (P, m) of every row; weights of rows in the KL's mean (P, m); kinds, see
    RowWeights.kinds."""

    total: Tensor
    actor: Tensor
    critic: Tensor
    ratio: Tensor
    in_kl: Tensor
    kinds: Tuple[Tensor, Tensor]


def ppo_loss(
    rows: Minibatch,
    weights: RowWeights,
    mean: Tensor,
    values: Tensor,
    log_std: Tensor,
    critic_channels: Tensor,
    dual_clip: float,
    train: TrainConfig,
) -> Loss:
    """Clipped surrogate on own rows, dual-clipped on the partner's, clipped value loss, bound on means, entropy.

    Args:
        rows: P policies, m rows each.  mean (P, m, A), values (P, m, 2), log_std (P, A): what the networks say of them.
        critic_channels: (P, 2) 1 where a policy's critic of a channel is trained.
        dual_clip: bound on the partner's rows' loss for negative advantages.
    """
    in_actor, in_critic, in_kl = weights.of_rows(rows.on_policy)
    log_prob = gaussian_log_prob(rows.actions, mean, log_std.unsqueeze(1))
    ratio = probability_ratio(log_prob, rows.log_prob)
    surrogate = dual_clipped_surrogate(ratio, rows.advantage, train.e_clip, dual_clip, rows.on_policy)
    actor = (surrogate * in_actor).sum(1)
    clip = train.e_clip if train.clip_value else float("inf")
    errors = clipped_value_loss(values, rows.old_values, rows.returns, clip)
    critic = ((errors * in_critic.unsqueeze(-1)).sum(1) * critic_channels).sum(-1)
    bound = (mean_bound_loss(mean) * in_kl).sum(1)
    entropy = log_std.sum(-1)  # up to a constant
    total = actor + 0.5 * train.critic_coef * critic + train.bounds_loss_coef * bound - train.entropy_coef * entropy
    return Loss(total, actor, critic, ratio, in_kl, weights.kinds(rows.on_policy))


def kl_of_step(rows: Minibatch, loss: Loss, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(P,) mean KL of the policies before the update from those now."""
    kl = gaussian_kl(rows.mean, old_log_std.unsqueeze(1), mean, log_std.unsqueeze(1))
    return (kl * loss.in_kl).sum(1)


def statistics(rows: Minibatch, loss: Loss, kl: Tensor, grad_norm: Tensor, clip: float) -> Tensor:
    """(P, len(STATISTICS)) of one step."""
    clipped = ((loss.ratio - 1.0).abs() > clip).to(loss.ratio.dtype)
    on_policy, off_policy = loss.kinds
    own = (clipped * on_policy).sum(1) / on_policy.sum(1).clamp_min(1.0)
    foreign = (clipped * off_policy).sum(1) / off_policy.sum(1).clamp_min(1.0)
    ess = effective_sample_fraction(loss.ratio, off_policy)
    return torch.stack((loss.actor, loss.critic, kl, own, foreign, ess, grad_norm), 1)
