"""Losses of rows that do not weigh alike are weighted means, however they are swept."""

import numpy as np
import pytest

import residua as rs

RNG = np.random.default_rng(0)


def rows(n, columns=None):
    keys = RNG.normal(size=(n, 2))
    labels = (keys[:, 0] + RNG.normal(size=n) > 1).astype(int)
    weight = {"weight": RNG.uniform(size=n)} if columns else None
    return rs.Encoded(keys, RNG.normal(size=(n, 2)), labels, columns=weight)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("reader", [rs.ResMem, rs.KNNLM])
@pytest.mark.parametrize("grid", [{}, {"epsilon": [0.5]}])  # quick, and setting after setting
def test_log_losses_are_weighted_means(reader, columns, grid):
    memory, validation = rs.Memory(rows(60, columns)), rows(40, columns)
    grid = {"k": [3], "sigma": [1.0], "temperature": [1.0, 2.0]} | ({"lmbda": [0.5]} if reader is rs.KNNLM else {})
    start = reader(memory, k=3, class_weight="balanced")
    best = rs.tune(start, validation, grid | grid, evidence=None)
    weights = start.class_weights.numpy()[validation.labels] * validation.columns.get("weight", 1.0)
    for k, temperature, found in zip(*(best.results_[name] for name in ("k", "temperature", "log_loss"))):
        p = start.with_params(
            k=int(k), sigma=1.0, temperature=temperature, **{n: v[0] for n, v in grid.items() if n == "lmbda"}
        )
        losses = -np.log(p.predict_proba(validation)[np.arange(40), validation.labels])
        assert found == pytest.approx(np.average(losses, weights=weights), rel=1e-5)


def test_squared_errors_and_evidence_are_weighted():
    keys = np.linspace(-1, 1, 80)[np.random.default_rng(0).permutation(80), None]
    targets = np.where(keys[:, 0] > 0, 1.0, -1.0)
    memory = rs.Memory(rs.Encoded(keys[:40], np.zeros(40), targets[:40]))
    base = np.where(keys[40:, 0] > 0, 0.0, targets[40:])  # which the memory corrects above 0, and spoils below
    found = {}
    for below in (1.0, 1e-3):
        weight = np.where(keys[40:, 0] > 0, 1.0, below)
        validation = rs.Encoded(keys[40:], base, targets[40:], columns={"weight": weight})
        best = rs.tune(rs.ResMem(memory), validation, {"k": [1], "sigma": [1.0]})
        errors = (best.with_params(k=1, sigma=1.0).predict(validation) - validation.labels) ** 2
        at = np.flatnonzero(best.results_["k"] == 1)[0]
        assert best.results_["squared_error"][at] == pytest.approx(np.average(errors, weights=weight), rel=1e-5)
        found[below] = best.evidence_.used
    assert found == {1.0: False, 1e-3: True}
