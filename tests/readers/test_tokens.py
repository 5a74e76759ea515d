"""Reading token by token, against a dense float64 computation of every formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.core import DenseLogits, Head, HeadLogits
from residua.errors import ShapeError, TaskError
from residua.readers import tokens as module

V = 11


def made(n, seed, width=V, dim=3, documents=1):
    rng = np.random.default_rng(seed)
    return rs.Encoded(
        rng.normal(size=(n, dim)),
        2 * rng.normal(size=(n, width)),
        rng.integers(0, width, n),
        ids=np.sort(rng.integers(0, documents, n)),
    )


def softmax(logits, temperature=1.0):
    powers = np.exp(np.asarray(logits, np.float64) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def dense(reader, memory: rs.Encoded, test: rs.Encoded, residuals=None) -> np.ndarray:
    """predict_proba's rule in float64, from the equations."""
    out = []
    eps = 1 / test.n_outputs if reader.epsilon is None else reader.epsilon
    said = softmax(memory.logits.dense(), reader.temperature)
    residuals = np.eye(test.n_outputs)[memory.labels] - said if residuals is None else residuals
    for key, p in zip(test.keys.astype(np.float64), softmax(test.logits.dense(), reader.temperature), strict=True):
        distances = np.linalg.norm(memory.keys.astype(np.float64) - key, axis=1)
        near = np.argsort(distances, kind="stable")[: reader.k]
        d = distances[near] ** (2 if reader.kernel == "gaussian" else 1)
        weights = np.exp((d.min(initial=np.inf) - d) / reader.sigma)
        weights /= weights.sum()
        if not len(near) or (reader.gate is not None and p.max() >= reader.gate):
            score = p
        elif isinstance(reader, rs.KNNLM):
            labels = np.bincount(memory.labels[near], weights, test.n_outputs)
            score = reader.lmbda * labels + (1 - reader.lmbda) * p
        else:
            score = p + weights @ residuals[near]
        proper = np.maximum(score, eps * p)
        out.append(proper / proper.sum())
    return np.array(out)


def check(read, expected, atol=1e-5):
    np.testing.assert_allclose(read.log_probabilities().exp(), expected, rtol=0, atol=atol)
    targets = torch.arange(len(expected)) % expected.shape[1]
    said = np.log(expected[np.arange(len(expected)), targets])
    np.testing.assert_allclose(read.log_prob(targets), said, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        expected[np.arange(len(expected)), read.argmax()], expected.max(axis=1), rtol=0, atol=atol
    )


READERS = {
    "knnlm": lambda memory, **p: rs.KNNLM(memory, lmbda=0.4, **p),
    "label k-NN": lambda memory, **p: rs.KNNLM(memory, lmbda=1, **p),
    "adaptive": lambda memory, **p: rs.KNNLM(memory, lmbda=rs.AdaptiveLambda([], [0.4]), **p),
    "exponential": lambda memory, **p: rs.KNNLM(memory, lmbda=0.4, kernel="exponential", **p),
    "resmem": lambda memory, **p: rs.ResMem(memory, **p),
}


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["knnlm", "label k-NN", "exponential", "resmem"]),
    st.sampled_from(["full", "head", "top-m"]),
    st.integers(0, 20),
    st.sampled_from([None, 0.5]),
    st.sampled_from([None, 1e-9, 0.9]),
)
def test_equals_the_equations(seed, name, storage, k, gate, epsilon):
    memory, test = made(20, seed), made(9, seed + 1)
    if storage == "head":
        head = Head(torch.randn(V, 3, generator=torch.Generator().manual_seed(seed)))
        memory = rs.Encoded(memory.keys, head(torch.from_numpy(memory.keys)), memory.labels, head=head)
    built = rs.Memory(memory, storage=storage, m=V, temperature=1.3)
    reader = READERS[name](built, k=k, sigma=1.7, temperature=1.3, gate=gate, epsilon=epsilon)
    expected = dense(reader, memory, test)
    check(reader.stream().score(test.keys, test.logits), expected)
    np.testing.assert_allclose(reader.predict_proba(test), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("m", [1, 3])
def test_residuals_that_were_not_kept_read_as_0(m):
    memory, test = made(30, 0), made(40, 1)
    built = rs.Memory(memory, storage="top-m", m=m)
    residuals = np.eye(V)[memory.labels] - softmax(memory.logits.dense())
    small = np.argsort(-np.abs(residuals), axis=1)[:, m:]
    np.put_along_axis(residuals, small, 0, axis=1)
    for epsilon in (None, 1e-3):
        reader = rs.ResMem(built, k=6, sigma=0.8, epsilon=epsilon)
        expected = dense(reader, memory, test, residuals)
        check(reader.stream().score(test.keys, test.logits), expected)
        np.testing.assert_allclose(reader.predict_proba(test), expected, rtol=0, atol=1e-5)


def test_top_m_with_all_entries_is_full():
    memory, test = made(60, 0), made(50, 1)
    top, full = (
        rs.ResMem(rs.Memory(memory, storage=storage, m=V), k=9).stream().score(test.keys, test.logits)
        for storage in ("top-m", "full")
    )
    torch.testing.assert_close(top.log_probabilities(), full.log_probabilities(), rtol=0, atol=1e-4)
    assert torch.equal(top.argmax(), full.argmax())


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("storage", ["full", "top-m"])
def test_blocks_and_batches_are_one_answer(name, storage, monkeypatch):
    memory, test = made(40, 0), made(37, 1)
    ids = np.arange(37)[:, None] + np.arange(3)
    memory = rs.Encoded(memory.keys, memory.logits, memory.labels)  # an id for each row
    reader = READERS[name](rs.Memory(memory, storage=storage, m=4), k=7, gate=0.8)
    whole = reader.stream().score(test.keys, test.logits, exclude_ids=ids)
    np.testing.assert_allclose(whole.log_probabilities().exp(), reader.predict_proba(test, ids), atol=1e-6)
    monkeypatch.setattr(module, "QUERIES", 5)
    monkeypatch.setattr(module, "ENTRIES", 12)
    stream = reader.stream()
    blocks = stream.score(test.keys, test.logits, exclude_ids=ids)
    torch.testing.assert_close(blocks.log_probabilities(), whole.log_probabilities())
    for start in range(0, 37, 10):
        part = test[start : start + 10]
        read = stream.score(torch.from_numpy(part.keys), part.logits, exclude_ids=ids[start : start + 10])
        expected = whole.log_probabilities()[start : start + 10]
        torch.testing.assert_close(read.log_probabilities(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", READERS)
def test_nothing_to_read_is_the_base(name):
    built, test = rs.Memory(made(12, 0)), made(8, 1)
    base = torch.log_softmax(test.logits.dense() / 1.4, dim=1)
    for reader in (
        READERS[name](built, k=0, temperature=1.4),
        READERS[name](built, k=5, temperature=1.4, gate=1e-6),
    ):
        read = reader.stream().score(test.keys, test.logits)
        assert read.ids.shape == (8, 0)
        torch.testing.assert_close(read.log_probabilities(), base)
    reader = READERS[name](built, k=5, temperature=1.4)
    excluded = reader.stream().score(test.keys, test.logits, exclude_ids=np.zeros(8, np.int64))
    torch.testing.assert_close(excluded.log_probabilities(), base)
    built.forget(0)
    torch.testing.assert_close(reader.stream().score(test.keys, test.logits).log_probabilities(), base)
    assert len(reader.stream().score(test[:0].keys, test[:0].logits).argmax()) == 0


def test_the_gate_leaves_sure_rows_unsearched(monkeypatch):
    built, test = rs.Memory(made(30, 0)), made(50, 1)
    sure = softmax(test.logits.dense(), 0.8).max(axis=1) >= 0.6
    assert 5 < sure.sum() < 45
    searched = []
    search = built.search
    monkeypatch.setattr(built, "search", lambda keys, k, ids=None: searched.append(len(keys)) or search(keys, k, ids))
    for name in ("knnlm", "resmem"):
        reader = READERS[name](built, k=4, temperature=0.8, gate=0.6)
        searched.clear()
        read, scores = reader.stream().score(test.keys, test.logits), reader.scores(test)
        assert searched == [(~sure).sum()] * 2
        open_ = READERS[name](built, k=4, temperature=0.8)
        expected = np.where(sure[:, None], open_.with_params(k=0).scores(test), open_.scores(test))
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        np.testing.assert_allclose(read.log_probabilities().exp(), reader.predict_proba(test), atol=1e-6)


def test_in_logit_space():
    memory, test = made(60, 0), made(30, 1)
    reader = rs.ResMem(rs.Memory(memory), k=5, space="logits", temperature=1.2, gate=0.7)
    read = reader.stream().score(test.keys, test.logits)
    np.testing.assert_allclose(read.log_probabilities().exp(), reader.predict_proba(test), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_read_in_float32(dtype):
    memory, test = made(60, 0), made(30, 1)
    reader = rs.KNNLM(rs.Memory(memory), k=5, lmbda=0.5)
    half = test.logits.dense().to(dtype)
    read = reader.stream().score(torch.from_numpy(test.keys).double(), DenseLogits(half))
    whole = reader.stream().score(test.keys, DenseLogits(half.float()))
    torch.testing.assert_close(read.log_probabilities(), whole.log_probabilities())
    assert torch.equal(read.argmax(), whole.argmax()) and read.log_probabilities().dtype == torch.float32


def test_logits_recomputed_from_the_head():
    head, test = Head(torch.randn(V, 3, generator=torch.Generator().manual_seed(0))), made(20, 1)
    logits = HeadLogits(head, torch.from_numpy(test.keys))
    stream = rs.KNNLM(rs.Memory(made(60, 0)), k=5).stream()
    torch.testing.assert_close(
        stream.score(test.keys, logits).log_probabilities(),
        stream.score(test.keys, DenseLogits(logits.dense())).log_probabilities(),
    )


def test_read_and_remember_of_a_reader_without_a_state():
    test, reader = made(6, 1), rs.KNNLM(rs.Memory(made(60, 0)), k=5)
    stream = reader.stream()
    assert not reader.stateful
    stream.remember(test.keys, test.labels, test.ids)
    read = stream.read(test.keys, test.logits, test.ids)
    torch.testing.assert_close(
        read.log_probabilities(), stream.score(test.keys, test.logits).log_probabilities(), rtol=0, atol=0
    )


def test_what_does_not_fit():
    test, stream = made(6, 1), rs.KNNLM(rs.Memory(made(20, 0)), k=5).stream()
    for keys, logits in (
        (test.keys[:5], test.logits),
        (test.keys[:, :2], test.logits),
        (test.keys, DenseLogits(torch.zeros(6, V + 1))),
        (test.keys[0], test.logits),
    ):
        with pytest.raises(ShapeError, match="keys have shape"):
            stream.score(keys, logits)
    regression = rs.Memory(rs.Encoded([[0.0], [1.0]], [[1.0], [2.0]], [1.5, 2.5]))
    with pytest.raises(TaskError, match="regression"):
        rs.KNNLM(regression, k=1).stream()
