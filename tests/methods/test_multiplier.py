"""alpha: the sign and size of its step, its median, its bounds, and two exact problems it has to solve."""

from __future__ import annotations

import itertools

import pytest
import torch

from hepo_isaac.methods.multiplier import Multiplier, MultiplierConfig

CPU = torch.device("cpu")


def _multiplier(runs=1, **config):
    return Multiplier(MultiplierConfig(allow_negative=True, **config), runs, CPU)


def _drive(multiplier, gaps):
    for gap in gaps:
        multiplier.record(torch.as_tensor(gap, dtype=torch.float32).view(-1))
        multiplier.update()


@pytest.mark.parametrize("gap, direction", [(0.5, -1), (-0.5, 1)])
def test_alpha_falls_while_pi_is_better_and_rises_while_it_is_worse(gap, direction):
    m = _multiplier(init=1.0, lr=0.01)
    _drive(m, [gap])
    # Adam's first step is lr * sign.
    assert m.value.item() == pytest.approx(1.0 + direction * 0.01, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 10, 1500])
def test_constant_gap_moves_alpha_by_lr_each_step(steps):
    """Exact for Adam with a constant gradient: alpha_n = lr n, e.g. 0.15 after 1500 steps of 1e-4."""
    m = _multiplier(lr=1e-4)
    _drive(m, [-0.3] * steps)
    assert m.value.item() == pytest.approx(1e-4 * steps, rel=2e-3)


def test_alpha_is_projected_to_its_interval():
    m = _multiplier(lr=0.5, maximum=1.0)
    _drive(m, [-1.0] * 5)
    assert m.value.item() == 1.0
    _drive(m, [1.0] * 40)
    assert m.value.item() == 0.0
    released = _multiplier(lr=0.5, minimum=-0.99)
    _drive(released, [1.0] * 40)
    assert released.value.item() == pytest.approx(-0.99)


@pytest.mark.parametrize("count", range(1, 12))
def test_median_of_the_last_eight(count):
    values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0, 5.0, 3.5, 8.0][:count]
    m = _multiplier(lr=0.0)
    _drive(m, values)
    last = torch.tensor(values[-8:])
    low, high = last.median().item(), -((-last).median().item())
    assert m.median().item() == pytest.approx(0.5 * (low + high))
    lower = _multiplier(lr=0.0, median="lower")
    _drive(lower, values)
    assert lower.median().item() == low


def test_only_the_midpoint_median_is_unbiased():
    """All 2^8 sign patterns of eight equal records: the lower median is negative in 163 of 256."""
    negative, total = 0, 0.0
    for signs in itertools.product((-1.0, 1.0), repeat=8):
        lower, mid = _multiplier(median="lower", lr=0.0), _multiplier(lr=0.0)
        for s in signs:
            lower.record(torch.tensor([s]))
            mid.record(torch.tensor([s]))
        negative += lower.median().item() < 0
        total += mid.median().item()
    assert negative == 163
    assert total == 0.0


def test_runs_do_not_touch_each_other():
    alone, pair = _multiplier(), _multiplier(runs=2)
    gaps = torch.randn(30, generator=torch.Generator().manual_seed(0))
    _drive(alone, gaps)
    _drive(pair, [torch.stack((g, torch.tensor(float("nan")))) for g in gaps])
    assert pair.value[0].item() == alone.value.item()


def test_state_round_trip_is_exact():
    gaps = torch.randn(40, generator=torch.Generator().manual_seed(1)).tolist()
    whole, first, second = _multiplier(), _multiplier(), _multiplier()
    _drive(whole, gaps)
    _drive(first, gaps[:17])
    second.load_state_dict(first.state_dict())
    _drive(second, gaps[17:])
    assert second.value.item() == whole.value.item()


def test_gradient_is_clipped():
    m = _multiplier()
    _drive(m, [25.0])
    assert m.gradient.item() == 1.0


@pytest.mark.parametrize("bad", [{"minimum": -1.0}, {"median": "mean"}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match="alpha|median"):
        _multiplier(**bad)


class TestQuadraticPointMass:
    """r = -(a-1)^2, h = -k (a-b)^2: argmax of (1+alpha) r + h is ((1+alpha) + k b) / (1 + alpha + k); k=1, b=3."""

    @staticmethod
    def _mu(alpha):
        return ((1 + alpha) + 3.0) / (2 + alpha)

    def _solve(self, reference, steps, **config):
        m = _multiplier(gradient_clip=100.0, median_window=1, **config)
        for _ in range(steps):
            gap = -((self._mu(m.value.item()) - 1.0) ** 2) - reference
            _drive(m, [gap])
        return m.value.item()

    @pytest.mark.parametrize("start", [0.0, 5.0])
    @pytest.mark.parametrize("minimum", [0.0, -0.99])
    def test_binding_constraint_has_one_fixed_point(self, start, minimum):
        """Reference J = -1/4 (fixed): alpha* = 2 and mu = 1.5 from any start and with either bound."""
        alpha = self._solve(-0.25, 4000, init=start, lr=0.01, minimum=minimum)
        assert alpha == pytest.approx(2.0, abs=0.02)
        assert self._mu(alpha) == pytest.approx(1.5, abs=0.005)

    def test_slack_constraint_goes_to_the_bound(self):
        """Reference pi_H (mu = 3, J = -4) is worse for every alpha: alpha ends at its minimum. With the release's
        -0.99 that throws the task away: mu = 2.9802, J = -3.9212 instead of mu = 2, J = -1."""
        assert self._solve(-4.0, 500, lr=0.01) == 0.0
        alpha = self._solve(-4.0, 2000, lr=0.01, minimum=-0.99)
        assert alpha == pytest.approx(-0.99)
        assert self._mu(alpha) == pytest.approx(2.9802, abs=1e-4)
        assert -((self._mu(alpha) - 1) ** 2) == pytest.approx(-3.9212, abs=1e-4)


def test_significance_rises_beyond_z_and_falls_with_any_lead():
    m = Multiplier(MultiplierConfig(rule="significance", lr=0.5, median_window=1, gradient_clip=10.0), 1, CPU)
    for gap, expected in ((-1.9, 0.0), (-3.0, 0.5), (-4.0, 1.5), (0.4, 1.3), (-1.0, 1.3), (9.0, 0.0)):
        m.record(torch.tensor([gap]))
        m.update()
        assert m.value.item() == pytest.approx(expected)


def test_significance_does_not_drift_on_records_without_a_gap():
    """Over 3,000 windows of standard normal gaps; descent by Adam on the same ends far from 0 (the floor turns noise
    into drift)."""
    draw = torch.Generator().manual_seed(0)
    config = {"lr": 0.2, "median_window": 1, "gradient_clip": 5.0}
    steady = Multiplier(MultiplierConfig(rule="significance", **config), 100, CPU)
    drifting = Multiplier(MultiplierConfig(lr=0.01, gradient_clip=1.0), 100, CPU)
    total = torch.zeros(100)
    for _ in range(3000):
        gap = torch.randn(100, generator=draw)
        for one in (steady, drifting):
            one.record(gap)
            one.update()
        total += steady.value
    assert (total / 3000).max() < 0.05
    assert drifting.value.mean() > 0.5
