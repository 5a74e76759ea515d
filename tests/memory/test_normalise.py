"""Keys of length 1: neighbours by cosine, through every door, and a direction for every row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import residua as rs
from residua.errors import NonFiniteError, ParameterError
from residua.sklearn import ResMemClassifier, ResMemRegressor


def rows(n, seed, dim=6, classes=3, scale=1.0, **more):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, dim)) * np.exp(rng.normal(size=(n, 1))) * scale
    return rs.Encoded(keys, rng.normal(size=(n, classes)), rng.integers(classes, size=n), **more)


def by_cosine(queries, keys, k):
    """Plain distances between unit vectors in float64, and their order."""
    a, b = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in (queries, keys))
    distances = np.sqrt(np.maximum(2 - 2 * a @ b.T, 0))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-25, 25))
def test_neighbours_are_those_of_the_largest_cosine_at_any_scale(seed, exponent):
    enc, queries = rows(40, seed), rows(5, seed + 1, scale=10.0**exponent)
    memory = rs.Memory(enc, normalise=True)
    order, distances = by_cosine(queries.keys, enc.keys, 7)
    found = memory.search(queries.keys, 7)
    np.testing.assert_allclose(found.distances, distances, atol=2e-6)
    assert (found.rows.numpy() == order).mean() > 0.97  # ties in float32 may fall otherwise
    np.testing.assert_allclose(np.linalg.norm(memory.keys, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_lengths_neither_overflow_nor_vanish(dtype, scale):
    keys = np.array([[3.0, 4.0], [4.0, 3.0], [-3.0, 4.0]], dtype) * dtype(scale)
    memory = rs.Memory(rs.Encoded(keys, np.zeros((3, 2)), [0, 1, 1]), normalise=True)
    np.testing.assert_allclose(memory.keys, [[0.6, 0.8], [0.8, 0.6], [-0.6, 0.8]], atol=1e-6)


def test_length_counts_only_where_keys_are_not_normalised():
    enc = rs.Encoded([[1.0, 0], [0.7, 0.7]], np.zeros((2, 2)), [0, 1])
    query = [[50.0, 1.0]]
    assert rs.Memory(enc, normalise=True).search(query, 1).rows.tolist() == [[0]]
    assert rs.Memory(enc).search(query, 1).distances.item() == pytest.approx(np.hypot(49, 1))
    # Opposite directions are 2 apart, whatever their lengths.
    assert rs.Memory(enc, normalise=True).search([[-9.0, 0]], 2).distances[0, 1].item() == pytest.approx(2)


def test_added_saved_relabelled_and_rebuilt(tmp_path):
    whole = rs.Memory(rows(60, 0), normalise=True)
    enc = rows(60, 0)
    grown = rs.Memory(enc[:20], normalise=True)
    grown.add(enc[20:])
    grown.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert loaded.schema.normalise
    queries = rows(9, 1).keys
    for memory in (grown, loaded):
        np.testing.assert_allclose(memory.search(queries, 5).distances, whole.search(queries, 5).distances, atol=1e-6)
    loaded.add(rows(10, 2))
    loaded.rebuild()
    np.testing.assert_allclose(np.linalg.norm(loaded.keys, axis=1), 1, atol=1e-6)
    assert "normalised" in loaded._repr_html_()
    assert "normalised" not in rs.Memory(enc)._repr_html_()


def test_a_key_of_zeros_has_no_direction():
    keys = np.ones((9000, 2))
    keys[8999] = 0
    enc = rs.Encoded(keys, np.zeros((9000, 2)), np.arange(9000) % 2)
    said = "1 of 9000 keys are all zeros, the first in row 8999.*normalise"
    with pytest.raises(NonFiniteError, match=said):
        rs.Memory(enc, normalise=True)
    memory = rs.Memory(enc[:10], normalise=True)
    with pytest.raises(NonFiniteError, match=said):
        memory.add(enc)
    assert len(memory) == 10
    reader = rs.ResMem(memory, k=1, sigma=1.0)
    with pytest.raises(NonFiniteError, match=said):
        reader.predict(enc)
    with pytest.raises(NonFiniteError, match="first in row 1"):
        memory.search(keys[8998:], 1)
    assert len(rs.Memory(enc)) == 9000


def test_what_cannot_be_normalised_is_refused():
    with pytest.raises(ParameterError, match=r"normalise='yes'; expected True or False"):
        rs.Memory(rows(3, 0), normalise="yes")
    with pytest.raises(ParameterError, match=r"storage='head'.*storage='full'"):
        rs.Memory(rows(3, 0), normalise=True, storage="head")


def test_an_attached_model_looks_by_cosine_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    x, y = torch.randn(200, 3), torch.randint(3, (200,))
    enc, queries = rs.encode(model, (x[:150], y[:150])), rs.encode(model, (x[150:], y[150:]))
    reader, plain = (rs.ResMem(rs.Memory(enc, normalise=by_cosine), k=5, sigma=0.1) for by_cosine in (True, False))
    with torch.no_grad(), rs.attach(model, reader):
        attached = model(x[150:])
    expected = reader.predict_proba(queries)
    np.testing.assert_allclose(attached.softmax(dim=1), expected, atol=1e-5)
    assert np.abs(expected - plain.predict_proba(queries)).max() > 1e-3


@pytest.mark.parametrize("kind", [ResMemClassifier, ResMemRegressor])
def test_estimators(kind):
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4))
    y = (X[:, 0] * X[:, 1] > 0).astype(int) if kind is ResMemClassifier else X[:, 0] * X[:, 1]
    base = linear.LogisticRegression() if kind is ResMemClassifier else linear.LinearRegression()
    model = kind(base, k=5, normalise=True).fit(X, y)
    np.testing.assert_allclose(np.linalg.norm(model.memory_.keys, axis=1), 1, atol=1e-6)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    further = mean + 3 * (X[:50] - mean)  # the same directions of standardised keys
    near = [model.memory_.search((table - mean) / scale, 5).rows for table in (X[:50], further)]
    assert (near[0] == near[1]).float().mean() > 0.97
