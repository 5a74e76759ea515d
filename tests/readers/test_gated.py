"""The gate against its equations in float64, as a mixture, tempered, under a cache, and as kNN-LM."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

import residua as rs
from residua.errors import ParameterError, TaskError
from residua.readers import Shares
from residua.testing import check_reader

V, SIGMA, THETA = 7, 0.7, 0.3


def text(n, seed, documents=4, dim=3):
    """Rows of several documents, one after another, which are not those of another seed."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.integers(0, documents, n)) + 100 * (seed + 1)
    return rs.Encoded(rng.normal(size=(n, dim)), 2 * rng.normal(size=(n, V)), rng.integers(0, V, n), ids=ids)


def some_gate(past=False, power=1.0, seed=0):
    shape = (6, 8) if past else (3, 6)
    return Shares(np.random.default_rng(seed).normal(size=shape), power)


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(text(60, 0, 5))


def weighed(labels, logs) -> np.ndarray:
    """The vote (V,) of labels whose weights' logarithms are these; 0 of none."""
    return np.bincount(labels, softmax(logs) if len(logs) else None, V).astype(np.float64)


def by_equation(memory, data, k, gate, window=None) -> np.ndarray:
    """Probabilities (n, V) of a gate of weights (E, F), from the equations."""
    near = memory.search(data.keys, k, exclude=data.ids)
    labels, w, out = memory.column("label")[:].numpy(), np.array(gate.weights), []
    for t, (rows, d) in enumerate(zip(near.rows.numpy(), near.distances.numpy().astype(np.float64))):
        p = softmax(data.logits.dense()[t].numpy().astype(np.float64))
        rows, d = rows[rows >= 0], d[rows >= 0]
        votes = [weighed(labels[rows], -(d**2) / (by * SIGMA)) for by in (1 / 8, 1 / 2, 2)]
        phi = [1.0, 0, np.log(p.max()), 0, 0, 0]
        if len(rows):
            phi[1] = min(d[0] / np.sqrt(SIGMA), 4) - 1
            phi[3:] = votes[1].max() - 0.5, votes[2].max() - 0.3, np.log(votes[1] @ p + 1e-3) + 2.5
        if window is not None:
            before = [i for i in range(max(0, t - window), t) if data.ids[i] == data.ids[t]]
            alike = data.keys[before].astype(np.float64) @ data.keys[t].astype(np.float64)
            caches = [weighed(data.labels[before], by * THETA * alike) for by in (1 / 2, 1, 2)]
            phi += [caches[1].max() - 0.5, 0] if before else [0, -1]
            votes += caches
        r = sum(np.exp(w[e] @ phi) * vote for e, vote in enumerate(votes)) / p
        lifted = p * (1 + r) ** gate.power
        out.append(lifted / lifted.sum())
    return np.array(out)


@pytest.mark.parametrize("power", [1.0, 0.85, 1.2])
@pytest.mark.parametrize("window", [None, 5])
def test_it_is_the_equation(memory, power, window):
    data, gate = text(40, 1), some_gate(window is not None, power)
    reader = rs.Gated(memory, 9, SIGMA, cache=window, theta=THETA, shares=gate)
    expected = by_equation(memory, data, 9, gate, window)
    np.testing.assert_allclose(reader.predict_proba(data), expected, atol=2e-6)
    np.testing.assert_allclose(reader.scores(data).sum(axis=1), 1, atol=1e-5)
    found = [(part, now) for part, now in reader.predictions(data)]
    truth = torch.cat([now.log_prob(torch.from_numpy(part.labels)) for part, now in found])
    np.testing.assert_allclose(truth.exp(), expected[np.arange(40), data.labels], atol=2e-6)
    assert reader.predict(data).tolist() == expected.argmax(axis=1).tolist()
    parts = [data[:1], data[1:13], data[13:]]
    np.testing.assert_allclose(reader.predict_proba(parts), expected, atol=2e-6)


@pytest.mark.parametrize("lmbda", [0.25, 0.8])
def test_constant_shares_of_one_vote_are_knnlm(memory, lmbda):
    data = text(40, 1)
    alone = Shares([[-1e4, 0, 0, 0, 0, 0], [np.log(lmbda / (1 - lmbda)), 0, 0, 0, 0, 0], [-1e4, 0, 0, 0, 0, 0]])
    reader = rs.Gated(memory, 9, SIGMA, shares=alone)
    np.testing.assert_allclose(
        reader.scores(data), rs.KNNLM(memory, 9, lmbda, SIGMA / 2).scores(data), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("power", [1.0, 0.9])
def test_readers_promises(memory, power):
    check_reader(rs.Gated(memory, 9, SIGMA, shares=some_gate(power=power)), text(12, 1))
    check_reader(rs.Gated(memory, 9, SIGMA, cache=6, theta=THETA, shares=some_gate(True, power)), text(12, 1))


def test_without_neighbours_or_memory_it_is_the_model_bit_for_bit():
    data, memory = text(20, 1), rs.Memory(text(30, 0, 3))
    reader, model = rs.Gated(memory, 5, SIGMA, shares=some_gate(power=0.9)), rs.KNNLM(memory, k=0)
    everything = np.tile(np.unique(memory.ids), (20, 1))
    np.testing.assert_allclose(reader.scores(data, everything), model.scores(data), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(reader.with_params(shares=Shares(())).scores(data), model.scores(data))
    cached = rs.Gated(memory, 5, SIGMA, cache=4, shares=some_gate(True))
    memory.forget(np.unique(memory.ids))
    for emptied in (reader, cached):
        assert emptied.is_base
        np.testing.assert_array_equal(emptied.scores(data), model.scores(data))


def test_what_is_missing_has_no_share(memory):
    """A document's first row hears the votes alone, as without a cache; without neighbours the past alone."""
    data, gate = text(30, 1, documents=30), some_gate(True)
    seen = np.array(gate.weights)
    seen[:, 0] -= seen[:, 7]  # 1[it has rows] - 1
    without = rs.Gated(memory, 9, SIGMA, shares=Shares(seen[:3, :6]))
    first = np.append(True, np.diff(data.ids) != 0)
    cached = rs.Gated(memory, 9, SIGMA, cache=50, theta=THETA, shares=gate).scores(data)
    np.testing.assert_allclose(cached[first], without.scores(data)[first], atol=1e-6)
    np.testing.assert_allclose(cached, by_equation(memory, data, 9, gate, 50), atol=2e-6)


def test_far_and_certain_stay_finite():
    keys = np.concatenate([np.zeros((20, 2)), np.full((20, 2), 1e6)])
    memory = rs.Memory(rs.Encoded(keys, np.zeros((40, 3)), np.arange(40) % 3))
    logits = np.array([[0.0, 300.0, -300.0], [200.0, 0.0, 0.0]], np.float32)
    query = rs.Encoded([[1e9, -1e9], [0.0, 0.0]], logits)
    for power in (0.7, 1.0, 1.3):
        reader = rs.Gated(memory, 20, 1.0, shares=Shares(np.full((3, 6), 3.0), power))
        made = reader.predict_proba(query)
        assert np.isfinite(made).all() and np.allclose(made.sum(axis=1), 1, atol=1e-5)


def test_rows_have_weights_of_their_own():
    columns = {"weight": [1.0, 3.0, 0.0]}
    memory = rs.Memory(rs.Encoded([[1.0], [-1.0], [0.0]], np.zeros((3, 3)), [0, 1, 2], columns=columns))
    reader = rs.Gated(memory, 3, 1.0, shares=Shares([[0.0] * 6] * 3))
    np.testing.assert_allclose(
        reader.scores(rs.Encoded([[0.0]], np.zeros((1, 3)))), [[13 / 48, 31 / 48, 4 / 48]], atol=1e-6
    )


def test_an_explanation_adds_up_and_shares_what_is_tempered(memory):
    query = text(20, 1)[7]
    for power in (1.0, 0.8):
        why = rs.explain(rs.Gated(memory, 9, SIGMA, shares=some_gate(power=power)), query)
        np.testing.assert_allclose(why.scale * why.base + why.contributions.sum(axis=0), why.scores, atol=1e-6)
        same = why.labels[:, None] == why.labels
        said = np.where(same, why.weights, 0).sum(axis=1)
        np.testing.assert_allclose(said, why.scores[why.labels] - why.scale * why.base[why.labels], atol=1e-6)
    with pytest.raises(ParameterError, match="looks back over a whole text"):
        rs.explain(rs.Gated(memory, 9, SIGMA, cache=3, shares=some_gate(True)), query)


def test_a_cache_may_be_over_it(memory):
    data, under = text(30, 1), rs.Gated(memory, 9, SIGMA, shares=some_gate(power=0.9))
    cache = rs.ContinuousCache(under, window=5, theta=THETA, lmbda=0.2)
    found = np.stack([now.log_prob(torch.from_numpy(part.labels)).numpy() for part, now in cache.predictions(data)])
    np.testing.assert_allclose(np.exp(found[0]), cache.predict_proba(data)[np.arange(30), data.labels], atol=1e-6)


def test_it_must_be_fitted_and_again_when_much_has_changed():
    memory, data = rs.Memory(text(30, 0)), text(10, 1)
    with pytest.raises(ParameterError, match="no shares yet: fit it"):
        rs.Gated(memory, 5).scores(data)
    reader = rs.Gated(memory, 5, shares=Shares(some_gate().weights, rows=30))
    reader.scores(data)
    memory.add(text(31, 2))
    with pytest.warns(UserWarning, match="fitted when the memory had 30 rows, and it has 61 now"):
        reader.scores(data)


def test_bad_parameters(memory):
    with pytest.raises(ParameterError, match="form='soft'"):
        rs.Gated(memory, form="soft")
    with pytest.raises(ParameterError, match=r"shares=0\.9; expected what fit found"):
        rs.Gated(memory, shares=0.9)
    with pytest.raises(ParameterError, match="cache=0"):
        rs.Gated(memory, cache=0)
    with pytest.raises(ParameterError, match=r"with cache=5 there are 6 experts, of 8 weights each"):
        rs.Gated(memory, cache=5, shares=some_gate())
    for weights, power in (([[np.nan] * 6] * 3, 1), ("many", 1), ([[0.0] * 6] * 3, 0), ([[1], [1, 2]], 1)):
        with pytest.raises(ParameterError):
            Shares(weights, power)
    targets = rs.Memory(rs.Encoded([[0.0], [1.0]], [[0.0], [1.0]], [0.5, 1.5]))
    with pytest.raises(TaskError, match="regression"):
        rs.Gated(targets)
    with pytest.raises(ParameterError, match="is fitted: call its fit"):
        rs.tune(rs.Gated(memory, 5), text(10, 1))
    reader = rs.Gated(memory, 5, cache=3, shares=some_gate(True))
    with pytest.raises(ParameterError, match="with the state"):
        next(iter(reader.read(torch.zeros(1, 3), text(1, 1).logits)))
