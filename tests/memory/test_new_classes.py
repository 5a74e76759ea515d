"""Classes that the model has never heard of: taken in by memory alone, and forgotten again."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

import residua as rs
from residua.errors import LabelError, ParameterError, ShapeError, StorageError

KNOWN, ALL = 3, 5
rng = np.random.default_rng(0)
CENTRES = rng.normal(size=(ALL, 8)) * 3
torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, KNOWN)).eval()


def rows(n, classes, seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, size=n)
    return torch.from_numpy(CENTRES[y] + 2 * rng.normal(size=(n, 8))).float(), torch.from_numpy(y)


@pytest.fixture(scope="module")
def model():
    x, y = rows(400, [0, 1, 2], 0)
    optimizer = torch.optim.Adam(MODEL.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(MODEL(x), y).backward()
        optimizer.step()
    return MODEL


@pytest.fixture
def known(model):
    return rs.Memory(rs.encode(model, rows(200, [0, 1, 2], 1)))


@pytest.fixture
def new(model):
    return rs.encode(model, rows(80, [3, 4], 2), new_classes=True)


@pytest.fixture
def test(model):
    return rs.encode(model, rows(200, range(ALL), 3), new_classes=True)


def test_the_model_says_one_in_l_of_a_class_it_never_heard_of():
    logits = np.array([[4.0, 1, -2], [0, 0, 0], [90, -90, 3]])
    enc = rs.Encoded(np.eye(3), logits, [0, 3, 4], new_classes=True)
    expected = np.concatenate([softmax(logits, axis=1) * 3 / 5, np.full((3, 2), 1 / 5)], axis=1)
    np.testing.assert_allclose(softmax(enc.logits.dense().numpy(), axis=1), expected, atol=1e-6)
    # Growing twice is growing once.
    twice = rs.Encoded(np.eye(3), logits).grown(4).grown(5)
    np.testing.assert_allclose(twice.logits.dense(), enc.logits.dense(), rtol=1e-6)
    assert enc.logits.argmax().tolist() == logits.argmax(axis=1).tolist()


def test_labels_beyond_the_outputs_are_a_mistake_unless_said(model, known, new):
    with pytest.raises(LabelError, match=r"label [34] is out of range.*new_classes=True"):
        rs.encode(model, rows(80, [3, 4], 2))
    with pytest.raises(ShapeError, match=r"5 outputs; this memory .* 3 outputs; .*new_classes=True"):
        known.add(new)
    assert (len(known), known.n_outputs) == (200, KNOWN)


def test_new_classes_are_learned_and_old_ones_kept(model, known, new, test):
    before = rs.ResMem(known, k=9).predict(rs.encode(model, rows(200, [0, 1, 2], 4)[0]))
    ids = known.add(new, new_classes=True)
    assert (known.n_outputs, len(ids), len(known)) == (ALL, 80, 280)
    for reader in (rs.ResMem(known, k=9), rs.KNNLM(known, k=9, lmbda=0.8)):
        found = reader.predict(test)
        right = (found == test.labels)[test.labels >= KNOWN].mean()
        assert right > 0.6, type(reader)
        # Queries need no columns of their own for what the model never heard of.
        queries = rs.encode(model, rows(200, [0, 1, 2], 4)[0])
        assert queries.n_outputs == KNOWN
        assert (reader.predict(queries) == before).mean() > 0.9
        assert reader.predict_proba(queries).shape == (200, ALL)
    result = rs.evaluate(rs.tune(rs.ResMem(known), test[:100]), test[100:])
    assert result.accuracy > result.base_accuracy + 0.2
    found = rs.ResMem(known, k=9).predict(test)
    why = rs.explain(rs.ResMem(known, k=9), test[int(np.flatnonzero((test.labels == 4) & (found == 4))[0])])
    assert (why.prediction, why.n_outputs) == (4, ALL) and 4 in why.labels


def test_residuals_in_the_exponent_are_the_equation(known, new, test):
    known.add(new, new_classes=True)
    reader = rs.ResMem(known, k=4, sigma=0.7, space="exponent", base_weight=0.8, residual_weight=1.5)
    near = known.search(test.keys, 4)
    weights = np.exp(-near.distances.numpy() / 0.7)
    weights /= weights.sum(axis=1, keepdims=True)
    residuals = np.eye(ALL)[known.labels] - softmax(known.logits.dense().numpy(), axis=1)
    base = softmax(known.schema.widened(test).logits.dense().numpy(), axis=1)
    expected = 0.8 * np.log(base) + 1.5 * np.einsum("qk,qkl->ql", weights, residuals[near.rows.numpy()])
    np.testing.assert_allclose(reader.predict_proba(test), softmax(expected, axis=1), atol=1e-5)


def test_scores_are_the_equation(known, new, test):
    known.add(new, new_classes=True)
    reader = rs.ResMem(known, k=4, sigma=0.7, temperature=1.0)
    near = known.search(test.keys, 4)
    weights = np.exp(-near.distances.numpy() / 0.7)
    weights /= weights.sum(axis=1, keepdims=True)
    residuals = np.eye(ALL)[known.labels] - softmax(known.logits.dense().numpy(), axis=1)
    base = softmax(test.logits.dense().numpy(), axis=1)
    np.testing.assert_allclose(base[:, KNOWN:], 1 / ALL, atol=1e-6)
    expected = base + np.einsum("qk,qkl->ql", weights, residuals[near.rows.numpy()])
    np.testing.assert_allclose(reader.scores(test), expected, atol=1e-5)


def test_without_neighbours_the_model_answers(model, known, new, test):
    ids = known.add(new, new_classes=True)
    plain = model(rows(200, range(ALL), 3)[0]).detach()
    alone = rs.ResMem(known, k=0)
    proba = alone.predict_proba(test)
    np.testing.assert_allclose(proba[:, :KNOWN], plain.softmax(dim=1) * KNOWN / ALL, atol=1e-6)
    assert alone.predict(test).tolist() == plain.argmax(dim=1).tolist()
    # Forgotten again, the new classes change no answer.
    known.forget(ids)
    old = rs.encode(model, rows(100, [0, 1, 2], 5))
    assert (rs.ResMem(known, k=5).predict(old) == old.labels).mean() > 0.9
    assert rs.ResMem(known, k=5).predict(test).max() < KNOWN


def test_an_attached_model_answers_with_all_classes(model, known, new, test):
    known.add(new, new_classes=True)
    x, _ = rows(200, range(ALL), 3)
    reader = rs.ResMem(known, k=9)
    with torch.no_grad(), rs.attach(model, reader) as handle:
        np.testing.assert_allclose(model(x).softmax(dim=1), reader.predict_proba(test), atol=1e-5)
        handle.reader = rs.ResMem(known, k=0)
        assert model(x).shape == (200, KNOWN)  # no memory is no change


def test_saved_and_loaded(known, new, test, tmp_path):
    known.save(tmp_path / "m")
    new.save(tmp_path / "new.npz")
    known.add(rs.Encoded.load(tmp_path / "new.npz"), new_classes=True)
    known.save(tmp_path / "m")
    loaded = rs.Memory.load(tmp_path / "m")
    reader = rs.ResMem(known, k=9)
    np.testing.assert_array_equal(rs.ResMem(loaded, k=9).scores(test), reader.scores(test))
    with pytest.raises(LabelError):
        loaded.relabel([0], [ALL])
    assert loaded.relabel([0], [ALL - 1]) == 1
    loaded.rebuild()
    assert loaded.logits.shape == (280, ALL)


@pytest.mark.parametrize("storage", ["full", "none"])
def test_an_error_leaves_all_as_it_was(model, new, storage):
    memory = rs.Memory(rs.encode(model, rows(200, [0, 1, 2], 1)), storage=storage)
    wrong = rs.Encoded(np.ones((1, 2)), np.zeros((1, 7)), [6])
    with pytest.raises(ShapeError):
        memory.add([new, wrong], new_classes=True)
    assert (len(memory), memory.n_outputs, memory.schema.model_outputs) == (200, KNOWN, None)
    queries = rs.encode(model, rows(100, [0, 1, 2], 5))
    assert rs.KNNLM(memory, k=3, lmbda=0.5).predict_proba(queries).shape == (100, KNOWN)
    memory.add(new, new_classes=True)
    assert rs.KNNLM(memory, k=3, lmbda=0.5).predict_proba(queries).shape == (100, ALL)


def test_what_cannot_grow(model, new):
    base = rs.encode(model, rows(200, [0, 1, 2], 1))
    for storage in ("head", "top-m"):
        with pytest.raises(StorageError, match="new classes"):
            rs.Memory(base, storage=storage).add(new, new_classes=True)
    numbers = rs.Memory(rs.Encoded([[1.0], [2]], [1.0, 2], [1.5, 2]))
    with pytest.raises(ShapeError, match="only classes can grow"):
        numbers.add(rs.Encoded([[1.0]], [[1.0, 2]], [[1.5, 2]]), new_classes=True)
    with pytest.raises(ParameterError, match="torch models"):
        linear = pytest.importorskip("sklearn.linear_model")
        x, y = rows(50, [0, 1, 2], 0)
        rs.encode(linear.LogisticRegression().fit(x, y), (x.numpy(), y.numpy()), new_classes=True)
