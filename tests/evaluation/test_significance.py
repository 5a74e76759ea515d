"""McNemar by the binomial formula, the randomisation test by enumeration, the bootstrap by its own definition."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.evaluation import significance
from residua.evaluation.significance import bootstrap_interval, mcnemar, sign_test_of_mean


def binomial_formula(corrected, broken):
    n = corrected + broken
    worst = comb(n, corrected)
    return sum(comb(n, i) for i in range(n + 1) if comb(n, i) <= worst) / 2**n


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_formula_and_symmetric(corrected, broken):
    assert mcnemar(corrected, broken) == pytest.approx(binomial_formula(corrected, broken), rel=1e-9)
    assert mcnemar(corrected, broken) == pytest.approx(mcnemar(broken, corrected), rel=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 1) == pytest.approx(2 * (1 + 4) / 16)
    assert mcnemar(10, 0) == pytest.approx(2 / 1024)


def test_sign_test_estimates_the_enumerated_p_value():
    differences = np.array([3.0, 1.0, -0.5, 2.0, 0.25, -1.0])
    sums = np.array([np.dot(signs, differences) for signs in product((-1, 1), repeat=6)])
    exact = (np.abs(sums) >= abs(differences.sum())).mean()
    p = sign_test_of_mean(differences, 20_000, np.random.default_rng(1))
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))


def test_sign_test_of_no_difference_is_one_and_does_not_care_about_the_sign():
    assert sign_test_of_mean(np.zeros(4), 99, np.random.default_rng(0)) == 1
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    p, q = (sign_test_of_mean(d, 999, np.random.default_rng(2)) for d in (differences, -differences))
    assert p == q < 0.5


def test_interval_matches_resampling_the_points_themselves():
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=200)
    rng = np.random.default_rng(1)
    means = differences[rng.integers(0, 200, (20_000, 200))].mean(axis=1)
    interval = bootstrap_interval(differences, 0.9, 20_000, np.random.default_rng(2))
    np.testing.assert_allclose(interval, np.quantile(means, [0.05, 0.95]), atol=0.006)


def test_interval_of_continuous_differences_matches_scipy():
    from scipy.stats import bootstrap

    differences = np.random.default_rng(0).normal(1, 2, 100)
    theirs = bootstrap((differences,), np.mean, n_resamples=10_000, method="percentile").confidence_interval
    ours = bootstrap_interval(differences, 0.95, 10_000, np.random.default_rng(1))
    np.testing.assert_allclose(ours, theirs, atol=0.04)


def test_more_confidence_is_a_wider_interval():
    differences = np.random.default_rng(0).normal(size=50)
    narrow = bootstrap_interval(differences, 0.5, 500, np.random.default_rng(0))
    wide = bootstrap_interval(differences, 0.99, 500, np.random.default_rng(0))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_interval_lies_within_the_differences(differences):
    differences = np.array(differences)
    low, high = bootstrap_interval(differences, 0.95, 50, np.random.default_rng(0))
    assert differences.min() - 1e-9 <= low <= high <= differences.max() + 1e-9


def test_resampling_in_blocks_uses_every_resample(monkeypatch):
    drawn = []
    monkeypatch.setattr(significance, "BLOCK", 10)
    for count in significance.blocks(7, 3):
        drawn.append(count)
    assert drawn == [3, 3, 1]
    assert sign_test_of_mean(np.ones(3), 3, np.random.default_rng(0)) in {(1 + i) / 4 for i in range(4)}
    low, high = bootstrap_interval(np.ones(3), 0.95, 7, np.random.default_rng(0))
    assert (low, high) == (1, 1)
