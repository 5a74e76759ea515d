"""What a table of outputs is, and that its logits have the same softmax."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.core.outputs import as_logits, as_spoken, kind_of
from residua.errors import InputError, ParameterError

RNG = np.random.default_rng(0)
LOGITS = torch.from_numpy(RNG.normal(size=(40, 5)) * 3).float()
P = LOGITS.softmax(dim=1)
LABELS = P.argmax(dim=1).numpy()
KEYS = RNG.normal(size=(40, 3))


@pytest.mark.parametrize(
    "table, kind",
    [
        (LOGITS, "logits"),
        (P, "probabilities"),
        (100 * P, "percentages"),
        ((100 * P).round(decimals=1), "percentages"),
        (P.log(), "log-probabilities"),
        (P.bfloat16(), "probabilities"),
        (P.half(), "probabilities"),
        (P.double(), "probabilities"),
        (torch.eye(5), "probabilities"),  # a model that only names its class
        (torch.zeros(4, 5), "logits"),  # one that knows nothing
        (P * 1.1, "logits"),
        (LOGITS.sigmoid(), "logits"),  # no one says whether these are
        (torch.cat([P, LOGITS[:1]]), "logits"),  # all rows are looked at
        (LOGITS[:0], "logits"),
    ],
)
def test_the_numbers_say_what_they_are(table, kind):
    assert kind_of(table) == kind_of(table, classes=True) == kind
    assert kind_of(table, classes=False) == "predictions"


def test_a_lone_column_in_0_1_is_a_probability_where_labels_are_classes():
    column = P[:, :1]
    assert (kind_of(column, classes=True), kind_of(column), kind_of(column, classes=False)) == (
        "probabilities",
        "logits",
        "predictions",
    )
    assert kind_of(LOGITS[:, :1], classes=True) == "logits"


@given(st.integers(2, 6), st.sampled_from(["probabilities", "percentages"]), st.integers(0, 2**32 - 1))
def test_there_and_back(outputs, kind, seed):
    p = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(outputs, 0.2), size=7)).float()
    said = p * (100 if kind == "percentages" else 1)
    logits = as_logits(said, kind)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(dim=1), p, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(as_spoken(logits.log_softmax(dim=1), kind), said, atol=1e-4, rtol=1e-5)
    lone = as_logits(said[:, :1], kind)
    torch.testing.assert_close(as_spoken(lone, kind), said[:, :1], atol=1e-4, rtol=1e-5)


def test_what_cannot_be_probabilities_is_refused():
    with pytest.raises(InputError, match="between -"):
        as_logits(LOGITS, "probabilities")
    with pytest.raises(ParameterError, match="'percentages'"):
        rs.Encoded(KEYS, P, LABELS, output="softmax")


@pytest.mark.parametrize("scale, kind", [(1, "probabilities"), (100, "percentages")])
def test_arrays_of_probabilities_become_their_logarithms_said_once(scale, kind):
    with pytest.warns(UserWarning, match=f"are {kind}.*output='{kind}'") as told:
        enc = rs.Encoded(KEYS, P * scale, LABELS)
    assert len(told) == 1
    np.testing.assert_allclose(enc.logits.probabilities(), P, atol=1e-6)
    said = rs.Encoded(KEYS, P * scale, LABELS, output=kind)
    np.testing.assert_array_equal(np.asarray(said.logits), np.asarray(enc.logits))
    kept = rs.Encoded(KEYS, P * scale, LABELS, output="logits")
    np.testing.assert_array_equal(np.asarray(kept.logits), P * scale)


def test_the_log_loss_of_arrays_of_probabilities_is_the_models(tmp_path):
    right = -P[torch.arange(40), LABELS].log().mean()
    enc = rs.Encoded(KEYS, P, LABELS, output="probabilities")
    assert rs.evaluate(rs.ResMem(rs.Memory(enc), k=0), enc).base_log_loss == pytest.approx(float(right), rel=1e-5)
    enc.save(tmp_path / "enc.npz")
    np.testing.assert_array_equal(np.asarray(rs.Encoded.load(tmp_path / "enc.npz").logits), np.asarray(enc.logits))
    np.savez(tmp_path / "own.npz", keys=KEYS, logits=P, labels=LABELS)  # of another program
    with pytest.warns(UserWarning, match="are probabilities"):
        rs.Encoded.load(tmp_path / "own.npz")


def test_a_column_of_probabilities_is_two_classes():
    column, labels = P[:, 0].numpy(), (LABELS == 0).astype(int)
    for given_labels in (labels, labels.astype(float), labels[:, None]):
        with pytest.warns(UserWarning, match="are probabilities"):
            enc = rs.Encoded(KEYS, column, given_labels)
        assert (enc.task, enc.labels.tolist()) == ("classification", labels.tolist())
        np.testing.assert_allclose(enc.logits.probabilities()[:, 1], column, atol=1e-6)
    enc = rs.Encoded(KEYS, LOGITS[:, 0], labels)
    np.testing.assert_array_equal(np.asarray(enc.logits), np.stack([0 * LOGITS[:, 0], LOGITS[:, 0]], 1))


def test_predictions_of_shares_stay_predictions():
    enc = rs.Encoded(KEYS, P, P + torch.randn(40, 5))
    assert enc.task == "regression"
    np.testing.assert_array_equal(np.asarray(enc.logits), P)
