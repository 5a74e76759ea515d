"""Calibration error bin by bin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.evaluation import expected_calibration_error


def by_the_definition(confidence, right, bins):
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return total / len(confidence)


def test_by_hand_with_two_bins():
    confidence = np.array([0.3, 0.4, 0.9, 0.7])
    right = np.array([False, True, True, True])
    # lower half: accuracy 0.5, confidence 0.35; upper half: accuracy 1, confidence 0.8
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx(0.5 * 0.15 + 0.5 * 0.2)


def test_edges_belong_to_the_bin_below_and_zero_to_the_first():
    assert expected_calibration_error(np.array([0.5, 0.6]), np.array([True, False]), bins=2) == pytest.approx(0.55)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_sure_and_wrong_is_one():
    assert expected_calibration_error(np.ones(4), np.zeros(4, bool)) == 1


@given(st.lists(st.tuples(st.floats(0.01, 0.999), st.booleans()), min_size=1, max_size=80))
def test_is_its_definition(points):
    confidence, right = (np.array(column) for column in zip(*points))
    confidence = confidence.round(3) + 1e-5  # away from edges, where floating point decides
    assert expected_calibration_error(confidence, right) == pytest.approx(by_the_definition(confidence, right, 15))
