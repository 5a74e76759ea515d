"""The continuous cache against its equation in float64, alone, nested, in batches and in generation."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import IdError, ParameterError, ShapeError, StorageError, TaskError
from residua.readers.past import CacheState

V = 7


def text(n, seed, documents=3, dim=3):
    """Rows of several documents, one after another, which are not those of another seed."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.integers(0, documents, n)) + 100 * (seed + 1)
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
    "knnlm": lambda memory: rs.KNNLM(memory, k=6, lmbda=0.4, skip=0.7),
    "resmem": lambda memory: rs.ResMem(memory, k=6),
    "resmem exponent": lambda memory: rs.ResMem(memory, k=6, space="exponent", skip=0.7),
    "resmem top-m": lambda memory: rs.ResMem(rs.Memory(text(40, 0, 5), storage="top-m", m=3), k=6, epsilon=0.3),
    "a cache": lambda memory: rs.ContinuousCache(rs.ResMem(memory, k=6), window=4, theta=0.5, lmbda=0.3),
}


def generated(reader, keys, logits, state, documents):
    """Log-probabilities of rows whose next tokens are not known yet, and their likeliest token."""
    blocks = list(reader.read(torch.as_tensor(keys), logits, state=state, documents=documents))
    found = [now.log_probabilities() for _, now in blocks] or [torch.empty(0, V)]
    return torch.cat(found), torch.cat([now.argmax() for _, now in blocks] or [torch.empty(0)])


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


@pytest.mark.slow
@settings(max_examples=60)
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
    np.testing.assert_allclose(cache.scores(data), expected, rtol=0, atol=1e-5)
    found = list(cache.predictions(data))
    own, truth = expected[np.arange(n), data.labels], [now.log_prob(torch.from_numpy(p.labels)) for p, now in found]
    np.testing.assert_allclose(torch.cat(truth).exp(), own, rtol=0, atol=1e-5)
    best = torch.cat([now.argmax() for _, now in found]).numpy()
    np.testing.assert_allclose(expected[np.arange(n), best], expected.max(axis=1), rtol=0, atol=1e-5)
    all_ = torch.cat([now.log_probabilities() for _, now in found]).exp()
    np.testing.assert_allclose(all_, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("m", [3, V])
@pytest.mark.parametrize("epsilon", [None, 1e-6, 0.5])
def test_over_residuals_the_floor_keeps_its_share(m, epsilon):
    """Exactly λ p_cache + (1-λ) p_over, where tokens on the floor are among those the cache speaks of."""
    data, built = text(120, 1, documents=1), rs.Memory(text(40, 0, 5), storage="top-m", m=m)
    over = rs.ResMem(built, k=2, epsilon=epsilon)
    cache = rs.ContinuousCache(over, 50, 0.3, 0.4)
    under = over.predict_proba(data)
    floored = under.argmin(axis=1)  # some are on the floor
    assert (over.scores(data)[np.arange(120), floored] < 0).sum() > 10
    expected = cached(under, data, 50, 0.3, 0.4)
    np.testing.assert_allclose(cache.scores(data), expected, rtol=0, atol=2e-6)
    for part, now in cache.predictions(data):
        assert len(part) == 120
        for tokens in (floored, data.labels):
            own = expected[np.arange(120), tokens]
            np.testing.assert_allclose(now.log_prob(torch.from_numpy(tokens)).exp(), own, rtol=1e-3, atol=1e-7)


def test_caches_nest(memory):
    data = text(30, 1)
    inner = rs.ContinuousCache(OVER["knnlm"](memory), 5, 0.5, 0.2)
    outer = rs.ContinuousCache(inner, 20, 2.0, 0.3)
    first = cached(inner.over.predict_proba(data), data, 5, 0.5, 0.2)
    np.testing.assert_allclose(outer.scores(data), cached(first, data, 20, 2.0, 0.3), atol=1e-5)


def test_parts_are_one_answer(memory):
    data, cache = text(41, 1), rs.ContinuousCache(OVER["knnlm"](memory), 9, 0.7, 0.4)
    whole = cache.scores(data)
    for step in (1, 6):
        parts = [data[a : a + step] for a in range(0, 41, step)]
        np.testing.assert_allclose(cache.scores(parts), whole, atol=1e-6)
    ids = np.arange(41) % 5 + 100
    excluded = cache.scores(data, exclude=ids)
    np.testing.assert_allclose(cache.scores([data[:20], data[20:]], exclude=ids), excluded, atol=1e-6)
    assert np.abs(excluded - whole).max() > 1e-3
    with pytest.raises(IdError, match="exclude has 42 rows"):
        cache.scores(data, exclude=np.zeros(42, np.int64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "resmem"])
@pytest.mark.parametrize("window", [5, 400, 3000])
def test_a_text_longer_than_is_weighed_or_searched_at_once(memory, name, window):
    data, over = text(2500, 1, documents=2), OVER[name](memory)
    cache = rs.ContinuousCache(over, window, 0.3, 0.4)
    expected = cached(over.predict_proba(data), data, window, 0.3, 0.4)
    np.testing.assert_allclose(cache.scores(data), expected, rtol=0, atol=1e-5)


def test_a_remembered_texts_own_rows_are_excluded_by_default():
    data = text(40, 0, 5)
    cache = rs.ContinuousCache(rs.KNNLM(rs.Memory(data), k=6, lmbda=0.5), 9, 0.7, 0.4)
    np.testing.assert_array_equal(cache.scores(data), cache.scores(data, exclude=data.ids))
    assert np.abs(cache.scores(data) - cache.scores(data, exclude=None)).max() > 1e-2
    found = torch.cat([now.neighbours.rows for _, now in cache.predictions(data)]).numpy()
    assert (data.ids[found] != data.ids[:, None]).all()


def test_generation_says_what_scoring_says(memory):
    """Several sequences at once, one row each at a time, the token remembered when it is known."""
    cache = rs.ContinuousCache(rs.ContinuousCache(OVER["knnlm"](memory), 3, 1.0, 0.2), 5, 0.7, 0.4)
    data = [text(12, seed, documents=1) for seed in (1, 2, 3)]
    expected = [cache.scores(one) for one in data]
    state, documents = cache.start(), np.array([7, 8, 9])
    for t in range(12):
        keys = np.stack([one.keys[t] for one in data])
        logits = rs.DenseLogits(np.stack([one.logits.dense()[t] for one in data]))
        said, _ = generated(cache, keys, logits, state, documents)
        np.testing.assert_allclose(said.exp(), [one[t] for one in expected], atol=1e-6)
        state.remember(torch.from_numpy(keys), np.array([one.labels[t] for one in data]), documents)


def test_a_prompt_may_be_remembered_or_read_at_once(memory):
    cache, data = rs.ContinuousCache(OVER["knnlm"](memory), 6, 0.7, 0.4), text(20, 1, documents=1)
    expected = cache.scores(data)[15]

    def read(some, document, state):
        documents = np.full(len(some), document)
        given = {"state": state, "documents": documents, "tokens": some.labels}
        return list(cache.read(torch.from_numpy(some.keys), some.logits, **given))

    for start in ("remember", "read"):
        state, head = cache.start(), data[:15]
        if start == "remember":
            state.remember(torch.from_numpy(head.keys), torch.from_numpy(head.labels), torch.full((15,), 4))
        else:
            read(head, 4, state)
            read(text(5, 2, documents=1), 5, state)  # another sequence, in a call of its own
        said, best = generated(cache, data.keys[15:16], data[15:16].logits, state, [4])
        np.testing.assert_allclose(said.exp()[0], expected, atol=1e-6)
        assert best.tolist() == [expected.argmax()]


# --- what is kept of a text -----------------------------------------------------------------------------------


def looked_back(state, keys, documents, tokens=None) -> np.ndarray:
    """p_cache of each row, dense."""
    (term,) = state.look_back(torch.as_tensor(keys, dtype=torch.float32), documents, tokens)
    assert term.source == "past"
    scores = torch.zeros(len(keys), V)
    term.values.add_to(scores, term.rows.clamp_min(0), term.weights)
    return scores.numpy()


def test_what_came_before_by_hand():
    state = CacheState(window=2, thetas=(math.log(3),), device=torch.device("cpu"))
    keys = [[1.0], [0.0], [1.0], [5.0]]
    seen = looked_back(state, keys, [0, 0, 0, 1], [1, 2, 0, 1])
    expected = np.zeros((4, V))
    expected[1, 1] = 1
    expected[2, 1], expected[2, 2] = 0.75, 0.25  # exp(theta) = 3 to exp(0) = 1
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    # Document 1 goes on; the row of token 2 is asked about, not remembered.
    assert looked_back(state, [[1.0], [1.0]], [1, 1])[:, 1].tolist() == [1, 1]
    state.remember(torch.tensor([[4.0], [0.0]]), [3, 4], [1, 1])  # two rows are the window
    np.testing.assert_allclose(looked_back(state, [[0.0]], [1])[0, [1, 3, 4]], [0, 0.5, 0.5])


def test_a_window_reaches_over_calls():
    data, state = text(30, 1, documents=1), CacheState(7, (0.5,), torch.device("cpu"))
    whole = looked_back(CacheState(7, (0.5,), torch.device("cpu")), data.keys, data.ids, data.labels)
    for start, stop in ((0, 1), (1, 12), (12, 13), (13, 30)):
        part = data[start:stop]
        np.testing.assert_allclose(looked_back(state, part.keys, part.ids, part.labels), whole[start:stop], atol=1e-6)


def test_complete_documents_are_let_go(memory):
    data = text(6000, 1, documents=6)
    state = CacheState(window=4, thetas=(1.0,), device=torch.device("cpu"))
    looked_back(state, data.keys, data.ids, data.labels)
    documents = np.unique(data.ids)
    seen = looked_back(state, np.ones((6, 3)), documents)
    assert seen.sum(axis=1).round(5).tolist() == [0, 0, 0, 0, 0, 1]
    assert set(np.flatnonzero(seen[-1])) == set(data.labels[-4:])
    whole = io.BytesIO()
    torch.save(state.__dict__, whole)
    assert len(whole.getvalue()) < 5000  # four rows of the last document, and nothing that holds on to the rest


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
    zeros.forget([0, 1])
    assert rs.ContinuousCache(rs.KNNLM(zeros, k=0)).theta == 1


def test_without_keys_theta_must_be_given():
    pytest.importorskip("faiss")
    built = rs.Memory(text(100, 0), index="IVF2,Flat")
    built.discard_keys()
    over = rs.KNNLM(built, k=0)
    with pytest.raises(StorageError, match="give theta"):
        rs.ContinuousCache(over)
    assert rs.ContinuousCache(over, theta=0.5).theta == 0.5


def test_parameters(memory):
    over = OVER["knnlm"](memory)
    cache = rs.ContinuousCache(over, window=np.int64(9), theta=np.float32(0.5), lmbda=0.25)
    assert cache.params == {"over": over, "window": 9, "theta": 0.5, "lmbda": 0.25}
    assert cache.start() is not None and over.start() is None and cache.memory is memory and cache.k == 6
    assert cache.start() is not cache.start()  # each text has its own
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
        ({"k": 3}, r"no parameter \['k'\]; it has \('over', 'window', 'theta', 'lmbda'\)"),
    ):
        with pytest.raises(ParameterError, match=match):
            cache.with_params(**change)
    regression = rs.Memory(rs.Encoded([[0.0], [1.0]], [[1.0], [2.0]], [1.5, 2.5]))
    with pytest.raises(TaskError, match="regression"):
        rs.ContinuousCache(rs.KNNLM(regression, k=1))


def test_what_depends_on_the_text_before_says_so(memory):
    cache, data = rs.ContinuousCache(OVER["knnlm"](memory)), text(5, 1)
    keys = torch.from_numpy(data.keys)
    with pytest.raises(ParameterError, match=r"reader\.start\(\).*reader\.over"):
        list(cache.read(keys, data.logits, documents=data.ids, tokens=data.labels))
    for lacking in ("ids", "labels"):
        given = {"ids": data.ids, "labels": data.labels, lacking: None}
        with pytest.raises(ParameterError, match=f"lack {lacking}"):
            cache.scores(rs.Encoded(data.keys, data.logits, **given))
        with pytest.raises(ParameterError, match=f"lack {lacking}"):
            cache.predict([data, rs.Encoded(data.keys, data.logits, **given)])
    state = cache.start()
    with pytest.raises(ParameterError, match=r"document \(ids\)"):
        list(cache.read(keys, data.logits, state=state))
    with pytest.raises(ShapeError, match="documents are int64"):
        list(cache.read(keys, data.logits, state=state, documents=data.ids[:3], tokens=data.labels))
    with pytest.raises(ShapeError, match="tokens are float64"):
        state.remember(keys, data.keys[:, 0], data.ids)
    with pytest.raises(ShapeError, match="keys have shape"):
        list(cache.read(keys[:3], data.logits, state=state, documents=data.ids, tokens=data.labels))


@pytest.mark.parametrize("name", OVER)
def test_no_rows(memory, name):
    cache, data = rs.ContinuousCache(OVER[name](memory), theta=1.0), text(5, 1)[:0]
    assert cache.scores(data).shape == (0, V) and cache.predict([]).shape == (0,)
    state, keys = cache.start(), torch.from_numpy(data.keys)
    state.remember(keys, data.labels, data.ids)
    said, best = generated(cache, keys, data.logits, state, data.ids)
    assert said.shape == (0, V) and best.tolist() == []


@pytest.mark.parametrize("lmbda", [0, 0.3])
def test_nothing_to_add_is_what_it_is_over(memory, lmbda):
    """No share, or no past: every row its own document."""
    data = text(20, 1)
    alone = rs.Encoded(data.keys, data.logits, data.labels, ids=np.arange(20) + 900)
    for over in (make(memory) for name, make in OVER.items() if name != "a cache"):
        cache = rs.ContinuousCache(over, lmbda=lmbda)
        np.testing.assert_allclose(cache.scores(alone), over.predict_proba(alone), atol=1e-6)
        assert cache.is_noop == (lmbda == 0 and over.k == 0)
        if lmbda == 0:
            np.testing.assert_allclose(cache.scores(data), over.predict_proba(data), atol=1e-6)
