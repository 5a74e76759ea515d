"""Less time for a stated loss of perplexity."""

from importlib import import_module

import numpy as np
import pytest

import residua as rs
from residua.errors import ParameterError
from residua.tuning.budget import quickest

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


def test_the_least_time_within_the_budget():
    results = {"k": np.array([0, 2, 2, 4, 8, 8]), "score": np.log([0.9, 0.5, 0.78, 0.795, 0.8, 0.7])}
    costs, asked = {2: 1.0, 4: 1.5, 8: 1.5}, []

    def picked(budget, shares):
        return quickest(results, budget, costs, lambda at, least: asked.append((at, least)) or shares.get(at, 0.0))

    assert [picked(budget, {}) for budget in (0.0, 0.001, 0.01, 0.05, 10)] == [4, 4, 3, 2, 2]
    assert asked[-3:] == [(at, pytest.approx(np.log(0.8 / 11))) for at in (2, 3, 4)]  # the best of each k
    # What skips more searches may take less time with more neighbours; of equals the fewer.
    assert [picked(0.05, {4: share}) for share in (0.3, 0.4)] == [2, 4]
    assert picked(0.05, {3: 0.4, 4: 0.4}) == 3


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
        costs = [reader.costs_[k] for k in GRID["k"]]
        assert costs[0] > 0 and costs == sorted(costs) and 0 <= reader.skipped_ <= 1
        k, measured = reader.results_["k"], reader.results_["perplexity"]
        fewest = k[(k > 0) & (measured <= measured[k > 0].min() * (1 + budget) * (1 + 1e-12))].min()  # none skipped
        assert reader.costs_[reader.k] * (1 - reader.skipped_) <= reader.costs_[fewest]
        ks.append(reader.k)
    assert ks[-1] < ks[0]


def test_of_batches_that_stream_by(monkeypatch):
    costs = {k: 1 + k / 50 for k in GRID["k"]}  # which the clock would tell differently each time
    monkeypatch.setattr(import_module("residua.tuning.tune"), "seconds_per_row", lambda *_: costs)
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
