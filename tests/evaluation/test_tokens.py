"""Token evaluations against float64 NumPy on dense probabilities, and their intervals over documents."""

import json

import numpy as np
import pytest

import residua as rs
from residua.errors import InputError, LabelError, ParameterError
from residua.evaluation import evaluate_tokens

V = 7


def tokens(seed, documents, length=30):
    """Rows of `documents` (ids) whose keys say something about their labels."""
    rng = np.random.default_rng(seed)
    n = len(documents) * length
    labels = rng.integers(0, V, n)
    keys = (np.eye(V)[labels] * 2 + rng.normal(size=(n, V))).astype(np.float32)
    logits = rng.normal(size=(n, V)).astype(np.float32)
    return rs.Encoded(
        keys,
        logits,
        labels,
        ids=np.repeat(documents, length),
        columns={"offset": np.tile(np.arange(length), len(documents))},
    )


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(tokens(0, [1, 2, 3]), storage="none")


def test_every_measure_is_the_dense_one(memory):
    reader = rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0)
    test = tokens(1, [10, 11, 12, 13])
    result = evaluate_tokens(reader, [test[:50], test[50:]])
    base = np.exp(test.logits.dense().double().numpy())
    base /= base.sum(axis=1, keepdims=True)
    squared = ((memory.table["key"].double().numpy()[None] - test.keys[:, None].astype(np.float64)) ** 2).sum(axis=2)
    near = np.argsort(squared, axis=1, kind="stable")[:, :5]
    weights = np.exp(-np.take_along_axis(squared, near, axis=1) / 2.0)
    weights /= weights.sum(axis=1, keepdims=True)
    knn = np.zeros_like(base)
    for i in range(5):
        np.add.at(knn, (np.arange(len(test)), memory.labels[near[:, i]]), weights[:, i])
    now = 0.4 * knn + 0.6 * base
    truth, every = test.labels, np.arange(len(test))
    assert result.perplexity_base == pytest.approx(np.exp(-np.log(base[every, truth]).mean()), rel=1e-5)
    assert result.perplexity_memory == pytest.approx(np.exp(-np.log(now[every, truth]).mean()), rel=1e-5)
    assert result.perplexity_ratio == pytest.approx(result.perplexity_memory / result.perplexity_base)
    right, was = now.argmax(axis=1) == truth, base.argmax(axis=1) == truth
    assert (result.base, result.memory) == (was.mean(), right.mean())
    assert result.tpr == pytest.approx((right & ~was).mean()) and result.fpr == pytest.approx((was & ~right).mean())
    assert result.gain == pytest.approx(result.memory - result.base)
    assert (result.n, result.documents) == (120, 4)
    assert result.perplexity_ratio_interval[0] < result.perplexity_ratio < result.perplexity_ratio_interval[1]


def test_intervals_resample_documents_not_tokens(memory):
    """Four copies of each document tell no more than one: the interval of eight documents is that of those eight."""
    reader = rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0)
    test = tokens(1, list(range(8)), length=20)
    narrow = evaluate_tokens(reader, test)
    everyone_alone = tokens(1, list(range(160)), length=1)
    assert narrow.perplexity_ratio == pytest.approx(evaluate_tokens(reader, everyone_alone).perplexity_ratio, rel=0.2)
    whole = evaluate_tokens(reader, [test] * 3)  # the same documents again: their sums grow, their number does not
    assert whole.documents == 8 and whole.n == 3 * narrow.n
    assert whole.perplexity_ratio_interval == pytest.approx(narrow.perplexity_ratio_interval)


def test_one_document_has_no_interval(memory):
    result = evaluate_tokens(rs.KNNLM(memory, k=5, sigma=2.0), tokens(1, [5]))
    assert result.perplexity_ratio_interval is None and not result.significant
    assert "one document cannot say" in result.verdict


def test_no_memory_is_the_base(memory):
    result = evaluate_tokens(rs.KNNLM(memory, k=0), tokens(1, [5, 6]))
    assert result.perplexity_ratio == pytest.approx(1, abs=1e-6) and result.gain == 0


def test_a_document_in_the_memory_can_be_kept_from_itself(memory):
    own = tokens(0, [1, 2, 3])
    reader = rs.KNNLM(memory, k=1, lmbda=0.9, sigma=1.0)
    seen, unseen = evaluate_tokens(reader, own), evaluate_tokens(reader, own, exclude_own=True)
    assert seen.memory == 1.0 > unseen.memory


def test_the_result_is_json_and_a_table(memory):
    result = evaluate_tokens(rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0), tokens(1, [10, 11, 12]))
    data = json.loads(json.dumps(result.to_dict()))
    assert data["perplexity_memory"] == result.perplexity_memory and len(data["gain_interval"]) == 2
    text = str(result)
    for word in ("perplexity", "next-token accuracy", "TPR", "tokens per second", "90 tokens of 3 documents"):
        assert word in text


def test_bad_input(memory):
    reader = rs.KNNLM(memory, k=5, sigma=2.0)
    test = tokens(1, [5])
    unlabelled = rs.Encoded(test.keys, test.logits, ids=test.ids)
    with pytest.raises(LabelError, match="no next tokens"):
        evaluate_tokens(reader, unlabelled)
    with pytest.raises(InputError, match="which document"):
        evaluate_tokens(reader, rs.Encoded(test.keys, test.logits, test.labels))
    with pytest.raises(InputError, match="no rows"):
        evaluate_tokens(reader, [])
    with pytest.raises(ParameterError, match=r"confidence=1\.0"):
        evaluate_tokens(reader, test, confidence=1.0)
    with pytest.raises(ParameterError, match="n_bootstrap=0"):
        evaluate_tokens(reader, test, n_bootstrap=0)
    with pytest.raises(ParameterError, match="where a reader is expected"):
        evaluate_tokens(memory, test)
