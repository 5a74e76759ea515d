"""Labels that have nothing to do with what the base says are noticed, and honest bases are left in peace."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression

import residua as rs
from residua.core import AbsentLogits, Encoded

X, Y = load_digits(return_X_y=True)
MODEL = LogisticRegression(max_iter=50, tol=0.1).fit(X[:400], Y[:400])
LOGITS, KEYS, LABELS = MODEL.decision_function(X[400:]), X[400:], Y[400:]
CHANCE = "no better than chance"


def quiet(*arrays, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rs.Encoded(*arrays, **more)


@pytest.mark.parametrize("scale", [0.01, 1, 100])
@pytest.mark.parametrize("rows", [100, 1397])
def test_a_useful_base_is_left_in_peace_at_any_scale(scale, rows):
    quiet(KEYS[:rows], LOGITS[:rows] * scale, LABELS[:rows])


def test_shifted_labels_are_named():
    for shift, where in ((1, "before"), (-1, "after")):
        with pytest.warns(UserWarning, match=rf"{CHANCE}.*given to the row {where} it, [89]\d.*shifted"):
            rs.Encoded(KEYS, LOGITS, np.roll(LABELS, shift))


def test_labels_in_another_order_and_columns_of_other_classes():
    with pytest.warns(UserWarning, match=f"{CHANCE}.*same order"):
        rs.Encoded(KEYS, LOGITS, np.random.default_rng(0).permutation(LABELS))
    with pytest.warns(UserWarning, match=CHANCE):  # every class is called by the next one's number
        rs.Encoded(KEYS, np.roll(LOGITS, 1, axis=1), LABELS)


def test_an_embedding_is_no_classifier():
    embedding = np.random.default_rng(0).normal(size=(64, 32))
    with pytest.warns(UserWarning, match=r"10 of 32 outputs.*output=None"):
        rs.Encoded(KEYS, KEYS @ embedding, LABELS)


def test_bases_that_know_nothing_and_say_so_are_left_in_peace():
    quiet(KEYS, np.zeros((len(KEYS), 10)), LABELS)
    quiet(KEYS, np.tile(np.log(np.bincount(LABELS)), (len(KEYS), 1)), LABELS)  # the classes' frequencies alone
    quiet(KEYS, LOGITS, np.zeros(len(KEYS), int))  # one class
    quiet(KEYS[:60], LOGITS[:60], LABELS[:60][::-1])  # too few to tell
    quiet(KEYS, np.zeros(len(KEYS)), LABELS.astype(float))


def test_a_base_that_only_ever_says_the_common_class_may_still_know_something():
    rare = (LABELS == 3).astype(int)
    logits = np.stack([np.full(len(KEYS), 6.0), LOGITS[:, 3] / 8], axis=1)
    assert (logits.argmax(axis=1) == 0).all()
    quiet(KEYS, logits, rare)


def test_regression():
    predictions = LinearRegression().fit(X[:400], Y[:400]).predict(KEYS)
    quiet(KEYS, predictions, LABELS.astype(float))
    quiet(KEYS, np.stack([predictions, predictions], 1), np.stack([LABELS, 2.0 * LABELS], 1))
    quiet(KEYS, 1000 + 50 * predictions, LABELS.astype(float))  # other units: tune and evaluate show it
    with pytest.warns(UserWarning, match=f"{CHANCE}.*rise and fall"):
        rs.Encoded(KEYS, predictions, np.random.default_rng(0).permutation(LABELS).astype(float))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(100, 400))
def test_a_base_that_is_right_half_of_the_time_is_left_in_peace(seed, classes, n):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    known = rng.random(n) < 0.5
    logits[known, labels[known]] += 8
    quiet(rng.normal(size=(n, 2)), logits, labels)


def test_logits_that_were_not_kept_are_not_asked():
    keys, labels = np.random.default_rng(0).normal(size=(200, 3)), np.arange(200) % 5
    enc = Encoded(keys, AbsentLogits(200, 5), labels, task="classification")
    assert len(rs.Memory(enc, storage="none")) == 200
