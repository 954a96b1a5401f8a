"""StackedAdam is torch.optim.Adam with gradient-norm clipping, once per policy."""

from __future__ import annotations

import torch
from torch import nn

from hepo_isaac.agents.optimizer import StackedAdam


def test_equals_torch_adam_per_policy():
    g = torch.Generator().manual_seed(0)
    start = torch.randn(3, 50, generator=g, dtype=torch.float64)
    flat = nn.Parameter(start.clone())
    rates = torch.tensor([1e-3, 5e-2, 1e-4], dtype=torch.float64)
    ours = StackedAdam(flat, rates.clone())
    theirs = [nn.Parameter(start[p].clone()) for p in range(3)]
    adams = [torch.optim.Adam([t], lr=float(r)) for t, r in zip(theirs, rates)]
    for step in range(20):
        grad = torch.randn(3, 50, generator=g, dtype=torch.float64) * (10.0 if step % 3 else 0.01)
        ours.zero_grad()
        flat.grad.add_(grad)
        norm = ours.step(1.0)
        torch.testing.assert_close(norm, grad.norm(dim=1))
        for p in range(3):
            theirs[p].grad = grad[p].clone()
            nn.utils.clip_grad_norm_([theirs[p]], 1.0)
            adams[p].step()
            torch.testing.assert_close(flat[p].detach(), theirs[p].detach(), rtol=1e-9, atol=1e-12)


def test_state_round_trip_is_exact_and_keeps_the_rate_tensor():
    flat = nn.Parameter(torch.ones(2, 4))
    rate = torch.tensor([1e-2, 1e-3])
    a = StackedAdam(flat, rate)
    a.zero_grad()
    flat.grad.add_(torch.randn(2, 4))
    a.step(1.0)
    b = StackedAdam(nn.Parameter(flat.detach().clone()), torch.zeros(2))
    kept = b.learning_rate
    b.load_state_dict(a.state_dict())
    assert b.learning_rate is kept and torch.equal(kept, rate)
    for opt in (a, b):
        opt.zero_grad()
        opt.flat.grad.add_(0.5)
        opt.step(1.0)
    assert torch.equal(a.flat, b.flat)


def test_gradient_stays_one_tensor():
    """Views of the gradient must stay valid, so zero_grad may not replace it."""
    opt = StackedAdam(nn.Parameter(torch.ones(1, 2)), torch.tensor([0.1]))
    opt.zero_grad()
    pointer = opt.flat.grad.data_ptr()
    (opt.flat.sum()).backward()
    opt.zero_grad()
    assert opt.flat.grad.data_ptr() == pointer and opt.flat.grad.abs().sum() == 0
