"""Every index is pickled and copied, or says why not; a copy shares nothing."""

import copy
import pickle
import threading

import pytest
import torch

from residua.errors import StorageError
from residua.index import Exact, make_index

ENGINES = ["exact", "IVF16,Flat", "PQ8x4fs", "HNSW8", "PCA12,IVF16,SQ8"]
COPIERS = [copy.copy, copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))]


def built(name, keys):
    if name != "exact":
        pytest.importorskip("faiss")
    params = {"nprobe": 5} if "IVF" in name else {}
    index = make_index(name, n=len(keys), dim=keys.shape[1], device="cpu", params=params, overfetch=3)
    index.build(keys)
    index.forget(torch.arange(0, len(keys), 4))
    return index


@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize("name", ENGINES)
def test_a_copy_answers_the_same_and_shares_nothing(name, copier, clusters):
    keys, queries = clusters[0][:1200], clusters[1]
    index = built(name, keys)
    before = index.search(queries, 10, keys)
    other = copier(index)
    assert other.to_json() == index.to_json() and other.recall == index.recall
    after = other.search(queries, 10, keys)
    assert torch.equal(before.rows, after.rows) and torch.equal(before.distances, after.distances)
    other.add(queries)
    other.forget(torch.arange(1200))
    again = index.search(queries, 10, keys)
    assert index.n == 1200 and torch.equal(before.rows, again.rows)
    assert other.search(queries, 1, torch.cat([keys, queries])).rows[:, 0].tolist() == list(range(1200, 1400))


@pytest.mark.parametrize("name", ENGINES)
def test_an_index_without_rows_is_copied_too(name, clusters):
    index = make_index(name, n=1200, dim=16, device="cpu") if name == "exact" or pytest.importorskip("faiss") else None
    other = copy.deepcopy(index)
    other.build(clusters[0][:1200])
    assert (index.n, other.n) == (0, 1200)


def test_an_engine_that_cannot_be_copied_says_why():
    class Locked(Exact):
        def __init__(self, dim):
            super().__init__(dim)
            self.handle = threading.Lock()

        __getstate__ = Exact.__mro__[1].__getstate__

    for copier in COPIERS:
        with pytest.raises(
            StorageError, match=r"cannot be copied or pickled, for its .* give its class _save and _load"
        ):
            copier(Locked(2))
