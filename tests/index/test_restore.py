"""What was forgotten comes back, and a call that was interrupted is taken back."""

import pytest
import torch

from residua.errors import ParameterError, StorageError
from residua.index import Exact, Index, make_index

ENGINES = ["exact", "IVF32,Flat", "HNSW16"]


def built(name, keys):
    if name != "exact":
        pytest.importorskip("faiss")
    index = make_index(name, n=len(keys), dim=keys.shape[1], device="cpu")
    index.build(keys)
    return index


@pytest.mark.parametrize("name", ENGINES)
def test_restored_rows_are_found_as_if_they_had_never_been_forgotten(name, clusters):
    keys, queries = clusters[0][:1500], clusters[1]
    index = built(name, keys)
    before = index.search(queries, 10, keys)
    index.forget(torch.arange(0, 1500, 3))
    index.search(queries, 10, keys)
    index.restore(torch.arange(0, 1500, 3))
    index.restore(torch.tensor([0, 1, 1]))
    after = index.search(queries, 10, keys)
    assert torch.equal(before.rows, after.rows) and torch.equal(before.distances, after.distances)
    with pytest.raises(ParameterError, match=r"rows 3 \.\.\. 1500 to restore; the index has 1500 rows"):
        index.restore(torch.tensor([3, 1500]))


@pytest.mark.parametrize("name", ENGINES)
def test_settling_takes_back_a_half_made_add_and_a_half_made_forget(name, clusters):
    keys, queries = clusters[0][:1500], clusters[1]
    index, remembered = built(name, keys), torch.ones(1500, dtype=torch.bool)
    index.forget(torch.tensor([2, 5]))
    remembered[[2, 5]] = False
    before = index.search(queries, 10, keys)
    index.add(queries)
    index.forget(torch.arange(100))
    index.search(queries, 10, torch.cat([keys, queries]))
    index.settle(remembered)
    left = keys if index.exact else torch.cat([keys, queries])
    assert index.n == len(left)
    after = index.search(queries, 10, left)
    assert torch.equal(before.rows, after.rows) and torch.equal(before.distances, after.distances)
    index.add(queries[:5])
    both = torch.cat([left, queries[:5]])
    assert index.search(queries[:5], 1, both).rows[:, 0].tolist() == list(range(len(left), len(left) + 5))
    with pytest.raises(ParameterError, match=r"9999 rows to settle; the index has \d+ rows"):
        index.settle(torch.ones(9999, dtype=torch.bool))


def test_an_engine_that_drops_what_is_forgotten_is_built_anew():
    class Dropping(Exact):
        """Says how many rows it was given to hold since it was last built."""

        def _build(self, keys):
            super()._build(keys)
            self.built = len(keys)

        def _restore(self, keys):
            return Index._restore(self, keys)

    keys, index = torch.arange(8.0).view(4, 2), Dropping(2)
    index.build(keys)
    index.forget(torch.tensor([1, 2]))
    index.search(keys, 1, keys)
    with pytest.raises(StorageError, match="dropped what was forgotten and is built anew from the keys"):
        index.restore(torch.tensor([1]))
    assert index.search(keys[1:2], 4, keys).rows.tolist() == [[0, 3, -1, -1]]
    index.restore(torch.tensor([1]), keys)
    assert index.built == 4 and index.search(keys[1:2], 4, keys).rows.tolist() == [[1, 0, 3, -1]]
