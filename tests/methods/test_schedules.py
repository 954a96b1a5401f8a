"""HuRL's horizon and the annealed weight at the points where they are known."""

from __future__ import annotations

import math

import pytest

from hepo_isaac.methods.schedules import ANNEALING_SCHEDULES, HORIZON_SCHEDULES, anneal, horizon_lambda


class TestHorizon:
    @pytest.mark.parametrize(
        "kind, iteration, expected",
        [
            ("constant", 73, 0.9),
            ("linear", 25, 0.95),  # N = 0.5 * 100: half way
            ("linear", 50, 1.0),
            ("linear", 99, 1.0),
            ("tanh", 49, 1.0),  # N - 1
            ("tanh", 7, 0.9 + 0.1 * math.tanh(math.atanh(0.99) / 7) / 0.99),
            ("exponential_average", 1, 0.9 + 0.1 / 50),
            ("exponential_average", 2, 0.902 + 0.098 / 50),
        ],
    )
    def test_by_hand(self, kind, iteration, expected):
        assert horizon_lambda(iteration, 100, 0.9, 0.5, kind) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("kind", HORIZON_SCHEDULES)
    def test_starts_at_the_initial_value_and_never_falls(self, kind):
        values = [horizon_lambda(n, 300, 0.9, 0.7, kind) for n in range(600)]
        assert values[0] == pytest.approx(0.9)
        assert all(0.9 <= a <= b <= 1.0 for a, b in zip(values, values[1:]))

    @pytest.mark.parametrize("kind", ["linear", "tanh"])
    def test_rate_one_ends_with_training(self, kind):
        """The tanh schedule is over at the last iteration, the linear one a step after it."""
        assert horizon_lambda(100, 100, 0.95, 1.0, kind) == 1.0
        assert horizon_lambda(98, 100, 0.95, 1.0, kind) < 1.0

    @pytest.mark.parametrize("kind", HORIZON_SCHEDULES)
    def test_a_large_rate_is_constant(self, kind):
        assert horizon_lambda(999, 1000, 0.9, 1e5, kind) == pytest.approx(0.9, abs=1e-5)
        assert horizon_lambda(999, 1000, 0.9, math.inf, kind) == pytest.approx(0.9)

    @pytest.mark.parametrize("kind", ["linear", "tanh", "exponential_average"])
    def test_a_tiny_rate_is_plain_reinforcement_learning(self, kind):
        assert [horizon_lambda(n, 1000, 0.9, 1e-5, kind) for n in (1, 2, 3, 999)] == pytest.approx([1.0] * 4)

    @pytest.mark.parametrize("kind", HORIZON_SCHEDULES)
    def test_is_clipped_to_a_probability(self, kind):
        assert horizon_lambda(0, 10, -0.5, 1.0, kind) == 0.0
        assert horizon_lambda(9, 10, 1.5, 1.0, kind) == 1.0


class TestAnneal:
    @pytest.mark.parametrize("kind", ANNEALING_SCHEDULES)
    def test_falls_from_one_to_zero_within_the_fraction(self, kind):
        weights = [anneal(n, 200, kind, 0.5) for n in range(200)]
        assert weights[0] == 1.0
        assert all(a >= b for a, b in zip(weights, weights[1:]))
        assert min(weights[:100]) > 0.0
        assert weights[100:] == [0.0] * 100

    @pytest.mark.parametrize(
        "kind, expected",
        [("constant", 1.0), ("linear", 0.75), ("cosine", 0.5 + 0.25 * 2**0.5), ("exponential", 10**-0.5)],
    )
    def test_after_a_quarter(self, kind, expected):
        assert anneal(25, 200, kind, 0.5) == pytest.approx(expected)

    def test_constant_over_the_whole_training_never_ends(self):
        assert {anneal(n, 50, "constant", 1.0) for n in range(50)} == {1.0}


@pytest.mark.parametrize(
    "call",
    [
        lambda: horizon_lambda(0, 10, 0.9, 1.0, "cosine"),
        lambda: horizon_lambda(0, 10, 0.9, 0.0, "tanh"),
        lambda: anneal(0, 10, "tanh", 0.5),
        lambda: anneal(0, 10, "linear", 0.0),
        lambda: anneal(0, 10, "linear", 1.1),
    ],
)
def test_bad_settings_are_refused(call):
    with pytest.raises(ValueError, match="valid|rate|fraction"):
        call()
