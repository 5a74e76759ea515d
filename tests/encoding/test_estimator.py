"""Estimators through ``rs.encode``: the same statistics for memory and queries, and labels by name."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import residua as rs
from residua.errors import LabelError, ParameterError, ShapeError, SourceMismatchError, TaskError

X, Y = load_digits(return_X_y=True)
X = X / 16
TRAIN, TEST = slice(0, 400), slice(400, 600)


@pytest.fixture(scope="module")
def model():
    return LogisticRegression(C=0.01).fit(X[TRAIN], Y[TRAIN])


def test_queries_are_standardised_by_the_memorys_statistics(model):
    enc = rs.encode(model, (X[TRAIN], Y[TRAIN]))
    query = rs.encode(model, X[TEST], like=enc)
    assert (enc.task, query.task, query.labels) == ("classification", "classification", None)
    mean, scale = (np.array(enc.source.statistics[name]) for name in ("mean", "scale"))
    np.testing.assert_allclose(query.keys, (X[TEST] - mean) / scale, rtol=1e-4, atol=1e-5)
    enc.source.require(query.source)


def test_forgetting_like_is_refused_and_says_what_to_do(model, tmp_path):
    enc = rs.encode(model, (X[TRAIN], Y[TRAIN]))
    alone = rs.encode(model, X[TEST])
    with pytest.raises(SourceMismatchError, match="pass like="):
        enc.source.require(alone.source)
    enc.save(tmp_path / "enc.npz")  # the statistics are kept with the rows, to the last bit
    again = rs.Encoded.load(tmp_path / "enc.npz")
    assert again.source == enc.source
    np.testing.assert_array_equal(rs.encode(model, X[TEST], like=again).keys, rs.encode(model, X[TEST], like=enc).keys)


def test_like_of_another_estimator_is_refused(model):
    enc = rs.encode(model, (X[TRAIN], Y[TRAIN]))
    with pytest.raises(SourceMismatchError, match="parameter"):
        rs.encode(LogisticRegression(C=0.02).fit(X[TRAIN], Y[TRAIN]), X[TEST], like=enc)


def test_like_carries_a_callers_key_until_it_is_saved(model, tmp_path):
    enc = rs.encode(model, (X[TRAIN], Y[TRAIN]), key=lambda rows: rows[:, 10:20])
    memory = rs.Memory(enc)
    expected = X[TEST][:, 10:20].astype(np.float32)
    for like in (enc, enc[:3], memory, rs.ResMem(memory)):
        np.testing.assert_array_equal(rs.encode(model, X[TEST], like=like).keys, expected)
    assert pickle.loads(pickle.dumps(enc.source)) == enc.source  # without the function, which cannot be pickled
    memory.save(tmp_path / "mem")
    with pytest.raises(SourceMismatchError, match="pass the same key= again"):
        rs.encode(model, X[TEST], like=rs.Memory.load(tmp_path / "mem"))


def test_sparse_rows_and_several_targets():
    table, targets = load_diabetes(return_X_y=True)
    targets = np.stack([targets, -targets], axis=1)
    model = Ridge().fit(table[:300], targets[:300])
    enc = rs.encode(model, sparse.csr_matrix(table[:300]), targets[:300])
    dense = rs.encode(model, table[:300], targets[:300])
    np.testing.assert_allclose(enc.keys, dense.keys, atol=1e-6)
    reader = rs.ResMem(rs.Memory(enc), k=5)
    query = rs.encode(model, sparse.csr_matrix(table[300:]), targets[300:], like=reader)
    assert reader.predict(query).shape == (142, 2)
    assert rs.evaluate(reader, query).mse < 2 * rs.evaluate(reader, query).base_mse


def test_mlp_keys_need_no_like():
    mlp = MLPClassifier((8,), solver="lbfgs", max_iter=500, tol=0.1, random_state=0).fit(X[TRAIN], Y[TRAIN])
    enc, query = rs.encode(mlp, (X[TRAIN], Y[TRAIN])), rs.encode(mlp, X[TEST])
    enc.source.require(query.source)
    assert query.keys.shape == (200, 8)


def test_class_names_and_ids():
    names = np.array([f"digit {i}" for i in range(10)])[Y]
    model = LogisticRegression(C=0.01).fit(X[TRAIN], names[TRAIN])
    enc = rs.encode(model, X[TRAIN], names[TRAIN], ids=np.arange(400) * 2)
    assert enc.labels.tolist() == Y[TRAIN].tolist()
    assert enc.ids.tolist() == list(range(0, 800, 2))
    with pytest.raises(LabelError, match="owl"):
        rs.encode(model, X[:1], ["owl"])
    with pytest.raises(ShapeError, match=r"labels have shape \(2,\) for 1 rows"):
        rs.encode(model, X[:1], names[:2])


def test_regression():
    data, targets = load_diabetes(return_X_y=True)
    model = Ridge().fit(data, targets)
    enc = rs.encode(model, (data, targets.astype(int)))
    assert (enc.task, enc.n_outputs, enc.labels.dtype) == ("regression", 1, np.float64)
    with pytest.raises(TaskError, match="does regression"):
        rs.encode(model, (data, targets), task="classification")


def test_memorised_bases_are_announced_and_out_of_fold_logits_are_the_cure():
    tree = DecisionTreeClassifier(random_state=0).fit(X[TRAIN], Y[TRAIN])
    with pytest.warns(UserWarning, match=r"100\.0 % of the residuals are nearly zero.*cv=5"):
        rs.encode(tree, (X[TRAIN], Y[TRAIN]))
    enc = rs.encode(tree, (X[TRAIN], Y[TRAIN]), cv=3)
    p = cross_val_predict(tree, X[TRAIN], Y[TRAIN], cv=3, method="predict_proba")
    np.testing.assert_allclose(np.asarray(enc.logits), np.log(np.maximum(p, 1e-7)), rtol=1e-5)
    rows = DecisionTreeRegressor(random_state=0).fit(X[TRAIN], Y[TRAIN] / 2)
    with pytest.warns(UserWarning, match="nearly zero"):
        rs.encode(rows, (X[TRAIN], Y[TRAIN] / 2))
    assert rs.encode(rows, (X[TRAIN], Y[TRAIN] / 2), cv=3).source.difference(enc.source) is not None


def test_keys_do_not_depend_on_cv(model):
    plain, folded = rs.encode(model, (X[TRAIN], Y[TRAIN])), rs.encode(model, (X[TRAIN], Y[TRAIN]), cv=3)
    np.testing.assert_array_equal(plain.keys, folded.keys)
    assert plain.source == folded.source
    assert np.abs(np.asarray(plain.logits) - np.asarray(folded.logits)).max() > 0.01


def test_options_that_do_not_go_together(model):
    with pytest.raises(LabelError, match="no labels"):
        rs.encode(model, X[TRAIN], cv=3)
    with pytest.raises(ParameterError, match="pass one of the two"):
        rs.encode(model, (X, Y), Y)
