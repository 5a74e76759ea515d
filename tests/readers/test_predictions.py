"""``reader.predictions`` of every reader, storage and setting, against a dense float64 computation of the formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.core import DenseLogits, Head, HeadLogits
from residua.errors import ShapeError

V = 11


def made(n, seed, width=V, dim=3, documents=1, **more):
    rng = np.random.default_rng(seed)
    return rs.Encoded(
        rng.normal(size=(n, dim)),
        2 * rng.normal(size=(n, width)),
        rng.integers(0, width, n),
        ids=np.sort(rng.integers(0, documents, n)),
        **more,
    )


def softmax(logits, temperature=1.0):
    powers = np.exp(np.asarray(logits, np.float64) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def dense(reader, memory: rs.Encoded, test: rs.Encoded, residuals=None) -> tuple[np.ndarray, np.ndarray]:
    """Scores and predict_proba's rule in float64, from the equations."""
    scores, proper = [], []
    eps = 1 / test.n_outputs if reader.epsilon is None else reader.epsilon
    said = softmax(memory.logits.dense(), reader.temperature)
    residuals = np.eye(test.n_outputs)[memory.labels] - said if residuals is None else residuals
    for key, p in zip(test.keys.astype(np.float64), softmax(test.logits.dense(), reader.temperature), strict=True):
        distances = np.linalg.norm(memory.keys.astype(np.float64) - key, axis=1)
        near = np.argsort(distances, kind="stable")[: reader.k]
        d = distances[near] ** (2 if reader.kernel == "gaussian" else 1)
        weights = np.exp((d.min(initial=np.inf) - d) / reader.sigma)
        weights /= weights.sum()
        if not len(near) or (reader.skip is not None and p.max() >= reader.skip):
            scores.append(p), proper.append(p)
            continue
        if isinstance(reader, rs.KNNLM):
            labels = np.bincount(memory.labels[near], weights, test.n_outputs)
            score = reader.lmbda * labels + (1 - reader.lmbda) * p
        else:
            score = p + weights @ residuals[near]
        floored = np.maximum(score, eps * p)
        scores.append(score), proper.append(floored / floored.sum())
    return np.array(scores), np.array(proper)


def joined(reader, data, exclude=None):
    """(part, prediction) of all blocks, and what they say, one below the other."""
    found = list(reader.predictions(data, exclude=exclude))
    return found, lambda ask: torch.cat([ask(part, now) for part, now in found])


def check(reader, test, scores, proper, atol=1e-5):
    found, said = joined(reader, test)
    assert sum(len(part) for part, _ in found) == len(test)
    np.testing.assert_allclose(said(lambda _, now: now.scores), scores, rtol=0, atol=atol)
    np.testing.assert_allclose(said(lambda _, now: now.probabilities), proper, rtol=0, atol=atol)
    np.testing.assert_allclose(said(lambda _, now: now.log_probabilities()).exp(), proper, rtol=0, atol=atol)
    every, targets = np.arange(len(test)), test.labels
    expected = np.log(proper[every, targets])
    truth = said(lambda part, now: now.log_prob(torch.from_numpy(part.labels)))
    np.testing.assert_allclose(truth, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(said(lambda _, now: now.at(now.argmax())), proper[every, reader_argmax(said)], atol=atol)
    np.testing.assert_allclose(scores[every, reader_argmax(said)], scores.max(axis=1), rtol=0, atol=atol)
    # The same in NumPy.
    np.testing.assert_allclose(reader.scores(test, exclude=None), scores, rtol=0, atol=atol)
    np.testing.assert_allclose(reader.predict_proba(test, exclude=None), proper, rtol=0, atol=atol)
    best = reader.predict(test, exclude=None)
    np.testing.assert_allclose(scores[every, best], scores.max(axis=1), rtol=0, atol=atol)


def reader_argmax(said):
    return said(lambda _, now: now.argmax()).numpy()


READERS = {
    "knnlm": lambda memory, **p: rs.KNNLM(memory, lmbda=0.4, **p),
    "label k-NN": lambda memory, **p: rs.KNNLM(memory, lmbda=1, **p),
    "adaptive": lambda memory, **p: rs.KNNLM(memory, lmbda=rs.AdaptiveLambda([], [0.4]), **p),
    "exponential": lambda memory, **p: rs.KNNLM(memory, lmbda=0.4, kernel="exponential", **p),
    "resmem": lambda memory, **p: rs.ResMem(memory, **p),
}


@pytest.mark.slow
@settings(max_examples=50)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["knnlm", "label k-NN", "exponential", "resmem"]),
    st.sampled_from(["full", "head", "top-m"]),
    st.integers(0, 20),
    st.sampled_from([None, 0.5]),
    st.sampled_from([None, 1e-9, 0.9, 1.0]),
)
def test_equals_the_equations(seed, name, storage, k, skip, epsilon):
    memory, test = made(20, seed), made(9, seed + 1)
    if storage == "head":
        head = Head(torch.randn(V, 3, generator=torch.Generator().manual_seed(seed)))
        memory = rs.Encoded(memory.keys, head(torch.from_numpy(memory.keys)), memory.labels, head=head)
    built = rs.Memory(memory, storage=storage, m=V, temperature=1.3)
    reader = READERS[name](built, k=k, sigma=1.7, temperature=1.3, skip=skip, epsilon=epsilon)
    check(reader, test, *dense(reader, memory, test))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["none", "full", "head", "top-m"])
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("skip", [None, 0.6])
@pytest.mark.parametrize("epsilon", [None, 1e-6, 0.5])
def test_every_reader_of_every_storage(name, storage, skip, epsilon):
    if (name, storage) == ("resmem", "none"):
        return  # refused, as test_resmem says
    memory, test, head = made(40, 0), made(30, 1), Head(torch.randn(V, 3, generator=torch.Generator().manual_seed(0)))
    memory = rs.Encoded(memory.keys, head(torch.from_numpy(memory.keys)), memory.labels, head=head)
    built = rs.Memory(memory, storage=storage, m=V)
    reader = READERS[name](built, k=7, sigma=0.8, skip=skip, epsilon=epsilon)
    formula = reader.with_params(lmbda=0.4) if name == "adaptive" else reader
    check(reader, test, *dense(formula, memory, test))


@pytest.mark.parametrize("m", [1, 3])
def test_residuals_that_were_not_kept_read_as_0(m):
    memory, test = made(30, 0), made(40, 1)
    built = rs.Memory(memory, storage="top-m", m=m)
    residuals = np.eye(V)[memory.labels] - softmax(memory.logits.dense())
    small = np.argsort(-np.abs(residuals), axis=1)[:, m:]
    np.put_along_axis(residuals, small, 0, axis=1)
    for epsilon in (None, 1e-3):
        reader = rs.ResMem(built, k=6, sigma=0.8, epsilon=epsilon)
        check(reader, test, *dense(reader, memory, test, residuals))


def test_top_m_with_all_entries_is_full():
    memory, test = made(60, 0), made(50, 1)
    top, full = (
        joined(rs.ResMem(rs.Memory(memory, storage=storage, m=V), k=9), test)[1] for storage in ("top-m", "full")
    )
    for ask in (lambda _, now: now.log_probabilities(), lambda _, now: now.scores):
        torch.testing.assert_close(top(ask), full(ask), rtol=0, atol=1e-4)
    assert (reader_argmax(top) == reader_argmax(full)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("storage", ["full", "top-m"])
def test_parts_are_one_answer(name, storage):
    memory, test = made(40, 0), made(37, 1)
    ids = np.arange(37)[:, None] + np.arange(3)
    memory = rs.Encoded(memory.keys, memory.logits, memory.labels)  # an id for each row
    reader = READERS[name](rs.Memory(memory, storage=storage, m=4), k=7, skip=0.8)
    _, whole = joined(reader, test, ids)
    np.testing.assert_allclose(whole(lambda _, now: now.probabilities), reader.predict_proba(test, ids), atol=1e-6)
    for step in (1, 10):
        _, parts = joined(reader, (test[start : start + step] for start in range(0, 37, step)), ids)
        for ask in (
            lambda _, now: now.log_probabilities(),
            lambda part, now: now.log_prob(torch.from_numpy(part.labels)),
            lambda _, now: now.scores,
        ):
            torch.testing.assert_close(parts(ask), whole(ask), rtol=1e-5, atol=1e-5)
        assert (reader_argmax(parts) == reader_argmax(whole)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("storage", ["full", "top-m"])
@pytest.mark.parametrize("skip", [None, 0.5])
def test_more_rows_than_are_searched_or_read_at_once(name, storage, skip):
    memory, test = made(300, 0, width=40), made(4500, 1, width=40)
    memory = rs.Encoded(memory.keys, memory.logits, memory.labels)
    ids = np.arange(4500)[:, None] % 300 + np.arange(2)
    reader = READERS[name](rs.Memory(memory, storage=storage, m=4), k=200, skip=skip)
    found, whole = joined(reader, test, ids)
    assert [len(part) for part, _ in found] == [len(now) for _, now in found] and len(found) > 2
    assert np.concatenate([part.labels for part, _ in found]).tolist() == test.labels.tolist()
    some = np.r_[0, 1, 700, 2047, 2048, 4095, 4096, 4499]
    _, alone = joined(reader, [test[[i]] for i in some], ids[some])
    for ask in (
        lambda _, now: now.log_probabilities(),
        lambda part, now: now.log_prob(torch.from_numpy(part.labels)),
        lambda _, now: now.scores,
    ):
        torch.testing.assert_close(whole(ask)[some], alone(ask), rtol=1e-5, atol=1e-5)
    assert (reader_argmax(whole)[some] == reader_argmax(alone)).all()
    near = torch.cat([now.neighbours.rows for _, now in found])[some]
    assert torch.equal(near, torch.cat([now.neighbours.rows for _, now in joined(reader, test[some], ids[some])[0]]))


@pytest.mark.parametrize("name", READERS)
def test_nothing_to_read_is_the_base(name):
    built, test = rs.Memory(made(12, 0)), made(8, 1)
    base = torch.log_softmax(test.logits.dense() / 1.4, dim=1)
    for reader in (
        READERS[name](built, k=0, temperature=1.4),
        READERS[name](built, k=5, temperature=1.4, skip=1e-6),
    ):
        ((_, now),) = reader.predictions(test, exclude=None)
        assert now.change is None and not now.is_wide
        torch.testing.assert_close(now.log_probabilities(), base)
    reader = READERS[name](built, k=5, temperature=1.4)
    ((_, excluded),) = reader.predictions(test, exclude=np.zeros(8, np.int64))
    torch.testing.assert_close(excluded.log_probabilities(), base)
    assert not excluded.neighbours.found.any()
    built.forget(0)
    ((_, now),) = reader.predictions(test, exclude=None)
    torch.testing.assert_close(now.log_probabilities(), base)
    assert list(reader.predictions(test[:0])) == [] and list(reader.predictions([])) == []


def test_sure_rows_are_not_searched(monkeypatch):
    built, test = rs.Memory(made(30, 0)), made(50, 1)
    sure = softmax(test.logits.dense(), 0.8).max(axis=1) >= 0.6
    assert 5 < sure.sum() < 45
    searched = []
    search = built.search
    monkeypatch.setattr(built, "search", lambda keys, k, ids=None: searched.append(len(keys)) or search(keys, k, ids))
    for name in ("knnlm", "resmem"):
        reader = READERS[name](built, k=4, temperature=0.8, skip=0.6)
        searched.clear()
        ((_, now),) = reader.predictions(test, exclude=None)
        assert searched == [(~sure).sum()]
        assert (now.neighbours.found.any(dim=1).numpy() == ~sure).all()
        everything = READERS[name](built, k=4, temperature=0.8)
        base, read = everything.with_params(k=0).scores(test, None), everything.scores(test, None)
        expected = np.where(sure[:, None], base, read)
        np.testing.assert_allclose(reader.scores(test, None), expected, atol=1e-6)
        np.testing.assert_allclose(now.scores, expected, atol=1e-6)
        np.testing.assert_allclose(now.log_probabilities().exp(), reader.predict_proba(test, None), atol=1e-6)


@pytest.mark.parametrize("depth", [0, 3, 12])
def test_more_neighbours_may_be_searched_than_are_read(depth):
    built, test = rs.Memory(made(30, 0)), made(20, 1)
    for name, reader in ((name, READERS[name](built, k=k)) for name in READERS for k in (0, 5)):
        ((_, now),) = reader.predictions(test, exclude=None, depth=depth)
        expected = built.search(test.keys, max(depth, reader.k))
        assert torch.equal(now.neighbours.rows, expected.rows), name
        np.testing.assert_array_equal(now.scores, reader.scores(test, None))


def test_in_logit_space():
    memory, test = made(60, 0), made(30, 1)
    reader = rs.ResMem(rs.Memory(memory), k=5, space="exponent", temperature=1.2, skip=0.7)
    ((_, now),) = reader.predictions(test, exclude=None)
    np.testing.assert_allclose(now.log_probabilities().exp(), reader.predict_proba(test, None), atol=1e-6)
    np.testing.assert_allclose(softmax(now.scores, 1.0), reader.predict_proba(test, None), atol=1e-6)
    one_by_one = reader.scores([test[i] for i in range(30)], None)
    np.testing.assert_allclose(one_by_one, now.scores, atol=1e-5)  # a row that is skipped alone too


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_read_in_float32(dtype):
    memory, test = made(60, 0), made(30, 1)
    half = test.logits.dense().to(dtype)
    for name in ("knnlm", "resmem"):
        reader = READERS[name](rs.Memory(memory), k=5)
        ((_, now),), ((_, whole),) = (
            reader.predictions(rs.Encoded(keys, DenseLogits(logits)))
            for keys, logits in ((test.keys.astype(np.float64), half), (test.keys, half.float()))
        )
        torch.testing.assert_close(now.log_probabilities(), whole.log_probabilities())
        assert torch.equal(now.argmax(), whole.argmax()) and now.log_probabilities().dtype == torch.float32


def test_logits_recomputed_from_the_head():
    head, test = Head(torch.randn(V, 3, generator=torch.Generator().manual_seed(0))), made(20, 1)
    logits = HeadLogits(head, torch.from_numpy(test.keys))
    for name in READERS:
        reader = READERS[name](rs.Memory(made(60, 0)), k=5, skip=0.9)
        lazy, dense_ = (reader.predict_proba(rs.Encoded(test.keys, kind)) for kind in (logits, logits.dense()))
        np.testing.assert_allclose(lazy, dense_, atol=1e-6)


def test_rows_of_an_attached_model():
    """``read``: what ``predictions`` is made of, for rows that come one call at a time."""
    test, reader = made(6, 1), rs.KNNLM(rs.Memory(made(60, 0)), k=5)
    assert reader.start() is None
    ((rows, now),) = reader.read(torch.from_numpy(test.keys), test.logits, documents=test.ids)
    assert rows == slice(0, 6)
    ((_, expected),) = reader.predictions(test, exclude=None)
    torch.testing.assert_close(now.log_probabilities(), expected.log_probabilities(), rtol=0, atol=0)
    for keys, logits in (
        (test.keys[:5], test.logits),
        (test.keys[:, :2], test.logits),
        (test.keys, DenseLogits(torch.zeros(6, V + 1))),
        (test.keys[0], test.logits),
    ):
        with pytest.raises(ShapeError, match=r"(keys|queries) have shape"):
            list(reader.read(torch.from_numpy(keys), logits))
