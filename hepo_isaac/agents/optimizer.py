"""Adam along the policy axis: one row, one learning rate and one gradient norm per policy, no host reads."""

from __future__ import annotations

from typing import Any, Dict

import torch
from torch import Tensor

from hepo_isaac import ranks


class StackedAdam:
    """torch.optim.Adam's update on a (P, D) leaf whose row p has learning rate ``learning_rate[p]``.

    torch's own Adam takes one rate per parameter group, hence P kernels and P groups; this takes one kernel.
    tests/agents/test_optimizer.py holds it equal to torch.optim.Adam.

    Args:
        flat: leaf (P, D) with a gradient of the same shape.
        learning_rate: (P,) tensor, changed in place by whoever schedules it.
    """

    def __init__(
        self, flat: Tensor, learning_rate: Tensor, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self.flat, self.learning_rate = flat, learning_rate
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.exp_avg = torch.zeros_like(flat, requires_grad=False)
        self.exp_avg_sq = torch.zeros_like(flat, requires_grad=False)
        self.steps = torch.zeros(flat.shape[0], 1, dtype=flat.dtype, device=flat.device)

    @torch.no_grad()
    def step(self, max_grad_norm: float) -> Tensor:
        """Clip each policy's gradient, the mean over ranks, to ``max_grad_norm`` and update; returns the norms (P,)
        before clipping."""
        grad = self.flat.grad
        assert grad is not None
        ranks.mean_(grad)
        norm = grad.norm(dim=1, keepdim=True)
        grad.mul_((max_grad_norm / (norm + 1e-6)).clamp_max(1.0))
        self.steps += 1.0
        self.exp_avg.lerp_(grad, 1.0 - self.beta1)
        self.exp_avg_sq.mul_(self.beta2).addcmul_(grad, grad, value=1.0 - self.beta2)
        # eps is added after the bias correction, as torch.optim.Adam does.
        denominator = (self.exp_avg_sq / (1.0 - self.beta2**self.steps)).sqrt_().add_(self.eps)
        scale = self.learning_rate.unsqueeze(1) / (1.0 - self.beta1**self.steps)
        self.flat.sub_(scale * (self.exp_avg / denominator))
        return norm.squeeze(1)

    def zero_grad(self) -> None:
        """Zero the gradient in place, so that views of it stay valid."""
        if self.flat.grad is None:
            self.flat.grad = torch.zeros_like(self.flat)
        else:
            self.flat.grad.zero_()

    @torch.no_grad()
    def take(self, source: Tensor) -> None:
        """Policy p goes on with the moments, steps and rate of policy ``source[p]``, (P,) int64."""
        for tensor in (self.exp_avg, self.exp_avg_sq, self.steps, self.learning_rate):
            tensor.copy_(tensor.index_select(0, source))

    _STATE = ("exp_avg", "exp_avg_sq", "steps", "learning_rate")

    def state_dict(self) -> Dict[str, Any]:
        """Moments, step counts and learning rates."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])
