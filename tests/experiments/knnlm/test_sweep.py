"""Every setting's perplexity is a dense float64 computation's; the first documents choose, the second tell."""

import numpy as np
import pytest

import residua as rs
from experiments.knnlm.curves import curves
from experiments.knnlm.domains import edges
from experiments.knnlm.sweep import LMBDA, Swept, grid_of, sweep

V, D = 30, 3


def tokens(seed: int, n: int, document: int) -> rs.Encoded:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, V, n)
    keys = np.eye(V, D)[labels] + rng.normal(scale=0.6, size=(n, D))
    return rs.Encoded(
        keys,
        rng.normal(size=(n, V)),
        labels,
        np.full(n, document),
        columns={"offset": np.arange(n)},
        task="classification",
    )


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(tokens(0, 60, 1), storage="none")


@pytest.fixture(scope="module")
def found(memory):
    return sweep(memory, [tokens(1, 30, 2)], [tokens(2, 40, 3)], temperature=(0.9, 1.0))


def perplexity(memory, data: rs.Encoded, k: int, sigma: float, temperature: float, lmbda: float) -> float:
    logits = data.logits.dense().numpy().astype(np.float64) / temperature
    base = np.exp(logits - logits.max(axis=1, keepdims=True))
    base /= base.sum(axis=1, keepdims=True)
    keys, labels = memory.keys, memory.labels
    squared = ((data.keys[:, None].astype(np.float64) - keys) ** 2).sum(axis=2)
    near = np.argsort(squared, axis=1)[:, :k]
    weights = np.exp(-(np.take_along_axis(squared, near, 1) - squared.min(axis=1, keepdims=True)) / sigma)
    weights /= weights.sum(axis=1, keepdims=True)
    given = np.zeros_like(base)
    for row in range(len(data)):
        np.add.at(given[row], np.asarray(labels)[near[row]], weights[row])
    mixed = lmbda * given + (1 - lmbda) * base
    return float(np.exp(-np.log(mixed[np.arange(len(data)), data.labels]).mean()))


@pytest.mark.parametrize(("k", "temperature", "lmbda"), [(1, 1.0, 0.05), (8, 0.9, 0.5), (60, 1.0, 0.95)])
def test_every_setting_is_the_dense_computation(memory, found, k, temperature, lmbda):
    for sigma in found.values("sigma"):
        fixed = {"k": k, "sigma": sigma, "temperature": temperature, "lmbda": lmbda}
        said = found.best(**fixed)
        for name, data in (("tuned", tokens(1, 30, 2)), ("perplexity", tokens(2, 40, 3))):
            assert said[name] == pytest.approx(perplexity(memory, data, **fixed), rel=1e-5)


def test_the_grid_holds_the_papers_settings(memory):
    grid = grid_of(memory)
    assert grid["k"].tolist() == [1, 2, 4, 8, 16, 32, 60]
    assert 1.0 in grid["sigma"]
    assert {0.25, 0.65} <= set(LMBDA)


def test_the_documents_tuned_on_choose(found):
    best = found.best()
    used = found.tuned["k"] > 0
    assert best["tuned"] == found.tuned["perplexity"][used].min()
    assert best["perplexity"] >= found.scored["perplexity"][used].min()
    assert found.best(k=0)["k"] == 0


def test_the_scored_documents_cannot_choose():
    columns = {"k": np.array([1, 2]), "sigma": np.ones(2), "temperature": np.ones(2), "lmbda": np.ones(2)}
    tuned = {**columns, "perplexity": np.array([3.0, 2.0])}
    for scored in ([1.0, 9.0], [9.0, 1.0]):
        found = Swept(tuned, {**columns, "perplexity": np.array(scored)}).best()
        assert (found["k"], found["perplexity"]) == (2, scored[1])


def test_curves_pass_through_the_best(found):
    drawn = curves(found, 60)
    best = drawn["best"]
    assert best in drawn["k"] and best in drawn["lmbda"]
    assert [point["k"] for point in drawn["k"]] == found.values("k")
    assert all(point["sigma"] == 1.0 and point["k"] == 60 for point in drawn["lmbda_paper"])
    assert min(point["tuned"] for point in drawn["sigma"]) >= best["tuned"]


def test_edges_are_named(memory):
    grid = grid_of(memory)
    columns = {name: np.array([values[-1]]) for name, values in grid.items()} | {"perplexity": np.ones(1)}
    columns["lmbda"] = np.array([0.5])
    columns["sigma"] = np.array([8 * memory.median_nn_distance() ** 2 / 64])
    assert edges(Swept(columns, columns), memory) == ["sigma"]
