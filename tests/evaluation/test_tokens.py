"""A text is rows like any other: its evaluation against float64 NumPy on dense probabilities, document by document."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

import residua as rs
from residua.core import DenseLogits, Prediction
from residua.errors import InputError, LabelError
from residua.evaluation import expected_calibration_error

V = 7


def tokens(seed, documents, length=30, vocabulary=V):
    """Rows of `documents` (ids) whose keys say something about their labels."""
    rng = np.random.default_rng(seed)
    n = len(documents) * length
    labels = rng.integers(0, V, n)
    keys = (np.eye(V)[labels] * 2 + rng.normal(size=(n, V))).astype(np.float32)
    logits = rng.normal(size=(n, vocabulary)).astype(np.float32)
    columns = {"offset": np.tile(np.arange(length), len(documents))}
    return rs.Encoded(keys, logits, labels, ids=np.repeat(documents, length), columns=columns)


REMEMBERED = tokens(0, [1, 2, 3])


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(REMEMBERED, storage="none")


def softmax(logits):
    odds = np.exp(logits.dense().double().numpy())
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_every_measure_is_the_dense_one(memory, temperature):
    reader = rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0, temperature=temperature)
    test = tokens(1, [10, 11, 12, 13])
    result = rs.evaluate(reader, iter([test[:50], test[50:]]))
    base, warm = softmax(test.logits), softmax(DenseLogits(test.logits.dense() / temperature))
    squared = ((REMEMBERED.keys[None].astype(np.float64) - test.keys[:, None]) ** 2).sum(axis=2)
    near = np.argsort(squared, axis=1, kind="stable")[:, :5]
    weights = np.exp(-np.take_along_axis(squared, near, axis=1) / 2.0)
    weights /= weights.sum(axis=1, keepdims=True)
    knn = np.zeros_like(base)
    for i in range(5):
        np.add.at(knn, (np.arange(len(test)), REMEMBERED.labels[near[:, i]]), weights[:, i])
    now = 0.4 * knn + 0.6 * warm
    truth, every = test.labels, np.arange(len(test))
    assert result.base_perplexity == pytest.approx(np.exp(-np.log(base[every, truth]).mean()), rel=1e-5)
    assert result.perplexity == pytest.approx(np.exp(-np.log(now[every, truth]).mean()), rel=1e-5)
    assert result.perplexity_ratio == pytest.approx(result.perplexity / result.base_perplexity)
    right, was = now.argmax(axis=1) == truth, base.argmax(axis=1) == truth
    assert (result.base_accuracy, result.accuracy) == (was.mean(), right.mean())
    assert result.tpr == pytest.approx((right & ~was).mean()) and result.fpr == pytest.approx((was & ~right).mean())
    assert result.gain == pytest.approx(result.accuracy - result.base_accuracy)
    assert result.base_ece == pytest.approx(expected_calibration_error(base.max(axis=1), was), abs=1e-5)
    assert result.ece == pytest.approx(expected_calibration_error(now.max(axis=1), right), abs=1e-5)
    assert result.label_knn == (knn.argmax(axis=1) == truth).mean()
    assert (result.n, result.n_groups, result.objective) == (120, 4, "log_loss")
    low, high = result.perplexity_ratio_interval
    assert low < result.perplexity_ratio < high
    inside = truth == 2
    assert result.per_class_gain[2] == pytest.approx(right[inside].mean() - was[inside].mean())


def test_label_knn_is_tuned_on_validation_text(memory):
    validation, test = tokens(3, [20, 21]), tokens(1, [10, 11])
    result = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0), test, validation=validation)
    voter = rs.KNNLM(memory, lmbda=1.0, **result.label_knn_params)
    assert result.label_knn_tuned == accuracy_score(test.labels, voter.predict(test))
    assert f"label k-NN, k={voter.k}" in str(result)


def test_intervals_resample_documents_not_tokens(memory):
    """The same documents again: their sums grow, their number does not."""
    reader = rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0)
    test = tokens(1, list(range(10, 18)), length=20)
    narrow, whole = rs.evaluate(reader, test), rs.evaluate(reader, [test] * 3)
    assert narrow.n_groups == whole.n_groups == 8 and whole.n == 3 * narrow.n
    assert whole.perplexity_ratio == pytest.approx(narrow.perplexity_ratio)
    assert whole.perplexity_ratio_interval == pytest.approx(narrow.perplexity_ratio_interval)
    sums = [
        np.array([np.log(made.predict_proba(part)[np.arange(20), part.labels]).sum() for part in parts(test, 20)])
        for made in (reader, rs.KNNLM(memory, k=0))
    ]
    drawn = np.random.default_rng(5).integers(0, 8, (20_000, 8))
    ratios = np.exp(-(sums[0] - sums[1])[drawn].sum(axis=1) / 160)
    np.testing.assert_allclose(narrow.perplexity_ratio_interval, np.quantile(ratios, [0.025, 0.975]), atol=0.02)


def parts(enc, length):
    return [enc[i : i + length] for i in range(0, len(enc), length)]


def test_one_document_has_no_interval(memory):
    result = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0), tokens(1, [5]))
    assert result.perplexity_ratio_interval is result.gain_interval is None and not result.significant
    assert "one document cannot say" in result.verdict


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_no_memory_is_the_base(memory, temperature):
    test = tokens(1, [5, 6])
    result = rs.evaluate(rs.KNNLM(memory, k=0, temperature=temperature), test)
    expected = np.exp(-np.log(softmax(test.logits)[np.arange(60), test.labels]).mean())
    assert result.base_perplexity == pytest.approx(expected, rel=1e-5)
    assert result.gain == 0 and result.label_knn is None
    if temperature == 1:
        assert result.perplexity_ratio == 1
        assert "makes no difference" in result.verdict


def test_a_document_in_the_memory_does_not_see_itself(memory):
    reader = rs.KNNLM(memory, k=1, lmbda=0.9, sigma=1.0)
    unseen, seen = rs.evaluate(reader, REMEMBERED), rs.evaluate(reader, REMEMBERED, exclude=None)
    assert seen.accuracy == 1.0 > unseen.accuracy
    assert (seen.exact_matches, unseen.exact_matches) == (90, 0)
    assert not seen.significant and "leak" in seen.verdict


@pytest.mark.parametrize("under", [rs.KNNLM, rs.ResMem])
def test_a_cache_is_scored_beside_the_model(under):
    memory, test = rs.Memory(REMEMBERED), tokens(1, [10, 11])
    cache = rs.ContinuousCache(under(memory, k=5, sigma=2.0), theta=1.0, lmbda=0.3)
    result = rs.evaluate(cache, iter([test[:45], test[45:]]), validation=test)
    given = cache.predict_proba(test)[np.arange(60), test.labels]
    assert result.perplexity == pytest.approx(np.exp(-np.log(given).mean()), rel=1e-5)
    assert result.base_perplexity == pytest.approx(
        np.exp(-np.log(softmax(test.logits)[np.arange(60), test.labels]).mean()), rel=1e-5
    )
    assert result.label_knn is result.label_knn_tuned is None
    assert f"ContinuousCache(over={under.__name__}(k=5" in str(result)


def test_tokens_and_the_same_rows_without_offsets_are_measured_alike(memory):
    test = tokens(1, [10, 11, 12])
    rows = rs.Memory(rs.Encoded(REMEMBERED.keys, REMEMBERED.logits, REMEMBERED.labels, REMEMBERED.ids), storage="none")
    text, plain = (rs.evaluate(rs.KNNLM(m, k=5, sigma=2.0), test).to_dict() for m in (memory, rows))
    assert (text.pop("objective"), plain.pop("objective")) == ("log_loss", "accuracy")
    assert text.pop("perplexity_ratio_interval") is not plain.pop("perplexity_ratio_interval") is None
    assert text.pop("remembered") is None and sum(plain.pop("remembered")) == len(rows)
    assert text == plain


def test_the_result_is_json_and_a_table(memory):
    test = tokens(1, [10, 11, 12])
    result = rs.evaluate(rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0), iter([test]))
    data = json.loads(json.dumps(result.to_dict()))
    assert data["perplexity"] == result.perplexity and len(data["gain_interval"]) == 2
    assert result.base_tokens_per_second > result.tokens_per_second > 0
    text = str(result)
    for word in ("perplexity", "next-token accuracy", "TPR", "tokens per second", "90 tokens of 3 documents"):
        assert word in text


def test_nothing_as_wide_as_the_vocabulary_is_made(monkeypatch):
    """Sparse values stay sparse: of a vocabulary of 50 000 no second table of probabilities is ever made."""
    rows, test = (tokens(seed, documents, 20, 50_000) for seed, documents in ((0, [1, 2]), (1, [10, 11])))
    memory = rs.Memory(rows, storage="none")

    def refuse(*_, **__):
        raise AssertionError("a dense table was made")

    for dense in ("start", "scores", "probabilities"):
        monkeypatch.setattr(Prediction, dense, property(refuse))
    result = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0), test, validation=test)
    assert 0 < result.perplexity < result.base_perplexity
    assert result.label_knn > 0.3
    assert "support" not in result.to_dict()


def test_bad_input(memory):
    reader = rs.KNNLM(memory, k=5, sigma=2.0)
    test = tokens(1, [5])
    with pytest.raises(LabelError, match="no labels"):
        rs.evaluate(reader, rs.Encoded(test.keys, test.logits, ids=test.ids))
    with pytest.raises(InputError, match="no rows"):
        rs.evaluate(reader, [])
