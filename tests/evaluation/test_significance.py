"""McNemar by the binomial formula, the randomisation test by enumeration, the bootstrap by its own definition."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.evaluation.significance import blocks, bootstrap_interval, mcnemar, paired, sign_test_of_mean


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


@pytest.mark.slow
def test_resampling_in_blocks_uses_every_resample():
    assert list(blocks(7, 2_000_000)) == [2, 2, 2, 1]
    assert list(blocks(3, 10**9)) == [1, 1, 1]
    p = sign_test_of_mean(np.ones(1_000_000), 9, np.random.default_rng(0))  # some resamples at a time
    assert p == 1 / 10
    low, high = bootstrap_interval(np.arange(500_000.0), 0.9, 20, np.random.default_rng(0))
    assert low < 249_999.5 < high and high - low < 2000


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 40)
    sums = rng.normal(0.5, 1, 40) * sizes
    drawn = rng.integers(0, 40, (20_000, 40))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    interval = bootstrap_interval(sums, 0.9, 20_000, np.random.default_rng(2), sizes)
    np.testing.assert_allclose(interval, np.quantile(means, [0.05, 0.95]), atol=0.02)


def paired_of(gains, losses, groups, answers, n=999):
    return paired(gains, losses, groups, answers, 0.95, n, np.random.default_rng(0))


def test_answers_that_stand_alone_are_mcnemars():
    gains = np.array([1.0] * 5 + [0.0] * 20 + [-1.0])
    found = paired_of(gains, None, None, True)
    assert found["p_value"] == mcnemar(5, 1)
    assert found["gain_interval"] == bootstrap_interval(gains, 0.95, 999, np.random.default_rng(0))
    assert found["perplexity_ratio_interval"] is None


def test_groups_and_errors_are_randomised():
    gains = np.array([1.0, 1.0, -1.0, 1.0, 0.0, 1.0])
    by_row = paired_of(gains, None, None, False)
    by_group = paired_of(gains, None, np.array([7, 7, 3, 3, 5, 5]), True)
    assert by_row["p_value"] == sign_test_of_mean(gains, 999, np.random.default_rng(0))
    assert by_group["p_value"] == sign_test_of_mean(np.array([0.0, 1.0, 2.0]), 999, np.random.default_rng(0))


def test_perplexity_falls_as_losses_do():
    losses = np.random.default_rng(0).normal(0.1, 0.5, 80)
    groups = np.arange(80) // 4
    low, high = paired_of(np.zeros(80), losses, groups, True)["perplexity_ratio_interval"]
    assert low < np.exp(-losses.mean()) < high < 1
    constant = paired_of(np.zeros(8), np.full(8, np.log(2.0)), np.arange(8) // 2, True)
    assert constant["perplexity_ratio_interval"] == pytest.approx((0.5, 0.5))


def test_one_group_has_no_interval():
    found = paired_of(np.ones(4), np.ones(4), np.zeros(4, int), True)
    assert found == {"p_value": 1.0, "gain_interval": None, "perplexity_ratio_interval": None}
