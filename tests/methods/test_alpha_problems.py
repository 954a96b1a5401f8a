"""Problems with known answers for alpha: its estimators, its smoothing, its descent, and where each goes wrong."""

from __future__ import annotations

from math import comb, pi, sqrt

import numpy as np
import pytest
import torch

from hepo_isaac.methods.advantages import constrained_weights, gae, standardize
from hepo_isaac.methods.contrast import ADVANTAGE_CONTRASTS, advantage_contrast
from hepo_isaac.methods.multiplier import Multiplier, MultiplierConfig

F64 = torch.float64


def _multiplier(runs=1, **config):
    config.setdefault("allow_negative", config.get("minimum", 0.0) < 0.0)
    return Multiplier(MultiplierConfig(**config), runs, torch.device("cpu"))


def _drive(multiplier, gap):
    multiplier.record(gap)
    multiplier.update()


class TestBandit:
    """Rewards (0, .3, 1), pi = (.2, .3, .5), pi_H = (.6, .3, .1), 1000 rows each with exactly these frequencies."""

    def _rows(self, critic_pi, critic_h):
        def rows(probabilities):
            counts = torch.tensor([round(1000 * p) for p in probabilities])
            return torch.tensor([0.0, 0.3, 1.0], dtype=F64).repeat_interleave(counts)

        on_pi, on_h = rows((0.2, 0.3, 0.5)), rows((0.6, 0.3, 0.1))
        own = torch.stack((on_pi - critic_pi, on_h - critic_h)).unsqueeze(0)
        cross = torch.stack((on_h - critic_pi, on_pi - critic_h)).unsqueeze(0)
        return own, cross

    @pytest.mark.parametrize("critics, expected", [((0.59, 0.19), 0.8), ((0.39, 0.39), 0.4)])
    def test_the_sum_of_both_estimates_is_twice_the_gap_or_the_gap(self, critics, expected):
        """Own critics see the gap twice; critics of the mixture (both fitted on all rows) only once."""
        _, cross = self._rows(*critics)
        assert (cross[:, 1].mean() - cross[:, 0].mean()).item() == pytest.approx(expected)

    def test_standardising_jointly_keeps_the_gap_and_per_half_loses_it(self):
        own, cross = self._rows(0.59, 0.19)
        var_pi, var_h = 0.3 * 0.09 + 0.5 - 0.59**2, 0.3 * 0.09 + 0.1 - 0.19**2
        sigma = sqrt(0.5 * (var_pi + var_h) + 0.4**2 / 4)
        assert 0.4 / sigma == pytest.approx(0.956, abs=1e-3)
        # 2000 rows per critic: the release's spread is the sample's
        assert advantage_contrast(own, cross, "release").item() == pytest.approx(0.4 / sigma * sqrt(1999 / 2000))
        halves = standardize(cross, dim=(-1,)).mean(-1)
        assert (halves[:, 1] - halves[:, 0]).item() == pytest.approx(0.0, abs=1e-12)

    @pytest.mark.parametrize("mode", ADVANTAGE_CONTRASTS)
    def test_alphas_step_is_against_the_gap(self, mode):
        """pi is better, so alpha falls; with the policies' names exchanged it rises. Both by Adam's first step."""
        own, cross = self._rows(0.59, 0.19)
        gap = advantage_contrast(torch.cat((own, own.flip(1))), torch.cat((cross, cross.flip(1))), mode)
        alpha = _multiplier(2, init=1.0, lr=0.01)
        _drive(alpha, gap)
        assert alpha.value.tolist() == pytest.approx([0.99, 1.01], rel=1e-5)

    def test_two_deterministic_halves_are_two_apart(self):
        """n rows each: the largest a standardised gap can be. The release clips it to 1."""
        n = 50
        one, zero = torch.ones(1, n, dtype=F64), torch.zeros(1, n, dtype=F64)
        own, cross = torch.stack((one, zero), 1), torch.stack((zero, one), 1)
        assert 2.0 * advantage_contrast(own, cross, "standardized").item() == pytest.approx(2.0, rel=1e-7)
        assert advantage_contrast(own, cross, "release").item() == pytest.approx(2.0 * sqrt(1 - 1 / (2 * n)), rel=1e-7)
        alpha = _multiplier(minimum=-0.99)
        _drive(alpha, advantage_contrast(own, cross, "release"))
        assert alpha.gradient.item() == 1.0


def _lower_median_mean(window):
    """E of the (K/2)-th smallest of K standard normals, by quadrature."""
    x = np.linspace(-8, 8, 20001)
    density = np.exp(-x * x / 2) / sqrt(2 * pi)
    below = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2))) * (x[1] - x[0])
    k = window // 2
    weight = window * comb(window - 1, k - 1) * below ** (k - 1) * (1 - below) ** (window - k) * density
    return float((x * weight).sum() * (x[1] - x[0]))


class TestMedian:
    @pytest.mark.parametrize("window, expected", [(2, 0.75), (4, 0.6875), (8, 0.6367), (16, 0.598), (32, 0.570)])
    def test_the_lower_median_of_noise_is_mostly_negative(self, window, expected):
        """P = sum over j >= K/2 of C(K, j) / 2^K; the midpoint is negative in half of the runs."""
        exact = sum(comb(window, j) for j in range(window // 2, window + 1)) / 2**window
        assert exact == pytest.approx(expected, abs=5e-4)
        runs = 40_000
        lower = _multiplier(runs, median="lower", median_window=window)
        middle = _multiplier(runs, median_window=window)
        g = torch.Generator().manual_seed(window)
        for _ in range(window):
            gap = torch.randn(runs, generator=g)
            lower.record(gap)
            middle.record(gap)
        tolerance = 4 * 0.5 / sqrt(runs)
        assert (lower.median() < 0).double().mean().item() == pytest.approx(exact, abs=tolerance)
        assert (middle.median() < 0).double().mean().item() == pytest.approx(0.5, abs=tolerance)
        if window == 8:
            assert _lower_median_mean(8) == pytest.approx(-0.153, abs=1e-3)
            assert lower.median().mean().item() == pytest.approx(_lower_median_mean(8), abs=4 * 0.43 / sqrt(runs))

    @pytest.mark.parametrize("median, expected", [("lower", 0.099), ("midpoint", 0.0)])
    def test_drift_where_there_is_nothing_to_learn(self, median, expected):
        """3000 steps of 1e-4 on pure noise, 400 runs (of standard deviation .015): only the midpoint stays."""
        alpha = _multiplier(400, median=median, lr=1e-4, minimum=-0.99)
        g = torch.Generator().manual_seed(0)
        for _ in range(3000):
            _drive(alpha, torch.randn(400, generator=g))
        assert alpha.value.mean().item() == pytest.approx(expected, abs=4 * 0.015 / sqrt(400))

    def test_the_released_bound_is_reached_after_9900_steps(self):
        """A gap of constant sign moves alpha by exactly lr a step; at -.99 h weighs 100 times r."""
        alpha = _multiplier(lr=1e-4, minimum=-0.99, median="lower")
        for _ in range(9890):
            _drive(alpha, torch.tensor([0.3]))
        assert alpha.value.item() == pytest.approx(-0.989, abs=1e-4)
        for _ in range(20):
            _drive(alpha, torch.tensor([0.3]))
        assert alpha.value.item() == pytest.approx(-0.99, abs=1e-7)
        task, heuristic = constrained_weights(alpha.value, 1.0)[0].tolist()
        assert heuristic / task == pytest.approx(100.0, rel=1e-4)


class TestPointMass:
    """r = -(a-1)^2, h = -(a-3)^2, one Gaussian action of fixed spread: J = -(mu-1)^2 up to a constant, and the best
    mean for alpha is ((1 + alpha) + 3) / (2 + alpha)."""

    SIGMA = 0.3

    def _train(self, start, mean, iterations):
        """Likelihood-ratio ascent on 4096 samples per iteration, against the fixed reference J = -1/4."""
        g = torch.Generator().manual_seed(0)
        alpha = _multiplier(init=start, lr=0.02)
        for _ in range(iterations):
            noise = torch.randn(4096, generator=g)
            action = mean + self.SIGMA * noise
            rewards = torch.stack((-((action - 1) ** 2), -((action - 3) ** 2)), -1)
            weights = constrained_weights(alpha.value, 1.0)[0]
            mixed = (rewards - rewards.mean(0)) @ weights / weights.sum()
            _drive(alpha, (rewards[:, 0].mean() + self.SIGMA**2 + 0.25).view(1))
            mean = mean + 0.2 * float((mixed * noise).mean()) / self.SIGMA
        return alpha.value.item(), mean

    @pytest.mark.parametrize("start, mean", [(0.0, 3.0), (5.0, 1.0), (0.0, 0.0)])
    def test_a_binding_reference_sets_alpha_to_two(self, start, mean):
        """J >= -1/4 holds exactly at mu = 1.5, which is alpha* = 2, from any start."""
        alpha, mean = self._train(start, mean, 800)
        assert alpha == pytest.approx(2.0, abs=0.1)
        assert mean == pytest.approx(1.5, abs=0.03)

    @staticmethod
    def _gap(alpha):
        return -((((1 + alpha) + 3) / (2 + alpha) - 1) ** 2)

    def test_a_reference_at_the_optimum_lets_alpha_grow_for_ever(self):
        """EIPO's pi_J has J = 0: the gap -4/(2+alpha)^2 never closes, (2+alpha)^3 grows by 12 lr per step."""
        alpha = 0.0
        for _ in range(200_000):
            alpha -= 0.01 * self._gap(alpha)
        assert alpha == pytest.approx(26.8, abs=0.05)
        ours = _multiplier(rule="sgd", lr=0.01, median_window=1, gradient_clip=100.0)
        for _ in range(2000):
            _drive(ours, self._gap(ours.value))
        assert ours.value.item() == pytest.approx((0.12 * 2000 + 8) ** (1 / 3) - 2, abs=0.02)

    def test_so_alpha_needs_its_maximum(self):
        """Adam follows the sign, so it grows faster still; the projection is what ends it."""
        ours = _multiplier(lr=0.05, maximum=20.0, median_window=1, gradient_clip=100.0)
        seen = []
        for _ in range(3000):
            _drive(ours, self._gap(ours.value))
            seen.append(ours.value.item())
        assert all(a <= b for a, b in zip(seen, seen[1:]))
        assert seen[-1] == 20.0


class TestWrongSign:
    """pi pays ``cost`` once and then earns ``bonus`` for 50 steps, where pi_H would earn nothing; pi_H earns nothing
    elsewhere. Exact critics. The time-averaged advantages see 50 good steps and one bad."""

    STEPS, COST, GAMMA = 50, 5.0, 0.99

    def _problem(self, bonus):
        r = torch.full((self.STEPS + 1,), bonus, dtype=F64)
        r[0] = -self.COST
        value = torch.zeros_like(r)
        running = 0.0
        for t in range(self.STEPS, -1, -1):
            running = r[t].item() + self.GAMMA * running
            value[t] = running
        return r, value

    def _advantages(self, reward, value):
        last = torch.zeros(1, 1, dtype=F64)
        ends = torch.zeros(len(reward), 1, dtype=torch.bool)
        ends[-1] = True
        column = gae(
            reward.view(-1, 1, 1), value.view(-1, 1, 1), last, ends, torch.zeros_like(ends), last, self.GAMMA, 0.95
        )
        return column.flatten()

    def _rows(self, bonus, mixture):
        """With ``mixture`` both critics are the average of the policies where both go: the start."""
        r, value = self._problem(bonus)
        nothing = torch.zeros_like(r)
        start = torch.zeros_like(r)
        start[0] = value[0]
        on_pi, on_h = (value - 0.5 * start, 0.5 * start) if mixture else (nothing, start)  # the other's critic
        own_pi, own_h = (on_pi, on_h) if mixture else (value, nothing)
        own = torch.stack((self._advantages(r, own_pi), self._advantages(nothing, own_h))).unsqueeze(0)
        cross = torch.stack((self._advantages(nothing, on_h), self._advantages(r, on_pi))).unsqueeze(0)
        return own, cross

    @pytest.mark.parametrize(
        "bonus, discounted, episodic", [(0.05, -3.045, -2.5), (0.12, -0.307, 1.0)], ids=["worse", "disputed"]
    )
    def test_true_gaps(self, bonus, discounted, episodic):
        """In the second problem even the discounted and the episodic gap disagree on the sign."""
        r, value = self._problem(bonus)
        assert value[0].item() == pytest.approx(discounted, abs=1e-3)
        assert r.sum().item() == pytest.approx(episodic)

    @pytest.mark.parametrize("mixture, raw, standardized", [(False, 0.433, 0.345), (True, -0.060, -0.280)])
    def test_what_the_time_average_says(self, mixture, raw, standardized):
        """In the release's scale. Own critics: the wrong sign, so alpha falls while the constraint is violated."""
        own, cross = self._rows(0.05, mixture)
        assert (cross[:, 1].mean() - cross[:, 0].mean()).item() == pytest.approx(raw, abs=5e-4)
        assert 2.0 * advantage_contrast(own, cross, "standardized").item() == pytest.approx(standardized, abs=5e-4)

    @pytest.mark.parametrize("mode", ADVANTAGE_CONTRASTS)
    def test_no_advantage_contrast_escapes_it(self, mode):
        """On record for whoever chooses an estimator: all have the wrong sign here with own critics."""
        gap = advantage_contrast(*self._rows(0.05, False), mode)
        assert gap.item() > 0.1
        assert advantage_contrast(*self._rows(0.05, True), mode).item() < 0.0
