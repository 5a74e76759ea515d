"""The tuned label k-NN is the best of its grid, found by trying every setting the slow way."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.evaluation.label_knn import KS, MULTIPLES, label_reader, tune_label_knn, votes_by_k


def made(n, seed, classes=3, weight=False):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = np.digitize(keys[:, 0] + 0.7 * rng.normal(size=n), np.linspace(-0.5, 0.5, classes - 1))
    columns = {"weight": rng.integers(0, 3, n).astype(float)} if weight else None
    return rs.Encoded(keys, rng.normal(size=(n, classes)), labels, columns=columns)


def as_regression(enc):
    return rs.Encoded(
        enc.keys, enc.logits.dense()[:, :2], enc.keys.sum(axis=1, keepdims=True) * np.array([[1.0, -2.0]])
    )


def votes(reader, voter, queries, ks, exclude=None):
    """What the voter says with each k of the neighbours that the reader searched."""
    ((part, prediction),) = reader.predictions(queries, exclude=exclude, depth=voter.k)
    base = prediction.base.table()
    said = base if reader.memory.task == "regression" else base.argmax(dim=1)
    return [found.numpy() for found in votes_by_k(voter, part, prediction, said, ks)]


@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_votes_are_the_reader_s_at_each_k(task, kernel, weight):
    train, queries, ks = made(40, 0, weight=weight), made(9, 1), [1, 2, 5, 40]
    if task == "regression":
        train, queries = as_regression(train), as_regression(queries)
    memory = rs.Memory(train)
    reader = rs.ResMem(memory, k=3, sigma=0.4, kernel=kernel)
    voter = label_reader(reader, 40)
    for k, found in zip(ks, votes(reader, voter, queries, ks)):
        alone = rs.KNNLM(memory, k=k, lmbda=1.0, sigma=0.4, kernel=kernel).predict(queries)
        np.testing.assert_allclose(found, alone, atol=2e-6)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_without_neighbours_the_base_speaks(task):
    train, queries = made(4, 0), made(3, 1)
    if task == "regression":
        train, queries = as_regression(train), as_regression(queries)
    memory = rs.Memory(train)
    reader = rs.ResMem(memory, k=4, sigma=1.0)
    excluded = np.array([[0, 1, 2, 3], [0, 0, 0, 0], [1, 2, 1, 2]])
    found = votes(reader, label_reader(reader, 4), queries, [2, 4], excluded)
    for k, some in zip((2, 4), found):
        alone = rs.KNNLM(memory, k=k, lmbda=1.0, sigma=1.0, kernel=reader.kernel).predict(queries, exclude=excluded)
        np.testing.assert_allclose(some, alone, atol=2e-6)
    base = queries.logits.dense().numpy()[0]
    np.testing.assert_array_equal(found[1][0], base if task == "regression" else base.argmax())


def test_what_the_reader_skips_stays_the_base_s():
    memory, queries = rs.Memory(made(40, 0)), made(30, 1)
    reader = rs.ResMem(memory, k=5, sigma=0.4, skip=0.5)
    base = queries.logits.dense()
    skipped = (torch.softmax(base, dim=1).amax(dim=1) >= 0.5).numpy()
    assert 0 < skipped.sum() < 30
    (found,) = votes(reader, label_reader(reader), queries, [5])
    alone = rs.KNNLM(memory, k=5, lmbda=1.0, sigma=0.4, kernel="exponential").predict(queries)
    np.testing.assert_array_equal(found, np.where(skipped, base.argmax(dim=1).numpy(), alone))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_tuned_is_the_best_of_the_grid(task, kernel):
    train, validation = made(25, 0), made(40, 1)
    if task == "regression":
        train, validation = as_regression(train), as_regression(validation)
    memory = rs.Memory(train)
    reader = rs.ResMem(memory, k=9, kernel=kernel)
    scale = memory.median_nn_distance() ** (2 if kernel == "gaussian" else 1)

    def quality(voter):
        predicted = voter.predict(validation)
        if task == "classification":
            return (predicted == validation.labels).mean()
        return -((predicted - validation.labels) ** 2).mean()

    grid = [
        rs.KNNLM(memory, k=k, lmbda=1.0, sigma=sigma, kernel=kernel)
        for k in sorted({9, *(k for k in KS if k <= 25)})
        for sigma in sorted({reader.sigma, *(scale * MULTIPLES)})
    ]
    tuned = tune_label_knn(reader, [validation[:15], validation[15:]])
    assert tuned.lmbda == 1
    assert tuned.kernel == kernel
    qualities = [quality(voter) for voter in grid]
    assert quality(tuned) == pytest.approx(max(qualities), abs=1e-5)
    if task == "classification":
        first = grid[int(np.argmax(qualities))]  # the first of equals: smallest k, then sigma
        assert (tuned.k, tuned.sigma) == (first.k, pytest.approx(first.sigma))


def test_validation_rows_with_ids_do_not_see_themselves():
    rng = np.random.default_rng(0)
    keys, labels = rng.normal(size=(50, 2)), rng.integers(0, 2, 50)  # labels are noise: only copies look good
    memory = rs.Memory(rs.Encoded(keys, np.zeros((50, 2)), labels, ids=np.arange(50)))
    reader = rs.ResMem(memory, k=5)
    seeing = tune_label_knn(reader, rs.Encoded(keys, np.zeros((50, 2)), labels))
    blind = tune_label_knn(reader, rs.Encoded(keys, np.zeros((50, 2)), labels, ids=np.arange(50)))
    assert seeing.k == 1
    assert blind.k > 1


def test_a_reader_whose_memory_shrank_below_k():
    memory = rs.Memory(made(10, 0))
    reader = rs.ResMem(memory, k=8, sigma=1.0)
    memory.forget(np.arange(5))
    assert label_reader(reader).k == 5
    assert tune_label_knn(reader, made(5, 1)).k <= 5
