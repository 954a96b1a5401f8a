"""Each loss against a hand-computed case or an independent formula."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from hepo_isaac.methods.losses import (
    adapt_learning_rate,
    clipped_surrogate,
    clipped_value_loss,
    dual_clipped_surrogate,
    effective_sample_fraction,
    gaussian_kl,
    gaussian_log_prob,
    mean_bound_loss,
    probability_ratio,
)


def test_log_prob_and_kl_agree_with_torch_distributions():
    g = torch.Generator().manual_seed(0)
    mean, other, action = (torch.randn(2, 7, 3, generator=g) for _ in range(3))
    log_std, other_log_std = torch.randn(2, 1, 3, generator=g), torch.randn(2, 1, 3, generator=g)

    def dist(m, s):
        return Independent(Normal(m, s.exp().expand_as(m)), 1)

    torch.testing.assert_close(gaussian_log_prob(action, mean, log_std), dist(mean, log_std).log_prob(action))
    expected = kl_divergence(dist(other, other_log_std), dist(mean, log_std))
    torch.testing.assert_close(gaussian_kl(other, other_log_std, mean, log_std), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "ratio, advantage, expected",
    [(1.0, 2.0, -2.0), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6)],
)
def test_clipped_surrogate_by_hand(ratio, advantage, expected):
    got = clipped_surrogate(torch.tensor(ratio), torch.tensor(advantage), 0.2)
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_dual_clip_bounds_only_negative_advantages():
    ratio, advantage = torch.tensor([50.0, 50.0, 2.0]), torch.tensor([-1.0, 1.0, -1.0])
    got = dual_clipped_surrogate(ratio, advantage, 0.2, 3.0)
    # -A*rho = 50 is cut at 3; A > 0 stays at the ordinary clip; rho = 2 < 3 stays as it is
    assert got.tolist() == pytest.approx([3.0, -1.2, 2.0])


def test_dual_clip_stops_the_gradient_of_far_rows():
    ratio = torch.tensor([50.0, 2.0], requires_grad=True)
    dual_clipped_surrogate(ratio, torch.tensor([-1.0, -1.0]), 0.2, 3.0).sum().backward()
    assert ratio.grad.tolist() == [0.0, 1.0]


def test_value_loss_is_pessimistic():
    # prediction moved 0.5 towards the target but only 0.2 counts: (1 - 0.2)^2 = 0.64 > (1 - 0.5)^2
    loss = clipped_value_loss(torch.tensor(0.5), torch.tensor(0.0), torch.tensor(1.0), 0.2)
    assert loss.item() == pytest.approx(0.64)


def test_bound_loss_starts_at_the_limit():
    got = mean_bound_loss(torch.tensor([[1.1, -1.1], [1.6, -2.1]]))
    assert got.tolist() == pytest.approx([0.0, 0.25 + 1.0], abs=1e-6)


def test_ratio_cannot_overflow():
    assert torch.isfinite(probability_ratio(torch.tensor(900.0), torch.tensor(0.0)))


def test_effective_sample_fraction():
    # (1+1+2)^2 / (3 * 6) = 16/18; equal weights give 1
    ratio = torch.tensor([[1.0, 1.0, 2.0, 50.0], [0.3, 0.3, 0.3, 50.0], [1.0, 2.0, 3.0, 4.0]])
    counted = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert effective_sample_fraction(ratio, counted).tolist() == pytest.approx([16 / 18, 1.0, 1.0])


def test_learning_rate_rule_per_policy():
    rate = torch.tensor([3e-4, 3e-4, 3e-4, 1e-2, 1e-6])
    kl = torch.tensor([0.02, 0.008, 0.001, 0.0, 1.0])
    got = adapt_learning_rate(rate, kl, 0.008, (1e-6, 1e-2))
    assert got.tolist() == pytest.approx([2e-4, 3e-4, 4.5e-4, 1e-2, 1e-6])
