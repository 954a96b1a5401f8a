"""Running statistics against numpy on all the data seen."""

from __future__ import annotations

import math

import pytest
import torch

from hepo_isaac.agents.normalizer import RunningMeanStd, ValueNormalizer

CPU = torch.device("cpu")


def test_batches_add_up_to_the_whole():
    g = torch.Generator().manual_seed(0)
    data = 1e3 + 5.0 * torch.randn(2, 900, 3, generator=g)
    norm = RunningMeanStd(2, 3, CPU)
    for batch in data.split([100, 500, 300], dim=1):
        norm.update(batch)
    torch.testing.assert_close(norm.mean, data.double().mean(1))
    torch.testing.assert_close(norm.var, data.double().var(1, correction=0))
    z = norm.normalize(data)
    assert z.mean().abs().item() < 1e-3 and abs(z.std().item() - 1.0) < 1e-2


def test_constant_channel_predicts_its_mean_exactly():
    """r = 0 so far: whatever the network says, the value is 0 and so is every TD error."""
    norm = ValueNormalizer(1, 2, CPU)
    values = torch.randn(1, 50, 2)
    assert norm.denormalize(values).abs().max().item() == 0.0
    returns = torch.stack((torch.zeros(50), torch.randn(50)), 1).unsqueeze(0)
    norm.update(returns)
    assert norm.denormalize(values)[..., 0].abs().max().item() == 0.0
    assert norm.normalize_targets(returns)[..., 0].abs().max().item() == 0.0


def test_targets_round_trip():
    norm = ValueNormalizer(1, 1, CPU, math.inf)
    returns = torch.randn(1, 1000, 1) * 0.01 + 3.0
    norm.update(returns)
    z = norm.normalize_targets(returns)
    torch.testing.assert_close(norm.denormalize(z), returns, rtol=1e-5, atol=1e-5)
    assert abs(z.std(correction=0).item() - 1.0) < 1e-3


@pytest.mark.parametrize("clip", [5.0, 20.0, math.inf])
def test_a_late_and_rare_reward_as_far_as_the_clip_lets_it(clip):
    """50 batches without reward, then one row in a hundred pays 1. With p = 1 / 5100 the mean is p and the spread
    sqrt(p (1 - p)): the target is min(1, p + clip spread), 0.07 of the reward at rl-games' 5."""
    norm = ValueNormalizer(1, 1, CPU, clip)
    for _ in range(50):
        norm.update(torch.zeros(1, 1000, 1))
    returns = torch.zeros(1, 1000, 1)
    returns[0, ::100] = 1.0
    norm.update(returns)
    p = 1.0 / 5100.0
    found = norm.denormalize(norm.normalize_targets(returns))
    assert found[0, 0, 0].item() == pytest.approx(min(1.0, p + clip * math.sqrt(p * (1.0 - p))), rel=1e-4)
