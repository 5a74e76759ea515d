"""Labels that do not exclude each other: each is a task of two classes, "has it" and "has it not", and all at once."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

import residua as rs
from residua.errors import LabelError, ParameterError, ShapeError, StorageError, TaskError

L = 3


def made(n, seed):
    """Keys, logits that know little of the third label, and labels (n, L)."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 4)).astype(np.float32)
    truth = np.stack([keys[:, 0] > 0, keys[:, 1] > 0.5, keys[:, 2] * keys[:, 3] > 0], axis=1)
    logits = np.stack([2 * keys[:, 0], 2 * keys[:, 1] - 1, 0.5 * keys[:, 2]], axis=1).astype(np.float32)
    return keys, logits, truth.astype(int)


def encoded(n, seed, **options):
    return rs.Encoded(*made(n, seed), **options)


def of_label(enc, j):
    """The same rows as a task of two classes."""
    logit = np.asarray(enc.logits)[:, j]
    return rs.Encoded(enc.keys, np.stack([np.zeros_like(logit), logit], axis=1), enc.labels[:, j].astype(int))


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(encoded(600, 0))


@pytest.mark.parametrize("dtype", [int, float, bool])
def test_the_task_is_inferred_and_stored(dtype):
    keys, logits, labels = made(50, 0)
    enc = rs.Encoded(keys, logits, labels.astype(dtype))
    assert (enc.task, enc.labels.dtype, enc.n_outputs) == ("multi-label", np.int8, L)
    memory = rs.Memory(enc)
    assert memory.task == "multi-label"
    np.testing.assert_array_equal(memory.labels, labels)
    assert memory.bytes_per_row["label"] == L


def test_what_is_meant_otherwise():
    keys, logits, labels = made(50, 0)
    one_hot = np.eye(L)[labels.sum(axis=1) % L]
    assert rs.Encoded(keys, logits, one_hot).task == "classification"
    assert rs.Encoded(keys, logits, one_hot, task="multi-label").task == "multi-label"
    assert rs.Encoded(keys, logits, labels.astype(float), task="regression").task == "regression"
    with pytest.raises(LabelError, match="pass task='multi-label'"):
        rs.Encoded(keys, logits, labels, task="classification")
    with pytest.raises(LabelError, match="expected 0 or 1 for each of 3 labels"):
        rs.Encoded(keys, logits, 2 * labels, task="multi-label")


def test_sigmoids_are_recognised():
    keys, logits, labels = made(200, 0)
    p = 1 / (1 + np.exp(-logits))
    with pytest.warns(UserWarning, match="these logits are probabilities"):
        enc = rs.Encoded(keys, p, labels)
    np.testing.assert_allclose(enc.logits, logits, atol=1e-4)
    np.testing.assert_allclose(rs.Encoded(keys, 100 * p, labels, output="percentages").logits, logits, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("epsilon", [None, 0.1])
@pytest.mark.parametrize("kind", ["resmem", "knnlm"])
def test_each_label_is_a_task_of_two_classes(memory, kind, temperature, epsilon):
    queries = encoded(100, 1)
    options = {"k": 9, "sigma": 0.7, "temperature": temperature, "epsilon": epsilon, "kernel": "exponential"}

    def reader_of(rows):
        memory = rs.Memory(rows)
        return rs.ResMem(memory, **options) if kind == "resmem" else rs.KNNLM(memory, lmbda=0.3, **options)

    reader = reader_of(encoded(600, 0))
    scores, p, said = reader.scores(queries), reader.predict_proba(queries), reader.predict(queries)
    assert p.min() > 0 and p.max() < 1
    np.testing.assert_array_equal(said, p > 0.5)
    for j in range(L):
        alone, asked = reader_of(of_label(encoded(600, 0), j)), of_label(queries, j)
        np.testing.assert_allclose(scores[:, j], alone.scores(asked)[:, 1], atol=1e-5)
        np.testing.assert_allclose(p[:, j], alone.predict_proba(asked)[:, 1], atol=1e-5)


def test_without_neighbours_it_is_the_model(memory):
    queries = encoded(100, 1)
    np.testing.assert_allclose(
        rs.ResMem(memory, k=0).predict_proba(queries), 1 / (1 + np.exp(-np.asarray(queries.logits))), rtol=1e-5
    )


def test_evaluate_against_scikit_learn(memory):
    queries, reader = encoded(300, 1), rs.ResMem(memory, k=15)
    result = rs.evaluate(reader, queries)
    y, made_of = queries.labels, reader.predict_proba(queries)
    base = 1 / (1 + np.exp(-np.asarray(queries.logits, np.float64)))
    for prefix, p in (("base_", base), ("", made_of)):
        said = p > 0.5
        for average in ("micro", "macro"):
            measured = getattr(result, f"{prefix}f1_{average}")
            assert measured == pytest.approx(metrics.f1_score(y, said, average=average), abs=1e-9)
        expected = metrics.average_precision_score(y, p, average="macro")
        assert getattr(result, f"{prefix}mean_average_precision") == pytest.approx(expected, abs=1e-9)
        assert getattr(result, f"{prefix}accuracy") == pytest.approx(1 - metrics.hamming_loss(y, said))
        each = [metrics.log_loss(y[:, j], p[:, j]) for j in range(L)]
        assert getattr(result, f"{prefix}log_loss") == pytest.approx(np.mean(each), rel=1e-4)
    assert result.gain == pytest.approx(result.accuracy - result.base_accuracy)
    assert result.helps and result.significant
    assert result.label_knn > result.base_accuracy
    assert "mean average precision" in str(result) and "macro F1" in result._repr_html_()
    assert result.to_dict()["f1_micro"] == result.f1_micro
    pytest.importorskip("pandas")
    frame = result.to_frame(["left", "up", "both"])
    assert {"label_left", "prediction_both", "probability_up"} <= set(frame.columns)
    assert set(frame.outcome) <= {"same", "better", "worse"}


def test_average_precision_with_ties():
    from residua.evaluation.multilabel import mean_average_precision

    rng = np.random.default_rng(0)
    scores, label = rng.integers(0, 5, (80, 4)) / 5, rng.random((80, 4)) < 0.3
    expected = metrics.average_precision_score(label, scores, average="macro")
    assert mean_average_precision(scores, label) == pytest.approx(expected)


def test_tune_chooses_by_log_loss_and_wants_evidence(memory):
    validation, test = encoded(400, 2), encoded(400, 3)
    best = rs.tune(rs.ResMem(memory), validation)
    assert best.k > 0 and best.evidence_.used and best.evidence_.measure == "log_loss"
    result = rs.evaluate(best, validation)
    assert -best.best_score_ == pytest.approx(result.log_loss, rel=1e-4)
    assert rs.evaluate(best, test).log_loss < rs.evaluate(rs.ResMem(memory, k=0), test).log_loss - 0.02
    assert rs.tune(rs.KNNLM(memory), validation).evidence_.used
    noise = [np.random.default_rng(seed).integers(0, 2, (400, L)) for seed in (0, 1)]
    seen, new = (rs.Encoded(rows.keys, 0 * rows.logits.table, y) for rows, y in zip((validation, test), noise))
    with pytest.raises(ParameterError, match="'conservative' for a multi-label memory"):
        rs.tune(rs.ResMem(memory), validation, objective="conservative")
    assert rs.tune(rs.ResMem(rs.Memory(seen)), new).k == 0


def test_attached_models_answer_in_their_kind():
    torch.manual_seed(0)
    keys, _, labels = made(400, 0)
    linear = nn.Linear(4, L)
    for model in (nn.Sequential(linear).eval(), nn.Sequential(linear, nn.Sigmoid()).eval()):
        enc = rs.encode(model, (torch.from_numpy(keys), labels), key="0:input", progress=False)
        assert enc.source.output == ("logits" if len(model) == 1 else "probabilities")
        reader, x = rs.ResMem(rs.Memory(enc), k=7), torch.from_numpy(made(50, 1)[0])
        queries = rs.encode(model, x, like=reader.memory, progress=False)
        expected = torch.from_numpy(reader.predict_proba(queries))
        assert (expected - linear(x).sigmoid()).abs().max() > 0.05
        with torch.no_grad(), rs.attach(model, reader):
            said = model(x) if len(model) == 2 else model(x).sigmoid()
        torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-5)


def test_rows_are_edited_explained_and_saved(memory, tmp_path):
    small, query = rs.Memory(encoded(40, 0)), encoded(5, 1)[2]
    reader = rs.ResMem(small, k=4)
    why = rs.explain(reader, query)
    np.testing.assert_allclose(why.scale * why.base + why.contributions.sum(axis=0), why.scores, atol=1e-6)
    assert why.prediction.tolist() == reader.predict(query)[0].tolist()
    assert "label 0" in str(why) and why.labels.shape == (4, L)
    small.relabel([3, 5], [1, 0, 1])
    assert small.labels[[3, 5]].tolist() == [[1, 0, 1]] * 2
    for wrong, error in (([1, 2, 0], LabelError), ([1, 0], ShapeError)):
        with pytest.raises(error):
            small.relabel([3], wrong)
    small.add(encoded(7, 5))
    small.forget([0])
    reader.save(tmp_path / "mem")
    again = rs.load(tmp_path / "mem")
    assert again.memory.task == "multi-label" and len(again.memory) == 46
    np.testing.assert_array_equal(again.predict_proba(query), reader.predict_proba(query))
    encoded(9, 0).save(tmp_path / "rows.npz")
    assert rs.Encoded.load(tmp_path / "rows.npz").task == "multi-label"


def test_what_is_for_classes_alone(memory):
    with pytest.raises(ParameterError, match="skip compares class probabilities"):
        rs.ResMem(memory, skip=0.9)
    with pytest.raises(TaskError, match="a multi-label memory"):
        rs.ContinuousCache(rs.ResMem(memory, k=3))
    with pytest.raises(StorageError, match="a multi-label memory stores 'full'"):
        rs.Memory(encoded(40, 0), storage="top-m")
    with pytest.raises(TaskError, match=r"multi-label rows|classification"):
        memory.add(rs.Encoded(*made(5, 0)[:2], [0, 1, 2, 0, 1]))


def test_every_promise_of_a_reader(memory):
    from residua.testing import check_reader

    check_reader(rs.ResMem(memory, k=5), encoded(30, 7), atol=1e-5)
    check_reader(rs.KNNLM(memory, k=5), encoded(30, 7), atol=1e-5)
