"""The continuous cache against its equation in float64, alone, nested, in batches and in generation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import IdError, ParameterError, ShapeError, StorageError, TaskError
from residua.readers import past as module

V = 7


def text(n, seed, documents=3, dim=3):
    """Rows of several documents, one after another."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.integers(0, documents, n)) + 100
    return rs.Encoded(rng.normal(size=(n, dim)), 2 * rng.normal(size=(n, V)), rng.integers(0, V, n), ids=ids)


def cached(over: np.ndarray, data: rs.Encoded, window, theta, lmbda) -> np.ndarray:
    """The cache over probabilities (n, V), from the equation."""
    keys, out = data.keys.astype(np.float64), over.astype(np.float64).copy()
    for t in range(len(data)):
        before = [i for i in range(max(0, t - window), t) if data.ids[i] == data.ids[t]]
        if before:
            weights = np.exp(theta * keys[before] @ keys[t])
            p = np.bincount(data.labels[before], weights, V) / weights.sum()
            out[t] = lmbda * p + (1 - lmbda) * over[t]
    return out


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(text(40, 0, 5))


OVER = {
    "model": lambda memory: rs.KNNLM(memory, k=0, temperature=1.3),
    "knnlm": lambda memory: rs.KNNLM(memory, k=6, lmbda=0.4, gate=0.7),
    "resmem": lambda memory: rs.ResMem(memory, k=6),
}


def test_by_hand():
    memory = rs.Memory(rs.Encoded([[1.0]], np.zeros((1, 3)), [0]))
    data = rs.Encoded([[1.0], [0.0], [1.0], [5.0]], np.zeros((4, 3)), [1, 2, 0, 1], ids=[0, 0, 0, 1])
    cache = rs.ContinuousCache(rs.KNNLM(memory, k=0), theta=math.log(3), lmbda=0.5)
    third = 0.5 / 3
    # The first rows have no past; the second sees token 1; the third sees 1 (exp(theta) = 3) and 2 (exp(0) = 1).
    expected = [[1 / 3] * 3, [third, 0.5 + third, third], [third, 0.375 + third, 0.125 + third], [1 / 3] * 3]
    np.testing.assert_allclose(cache.scores(data), expected, atol=1e-6)
    np.testing.assert_allclose(cache.with_params(window=1).scores(data)[2], [third, third, 0.5 + third], atol=1e-6)
    assert cache.predict(data)[1:3].tolist() == [1, 1]


@settings(max_examples=30)
@given(
    st.integers(0, 10**6),
    st.sampled_from(list(OVER)),
    st.integers(1, 30),
    st.floats(0.01, 20),
    st.floats(0, 0.99),
    st.integers(1, 30),
)
def test_equals_the_equation(memory, seed, name, window, theta, lmbda, n):
    data, over = text(n, seed), OVER[name](memory)
    cache = rs.ContinuousCache(over, window, theta, lmbda)
    expected = cached(over.predict_proba(data), data, window, theta, lmbda)
    np.testing.assert_allclose(cache.predict_proba(data), expected, rtol=0, atol=1e-5)
    read = cache.stream().score(data.keys, data.logits, documents=data.ids, tokens=data.labels)
    own = expected[np.arange(n), data.labels]
    np.testing.assert_allclose(read.log_prob(torch.from_numpy(data.labels)).exp(), own, rtol=0, atol=1e-5)
    np.testing.assert_allclose(expected[np.arange(n), read.argmax()], expected.max(axis=1), rtol=0, atol=1e-5)


def test_caches_nest(memory):
    data = text(30, 1)
    inner = rs.ContinuousCache(OVER["knnlm"](memory), 5, 0.5, 0.2)
    outer = rs.ContinuousCache(inner, 20, 2.0, 0.3)
    first = cached(inner.over.predict_proba(data), data, 5, 0.5, 0.2)
    np.testing.assert_allclose(outer.scores(data), cached(first, data, 20, 2.0, 0.3), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4])
def test_blocks_and_batches_are_one_answer(memory, rows, monkeypatch):
    data, cache = text(41, 1), rs.ContinuousCache(OVER["knnlm"](memory), 9, 0.7, 0.4)
    whole = cache.scores(data)
    monkeypatch.setattr(module, "ROWS", rows)
    np.testing.assert_allclose(cache.scores(data), whole, atol=1e-6)
    np.testing.assert_allclose(cache.scores(data[a : a + 6] for a in range(0, 41, 6)), whole, atol=1e-6)
    ids = np.arange(41) % 5 + 100
    excluded = cache.scores(data, exclude_ids=ids)
    np.testing.assert_allclose(cache.scores([data[:20], data[20:]], exclude_ids=ids), excluded, atol=1e-6)
    assert np.abs(excluded - whole).max() > 1e-3
    with pytest.raises(IdError, match="exclude_ids have 42 rows"):
        cache.scores(data, exclude_ids=np.zeros(42, np.int64))


def test_generation_says_what_scoring_says(memory):
    """Several sequences at once, one row each at a time, the token remembered when it is known."""
    cache = rs.ContinuousCache(rs.ContinuousCache(OVER["knnlm"](memory), 3, 1.0, 0.2), 5, 0.7, 0.4)
    data = [text(12, seed, documents=1) for seed in (1, 2, 3)]
    expected = [cache.scores(one) for one in data]
    stream, documents = cache.stream(), np.array([7, 8, 9])
    for t in range(12):
        keys = np.stack([one.keys[t] for one in data])
        logits = rs.DenseLogits(np.stack([one.logits.dense()[t] for one in data]))
        read = stream.read(keys, logits, documents)
        np.testing.assert_allclose(read.log_probabilities().exp(), [one[t] for one in expected], atol=1e-6)
        stream.remember(keys, np.array([one.labels[t] for one in data]), documents)


def test_a_prompt_may_be_remembered_or_scored_at_once(memory):
    cache, data = rs.ContinuousCache(OVER["knnlm"](memory), 6, 0.7, 0.4), text(20, 1, documents=1)
    expected = cache.scores(data)[15]
    for start in ("remember", "score"):
        stream = cache.stream()
        head, documents = data[:15], np.full(15, 4)
        if start == "remember":
            stream.remember(torch.from_numpy(head.keys), torch.from_numpy(head.labels), torch.from_numpy(documents))
        else:
            stream.score(head.keys, head.logits, documents=documents, tokens=head.labels)
            other = text(5, 2, documents=1)  # another sequence, in a call of its own
            stream.score(other.keys, other.logits, documents=np.full(5, 5), tokens=other.labels)
        read = stream.read(data.keys[15:16], data[15:16].logits, [4])
        np.testing.assert_allclose(read.log_probabilities().exp()[0], expected, atol=1e-6)


def test_complete_documents_are_let_go(memory):
    stream, data = rs.ContinuousCache(OVER["model"](memory), window=4).stream(), text(60, 1, documents=6)
    stream.score(data.keys, data.logits, documents=data.ids, tokens=data.labels)
    assert list(stream._past) == [data.ids[-1]]
    keys, tokens = stream._past[data.ids[-1]]
    assert keys.shape == (4, 3) and tokens.tolist() == data.labels[-4:].tolist()
    assert keys.untyped_storage().nbytes() == 4 * 3 * 4


def test_far_inner_products_do_not_overflow(memory):
    data = text(20, 1, documents=1)
    cache = rs.ContinuousCache(OVER["model"](memory), theta=1e6, lmbda=0.5)
    scores = cache.scores(data)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_usual_theta_follows_the_keys(memory):
    squared = (text(40, 0, 5).keys ** 2).sum(axis=1).mean()
    assert rs.ContinuousCache(OVER["model"](memory)).theta == pytest.approx(10 / squared, rel=1e-5)
    zeros = rs.Memory(rs.Encoded(np.zeros((2, 2)), np.zeros((2, 2)), [0, 1]))
    assert rs.ContinuousCache(rs.KNNLM(zeros, k=0)).theta == 1
    zeros.table.drop("key")
    with pytest.raises(StorageError, match="give theta"):
        rs.ContinuousCache(rs.KNNLM(zeros, k=0))


def test_parameters(memory):
    over = OVER["knnlm"](memory)
    cache = rs.ContinuousCache(over, window=np.int64(9), theta=np.float32(0.5), lmbda=0.25)
    assert cache.params == {"over": over, "window": 9, "theta": 0.5, "lmbda": 0.25}
    assert cache.stateful and not over.stateful and cache.memory is memory and cache.k == 6
    other = cache.with_params(lmbda=0.1, over=over.with_params(k=2))
    assert (other.lmbda, other.k, other.window, cache.k) == (0.1, 2, 9, 6)
    assert "window=9" in repr(cache) and "KNNLM(" in repr(cache)
    for change, match in (
        ({"window": 0}, "window=0"),
        ({"window": 1.5}, "window=1.5"),
        ({"theta": 0}, "theta=0"),
        ({"theta": math.nan}, "theta=nan"),
        ({"lmbda": 1}, "lmbda=1"),
        ({"lmbda": -0.1}, "lmbda=-0.1"),
        ({"over": memory}, "expected a reader"),
        ({"k": 3}, r"no parameter \['k'\].*over=reader.with_params"),
    ):
        with pytest.raises(ParameterError, match=match):
            cache.with_params(**change)
    regression = rs.Memory(rs.Encoded([[0.0], [1.0]], [[1.0], [2.0]], [1.5, 2.5]))
    with pytest.raises(TaskError, match="regression"):
        rs.ContinuousCache(rs.KNNLM(regression, k=1))


def test_what_depends_on_the_text_before_says_so(memory):
    cache, data = rs.ContinuousCache(OVER["knnlm"](memory)), text(5, 1)
    for ask in (
        lambda: cache.change(memory.search(data.keys, 2)),
        lambda: cache.combine(torch.from_numpy(data.keys), data.logits),
        lambda: cache.values(1),
    ):
        with pytest.raises(ParameterError, match=r"reader\.over"):
            ask()
    for lacking in ("ids", "labels"):
        given = {"ids": data.ids, "labels": data.labels, lacking: None}
        with pytest.raises(ParameterError, match=f"lack {lacking}"):
            cache.scores(rs.Encoded(data.keys, data.logits, **given))
    stream = cache.stream()
    with pytest.raises(ParameterError, match="document of each row"):
        stream.score(data.keys, data.logits)
    with pytest.raises(ParameterError, match="documents"):
        stream.read(data.keys, data.logits)
    with pytest.raises(ShapeError, match="documents are int64"):
        stream.score(data.keys, data.logits, documents=data.ids[:3], tokens=data.labels)
    with pytest.raises(ShapeError, match="tokens are float32"):
        stream.remember(data.keys, data.keys[:, 0], data.ids)


def test_no_rows(memory):
    stream, data = rs.ContinuousCache(OVER["knnlm"](memory)).stream(), text(5, 1)[:0]
    assert len(stream.score(data.keys, data.logits, documents=data.ids, tokens=data.labels)) == 0
    stream.remember(data.keys, data.labels, data.ids)
    assert len(stream.read(data.keys, data.logits, data.ids).argmax()) == 0
