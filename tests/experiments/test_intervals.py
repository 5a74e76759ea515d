"""Slopes and gains, with intervals that are as long as they should be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.intervals import mean_interval, slope, slope_interval


@given(st.floats(-3, 3), st.floats(1e-3, 1e3))
def test_slope_of_a_power_law_is_its_exponent(exponent, factor):
    n = np.array([10.0, 30.0, 100.0, 1000.0])
    assert slope(n, factor * n**exponent) == pytest.approx(exponent, abs=1e-9)


def test_slope_is_least_squares_on_logarithms():
    rng = np.random.default_rng(0)
    n, y = np.array([10.0, 20.0, 70.0, 300.0]), rng.uniform(1, 2, 4)
    assert slope(n, y) == pytest.approx(np.polyfit(np.log(n), np.log(y), 1)[0])


def test_slope_interval_holds_the_truth_about_as_often_as_it_says():
    n = np.array([10.0, 20.0, 40.0, 80.0, 160.0])
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(100):
        curves = n**-1.0 * rng.gamma(20, 1 / 20, (20, 5))
        middle, low, high = slope_interval(n, curves, seed=trial)
        assert low <= middle <= high
        inside += low <= -1 <= high
    assert 85 <= inside <= 99


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20).filter(lambda values: np.std(values) > 1e-6))
def test_mean_interval_without_overlap_is_students(values):
    mean, low, high = mean_interval(np.array(values))
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(np.mean(values))


def test_overlap_widens_by_the_corrected_variance():
    values = np.array([0.0, 1.0, 2.0, 5.0])
    plain, wide = (high - low for _, low, high in (mean_interval(values), mean_interval(values, overlap=1 / 3)))
    assert wide / plain == pytest.approx(math.sqrt((1 / 4 + 1 / 3) / (1 / 4)))


def test_one_repetition_says_nothing_about_spread():
    assert mean_interval(np.array([2.0])) == (2.0, -math.inf, math.inf)
