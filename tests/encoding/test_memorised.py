"""When a base leaves nothing to remember."""

import math
import warnings

import numpy as np
import pytest

from residua.core import Encoded
from residua.encoding.memorised import share_of_zero_residuals, warn_if_memorised


def of_probability(p, labels=None):
    """Two classes; row i gives its label 0 the probability p[i]."""
    p = np.asarray(p)
    return Encoded(np.zeros((len(p), 1)), np.stack([np.log(p), np.log(1 - p)], 1), labels)


def test_a_classification_residual_is_small_under_a_hundredth():
    assert share_of_zero_residuals(of_probability([0.995, 0.985, 0.5, 0.001], [0, 0, 0, 1])) == 0.5
    assert share_of_zero_residuals(of_probability([0.995])) == 0


def test_a_regression_residual_is_measured_by_the_targets_spread():
    targets = np.array([0.0, 100.0])  # standard deviation 50, so half a unit is the limit
    enc = Encoded(np.zeros((2, 1)), targets + np.array([0.4, 0.6]), targets)
    assert share_of_zero_residuals(enc) == 0.5
    assert share_of_zero_residuals(Encoded(np.zeros((2, 1)), np.ones(2), np.ones(2))) == 0  # no spread to measure by
    several = Encoded(np.zeros((2, 1)), np.stack([targets, targets + 1], 1), np.stack([targets, targets], 1))
    assert share_of_zero_residuals(several) == 0


@pytest.mark.parametrize(("wrong", "warned"), [(0, True), (1, True), (3, False)])
def test_over_99_percent_is_announced(wrong, warned):
    enc = of_probability([0.999] * (200 - wrong) + [0.5] * wrong, np.zeros(200, dtype=int))
    if warned:
        with pytest.warns(UserWarning, match=f"{(200 - wrong) / 2:.1f} % of the residuals.*200 examples.*; a remedy"):
            warn_if_memorised(enc, "a remedy")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_if_memorised(enc, "a remedy")


def test_of_more_rows_than_are_read_at_once():
    p = np.linspace(0.9, 0.9999, 70_001)
    enc = of_probability(p, np.zeros(len(p), dtype=int))
    assert math.isclose(share_of_zero_residuals(enc), (p > 0.99).mean())
