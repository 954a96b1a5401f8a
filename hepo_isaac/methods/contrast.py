"""Estimators of J(pi) - J(reference), the gap that the multiplier descends on; all of them one number per run.

Most rest on the performance-difference lemma: over data of one policy, the mean advantage measured with the *other*
policy's critic estimates how much better the one that acted is.
"""

from __future__ import annotations

from typing import Tuple

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.methods.advantages import MIN_ADVANTAGE_STD, standardize

# What is computed from advantages alone; the others need episodes or start states.
ADVANTAGE_CONTRASTS = ("raw_gae", "standardized", "release", "release2")


def advantage_contrast(own: Tensor, cross: Tensor, mode: str) -> Tensor:
    """Gap from task advantages, in units of their spread.

    Args:
        own: (S, 2, M) task advantages on each policy's own rows, its own critic (policy 0 is pi).
        cross: (S, 2, M) task advantages on the other policy's rows with this policy's critic: ``cross[:, 0]`` is
            pi's critic on the reference's rows.
        mode: "raw_gae" half the difference of the two cross means over one pooled spread, not centred.
            "standardized": each critic's advantages standardised over all rows first.
            "release": the same without the half, with the unbiased spread (released code, 5bb4244).
            "release2": half the sum of pi's mean on pi's rows and the reference's on pi's rows (cf429822).

    Returns:
        (S,) positive where pi is better.
    """
    if mode == "raw_gae":
        on_reference, on_pi = ranks.mean(cross.mean(-1)).unbind(1)
        return pooled_gap(on_pi, on_reference, torch.cat((own, cross), -1))
    z = whitened_per_critic(own, cross, unbiased=mode.startswith("release"))
    means = torch.stack((z[..., : own.shape[-1]].mean(-1), z[..., own.shape[-1] :].mean(-1)))
    mine, others = ranks.mean(means).unbind()
    if mode == "standardized":
        return 0.5 * (others[:, 1] - others[:, 0])
    if mode == "release":
        return others[:, 1] - others[:, 0]
    if mode == "release2":
        return 0.5 * (mine[:, 0] + others[:, 1])
    raise ValueError("unknown contrast %r; valid: %s" % (mode, ", ".join(ADVANTAGE_CONTRASTS)))


def pooled_gap(on_pi: Tensor, on_reference: Tensor, advantages: Tensor) -> Tensor:
    """Half the difference of two cross means (S,), over the spread of all advantages (S, ...); 0 where they are flat.

    Args:
        on_pi: mean over pi's rows of the advantage by the reference's critic.  on_reference: the reverse.
    """
    std, _ = ranks.std_mean(advantages.flatten(1), dim=1)
    gap = 0.5 * (on_pi - on_reference)
    return torch.where(std > MIN_ADVANTAGE_STD, gap / (std + 1e-8), torch.zeros_like(gap))


def whitened_per_critic(own: Tensor, cross: Tensor, unbiased: bool = True) -> Tensor:
    """(..., M + M') both standardised over everything that one critic sees, before rows change hands (the release)."""
    return standardize(torch.cat((own, cross), -1), dim=(-1,), correction=int(unbiased))


def start_value_gap(values: Tensor, starts: Tensor) -> Tuple[Tensor, Tensor]:
    """Mean over start states of V_r^pi(s0) - V_r^reference(s0), and whether there was any start state.

    Args:
        values: (S, 2, M) task values of both critics on all rows.  starts: (S, M) 1 where a row begins an episode.

    Returns:
        (S,) gap in reward units (0 without starts), (S,) bool.
    """
    sums = torch.cat(((values * starts.unsqueeze(1)).sum(-1), starts.sum(-1, keepdim=True)), 1)
    sums = ranks.total(sums)
    count = sums[:, 2]
    mean = sums[:, :2] / count.clamp_min(1.0).unsqueeze(1)
    return mean[:, 0] - mean[:, 1], count > 0
