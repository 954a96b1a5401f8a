"""EIPO (Chen, Hong, Pajarinen, Agrawal 2022) with r for the extrinsic and h for the intrinsic reward.

Problem: max J(pi) + H(pi) subject to J(pi) = max J(pi_J), where pi_J is a second policy that maximises r alone.
L(alpha) = (1 + alpha) J(pi) + H(pi) - alpha J(pi_J): pi ascends in max stages, pi_J and alpha descend.

Both stages rewrite L as a return of the policy that is being improved, on data of the other one. Exactly, with exact
critics (performance difference lemma):
    E_pi  [sum gamma^t max_stage_utility] = L        (pi is improved on pi_J's data)
    E_pi_J[sum gamma^t min_stage_utility] = -L       (pi_J is improved on pi's data)
"""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor

from hepo_isaac import ranks

SWITCH_RULES = ("difference", "win_lose", "alternate")


def max_stage_utility(r: Tensor, h: Tensor, task_advantage_of_reference: Tensor, alpha: Union[float, Tensor]) -> Tensor:
    """r + h + alpha A_r^{pi_J}, the utility pi maximises on pi_J's data.

    Equivalently (1 + alpha) r + h + alpha gamma V_r^{pi_J}(s') - alpha V_r^{pi_J}(s), with V(s') = 0 after a
    termination.

    Args:
        r, h, task_advantage_of_reference: (...).  alpha: a float or broadcastable.
    """
    return r + h + alpha * task_advantage_of_reference


def min_stage_utility(
    r: Tensor, h: Tensor, task_advantage: Tensor, heuristic_advantage: Tensor, alpha: Union[float, Tensor]
) -> Tensor:
    """(1 + alpha) A_r^pi + A_h^pi - (r + h), the utility pi_J maximises on pi's data.

    Equivalently alpha r + gamma V(s') - V(s) with V = (1 + alpha) V_r^pi + V_h^pi. The authors' rlpyt code uses
    (alpha - 1) r - h + A_r^pi + A_h^pi instead, where alpha multiplies the one-step reward and not its advantage. Its
    return is -L + alpha J(pi): as J(pi) is fixed in this stage, pi_J sees the same objective with more variance, but
    the mean that "win_lose" looks at has another sign.

    Args:
        r, h: (...).  task_advantage, heuristic_advantage: (...) A_r^pi and A_h^pi.  alpha: a float or broadcastable.
    """
    return (1.0 + alpha) * task_advantage + heuristic_advantage - (r + h)


def constraint_gap(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Estimate of J(pi) - J(pi_J), per step and up to 1 / (1 - gamma), on data of pi_J: mean min(rho A, clip(rho) A).

    alpha *descends* on it, so it falls while pi beats pi_J. (The rlpyt release steps on a loss, minus this, and so
    moves alpha the other way.) Advantages centred over pi_J's rows take its critic's error out and leave the estimate
    unbiased; the mean must be weighted by rho, for the plain mean of centred advantages is 0 whatever pi does.

    Args:
        ratio: (..., M) pi(a|s) / pi_J(a|s), pi after its update.  advantage: (..., M) A_r^{pi_J}.

    Returns:
        (...), positive where pi is better.
    """
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    return ranks.mean(torch.minimum(ratio * advantage, clipped * advantage).mean(-1))


def leave_stage(
    mean_utility: Tensor,
    previous_mean_utility: Tensor,
    seen_before: Tensor,
    iterations_in_stage: Tensor,
    rule: str,
    max_iterations: int = 16,
) -> Tensor:
    """Whether each run changes its stage (max <-> min) after this iteration.

    difference: the utility did not improve on the last one of the *same* stage; never on a stage's first visit.
    win_lose: the mean utility is negative, so the policy being improved loses.
    alternate: always.
    Whatever the rule, ``max_iterations`` in a row are the most.

    Args:
        mean_utility: (S,) mean utility of this iteration's data, *not* standardised (its mean would be rounding
            noise, and the stages would flip at random).
        previous_mean_utility: (S,) the same at this stage's last iteration; not read where ``seen_before`` is false.
        seen_before: (S,) bool.  iterations_in_stage: (S,) integers, this iteration included.

    Returns:
        (S,) bool.
    """
    if rule == "difference":
        leave = seen_before & (mean_utility <= previous_mean_utility)
    elif rule == "win_lose":
        leave = mean_utility < 0
    elif rule == "alternate":
        leave = torch.ones_like(seen_before)
    else:
        raise ValueError("unknown switch rule %r; valid: %s" % (rule, ", ".join(SWITCH_RULES)))
    return leave | (iterations_in_stage >= max_iterations)
