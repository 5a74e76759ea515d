"""The pooled reader: its formula by hand, shares that sum to the terms, and coefficients that serve."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import EmptyMemoryError, InputError, ParameterError, StorageError, TaskError
from residua.readers.weights import LogitFeatures, ResidualFeatures, cross_fitted
from residua.testing import check_reader

WEIGHTS = np.random.default_rng(5).normal(size=9).tolist()


def task(n, seed=0, classes=3, **more):
    """A base of noise, and keys that tell the class."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = (keys[:, 0] > 0).astype(int) + (keys[:, 0] * keys[:, 1] > 0)
    return rs.Encoded(keys, rng.normal(size=(n, classes)), labels, **more)


def regression(n, seed=0, outputs=1):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    said = 100 * rng.normal(size=(n, outputs))
    targets = said + np.sin(2 * keys[:, :1]) * np.arange(1, outputs + 1) + 0.1 * rng.normal(size=(n, outputs))
    return rs.Encoded(keys, said[:, 0] if outputs == 1 else said, targets[:, 0] if outputs == 1 else targets)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def by_hand(memory, query, k, widths, temperature, coefficients, own=None):
    """Logits (q, L) and shares (q, k, L), in float64, from the definition."""
    logits = memory.logits.dense().numpy().astype(float) / temperature
    start = query.logits.dense().numpy().astype(float) / temperature
    d = np.sqrt(((query.keys[:, None].astype(float) - memory.keys[None]) ** 2).sum(axis=2))
    near = np.argsort(d, axis=1, kind="stable")[:, :k]
    hot, said, u = np.eye(start.shape[1])[memory.labels], softmax(logits), softmax(start) / 20
    shares = np.zeros((*near.shape, start.shape[1]))
    for s, width in enumerate(widths):
        weights = np.exp(-np.take_along_axis(d, near, axis=1) / width) * (1 if own is None else own[near])
        weights /= weights.sum(axis=1, keepdims=True)
        log_v, log_q, of_v, of_q = coefficients[1 + 4 * s : 5 + 4 * s]
        for table, log, plain in ((hot, log_v, of_v), (said, log_q, of_q)):
            parts = weights[:, :, None] * table[near]
            total = parts.sum(axis=1)
            term = log * (np.log(total + u) - np.log(u)) + plain * total
            shares += parts / np.where(total > 0, total, 1)[:, None] * term[:, None]
    return coefficients[0] * start + shares.sum(axis=1), shares


@pytest.mark.parametrize("weighed", [False, True])
def test_by_hand(weighed):
    own = np.linspace(0.1, 2, 80).astype(np.float32)
    memory, test = rs.Memory(task(80, columns={"weight": own} if weighed else {})), task(12, seed=1)
    reader = rs.Pooled(memory, k=15, widths=[0.2, 1.0], temperature=1.5, coefficients=WEIGHTS)
    expected, shares = by_hand(memory, test, 15, [0.2, 1.0], 1.5, WEIGHTS, own if weighed else None)
    np.testing.assert_allclose(reader.scores(test), expected, atol=2e-4)
    np.testing.assert_allclose(reader.predict_proba(test), softmax(expected), atol=2e-5)
    why = rs.explain(reader, test[3])
    np.testing.assert_allclose(why.contributions, shares[3], atol=2e-4)
    np.testing.assert_allclose(why.scale * why.base + why.contributions.sum(axis=0), why.scores, atol=1e-5)
    assert why.shared and "shared by 15 neighbours" in str(why) and "share of" in str(why)
    everybody = np.tile(memory.ids, (12, 1))
    np.testing.assert_array_equal(reader.scores(test, everybody), test.logits.dense().numpy() / np.float32(1.5))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "numbers", "several numbers", "top-m", "skip"])
def test_it_keeps_the_protocol(kind, tmp_path):
    made = {"numbers": regression, "several numbers": lambda n, seed: regression(n, seed, 2)}.get(kind, task)
    memory, test = rs.Memory(made(300, 0), storage="top-m" if kind == "top-m" else "full", m=2), made(12, 1)
    reader = rs.Pooled(memory, k=20, skip=0.8 if kind == "skip" else None).fit(made(200, 2))
    assert reader.evidence_.used and reader.evidence_.z > 1.96 and reader.fitted_rows == 300
    check_reader(reader, rs.Encoded(test.keys, test.logits, test.labels, ids=np.arange(12) + 1000, task=test.task))
    reader.save(tmp_path / "memory")
    assert rs.load(tmp_path / "memory").coefficients == reader.coefficients


def test_regression_is_the_ridge_of_the_residuals_of_each_width():
    memory, validation = rs.Memory(regression(300, 0, 2)), regression(200, 2, 2)
    reader = rs.Pooled(memory, k=20).fit(validation)
    widths = [rs.ResMem(memory, k=20, sigma=width) for width in reader.widths]
    said = validation.logits.dense().numpy()
    columns = np.stack([one.predict(validation) - said for one in widths])
    expected = said + np.tensordot(reader.coefficients, columns, 1)
    np.testing.assert_allclose(reader.predict(validation), expected, atol=1e-4)
    scale = (validation.labels - said).std(axis=0)
    x, y = (columns / scale).reshape(3, -1).T, ((validation.labels - said) / scale).reshape(-1)
    least = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.square(y - x @ least).sum() <= np.square(y - x @ reader.coefficients).sum()
    assert np.square(y - x @ reader.coefficients).sum() < 1.001 * np.square(y - x @ least).sum()


def test_its_own_rows_serve_without_itself():
    """Leave-one-out: the same as given those rows with their ids; rows that share an id leave together."""
    rows = task(400, ids=np.arange(400) // 2)
    memory = rs.Memory(rows)
    by_itself, given = rs.Pooled(memory, k=20).fit(), rs.Pooled(memory, k=20).fit(rows)
    np.testing.assert_allclose(by_itself.coefficients, given.coefficients, atol=1e-3)
    assert by_itself.evidence_.groups == 200
    plain = rs.Memory(task(400))
    cheating = rs.Pooled(plain, k=20).fit(task(400), exclude=None, evidence=None)
    assert cheating.evidence_.gain > rs.Pooled(plain, k=20).fit().evidence_.gain


def test_a_regression_far_from_0_serves_itself():
    near = regression(300)
    far = rs.Encoded(near.keys, 1e6 + near.logits.table[:, 0].numpy(), 1e6 + near.labels)
    expected, found = (rs.Pooled(rs.Memory(rows), k=20).fit() for rows in (near, far))
    assert found.evidence_.used
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-3)


def test_calibration_is_one_temperature():
    memory, few = rs.Memory(task(400)), task(60, seed=3)
    plain, refit = rs.Pooled(memory, k=20).fit(), rs.Pooled(memory, k=20).fit(calibration=few)
    ratio = np.array(refit.coefficients) / plain.coefficients
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)

    def loss(factor):
        other = refit.with_params(coefficients=[factor * one for one in refit.coefficients])
        return -np.log(other.predict_proba(few)[np.arange(60), few.labels]).mean()

    assert loss(1.0) < min(loss(0.95), loss(1.05))
    with pytest.raises(TaskError, match="no temperature to calibrate"):
        rs.Pooled(rs.Memory(regression(300)), k=20).fit(calibration=regression(20, 3))


def test_without_evidence_the_model_alone_bit_for_bit():
    rng = np.random.default_rng(0)
    keys, logits = rng.normal(size=(300, 2)), rng.normal(size=(300, 3))
    truth = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    reader = rs.Pooled(rs.Memory(rs.Encoded(keys, logits, truth)), k=20).fit()
    assert not reader.evidence_.used and reader.is_base
    test = task(50, seed=1)
    base = torch.softmax(test.logits.dense(), dim=1).numpy()
    np.testing.assert_array_equal(reader.predict_proba(test), base)
    used = rs.Pooled(rs.Memory(task(300)), k=20).fit()
    used.memory.forget(used.memory.ids)
    np.testing.assert_array_equal(used.predict_proba(test), base)  # and without a warning


def test_a_memory_that_has_changed_much_asks_to_be_fitted_again():
    memory, test = rs.Memory(task(300)), task(5, seed=1)
    reader = rs.Pooled(memory, k=20).fit()
    reader.predict(test)
    memory.forget(np.arange(200))
    with pytest.warns(UserWarning, match=r"when the memory had 300 rows, and it has 100 now.*fit it again"):
        reader.predict(test)


def test_leaks_are_told_and_not_used():
    rows = task(300)
    rng = np.random.default_rng(0)
    noise = rs.Encoded(rows.keys, rows.logits, rng.integers(0, 3, 300))
    with pytest.warns(UserWarning, match="rests on the 300 of 300 rows"):
        reader = rs.Pooled(rs.Memory(noise), k=20).fit(noise)
    assert reader.is_base


def test_wrong_wishes():
    memory = rs.Memory(task(60))
    with pytest.raises(ParameterError, match=r"no coefficients yet; fit it first: reader\.fit"):
        rs.Pooled(memory).predict(task(3, 1))
    with pytest.raises(ParameterError, match="2 coefficients for 3 widths; expected 13"):
        rs.Pooled(memory, coefficients=[1, 2])
    with pytest.raises(ParameterError, match="a width=0; expected"):
        rs.Pooled(memory, widths=[1, 0])
    with pytest.raises(ParameterError, match="0 widths; expected 1"):
        rs.Pooled(memory, widths=[])
    with pytest.raises(StorageError, match="labels only"):
        rs.Pooled(rs.Memory(task(60), storage="none"))
    with pytest.raises(TaskError, match="of several labels; read it with ResMem"):
        rs.Pooled(rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [[0, 1], [1, 1], [0, 0]])))
    with pytest.raises(InputError, match="rows of one id"):
        rs.Pooled(memory).fit(task(30, 1, ids=np.zeros(30, int) + 99))
    with pytest.raises(EmptyMemoryError, match="k is 0"):
        rs.Pooled(memory, k=0).fit()
    with pytest.raises(ParameterError, match="is fitted: call its fit"):
        rs.tune(rs.Pooled(memory), task(30, 1))


def test_features_of_ones_own():
    """Simulated folds: whoever has columns gets coefficients and evidence."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 150)
    table = rng.normal(size=(2, 150, 3)) + np.array([0, 1.0])[:, None, None] * np.eye(3)[truth]
    rows = LogitFeatures(torch.from_numpy(table).float(), torch.from_numpy(truth))
    folds = [rows[torch.arange(150) % 3 == fold] for fold in range(3)]
    judged = cross_fitted(folds, 10 / 150)
    found = judged.evidence(2, 1, 1.0, by_accuracy=False)
    assert found.used and found.measure == "log_loss" and found.rows == 150 and found.accuracy_gain > 0.1
    others = LogitFeatures.join(folds[1:])
    np.testing.assert_allclose(judged.losses[2, :50], folds[0].losses(others.fitted(10 / 150)), rtol=1e-4)
    numbers = ResidualFeatures(torch.from_numpy(table), torch.from_numpy(2 * table[0]))
    assert numbers.fitted(None) == pytest.approx([2, 0], abs=1e-4) and numbers.fitted(1e6) == pytest.approx(
        [0, 0], abs=1e-4
    )
    assert cross_fitted([numbers[torch.arange(150) % 2 == f] for f in (0, 1)]).measure == "squared_error"


def test_targets_far_from_zero_are_fitted_as_near_ones():
    def fitted(offset):
        rng = np.random.default_rng(0)
        x = rng.uniform(-3, 3, size=(600, 1))
        y = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=600) + offset
        return rs.Pooled(rs.Memory(rs.Encoded(x, 0 * y + offset, y)), k=30).fit(progress=False).coefficients

    np.testing.assert_allclose(fitted(1e6), fitted(0.0), rtol=1e-5)
