"""Which rows answer: all that are remembered, less those that a query excludes by id."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import IdError, InputError, NonFiniteError, ParameterError, ShapeError


def remember(keys, ids=None, **more):
    keys = np.asarray(keys, np.float32).reshape(len(keys), -1)
    return rs.Memory(rs.Encoded(keys, np.zeros((len(keys), 2)), np.zeros(len(keys), int), ids), **more)


def test_ties_by_row_and_missing_ones():
    found = remember([[2], [0], [-2], [2]]).search([[0.0]], 6)
    assert found.rows.tolist() == [[1, 0, 2, 3, -1, -1]]
    assert found.distances.tolist() == [[0, 2, 2, 2, np.inf, np.inf]]
    assert (found.rows.dtype, found.distances.dtype) == (torch.int64, torch.float32)


def test_exclusion_is_by_id_not_by_place():
    memory = remember([[0], [0], [1], [5]], ids=[4, 3, 3, 8])
    keys = [[0.0], [0.0], [0.0]]
    assert memory.search(keys, 2, exclude=[3, 4, 99]).rows.tolist() == [[0, 3], [1, 2], [0, 1]]
    two = memory.search(keys[:1], 3, exclude=[[3, 8]])
    assert (two.rows.tolist(), two.distances.tolist()) == ([[0, -1, -1]], [[0, np.inf, np.inf]])
    assert memory.search(keys[:1], 2, exclude=[[4, 3, 8]]).rows.tolist() == [[-1, -1]]
    assert memory.search(keys[:1], 2, exclude=np.empty((1, 0), int)).rows.tolist() == [[0, 1]]
    assert memory.search(np.empty((0, 1)), 2, exclude=np.empty(0, int)).rows.shape == (0, 2)


def test_more_rows_bear_the_id_than_were_fetched():
    memory = remember([[0]] * 50 + [[9]], ids=[1] * 50 + [2])
    assert memory.search([[0.0], [0.0]], 3, exclude=[1, 2]).rows.tolist() == [[50, -1, -1], [0, 1, 2]]


def test_a_forgotten_row_excludes_nothing_else():
    memory = remember([[0], [1], [2]])
    memory.forget(0)
    assert memory.search([[0.0]], 3, exclude=[0]).rows.tolist() == [[1, 2, -1]]


@settings(max_examples=40)
@given(st.data())
def test_exclusion_is_a_filter_of_the_whole_order(data):
    n, k = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 45))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    keys, ids = draw.integers(-3, 4, (n, 1)), draw.integers(0, 5, n)
    excluded = draw.integers(0, 6, (7, data.draw(st.integers(0, 3))))
    queries = draw.integers(-4, 5, (7, 1))
    memory = remember(keys, ids)
    found = memory.search(queries, k, exclude=excluded)
    for q in range(7):
        order = np.lexsort((np.arange(n), np.abs(keys[:, 0] - queries[q, 0])))
        order = order[~np.isin(ids[order], excluded[q])][:k]
        assert found.rows[q].tolist() == order.tolist() + [-1] * (k - len(order))
        assert found.distances[q, : len(order)].tolist() == np.abs(keys[order, 0] - queries[q, 0]).tolist()


def test_a_trained_index_excludes_and_forgets_too():
    pytest.importorskip("faiss")
    keys = np.random.default_rng(0).normal(size=(200, 4))
    memory = remember(keys, index="IVF8,Flat", index_params={"nprobe": 8})
    assert memory.recall.value == 1
    exact = remember(keys)
    for m in (memory, exact):
        m.forget(np.arange(50))
    mine, true = (m.search(keys, 5, exclude=np.arange(200)) for m in (memory, exact))
    assert torch.equal(mine.rows, true.rows) and torch.equal(mine.distances, true.distances)


def test_bad_queries():
    memory = remember([[0], [1]])
    with pytest.raises(ShapeError, match=r"\(n, 1\)"):
        memory.search([[0.0, 1.0]], 1)
    with pytest.raises(ShapeError):
        memory.search([0.0], 1)
    with pytest.raises(NonFiniteError):
        memory.search([[np.nan]], 1)
    with pytest.raises(ParameterError):
        memory.search([[0.0]], -1)
    for excluded in ([0, 1], [0.0], ["a"], [[[0]]], 0):
        with pytest.raises(IdError, match="exclude"):
            memory.search([[0.0]], 1, exclude=excluded)


def test_median_nn_distance():
    assert remember([[0], [1], [3], [10]]).median_nn_distance() == 1  # 1, 1, 2, 7: the lower median
    assert remember([[0], [4], [10]]).median_nn_distance() == 4
    memory = remember([[0], [4], [10], [11]])
    memory.forget(3)
    assert memory.median_nn_distance() == 4
    assert remember([[2], [2], [2], [5]]).median_nn_distance() == 3  # copies have no distance to measure
    assert remember([[2]]).median_nn_distance() == 1
    same = remember([[2], [2]])
    with pytest.raises(InputError, match=r"all 2 remembered rows are the same.*give sigma"):
        rs.ResMem(same, k=1)
    assert rs.ResMem(same, k=1, sigma=0.5).sigma == 0.5 and rs.ResMem(same, k=0).is_base


def test_median_nn_distance_beyond_many_copies():
    places = [[0.0], [1000.0], [4000.0], [4500.0], [9000.0]]  # 1000, 1000, 500, 500, 4500
    for copies in (2, 70, 500):
        assert remember(places * copies).median_nn_distance() == 1000
    with pytest.raises(InputError, match="all 100 remembered rows"):  # one place: nothing to measure
        remember([[1e-3]] * 100).median_nn_distance()


def test_median_nn_distance_of_a_sample():
    keys = np.random.default_rng(0).normal(size=(3000, 3))
    memory = remember(keys)
    whole, some = memory.median_nn_distance(sample=3000), memory.median_nn_distance()
    assert some == memory.median_nn_distance() == pytest.approx(whole, rel=0.1)
