"""Keys in several tensors: every answer is that of the same keys in one."""

import pytest
import torch

from residua.core import ChunkedTensor
from residua.errors import NonFiniteError, ShapeError
from residua.index import (
    Exact,
    FaissIndex,
    Index,
    check_recall,
    make_index,
    measure_recall,
    median_nn_distance,
    nearest,
)


@pytest.fixture(params=[torch.float32, torch.float16])
def both(request, clusters):
    """Keys around the origin, in one tensor and in three, and queries."""
    keys, queries = ((part - 50) for part in clusters)
    keys = keys.to(request.param)
    keys[1500:1520] = keys[:20]  # ties across chunks
    return keys, ChunkedTensor(keys.split([1400, 0, 1000, 1600])), torch.cat([queries[:40], keys[:20].float()])


def same(found, expected):
    return torch.equal(found.rows, expected.rows) and torch.equal(found.distances, expected.distances)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(nearest, "blocks", lambda n, each, budget: [slice(i, i + 700) for i in range(0, n, 700)])


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_exact_search_reads_them_block_by_block(both, backend, small_blocks):
    if backend == "faiss":
        pytest.importorskip("faiss")
    keys, chunked, queries = both
    one, many = (Exact(16, backend=backend) for _ in range(2))
    one.build(keys)
    many.build(chunked)
    assert same(many.search(queries, 9, chunked), one.search(queries, 9, keys))
    gone = torch.cat([torch.arange(700, 1400), torch.arange(0, 4000, 3)])  # a whole block, and some of every one
    for index in (one, many):
        index.forget(gone)
    assert same(many.search(queries, 9, chunked), one.search(queries, 9, keys))
    new = keys[:7] + 1
    grown, tail = torch.cat([keys, new]), ChunkedTensor([*chunked.chunks, new])
    assert same(many.search(queries, 9, tail), one.search(queries, 9, grown))  # rows that the index does not know yet
    for index in (one, many):
        index.add(new)
    assert same(many.search(queries, 9, tail), one.search(queries, 9, grown))
    remembered = len(grown) - len(gone.unique())
    assert same(many.search(queries[:3], 5000, tail), one.search(queries[:3], 5000, grown))
    assert (many.search(queries[:3], 5000, tail).rows[:, remembered:] == -1).all()


@pytest.mark.parametrize("name", ["IVF32,PQ8x4fs", "Flat"])
def test_a_trained_index_is_built_and_read_as_over_one_tensor(both, name):
    pytest.importorskip("faiss")
    keys, chunked, queries = both
    one, many = (make_index(name, n=4000, dim=16, device="cpu") for _ in range(2))
    one.build(keys)
    many.build(chunked)
    assert many.recall == one.recall
    assert measure_recall(many, chunked) == measure_recall(one, keys)
    forgotten = torch.arange(0, 4000, 5)
    for index in (one, many):
        index.forget(forgotten)
    assert same(many.search(queries, 9, chunked), one.search(queries, 9, keys))
    rows = torch.arange(4000)
    assert median_nn_distance(many, rows, chunked, chunked) == median_nn_distance(one, rows, keys, keys)
    assert check_recall(many, chunked, forgotten) == check_recall(one, keys, forgotten)


def test_an_engine_of_ones_own_is_given_one_tensor(both):
    class Plain(Index):
        def _build(self, keys):
            assert isinstance(keys, torch.Tensor)
            self._keys = keys

        def _add(self, keys):
            self._keys = torch.cat([self._keys, keys])

        @property
        def n(self):
            return len(self._keys) if hasattr(self, "_keys") else 0

        def _propose(self, queries, count):
            return torch.cdist(queries, self._keys.float()).topk(count, largest=False).indices, None

    keys, chunked, queries = both
    index = Plain(16)
    index.build(chunked)
    found = index.search(queries, 5, chunked)
    assert same(found, index.search(queries, 5, keys))


def test_what_is_wrong_with_them_is_said():
    index = Exact(2)
    with pytest.raises(ShapeError, match=r"keys have shape \(3, 4\)"):
        index.build(ChunkedTensor([torch.zeros(1, 4), torch.zeros(2, 4)]))
    with pytest.raises(NonFiniteError, match="1 of 3 keys hold NaN"):
        FaissIndex(2, "cpu", "Flat").build(ChunkedTensor([torch.zeros(2, 2), torch.full((1, 2), torch.nan)]))


def test_exact_search_is_ready_before_any_key_is_read():
    class Unread(ChunkedTensor):
        def __getitem__(self, rows):
            raise AssertionError("read")

    index = Exact(2)
    index.build(Unread([torch.zeros(2, 2), torch.ones(1, 2)]))
    assert index.n == 3
