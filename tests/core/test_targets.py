"""One class of each row, however it is written."""

import logging

import numpy as np
import pytest

import residua as rs
from residua.errors import LabelError

RNG = np.random.default_rng(0)
KEYS, LOGITS, CLASSES = RNG.normal(size=(12, 4)), RNG.normal(size=(12, 3)), np.arange(12) % 3


@pytest.mark.parametrize("dtype", [float, np.float32, int, bool])
def test_one_hot_labels_are_their_class_and_it_is_said(dtype, caplog):
    with caplog.at_level(logging.INFO, logger="residua"):
        enc = rs.Encoded(KEYS, LOGITS, np.eye(3, dtype=dtype)[CLASSES])
    assert (enc.task, enc.labels.tolist()) == ("classification", CLASSES.tolist())
    assert "one-hot" in caplog.text


def test_a_column_of_class_indices_is_flat():
    assert rs.Encoded(KEYS, LOGITS, CLASSES[:, None]).labels.tolist() == CLASSES.tolist()
    assert rs.Encoded(KEYS, LOGITS, CLASSES[:, None] * 1.0, task="classification").labels.tolist() == CLASSES.tolist()


@pytest.mark.parametrize("dtype", [float, int, bool])
def test_several_labels_of_a_row_are_a_task_of_their_own(dtype):
    several = np.eye(3, dtype=dtype)[CLASSES]
    several[4] = 1
    enc = rs.Encoded(KEYS, LOGITS, several)
    assert enc.task == "multi-label" and enc.labels.tolist() == several.astype(int).tolist()
    with pytest.raises(LabelError, match=r"1 of 12 rows.*task='multi-label'"):
        rs.Encoded(KEYS, LOGITS, several, task="classification")


def test_shares_of_classes_are_refused():
    with pytest.raises(LabelError, match="argmax"):
        rs.Encoded(KEYS, LOGITS, 0.9 * np.eye(3)[CLASSES] + 0.1 / 3)


def test_zeros_and_ones_may_be_targets_on_demand():
    enc = rs.Encoded(KEYS, LOGITS, np.eye(3)[CLASSES], task="regression")
    assert (enc.task, enc.labels.shape) == ("regression", (12, 3))
