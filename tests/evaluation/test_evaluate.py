"""Numbers worked by hand, then against NumPy and scikit-learn, then what must always hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

import residua as rs
from residua.errors import EmptyMemoryError, IdError, InputError, LabelError, ParameterError, TaskError
from residua.evaluation.calibration import expected_calibration_error


def made(n, seed, classes=4, sharpness=1.0):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 3))
    labels = np.abs(keys).argmax(axis=1) % classes
    logits = sharpness * (0.8 * np.eye(classes)[labels] + rng.normal(size=(n, classes)))
    return rs.Encoded(keys, logits, labels)


def made_regression(n, seed, outputs=2):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    targets = np.stack([np.sin(2 * keys[:, 0]), keys[:, 1] ** 2], axis=1)[:, :outputs]
    predictions = 0.3 * keys[:, :outputs]
    return rs.Encoded(keys, predictions, targets) if outputs > 1 else rs.Encoded(keys, predictions[:, 0], targets[:, 0])


@pytest.fixture(scope="module")
def pair():
    return rs.Memory(made(80, 0)), made(60, 1)


def test_by_hand():
    # One neighbour, so ResMem says the label of the nearest key; the base says class 0 everywhere (a tie).
    memory = rs.Memory(rs.Encoded([[0.0], [1.0], [2.0]], np.zeros((3, 3)), [0, 1, 1]))
    test = rs.Encoded([[0.1], [0.9], [1.8], [1.1], [2.2]], np.zeros((5, 3)), [0, 1, 1, 0, 2])
    result = rs.evaluate(rs.ResMem(memory, k=1, sigma=1.0), test)
    assert (result.n, result.base, result.memory) == (5, 2 / 5, 3 / 5)
    assert (result.tpr, result.fpr) == (2 / 5, 1 / 5)
    assert result.gain == pytest.approx(1 / 5)
    assert result.p_value == 1  # 2 against 1
    assert result.support.tolist() == [2, 2, 1]
    assert result.per_class_gain.tolist() == [-1 / 2, 1, 0]
    assert result.log_loss_base == pytest.approx(np.log(3))
    assert result.ece_base == pytest.approx(2 / 5 - 1 / 3, abs=1e-6)
    # onehot, floored at epsilon * p = 1/9 and renormalised: (9, 1, 1) / 11
    assert result.log_loss_memory == pytest.approx(-(3 * np.log(9 / 11) + 2 * np.log(1 / 11)) / 5, rel=1e-6)
    assert result.ece_memory == pytest.approx(9 / 11 - 3 / 5, abs=1e-6)
    assert result.label_knn == 3 / 5
    assert result.label_knn_tuned is None
    assert not result.significant


@pytest.mark.parametrize("reader", [rs.ResMem, rs.KNNLM])
def test_classification_is_what_the_public_methods_say(pair, reader):
    memory, test = pair
    reader = reader(memory, k=7, temperature=1.3)
    result = rs.evaluate(reader, test)
    logits = test.logits.dense().numpy().astype(np.float64)
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    now = reader.predict_proba(test)
    base_right, right = logits.argmax(axis=1) == test.labels, reader.predict(test) == test.labels
    assert result.base == accuracy_score(test.labels, logits.argmax(axis=1))
    assert result.memory == accuracy_score(test.labels, reader.predict(test))
    assert result.tpr == (~base_right & right).mean()
    assert result.fpr == (base_right & ~right).mean()
    assert result.log_loss_base == pytest.approx(log_loss(test.labels, said, labels=range(4)), rel=1e-5)
    assert result.log_loss_memory == pytest.approx(-np.log(now[np.arange(60), test.labels]).mean(), rel=1e-5)
    assert result.ece_base == pytest.approx(expected_calibration_error(said.max(axis=1), base_right), abs=1e-5)
    assert result.ece_memory == pytest.approx(expected_calibration_error(now.max(axis=1), right), abs=1e-5)
    for c in range(4):
        inside = test.labels == c
        expected = right[inside].mean() - base_right[inside].mean() if inside.any() else np.nan
        np.testing.assert_allclose(result.per_class_gain[c], expected, atol=1e-12)
    label_knn = rs.KNNLM(memory, k=7, lmbda=1.0, sigma=reader.sigma, kernel=reader.kernel)
    assert result.label_knn == accuracy_score(test.labels, label_knn.predict(test))


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_is_sklearns(outputs):
    memory, test = rs.Memory(made_regression(80, 0, outputs)), made_regression(50, 1, outputs)
    reader = rs.ResMem(memory, k=5)
    result = rs.evaluate(reader, test, validation=made_regression(30, 2, outputs))
    base = test.logits.dense().numpy().reshape(test.labels.shape)
    now = reader.predict(test)
    assert result.base == pytest.approx(mean_squared_error(test.labels, base), rel=1e-5)
    assert result.memory == pytest.approx(mean_squared_error(test.labels, now), rel=1e-5)
    assert result.gain == pytest.approx(result.base - result.memory)
    assert result.gain_interval[0] < result.gain < result.gain_interval[1]
    assert result.p_value == pytest.approx(1 / 2001)  # far better: no random signs reach it
    weighted = {"multioutput": "variance_weighted"}
    assert result.r2_base == pytest.approx(r2_score(test.labels, base, **weighted), abs=1e-4)
    assert result.r2_memory == pytest.approx(r2_score(test.labels, now, **weighted), abs=1e-4)
    knn = rs.KNNLM(memory, k=5, lmbda=1.0, sigma=reader.sigma, kernel=reader.kernel).predict(test)
    assert result.label_knn == pytest.approx(mean_squared_error(test.labels, knn), rel=1e-5)
    knn = rs.KNNLM(memory, lmbda=1.0, **result.label_knn_params).predict(test)
    assert result.label_knn_tuned == pytest.approx(mean_squared_error(test.labels, knn), rel=1e-5)
    assert result.tpr is result.ece_base is result.per_class_gain is None
    better = ((now - test.labels) ** 2 < (base - test.labels) ** 2) if outputs == 1 else None
    if better is not None:
        assert result.improved == pytest.approx(better.mean())
    assert result.improved + result.worsened <= 1


def test_constant_targets_have_no_r2():
    memory = rs.Memory(made_regression(20, 0, 1))
    result = rs.evaluate(rs.ResMem(memory, k=3), rs.Encoded(np.zeros((2, 2)), np.ones(2), np.zeros(2)))
    assert np.isnan(result.r2_base)
    assert result.to_dict()["r2_base"] is None


def test_batches_are_the_whole(pair):
    memory, test = pair
    reader = rs.ResMem(memory, k=7)
    whole = rs.evaluate(reader, test, validation=made(30, 2))
    parts = rs.evaluate(reader, iter([test[:20], test[20:20], test[20:]]), validation=iter([made(30, 2)]))
    parts = parts.to_dict()
    for name, value in whole.to_dict().items():
        close = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        assert parts[name] == close, name


def test_tuned_label_knn_is_reported(pair):
    memory, test = pair
    result = rs.evaluate(rs.ResMem(memory, k=3), test, validation=made(40, 5))
    voter = rs.KNNLM(memory, lmbda=1.0, **result.label_knn_params)
    assert result.label_knn_tuned == accuracy_score(test.labels, voter.predict(test))


def test_excluded_rows_do_not_help(pair):
    memory, _ = pair
    seen = rs.Encoded(made(80, 0).keys, made(80, 0).logits, made(80, 0).labels)
    reader = rs.ResMem(memory, k=1)
    assert rs.evaluate(reader, seen).memory == 1
    blind = rs.evaluate(reader, seen, exclude_ids=np.arange(80))
    assert blind.memory == (reader.predict(seen, exclude_ids=np.arange(80)) == seen.labels).mean() < 1


@pytest.mark.parametrize("make", [made, made_regression])
def test_k_zero_is_the_base(make):
    memory, test = rs.Memory(make(20, 0)), make(30, 1)
    result = rs.evaluate(rs.ResMem(memory, k=0, temperature=2.0), test, validation=make(10, 2))
    assert result.gain == 0
    assert result.p_value == 1
    assert result.label_knn is None
    assert result.label_knn_tuned is not None


def test_a_memory_without_logits_is_read_by_its_labels(pair):
    _, test = pair
    memory = rs.Memory(made(80, 0), storage="none")
    result = rs.evaluate(rs.KNNLM(memory, k=9, lmbda=1.0), test)
    assert result.memory == result.label_knn


def test_same_seed_same_result(pair):
    memory, test = pair
    reader = rs.ResMem(memory, k=7)
    one, two, other = (rs.evaluate(reader, test, seed=seed, n_bootstrap=7).gain_interval for seed in (0, 0, 1))
    assert one == two != other


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 6), st.integers(0, 12))
def test_gain_is_tpr_less_fpr_is_memory_less_base(seed, n, classes, k):
    memory = rs.Memory(made(12, seed, classes, sharpness=3.0))
    result = rs.evaluate(rs.ResMem(memory, k=k), made(n, seed + 1, classes, sharpness=3.0), n_bootstrap=50)
    assert result.gain == result.tpr - result.fpr == pytest.approx(result.memory - result.base, abs=1e-12)
    present = result.support > 0
    assert result.support.sum() == n
    total = (result.per_class_gain[present] * result.support[present]).sum() / n
    assert total == pytest.approx(result.gain, abs=1e-12)
    assert np.isnan(result.per_class_gain[~present]).all()
    assert result.gain_interval[0] <= result.gain_interval[1]
    assert 0 < result.p_value <= 1
    assert 0 <= result.ece_base <= 1
    assert 0 <= result.ece_memory <= 1
    assert np.isfinite([result.log_loss_base, result.log_loss_memory]).all()


def test_bad_input_is_refused(pair):
    memory, test = pair
    reader = rs.ResMem(memory, k=3)
    with pytest.raises(ParameterError, match="Memory where a reader"):
        rs.evaluate(memory, test)
    for confidence in (0, 1, 95):
        with pytest.raises(ParameterError, match="confidence"):
            rs.evaluate(reader, test, confidence=confidence)
    for n_bootstrap in (0, 1.5, True):
        with pytest.raises(ParameterError, match="n_bootstrap"):
            rs.evaluate(reader, test, n_bootstrap=n_bootstrap)
    with pytest.raises(LabelError):
        rs.evaluate(reader, rs.Encoded(test.keys, test.logits))
    with pytest.raises(LabelError):
        rs.evaluate(reader, test, validation=rs.Encoded(test.keys, test.logits))
    with pytest.raises(InputError, match="no rows"):
        rs.evaluate(reader, test[:0])
    with pytest.raises(TaskError):
        rs.evaluate(reader, made_regression(5, 0))
    with pytest.raises(IdError):
        rs.evaluate(reader, test, exclude_ids=np.arange(59))


def test_an_empty_memory_is_refused():
    memory = rs.Memory(made(4, 0))
    reader = rs.ResMem(memory, k=2, sigma=1.0)
    memory.forget(memory.ids)
    with pytest.raises(EmptyMemoryError):
        rs.evaluate(reader, made(3, 1))
