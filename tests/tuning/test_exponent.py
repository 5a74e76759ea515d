"""Residuals in the exponent: the weights that tune finds are the best there are for each k, sigma and T."""

import numpy as np
import pytest

import residua as rs
from residua.tuning.exponent import ExponentSweep

GRID = {"k": [3, 20], "sigma": [0.3, 2.0]}


def task(n, seed=0, several=False):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = (keys[:, 0] * keys[:, 1] > 0).astype(int) + (keys[:, 1] > 1)
    hot = np.eye(3, dtype=int)[labels]
    logits = rng.normal(size=(n, 3)) + hot
    hot[:, 0] |= keys[:, 0] > 0
    return rs.Encoded(keys, logits, hot if several else labels, task="multi-label" if several else None)


def loss(reader, data):
    p = reader.predict_proba(data).astype(float)
    if data.task == "multi-label":
        return -np.log(np.where(data.labels > 0, p, 1 - p)).mean()
    return -np.log(p[np.arange(len(data)), data.labels]).mean()


@pytest.mark.parametrize("several", [False, True])
def test_each_setting_has_its_best_weights(several):
    memory, validation = rs.Memory(task(120, several=several)), task(80, seed=1, several=several)
    best = rs.tune(rs.ResMem(memory, k=1, space="exponent"), validation, GRID)
    results, names = best.results_, list(best.best_params_)
    assert names == ["k", "sigma", "temperature", "base_weight", "residual_weight"]
    assert set(results["k"]) == {0, 3, 20} and len(set(results["temperature"])) == 2 and best.k > 0
    for row in np.flatnonzero(results["k"]):
        one = best.with_params(**{name: results[name][row].item() for name in names})
        assert loss(one, validation) == pytest.approx(results["log_loss"][row], abs=1e-5)
        for name in ("base_weight", "residual_weight"):
            for factor in (0.9, 1.1):
                other = one.with_params(**{name: factor * getattr(one, name)})
                assert loss(other, validation) > results["log_loss"][row] - 1e-6
    assert loss(best, validation) == pytest.approx(-best.best_score_, abs=1e-5)


def test_skipped_rows_and_the_temperature_of_the_model_alone():
    memory, validation = rs.Memory(task(120)), task(80, seed=1)
    best = rs.tune(rs.ResMem(memory, k=1, space="exponent", skip=0.6), validation, GRID, evidence=None)
    assert best.skip == 0.6 and loss(best, validation) == pytest.approx(-best.best_score_, abs=1e-5)
    alone = best.results_["k"] == 0
    other = best.results_["temperature"][alone][np.argmax(best.results_["score"][alone])]
    base = rs.ResMem(memory, k=0)
    for factor in (0.95, 1.05):
        assert loss(base.with_params(temperature=other), validation) < loss(
            base.with_params(temperature=factor * other), validation
        )


def test_weights_that_are_named_are_a_grid():
    memory, validation = rs.Memory(task(120)), task(80, seed=1)
    reader = rs.ResMem(memory, k=1, space="exponent", base_weight=0.8)
    best = rs.tune(reader, validation, GRID | {"residual_weight": [1.0, 5.0], "temperature": [1.0, 2.0]})
    assert set(best.results_["residual_weight"]) == {1.0, 5.0} and best.base_weight == 0.8
    assert loss(best, validation) == pytest.approx(-best.best_score_, abs=1e-5)
    assert not ExponentSweep.serves(reader, {"residual_weight": [1.0]}, "log_loss")
    by_scorer = rs.tune(reader, validation, GRID | {"temperature": [1.0]}, objective="f1_macro", evidence=None)
    assert by_scorer.residual_weight in (1.0, 8.0)
