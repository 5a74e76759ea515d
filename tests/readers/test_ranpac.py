"""RanPAC: the closed form beside scikit-learn's, in step with every edit, and exact without a query's own rows."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import residua as rs
from residua.errors import EmptyMemoryError, InputError, ParameterError, ShapeError, StorageError, TaskError
from residua.testing import check_reader

PAPER = (0.0, 1.0)


def rows(n, seed=0, **more):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2)) + 7
    labels = (keys[:, 0] > 7).astype(int) + 2 * (keys[:, 1] > 7)
    return rs.Encoded(keys, rng.normal(size=(n, 4)), labels % 3, **more)


def best(F, memory):
    """The ridge of the best generalised cross-validation, from the hat matrix itself."""
    mean, Y, found = np.mean((F**2).sum(axis=0)), np.eye(memory.n_outputs)[memory.labels], {}
    for ridge in 10.0 ** np.arange(-8, 2):
        hat = F @ np.linalg.solve(F.T @ F + ridge * mean * np.eye(F.shape[1]), F.T)
        found[ridge] = np.square(Y - hat @ Y).sum() / (len(F) - np.trace(hat)) ** 2
    return min(found, key=found.get)


def closed_form(reader, query, ridge=None):
    """The same by scikit-learn, from nothing but the memory's keys, labels and weights."""
    memory = reader.memory
    projection = np.random.default_rng(reader.seed).normal(size=(memory.dim, reader.features)) / memory.dim**0.5
    centre = memory.schema.key_centre.numpy()

    def features(keys):
        return np.maximum((keys - centre) @ projection, 0)

    weight = (
        memory.column("weight")[memory.active_rows].numpy() if memory.has_column("weight") else np.ones(len(memory))
    )
    F = features(memory.keys)
    alpha = (
        (reader.ridge or best(F, memory)) * np.mean((weight[:, None] * F**2).sum(axis=0)) if ridge is None else ridge
    )
    fit = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky")
    fit.fit(F, np.eye(memory.n_outputs)[memory.labels], sample_weight=weight)
    return fit.predict(features(query.keys))


@pytest.mark.parametrize("columns", [{}, {"columns": {"weight": np.linspace(0, 2, 80)}}])
def test_it_is_ridge_regression_on_random_features(columns):
    reader = rs.RanPAC(rs.Memory(rows(80, **columns)), features=30, ridge=1e-3, coefficients=PAPER)
    query = rows(20, seed=1)
    np.testing.assert_allclose(reader.scores(query), closed_form(reader, query), atol=2e-4)
    mixed = reader.with_params(coefficients=(0.5, 3.0), temperature=2.0)
    expected = 0.25 * query.logits.dense().numpy() + 3 * closed_form(reader, query)
    np.testing.assert_allclose(mixed.scores(query), expected, atol=1e-3)


def test_it_follows_every_edit_and_a_new_class():
    memory, query = rs.Memory(rows(60)), rows(20, seed=1)
    reader = rs.RanPAC(memory, features=20, coefficients=PAPER)

    def agrees():
        np.testing.assert_allclose(reader.scores(query), closed_form(reader, query), atol=2e-4)

    agrees()
    for edit in (
        lambda: memory.forget([1, 2, 59]),
        lambda: memory.relabel([5, 6], [0, 3]),
        lambda: memory.add(rows(9, seed=2)),
        memory.undo,
        memory.rebuild,
        lambda: memory.add(rows(3, seed=3, ids=np.array([5, 6, 7])), replace=True),
        lambda: memory.forget([8]),
        memory.rebuild,
        lambda: memory.add(rows(1, seed=4, ids=np.array([8]))),
    ):
        edit()
        agrees()
    new = rs.Encoded(rows(9, seed=5).keys, np.zeros((9, 4)), np.full(9, 4), new_classes=True)
    memory.add(new, new_classes=True)
    query = query.grown(5)
    agrees()


def test_a_row_that_came_again_is_not_summed_anew(monkeypatch):
    from residua.readers import ridge

    memory, query = rs.Memory(rows(60)), rows(5, seed=1)
    reader, read = rs.RanPAC(memory, features=20, coefficients=PAPER), []
    reader.scores(query)
    features = ridge.Sums.features
    monkeypatch.setattr(ridge.Sums, "features", lambda self, keys: (read.append(len(keys)), features(self, keys))[1])
    memory.forget([3])
    reader.with_params(ridge=1e-2).scores(query)
    assert read == [1, 5]  # the forgotten row, and the queries


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2, 40)])
def test_without_its_own_rows_it_answers_as_if_they_had_never_been_there(weights):
    columns = {} if weights is None else {"columns": {"weight": weights}}
    data = rows(40, ids=np.arange(40) // 2, **columns)
    memory = rs.Memory(data)
    reader = rs.RanPAC(memory, features=25, ridge=1e-3, coefficients=PAPER)
    own = reader.scores(data[:6])
    weight = np.ones(40) if weights is None else weights
    F = np.maximum((memory.keys - memory.schema.key_centre.numpy()) @ _projection(reader), 0)
    penalty = 1e-3 * np.mean((weight[:, None] * F**2).sum(axis=0))
    for i in range(6):
        rest = rs.Memory(data)
        rest.forget([i // 2])
        without = rs.RanPAC(rest, features=25, coefficients=PAPER)
        # The first rows fix the centre, in both.
        np.testing.assert_allclose(own[i], closed_form(without, data[i], penalty)[0], atol=1e-3)
        why = rs.explain(reader, data[i])
        assert len(why) == 38 and i // 2 not in why.ids
        np.testing.assert_allclose(why.contributions.sum(axis=0), own[i][why.outputs], atol=1e-3)
        assert (np.diff(np.abs(why.weights)) <= 0).all()


def _projection(reader):
    rng = np.random.default_rng(reader.seed)
    return rng.normal(size=(reader.memory.dim, reader.features)) / reader.memory.dim**0.5


def test_it_keeps_the_protocol_and_is_saved(tmp_path):
    data = rows(60)
    query = rs.Encoded(data.keys[:9] + 0.1, data.logits.dense()[:9], data.labels[:9], ids=np.arange(9) + 1000)
    for features in (1, 7, 90):  # fewer than rows, and more
        check_reader(rs.RanPAC(rs.Memory(data), features=features, coefficients=(0.7, 3.0)), query)
    reader = rs.RanPAC(rs.Memory(data), features=30).fit()
    reader.save(tmp_path / "mem")
    again = rs.load(tmp_path / "mem")
    np.testing.assert_allclose(again.scores(query), reader.scores(query), atol=1e-5)
    assert reader.bytes_per_row["reader"] > 30 * 30 * 8 / 60


def test_fit_finds_what_helps_and_refuses_what_does_not():
    train, test = rows(500), rows(300, seed=1)
    for reader in (rs.RanPAC(rs.Memory(train), 60).fit(), rs.RanPAC(rs.Memory(train), 60).fit(rows(200, seed=2))):
        result = rs.evaluate(reader, test)
        assert reader.evidence_.used and result.accuracy > 0.85 and result.log_loss < 0.6
    rng = np.random.default_rng(0)
    noise = rs.Encoded(train.keys, rng.normal(size=(500, 4)), rng.integers(0, 4, 500))
    reader = rs.RanPAC(rs.Memory(noise), 60).fit()
    assert reader.coefficients == [1.0, 0.0] and not reader.evidence_.used
    np.testing.assert_array_equal(reader.scores(test), test.logits.dense().numpy())
    with pytest.warns(UserWarning, match="rests on"):
        leaked = rs.RanPAC(rs.Memory(noise), 400, 1e-7).fit(noise, exclude=None)
    assert leaked.coefficients == [1.0, 0.0]


def test_an_empty_memory_is_the_model():
    memory, query = rs.Memory(rows(20)), rows(5, seed=1)
    reader = rs.RanPAC(memory, 10, coefficients=PAPER)
    memory.forget(memory.ids)
    np.testing.assert_array_equal(reader.scores(query), query.logits.dense().numpy())
    with pytest.raises(EmptyMemoryError, match="empty"):
        reader.fit()


def test_what_it_cannot_do_is_said():
    data = rows(40)
    memory = rs.Memory(data)
    for wrong in ({"features": 0}, {"ridge": 0}, {"seed": -1}, {"temperature": 0}, {"coefficients": [1.0]}):
        with pytest.raises(ParameterError):
            rs.RanPAC(memory, **wrong)
    with pytest.raises(ParameterError, match="finite"):
        rs.RanPAC(memory, coefficients=(np.nan, 1))
    with pytest.raises(ParameterError, match="fit it first"):
        rs.RanPAC(memory).predict(data)
    with pytest.raises(ParameterError, match="call its fit"):
        rs.tune(rs.RanPAC(memory), data)
    with pytest.raises(InputError, match="two or more"):
        rs.RanPAC(memory, 5).fit(data[:1])
    with pytest.raises(ShapeError):
        rs.RanPAC(memory, 5, coefficients=PAPER).scores(rs.Encoded(data.keys[:, :1], data.logits, data.labels))
    with pytest.raises(TaskError, match="regression"):
        rs.RanPAC(rs.Memory(rs.Encoded(data.keys, np.zeros(40), np.zeros(40))))
    with pytest.raises(ParameterError, match="Memory is expected"):
        rs.RanPAC(data)
    trained = rs.Memory(rows(400), index="IVF4,SQ8")
    trained.discard_keys()
    with pytest.raises(StorageError, match="discarded"):
        rs.RanPAC(trained)
