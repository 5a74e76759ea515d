"""What ``to_frame`` says of each row is what the measures are made of, and what the reader's own methods say."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import MissingDependencyError, ShapeError

CLASSES = ["label", "base_prediction", "prediction", "outcome", "gain", "base_confidence", "confidence"]
CLASSES += ["base_log_prob", "log_prob", "distance"]


def made(n, seed, classes=4, **more):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 3))
    labels = np.abs(keys).argmax(axis=1) % classes
    return rs.Encoded(keys, np.eye(classes)[labels] + 2 * rng.normal(size=(n, classes)), labels, **more)


def made_regression(n, seed, outputs):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    shape = (n,) if outputs == "flat" else (n, outputs)
    return rs.Encoded(keys, rng.normal(size=shape), np.sin(3 * keys[:, 0] + np.zeros(shape[::-1])).T)


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(made(80, 0))


@pytest.mark.parametrize("reader", [rs.ResMem, rs.KNNLM])
def test_columns_are_what_the_readers_methods_say(memory, reader):
    test = made(60, 1)
    reader = reader(memory, k=7, temperature=1.3)
    frame = rs.evaluate(reader, [test[:25], test[25:]], label_knn=False).to_frame()
    assert list(frame.columns) == CLASSES
    assert frame.index.tolist() == list(range(60))
    now, base = reader.predict_proba(test), np.asarray(test.logits.dense().softmax(dim=1))
    every = np.arange(60)
    np.testing.assert_array_equal(frame["label"], test.labels)
    np.testing.assert_array_equal(frame["base_prediction"], base.argmax(axis=1))
    np.testing.assert_array_equal(frame["prediction"], reader.predict(test))
    np.testing.assert_allclose(frame["base_confidence"], base.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(frame["confidence"], now.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(frame["base_log_prob"], np.log(base[every, test.labels]), atol=1e-5)
    np.testing.assert_allclose(frame["log_prob"], np.log(now[every, test.labels]), atol=1e-5)
    nearest = np.linalg.norm(memory.keys[None] - test.keys[:, None], axis=2).min(axis=1)
    np.testing.assert_allclose(frame["distance"], nearest, rtol=1e-5)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6), st.integers(0, 12))
def test_rows_add_up_to_the_measures(seed, n, classes, k):
    reader = rs.ResMem(rs.Memory(made(12, seed, classes)), k=k)
    result = rs.evaluate(reader, made(n, seed + 1, classes), n_bootstrap=10)
    frame = result.to_frame()
    assert len(frame) == result.n
    assert (frame.outcome == "fixed").mean() == result.tpr
    assert (frame.outcome == "broken").mean() == result.fpr
    assert (frame.prediction == frame.label).mean() == result.accuracy
    assert (frame.base_prediction == frame.label).mean() == result.base_accuracy
    assert frame.gain.mean() == pytest.approx(result.gain)
    assert -frame.log_prob.mean() == pytest.approx(result.log_loss, rel=1e-5)
    np.testing.assert_array_equal(frame.gain, result.row_gain)
    fixed = frame[frame.outcome == "fixed"]
    assert (fixed.prediction == fixed.label).all() and (fixed.base_prediction != fixed.label).all()
    assert result.label_knn is None or frame.label_knn.mean() == result.label_knn


def test_a_wrong_answer_in_place_of_another_is_the_same():
    memory = rs.Memory(rs.Encoded([[0.0]], [[0.0, 0.0, 0.0]], [1]))
    frame = rs.evaluate(rs.KNNLM(memory, k=1, lmbda=1.0), rs.Encoded([[1.0]], [[9.0, 0.0, 0.0]], [2])).to_frame()
    assert frame[["label", "base_prediction", "prediction"]].values.tolist() == [[2, 0, 1]]
    assert frame.outcome.tolist() == ["same"]


@pytest.mark.parametrize("outputs", ["flat", 1, 2])
def test_a_regression_has_errors_in_place_of_probabilities(outputs):
    reader, test = rs.ResMem(rs.Memory(made_regression(80, 0, outputs)), k=5), made_regression(50, 1, outputs)
    result = rs.evaluate(reader, test)
    frame = result.to_frame()
    answers = ["label", "base_prediction", "prediction"]
    if outputs == 2:
        answers = [f"{name}_{i}" for name in answers for i in range(2)]
        assert "prediction_y" in result.to_frame(["x", "y"])
    measures = ["outcome", "gain", "base_squared_error", "squared_error", "distance", "label_knn"]
    assert list(frame.columns) == answers + measures
    now = reader.predict(test).reshape(50, -1)
    np.testing.assert_allclose(frame[answers[-now.shape[1] :]], now, rtol=1e-6)
    errors = np.square(now.astype(np.float64) - test.labels.reshape(50, -1)).mean(axis=1)
    np.testing.assert_allclose(frame["squared_error"], errors)
    assert frame.squared_error.mean() == pytest.approx(result.mse)
    assert (frame.outcome == "better").mean() == result.improved
    assert (frame.outcome == "worse").mean() == result.worsened
    assert frame.label_knn.mean() == pytest.approx(result.label_knn)


def test_ids_names_and_the_datas_own_columns(memory):
    class Named(list):
        names = {100: "a.txt", 101: "b.txt", 999: "never read"}  # noqa: RUF012

    columns = {"offset": np.arange(6), "distance": np.ones(6), "box": np.zeros((6, 4))}
    test = made(6, 1, ids=[100, 100, 101, 101, 102, 102], columns=columns)
    result = rs.evaluate(rs.ResMem(memory, k=3), Named([test[:2], test[2:]]), label_knn=False)
    frame = result.to_frame()
    assert list(frame.columns) == ["id", "document", *CLASSES, "offset", "column.distance"]
    assert frame["id"].tolist() == [100, 100, 101, 101, 102, 102]
    assert frame["document"].tolist() == ["a.txt", "a.txt", "b.txt", "b.txt", "102", "102"]
    assert frame["offset"].tolist() == list(range(6))
    assert frame["column.distance"].tolist() == [1.0] * 6


def test_what_only_some_batches_bring_is_left_out(memory):
    some = made(3, 1, ids=[7, 8, 9], columns={"offset": np.arange(3)})
    result = rs.evaluate(rs.ResMem(memory, k=3), [some, made(3, 2)], label_knn=False)
    assert list(result.to_frame().columns) == CLASSES


def test_without_a_neighbour_there_is_no_distance(memory):
    sure = rs.Encoded(np.zeros((2, 3)), [[9.0, 0, 0, 0], [0.0, 0, 0, 0]], [0, 0], ids=[500, 501])
    skipped = rs.evaluate(rs.ResMem(memory, k=3, skip=0.9), sure).to_frame()
    assert skipped["distance"].isna().tolist() == [True, False]
    assert rs.evaluate(rs.ResMem(memory, k=0), sure).to_frame()["distance"].isna().all()
    all_ids = np.tile(memory.ids, (2, 1))
    excluded = rs.evaluate(rs.ResMem(memory, k=3), sure, exclude=all_ids).to_frame()
    assert excluded["distance"].isna().all() and (excluded["outcome"] == "same").all()


def test_a_cache_shows_the_distance_of_its_reader():
    rng = np.random.default_rng(0)
    text = rs.Encoded(
        rng.normal(size=(40, 3)),
        rng.normal(size=(40, 5)),
        rng.integers(0, 5, 40),
        np.repeat([1, 2], 20),
        columns={"offset": np.tile(np.arange(20), 2)},
    )
    test = rs.Encoded(text.keys + 0.1, text.logits, text.labels, text.ids + 5, columns=text.columns)
    reader = rs.KNNLM(rs.Memory(text, storage="none"), k=3, sigma=1.0)
    under, cache = (rs.evaluate(r, test).to_frame() for r in (reader, rs.ContinuousCache(reader, lmbda=0.5)))
    np.testing.assert_array_equal(under["distance"], cache["distance"])
    assert not np.allclose(under["log_prob"], cache["log_prob"])
    assert cache["offset"].tolist() == list(range(20)) * 2


def test_classes_are_named_and_counted(memory):
    result = rs.evaluate(rs.ResMem(memory, k=3), made(10, 1))
    names = ["<b>", "\udcff", "\u202egato", "x" * 1000]
    frame, plain = result.to_frame(names), result.to_frame()
    for column in ("label", "base_prediction", "prediction"):
        assert frame[column].tolist() == [names[i] for i in plain[column]]
    np.testing.assert_array_equal(frame["gain"], plain["gain"])
    with pytest.raises(ShapeError, match="2 names for 4 outputs"):
        result.to_frame(["cat", "dog"])


def test_the_frame_is_not_in_the_json(memory):
    result = rs.evaluate(rs.ResMem(memory, k=3), made(10, 1, ids=np.arange(10) + 500, columns={"page": np.arange(10)}))
    found = json.loads(json.dumps(result.to_dict()))
    assert not {"per_row", "columns", "names"} & set(found)


def test_without_pandas_the_extra_is_named(memory, monkeypatch):
    result = rs.evaluate(rs.ResMem(memory, k=3), made(10, 1))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "residua\[sklearn\]"'):
        result.to_frame()


def test_a_frame_of_a_hundred_thousand_tokens_is_small():
    rng = np.random.default_rng(0)
    n = 100_000
    labels, ids, columns = rng.integers(0, 3, n), np.full(n, 9), {"offset": np.arange(n)}
    test = rs.Encoded(rng.normal(size=(n, 2)), np.zeros((n, 3)), labels, ids, columns=columns)
    memory = rs.Memory(rs.Encoded([[0.0, 0.0], [1.0, 1.0]], np.zeros((2, 3)), [0, 1]))
    result = rs.evaluate(rs.KNNLM(memory, k=1), test, n_bootstrap=2)
    kept = sum(array.nbytes for array in [*result.per_row.values(), *result.columns.values()])
    assert kept <= 64 * n
    assert len(result.to_frame()) == n
