import logging

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import InputError, LabelError, ParameterError
from residua.tuning.grid import full_grid

V = 11
GRID = {"k": [1, 3, 8], "sigma": [0.05, 0.5, 5.0], "temperature": [0.5, 1.0, 2.0], "lmbda": [0.1, 0.5, 0.9]}


def tokens(documents, length=12, seed=0, d=3, first_id=0, noise=1.0):
    """Rows of some documents whose keys say something of the next token, and a base that knows a little."""
    rng = np.random.default_rng(seed)
    n = documents * length
    labels = rng.integers(0, V, n)
    centres = np.random.default_rng(99).normal(size=(V, d)) * 2
    keys = centres[labels] + noise * rng.normal(size=(n, d))
    logits = rng.normal(size=(n, V)) + 1.5 * np.eye(V)[labels]
    ids = first_id + np.repeat(np.arange(documents), length)
    return rs.Encoded(keys, logits, labels, ids, columns={"offset": np.tile(np.arange(length), documents)})


def p_knn(memory, val, k, sigma, kernel="gaussian", weight=None):
    """float64 (q, V) by brute force; rows without neighbours are nan. Documents of the query's id are left out."""
    keys, labels = memory.keys.astype(np.float64), memory.labels
    out = np.zeros((len(val), V))
    for row, (query, document) in enumerate(zip(val.keys.astype(np.float64), val.ids)):
        squared = np.square(keys - query).sum(axis=1)
        squared[memory.ids == document] = np.inf
        near = np.argsort(squared, kind="stable")[:k]
        near = near[np.isfinite(squared[near])]
        distances = squared[near] if kernel == "gaussian" else np.sqrt(squared[near])
        weights = np.exp(-(distances - distances.min(initial=np.inf)) / sigma)
        weights *= 1 if weight is None else weight[near]
        np.add.at(out[row], labels[near], weights)
        out[row] = out[row] / weights.sum() if weights.sum() > 0 else np.nan
    return out


def loss(memory, val, params, skip=None, kernel="gaussian", weight=None):
    """Mean -log p of the tokens that came, by dense float64 arithmetic."""
    logits = np.asarray(val.logits).astype(np.float64) / params["temperature"]
    base = np.exp(logits - logits.max(axis=1, keepdims=True))
    base /= base.sum(axis=1, keepdims=True)
    mixed = base
    if params["k"]:
        found = p_knn(memory, val, params["k"], params["sigma"], kernel, weight)
        mixed = params["lmbda"] * found + (1 - params["lmbda"]) * base
        left = np.isnan(found[:, :1]) | (base.max(axis=1, keepdims=True) >= (2 if skip is None else skip))
        mixed = np.where(left, base, mixed)
    return -np.log(mixed[np.arange(len(val)), val.labels]).mean()


def rows_of(best):
    names = list(best.best_params_)
    for row in zip(*best.results_.values()):
        row = dict(zip(best.results_, row))
        yield {name: row[name].item() for name in names}, row


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
@pytest.mark.parametrize("skip", [None, 0.6])
def test_every_setting_is_the_dense_computation(kernel, skip):
    train, val = tokens(6), tokens(4, seed=1, first_id=4)  # documents 4 and 5 are in the memory too
    reader = rs.KNNLM(rs.Memory(train, storage="none"), k=1, kernel=kernel, skip=skip)
    best = rs.tune(reader, val, GRID, evidence=None)
    assert len(best.results_["k"]) == 3 + 3 * 3 * 3 * 3
    for params, row in rows_of(best):
        expected = loss(train, val, params, skip, kernel)
        assert row["log_loss"] == pytest.approx(expected, rel=1e-5)
        assert row["perplexity"] == pytest.approx(np.exp(expected), rel=1e-5)
        assert row["score"] == -row["log_loss"]
    assert best.best_score_ == best.results_["score"].max()
    assert best.params == {**reader.params, **best.best_params_} and best.skip == skip


def test_row_weights_count_and_a_weight_of_nothing_is_the_base():
    weight = np.random.default_rng(3).uniform(0, 2, 72).astype(np.float32)
    weight[::3] = 0
    train, val = tokens(6), tokens(3, seed=1, first_id=50)
    columns = {**train.columns, "weight": weight}
    heavy = rs.Encoded(train.keys, train.logits, train.labels, train.ids, columns=columns)
    best = rs.tune(rs.KNNLM(rs.Memory(heavy), k=1), val, GRID)
    for params, row in rows_of(best):
        assert row["log_loss"] == pytest.approx(loss(train, val, params, weight=weight), rel=1e-5)


def test_the_sparse_sweep_scores_as_the_reader_and_the_dense_sweep_do():
    train, val = tokens(5), tokens(3, seed=1, first_id=50)
    memory = rs.Memory(train)
    best = rs.tune(rs.KNNLM(memory, k=1, skip=0.7), val, GRID)
    proba = best.predict_proba(val)[np.arange(len(val)), val.labels]
    assert best.best_score_ == pytest.approx(np.log(proba.astype(np.float64)).mean(), rel=1e-5)
    dense = rs.tune(rs.KNNLM(memory, k=1, skip=0.7), val, GRID, objective="accuracy")
    for params, row in rows_of(dense):
        right = rs.KNNLM(memory, k=1, skip=0.7).with_params(**params).predict(val) == val.labels
        assert row["accuracy"] == pytest.approx(right.mean())


def test_a_document_in_the_memory_is_left_out_whole():
    train = tokens(6, noise=0.01)
    noisy = np.random.default_rng(7).integers(0, V, len(train))
    train = rs.Encoded(train.keys, train.logits, noisy, train.ids, columns=train.columns)
    memory = rs.Memory(train, storage="none")
    stranger = rs.Encoded(train.keys, train.logits, train.labels, train.ids + 100, columns=train.columns)
    found = rs.tune(rs.KNNLM(memory, k=1), stranger, GRID, evidence=None)  # each token finds itself
    assert found.best_params_["lmbda"] == 0.9
    honest = rs.tune(rs.KNNLM(memory, k=1), train, GRID)
    assert honest.best_score_ < found.best_score_ - 1
    whole = rs.Encoded(train.keys, train.logits, train.labels, np.zeros(len(train), int), columns=train.columns)
    alone = rs.tune(rs.KNNLM(rs.Memory(whole, storage="none"), k=1), whole, GRID)
    assert alone.k == 0  # no neighbour is left: the base, under every setting


def test_batches_tune_like_the_whole():
    memory, val = rs.Memory(tokens(6), storage="none"), tokens(4, seed=1, first_id=50)
    whole = rs.tune(rs.KNNLM(memory, k=1), val, GRID)
    parts = rs.tune(rs.KNNLM(memory, k=1), iter([val[:5], val[5:5], val[5:30], val[30:]]), GRID)
    for name, values in whole.results_.items():
        np.testing.assert_allclose(values, parts.results_[name], rtol=1e-6)


def test_default_grids_are_the_papers_around_the_memory():
    memory = rs.Memory(tokens(6), storage="none")
    reader = rs.KNNLM(memory, k=1)
    grid = full_grid(reader, None, "log_loss")
    assert grid["k"].tolist() == [0, 1, 2, 4, 8, 16, 32, 64, 72]
    np.testing.assert_allclose(grid["sigma"][[0, -1]], memory.median_nn_distance() ** 2 * np.array([1 / 8, 32]))
    assert grid["lmbda"].max() <= 1 - 1 / V
    assert 1.0 in grid["temperature"]
    best = rs.tune(reader, tokens(3, seed=1, first_id=50), evidence=None)
    assert best.best_score_ > best.results_["score"][best.results_["k"] == 0].max()


def test_no_memory_competes_at_every_temperature_and_wins_where_nothing_is_known():
    train, val = tokens(6), tokens(3, seed=1, first_id=50)
    rng = np.random.default_rng(0)
    noise = rs.Encoded(rng.normal(size=train.keys.shape), train.logits, train.labels, train.ids, columns=train.columns)
    best = rs.tune(rs.KNNLM(rs.Memory(noise, storage="none"), k=1), val, {**GRID, "lmbda": [0.9]}, skip=0.01)
    assert best.k == 0 and best.skip is None and best.skipped_ == 0.0
    assert (best.results_["k"] == 0).sum() == 3


def lumpy(documents, seed, first_id=0, informative=True):
    """Half the queries have the answer nearby; the others are far from everything, and their neighbours mislead."""
    rng = np.random.default_rng(seed)
    n = documents * 12
    labels, known = rng.integers(0, V, n), rng.random(n) < 0.5
    keys = np.stack([labels.astype(float), np.where(known, 0.0, 40.0), rng.normal(size=n) * 0.05], axis=1)
    if informative:
        keys[~known, 0] = rng.uniform(0, V, (~known).sum())
    ids = first_id + np.repeat(np.arange(documents), 12)
    columns = {"offset": np.tile(np.arange(12), documents)}
    return rs.Encoded(keys, rng.normal(size=(n, V)), labels, ids, columns=columns), known


def test_adaptive_shares_are_accepted_where_distance_tells(caplog):
    train, known = lumpy(30, 0)
    memory = rs.Memory(train[known], storage="none")
    val, _ = lumpy(20, 1, first_id=100)
    grid = {"k": [1], "sigma": [1.0], "temperature": [1.0]}
    fixed = rs.tune(rs.KNNLM(memory, k=1), val, grid)
    with caplog.at_level(logging.INFO, "residua"):
        best = rs.tune(rs.KNNLM(memory, k=1), val, grid, adaptive=2)
    assert "accepted" in caplog.text
    near, far = best.lmbda.shares
    assert near > 0.85 and far < 0.2 and best.best_params_["lmbda"] is best.lmbda
    assert best.adaptive_["adaptive"] < best.adaptive_["fixed"]
    assert best.best_score_ > fixed.best_score_
    again = best.predict_proba(val)[np.arange(len(val)), val.labels]
    assert best.best_score_ == pytest.approx(np.log(again.astype(np.float64)).mean(), rel=1e-4)
    # Tuned again from an adaptive reader, it starts over from a single share.
    assert rs.tune(best, val, grid).lmbda == fixed.lmbda


def test_adaptive_shares_are_rejected_where_they_do_not_generalise(caplog):
    train, val = tokens(6, noise=0.5), tokens(6, seed=1, first_id=50, noise=0.5)
    # In every second document the near neighbours are wrong: what is fitted on the others does not hold there.
    labels = np.where(val.ids % 2 == 1, (val.labels + 1) % V, val.labels)
    val = rs.Encoded(val.keys, val.logits, labels, val.ids, columns=val.columns)
    grid = {"k": [3], "sigma": [1.0], "temperature": [1.0]}
    with caplog.at_level(logging.INFO, "residua"):
        best = rs.tune(rs.KNNLM(rs.Memory(train, storage="none"), k=1), val, grid, adaptive=4)
    assert "rejected" in caplog.text
    assert best.k and isinstance(best.lmbda, float) and best.adaptive_["adaptive"] > best.adaptive_["fixed"]


def test_the_gate_is_the_lowest_within_its_tolerance():
    train, val = tokens(8, noise=0.5), tokens(8, seed=1, first_id=50, noise=0.5)
    memory = rs.Memory(train, storage="none")
    grid = {"k": [8], "sigma": [1.0], "temperature": [1.0], "lmbda": [0.5]}
    free = rs.tune(rs.KNNLM(memory, k=1), val, grid)
    best = rs.tune(rs.KNNLM(memory, k=1), val, grid, skip=0.02)
    params = {"k": 8, "sigma": 1.0, "temperature": 1.0, "lmbda": 0.5}
    open_loss = loss(train, val, params)
    assert free.best_score_ == pytest.approx(-open_loss, rel=1e-5)
    assert best.skip == best.best_params_["skip"]
    assert loss(train, val, params, best.skip) <= open_loss + np.log(1.02)
    assert loss(train, val, params, best.skip - 0.05) > open_loss + np.log(1.02)
    base = torch.softmax(val.logits.dense(), dim=1).amax(dim=1)
    assert best.skipped_ == pytest.approx(float((base >= best.skip).float().mean()))
    assert best.best_score_ == pytest.approx(-loss(train, val, params, best.skip), rel=1e-5)
    loose = rs.tune(rs.KNNLM(memory, k=1), val, grid, skip=100.0)
    assert loose.skip == 0.05 and loose.skipped_ == 1.0
    # A reader that has a skip is tuned anew without it when a tolerance is given.
    assert rs.tune(rs.KNNLM(memory, k=1, skip=0.05), val, grid, skip=0.02).skip == best.skip


def test_resmem_is_swept_densely_for_perplexity():
    train, val = tokens(5), tokens(3, seed=1, first_id=50)
    memory = rs.Memory(train)
    best = rs.tune(rs.ResMem(memory, k=1), val, {name: GRID[name] for name in ("k", "sigma", "temperature")})
    for params, row in rows_of(best):
        proba = rs.ResMem(memory, k=1).with_params(**params).predict_proba(val)[np.arange(len(val)), val.labels]
        assert row["log_loss"] == pytest.approx(-np.log(proba.astype(np.float64)).mean(), rel=1e-4)


@pytest.mark.parametrize(
    "grid, options, says",
    [
        ({"lmbda": [0.5, 1.0]}, {"adaptive": 2}, "1 - epsilon"),
        ({"lmbda": [-0.1]}, {}, "lmbda"),
        ({"k": [100]}, {}, "72 rows"),
        ({"theta": [1.0]}, {}, "theta"),
        (GRID, {"adaptive": 1}, "adaptive=1"),
        (GRID, {"skip": -0.1}, "skip=-0.1"),
        (GRID, {"adaptive": 2, "objective": "accuracy"}, "log_loss"),
    ],
)
def test_bad_settings_say_so(grid, options, says):
    with pytest.raises(ParameterError, match=says):
        rs.tune(rs.KNNLM(rs.Memory(tokens(6)), k=1), tokens(3, seed=1, first_id=50), grid, **options)


def test_bad_validation_text_says_so():
    reader, val = rs.KNNLM(rs.Memory(tokens(6)), k=1), tokens(3, seed=1, first_id=50)
    with pytest.raises(InputError, match="no rows"):
        rs.tune(reader, val[:0], GRID)
    with pytest.raises(LabelError, match="no labels"):
        rs.tune(reader, rs.Encoded(val.keys, val.logits), GRID)
    with pytest.raises(ParameterError, match="two documents"):
        rs.tune(reader, val[:12], GRID, adaptive=2, evidence=None)
