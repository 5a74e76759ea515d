from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.errors import ParameterError, TaskError
from residua.evaluation import Group, expected_calibration_error


def evaluation(n=60, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    keys, labels = rng.normal(size=(2 * n, 3)), rng.integers(classes, size=2 * n)
    logits = rng.normal(size=(2 * n, classes))
    memory = rs.Memory(rs.Encoded(keys[:n], logits[:n], labels[:n]))
    return rs.evaluate(rs.ResMem(memory, k=5), rs.Encoded(keys[n:], logits[n:], labels[n:]))


@given(st.integers(0, 50), st.integers(1, 20))
def test_bins_hold_all_answers_and_their_error_is_the_formula(seed, bins):
    rng = np.random.default_rng(seed)
    sure, right = rng.random(30) * rng.integers(0, 2), rng.random(30) < 0.5
    by_hand = 0.0
    for low in range(bins):
        own = (sure > low / bins) & (sure <= (low + 1) / bins) | ((sure == 0) & (low == 0))
        by_hand += abs((right[own].astype(float) - sure[own]).sum()) / 30
    assert expected_calibration_error(sure, right, bins) == pytest.approx(by_hand)


def test_the_curves_are_those_of_the_errors_that_are_reported():
    result = evaluation()
    curves = result.reliability()
    assert curves["base"].n.sum() == curves["reader"].n.sum() == result.n
    assert curves["base"].error == pytest.approx(result.base_ece) and curves["reader"].error == pytest.approx(
        result.ece
    )


def test_groups_hold_all_rows_and_add_up_to_the_whole():
    result = evaluation()
    for groups in (result.by_distance(), result.by_confidence(7), result.by_distance(1)):
        assert sum(group.n for group in groups) == result.n
        assert sum(group.n * group.reader for group in groups) / result.n == pytest.approx(result.accuracy)
        assert sum(group.n * group.base for group in groups) / result.n == pytest.approx(result.base_accuracy)
        assert all(one.high < next.low for one, next in pairwise(groups))


def test_equal_values_stay_together():
    memory = rs.Memory(rs.Encoded([[0.0]], np.zeros((1, 2)), [0]))
    same = rs.Encoded(np.ones((5, 1)), np.zeros((5, 2)), [0, 0, 1, 0, 1])
    assert rs.evaluate(rs.ResMem(memory, k=1), same).by_distance(4) == [Group(1.0, 1.0, 5, 0.6, 0.6)]


def test_without_a_search_there_is_no_distance_to_group_by():
    result = evaluation()
    memory = rs.Memory(rs.Encoded([[0.0]], np.zeros((1, 2)), [0]))
    alone = rs.evaluate(rs.ResMem(memory, k=0), rs.Encoded([[1.0]], np.zeros((1, 2)), [0]))
    assert alone.by_distance() == [] and result.by_distance()


def test_confusions_count_what_was_fixed_and_introduced():
    result = evaluation(classes=3)
    label, before, after = (result.per_row[name] for name in ("label", "base_prediction", "prediction"))
    found = result.confusions()
    assert sum(one.fixed for one in found) == int((result.row_gain > 0).sum())
    assert sum(one.introduced for one in found) == int((result.row_gain < 0).sum())
    one = found[0]
    assert one.errors == int(((label == one.label) & (before == one.said)).sum())
    assert one.remaining == int(((label == one.label) & (after == one.said)).sum())
    assert one.label != one.said


def test_what_a_task_lacks_is_refused():
    keys, targets = np.arange(6.0)[:, None], np.arange(6.0)[:, None]
    enc = rs.Encoded(keys, targets + 1, targets, task="regression")
    result = rs.evaluate(rs.ResMem(rs.Memory(enc), k=2), rs.Encoded(keys + 0.1, targets, targets, task="regression"))
    for ask in (result.reliability, result.by_confidence, result.confusions):
        with pytest.raises(TaskError):
            ask()
    groups = result.by_distance(2)
    assert sum(group.n * group.reader for group in groups) / 6 == pytest.approx(result.mse)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ParameterError, match="groups"):
            result.by_distance(wrong)
    with pytest.raises(ParameterError, match="bins"):
        evaluation().reliability(0)
