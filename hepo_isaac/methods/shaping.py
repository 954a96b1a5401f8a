"""Rewards made from h: potentials (Ng et al. 1999) and HuRL's horizon shaping (Cheng et al. 2021).

Shapes: T horizon, ``...`` any batch shape. ``h[t]`` is the heuristic reward emitted by step t, the step from s_t into
s_{t+1}; ``terminated[t]`` and ``time_out[t]`` (bool, exclusive) say that this step ended its episode.

What shaping with a potential leaves alone, exactly:
  * the return up to a constant of the start: sum_t gamma^t F_t = gamma^L Phi_L - Phi_0, Phi_L = 0 at a termination;
  * for a potential of the *state*, with V' = V - Phi: every TD error, hence every GAE(lambda) advantage.
What it does change is the critic's scale and what an unfitted critic starts from. A per-step reward used as a
potential, Phi(s, a), keeps the first but not the second: no critic of the state can absorb Phi(s, a), so
A'(s, a) = A(s, a) - (Phi(s, a) - E_a Phi(s, a)), and actions would have to be chosen by argmax (Q' + Phi) to be
unbiased (look-ahead advice, Wiewiora et al. 2003).
"""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor


def look_ahead_potential(h: Tensor, terminated: Tensor, time_out: Tensor, gamma: float, scale: float = 1.0) -> Tensor:
    """PBRS with the per-step reward as its potential, Phi_t = scale * h_t: F_t = gamma Phi_{t+1} - Phi_t.

    After a termination the potential is 0. After a time limit row t+1 belongs to another episode, so the last
    potential seen is kept, Phi(s_final) := Phi_t; zeroing it there would pay for running out of time. Bootstrap with
    the critic of the shaped reward as usual.

    Args:
        h, terminated, time_out: (T, ...).
        scale: c, in task-reward units per unit of h.

    Returns:
        (T - 1, ...): the last row has no look-ahead and is left out.
    """
    phi = scale * h
    successor = torch.where(time_out[:-1], phi[:-1], phi[1:])
    return state_potential(phi[:-1], successor, terminated[:-1], gamma)


def state_potential(phi: Tensor, final_phi: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """F_t = gamma Phi(s_{t+1}) - Phi(s_t) (Ng et al. 1999); zero potential after terminations only.

    Args:
        phi: (T, ...) potential of the state acted on.
        final_phi: (T, ...) potential of the state the step really led to, before any reset; kept at time limits,
            not read where ``terminated``.
    """
    return gamma * torch.where(terminated, torch.zeros_like(final_phi), final_phi) - phi


def learned_potential_target(h: Tensor, next_phi: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """TD target of a potential Phi(s, a) that is learned from reward -h (Harutyunyan et al. 2015).

    Once Phi has converged, F = state_potential(Phi(s, a), Phi(s', a'), ...) equals h in expectation, so any h can be
    expressed as a potential. Known defect: the optimal policy is only kept if Phi is also added when choosing
    actions (Behboudian et al. 2022); plain policy gradients on r + F do not do that.

    Args:
        h, terminated: (T, ...).  next_phi: (T, ...) Phi(s_{t+1}, a_{t+1}), not read where ``terminated``.
    """
    return gamma * torch.where(terminated, torch.zeros_like(next_phi), next_phi) - h


def horizon_reward(r: Tensor, h: Tensor, terminated: Tensor, gamma: float, lam: Union[float, Tensor]) -> Tensor:
    """HuRL's reward r_t + (1 - lam) gamma h(s_{t+1}), for use with the discount ``horizon_discount(gamma, lam)``.

    The heuristic value of the state reached, h(s_{t+1}), is the heuristic reward of the step into it, ``h[t]``; it is
    0 after a termination. What the shorter horizon cuts from the return, the guess h is paid for: with h = V* of the
    task every lam has the task's optimal policy. lam = 1 is the task itself.

    Args:
        r, h, terminated: (T, ...).  lam: in [0, 1], a float or broadcastable, e.g. (S, 1) for runs of their own.
    """
    bonus = (1.0 - lam) * gamma * h
    return r + torch.where(terminated, torch.zeros_like(bonus), bonus)


def horizon_discount(gamma: float, lam: Union[float, Tensor]) -> Union[float, Tensor]:
    """HuRL's discount lam * gamma, to be used in GAE and in the critic's targets alike."""
    return lam * gamma
