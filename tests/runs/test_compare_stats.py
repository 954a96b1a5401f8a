"""Statistics of a comparison: against numbers worked out by hand, and against what intervals promise."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hepo_isaac.errors import UserError
from hepo_isaac.runs.compare import stats
from hepo_isaac.runs.compare.stats import Interval

X = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array([0.0, 0.0, 4.0, 8.0])}
Y = {"a": np.array([0.0, 2.0, 3.0, 3.0]), "b": np.array([0.0, 1.0, 1.0, 1.0])}


def test_probability_of_improvement_by_hand():
    # a: 1 beats {0}: 1. 2 beats {0} and ties with 2: 1.5. 3 beats {0, 2}, ties with two 3s: 3. 4 beats all: 4.  9.5/16
    # b: each 0 ties with one 0: 0.5 + 0.5. 4 and 8 beat all: 4 + 4.  9/16
    assert stats.improvement_per_problem(X, Y) == {"a": 9.5 / 16, "b": 9 / 16}
    found = stats.probability_of_improvement(X, Y, reps=200)
    assert found.value == pytest.approx((9.5 + 9) / 32)
    assert found.low < found.value < found.high
    assert stats.probability_of_improvement(Y, X, reps=200).value == pytest.approx(1 - (9.5 + 9) / 32)


def test_unequal_seeds_weigh_problems_equally():
    # a: one pair, a win: 1. b: 3 × 2 pairs: 0 loses twice, 2 beats 1 and ties with 2, 3 wins twice: 3.5/6
    x, y = {"a": [5.0], "b": [0.0, 2.0, 3.0]}, {"a": [4.0], "b": [1.0, 2.0]}
    found = stats.probability_of_improvement(x, y, reps=200)
    assert found.value == pytest.approx((1 + 3.5 / 6) / 2)
    assert found.low >= 0.5  # the problem with one pair is always won


def test_aggregates_by_hand():
    # X in order: 0 0 | 1 2 3 4 | 4 8; the middle half has mean 2.5.  Y: 0 0 | 1 1 1 2 | 3 3: 1.25
    assert stats.aggregate(X, "iqm", reps=100).value == 2.5
    assert stats.aggregate(Y, "iqm", reps=100).value == 1.25
    # means of the problems: X 2.5, 3.  Y 2, 0.75
    assert stats.aggregate(X, "mean", reps=100).value == 2.75
    assert stats.aggregate(Y, "median", reps=100).value == 1.375
    # clipped to 1, six of eight runs of X reach it and two are 0
    assert stats.aggregate(X, "optimality_gap", reps=100).value == 0.25
    assert stats.difference(X, Y, reps=100).value == 1.25
    # X − Y: 1 0 0 1, 0 −1 3 7
    assert stats.paired_difference(X, Y, reps=100).value == 11 / 8


def test_what_is_resampled_is_what_rliable_computes():
    _, metrics = stats.rliable()
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 4, (6, 3)).astype(float), rng.integers(0, 4, (5, 3)).astype(float)
        columns = [x[:, [i]] for i in range(3)] + [y[:, [i]] for i in range(3)]
        assert stats._mean_win_rate(*columns) == pytest.approx(metrics.probability_of_improvement(x, y))


def test_strata_are_never_mixed():
    # within each problem there is nothing to resample, so an interval with any width has mixed the problems
    constant = {"a": np.zeros(5), "b": np.full(5, 100.0)}
    for name in stats.STATISTICS:
        found = stats.aggregate(constant, name, reps=100)
        assert found.low == found.high == found.value
    other = {"a": np.ones(5), "b": np.full(5, 100.0)}
    assert stats.probability_of_improvement(other, constant, reps=100) == Interval(0.75, 0.75, 0.75)
    tasks = stats.aggregate(constant, "mean", reps=200, task_bootstrap=True)
    assert (tasks.low, tasks.high) == (0.0, 100.0)


def test_the_same_seed_gives_the_same_interval_and_nobody_elses_numbers_change():
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    first = stats.aggregate(X, reps=300, seed=1)
    assert np.random.rand() == expected
    assert stats.aggregate(X, reps=300, seed=1) == first
    assert stats.aggregate(X, reps=300, seed=2) != first


def test_intervals_cover():
    """No difference between the arms: about 95 % of intervals hold ½, a little less since they are few runs."""
    rng = np.random.default_rng(0)
    held = width = 0.0
    trials = 150
    for _ in range(trials):
        x, y = ({"a": rng.normal(size=12), "b": rng.normal(10, 2, size=12)} for _ in range(2))
        found = stats.probability_of_improvement(x, y, reps=200)
        held += found.low <= 0.5 <= found.high
        width += (found.high - found.low) / trials
    assert 0.86 <= held / trials <= 0.995
    # 2 × 1.96 standard errors of the rule of thumb the report quotes
    assert width == pytest.approx(3.92 * stats.standard_error(24), rel=0.15)


def test_a_clear_difference_is_found_and_a_small_sample_gets_no_verdict():
    rng = np.random.default_rng(1)
    x, y = {"a": rng.normal(2, 1, 8)}, {"a": rng.normal(0, 1, 8)}
    up = stats.probability_of_improvement(x, y, reps=500)
    down = stats.probability_of_improvement(y, x, reps=500)
    assert (stats.verdict(up, 8), stats.verdict(down, 8)) == ("better", "worse")
    assert stats.verdict(up, 4) == stats.verdict(down, 4) == "too few runs"
    assert stats.verdict(Interval(0.7, 0.5, 0.9), 30) == "no difference shown"
    assert stats.verdict(Interval(0.3, 0.1, 0.5), 30) == "no difference shown"


def test_power_is_that_of_the_protocol():
    assert 85 < stats.runs_needed(0.62) < 95
    assert stats.detectable(60) == pytest.approx(0.65, abs=0.01)
    assert stats.detectable(1) == 1.0


def test_profile_by_hand():
    values, ends = stats.profile(X, np.array([-1.0, 0.0, 3.5, 8.0]), reps=100)
    assert values.tolist() == [1.0, 6 / 8, 3 / 8, 0.0]
    assert (ends[0] <= values).all() and (values <= ends[1]).all()


def test_curve_band_is_the_iqm_at_every_point():
    curves = np.array([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0], [300.0, 13.0]])
    middle, low, high = stats.curve_band(curves, reps=100)
    assert middle.tolist() == [1.5, 11.5]
    assert (low <= middle).all() and (middle <= high).all()


def test_common_seeds_prefer_shared_ones():
    assert stats.common_seeds({"a": [1, 2, 3, 4], "b": [3, 4]}) == {"a": [3, 4], "b": [3, 4]}
    assert stats.common_seeds({"a": [5, 6, 7], "b": [1, 2]}) == {"a": [5, 6], "b": [1, 2]}
    assert stats.common_seeds({}) == {}


def test_no_runs_are_ever_dropped_in_silence():
    uneven = {"a": np.ones(3), "b": np.ones(2)}
    with pytest.raises(ValueError, match="one number of runs per problem"):
        stats.aggregate(uneven)
    with pytest.raises(ValueError, match="equally many runs"):
        stats.paired_difference({"a": np.ones(3)}, {"a": np.ones(2)})
    with pytest.raises(ValueError, match="finite"):
        stats.aggregate({"a": np.array([1.0, np.nan])})
    with pytest.raises(ValueError, match="share no problem"):
        stats.probability_of_improvement({"a": [1.0]}, {"b": [1.0]})


def test_runs_that_are_all_the_same_are_half_and_no_warning():
    assert stats.probability_of_improvement({"a": np.zeros(4)}, {"a": np.zeros(3)}, reps=100).value == 0.5


def test_a_missing_rliable_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "rliable", None)
    with pytest.raises(UserError, match=r"pip install 'hepo-isaac\[report\]'"):
        stats.aggregate(X)
