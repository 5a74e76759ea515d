"""Fewer neighbours for a stated loss of perplexity."""

import numpy as np
import pytest

import residua as rs
from residua.errors import ParameterError
from residua.tuning.budget import cheapest

V = 11
GRID = {"k": [1, 2, 4, 8, 16, 32, 64], "sigma": [0.5, 4.0], "temperature": [1.0], "lmbda": [0.3, 0.6]}


def tokens(documents, seed, first_id=0, length=20):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, V, documents * length)
    keys = np.random.default_rng(99).normal(size=(V, 4))[labels] * 1.5 + rng.normal(size=(len(labels), 4))
    logits = rng.normal(size=(len(labels), V)) + 1.2 * np.eye(V)[labels]
    ids = first_id + np.repeat(np.arange(documents), length)
    return rs.Encoded(keys, logits, labels, ids, columns={"offset": np.tile(np.arange(length), documents)})


def perplexity(reader, data):
    return np.exp(-np.log(reader.predict_proba(data)[np.arange(len(data)), data.labels]).mean())


def test_the_fewest_neighbours_within_the_budget():
    results = {"k": np.array([0, 2, 2, 4, 8, 8]), "score": np.log([0.9, 0.5, 0.78, 0.795, 0.8, 0.7])}
    assert [cheapest(results, budget) for budget in (0.0, 0.001, 0.01, 0.05, 10)] == [4, 4, 3, 2, 2]


@pytest.mark.parametrize("make", [rs.KNNLM, lambda memory: rs.ResMem(memory, space="probabilities")])
def test_each_budget_is_kept(make):
    memory, val = rs.Memory(tokens(60, 0)), tokens(30, 1, 1000)
    grid = GRID if make is rs.KNNLM else {name: GRID[name] for name in ("k", "sigma", "temperature")}
    best = rs.tune(make(memory), val, grid, evidence=None)
    least, ks = perplexity(best, val), []
    for budget in (0.0, 0.01, 0.05, 0.3):
        reader = rs.tune(make(memory), val, grid, budget=budget, evidence=None)
        assert perplexity(reader, val) <= least * (1 + budget) * (1 + 1e-5)
        np.testing.assert_allclose(perplexity(reader, val), np.exp(-reader.best_score_), rtol=1e-4)
        assert set(reader.costs_) == set(GRID["k"]) and min(reader.costs_.values()) > 0
        assert 0 <= reader.skipped_ <= 1
        ks.append(reader.k)
        within = reader.results_["perplexity"] <= least * (1 + budget)
        assert not (within & (reader.results_["k"] > 0) & (reader.results_["k"] < reader.k)).any()
    assert ks == sorted(ks, reverse=True) and ks[-1] < ks[0]


def test_of_batches_that_stream_by():
    memory, val = rs.Memory(tokens(60, 0)), tokens(30, 1, 1000)
    whole = rs.tune(rs.KNNLM(memory), val, GRID, budget=0.02)
    streamed = rs.tune(rs.KNNLM(memory), (val[at : at + 100] for at in range(0, len(val), 100)), GRID, budget=0.02)
    assert streamed.params == whole.params and streamed.k


def test_a_memory_that_does_not_help_has_no_cost():
    memory, val = rs.Memory(tokens(3, 0)), tokens(30, 1, 1000)
    memory.relabel(np.unique(memory.ids), 0)
    best = rs.tune(rs.KNNLM(memory, k=1), val, {**GRID, "k": [1, 2]}, budget=0.02)
    assert best.k == 0 and best.skip is None and not hasattr(best, "costs_")


@pytest.mark.parametrize("budget", [-0.1, np.nan, np.inf, True, "1 %"])
def test_wrong_budgets(budget):
    with pytest.raises(ParameterError, match="relative loss of perplexity"):
        rs.tune(rs.KNNLM(rs.Memory(tokens(3, 0)), k=1), tokens(2, 1), budget=budget)


def test_what_has_no_perplexity():
    memory = rs.Memory(tokens(3, 0))
    for more, why in (({"objective": "accuracy"}, "judged by log_loss"), ({"skip": 0.1}, "not both")):
        with pytest.raises(ParameterError, match=why):
            rs.tune(rs.KNNLM(memory, k=1), tokens(2, 1), budget=0.1, **more)
    with pytest.raises(ParameterError, match="budget= tune the one under it"):
        rs.tune(rs.ContinuousCache(rs.KNNLM(memory, k=1)), tokens(2, 1), budget=0.1)
