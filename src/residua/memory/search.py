"""Searching a memory: queries are checked, and rows that must not answer are left out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from residua.core import Neighbours
from residua.core.logits import as_tensor
from residua.errors import IdError, ShapeError, StorageError
from residua.index import measure_recall


def search(memory, keys, k: int, exclude_ids=None) -> Neighbours:
    """See ``Memory.search``."""
    queries = as_tensor(keys, torch.float32).to(memory.device)
    if queries.ndim != 2 or queries.shape[1] != memory.dim:
        raise ShapeError(f"queries have shape {tuple(queries.shape)}; this memory's keys are (n, {memory.dim})")
    k = int(k)
    if exclude_ids is None:
        return memory.index.search(queries, k, memory.keys)
    excluded = np.asarray(exclude_ids)
    if excluded.shape[:1] != (len(queries),) or excluded.ndim > 2 or excluded.dtype.kind not in "iu":
        raise IdError(
            f"exclude_ids have shape {excluded.shape} and dtype {excluded.dtype} for {len(queries)} "
            "queries; expected integers, (q,) or (q, m)"
        )
    # Ids that no row bears exclude nothing: a text that is not remembered is searched for as if there were none.
    if not len(memory.table.rows_with("id", np.unique(excluded))):
        return memory.index.search(queries, k, memory.keys)
    excluded = torch.from_numpy(excluded.astype(np.int64)).to(memory.device)
    return _without(memory, queries, k, excluded[:, None] if excluded.ndim == 1 else excluded, k + 4)


def _without(memory, queries: Tensor, k: int, excluded: Tensor, fetch: int) -> Neighbours:
    found = memory.index.search(queries, fetch, memory.keys)
    ids = memory.table["id"][found.rows.clamp_min(0)]
    drop = ~found.found
    for column in excluded.T:
        drop |= ids == column[:, None]
    order = drop.to(torch.uint8).argsort(dim=1, stable=True)[:, :k]  # the kept first, in their order
    dropped = drop.gather(1, order)
    rows = found.rows.gather(1, order).masked_fill(dropped, -1)
    distances = found.distances.gather(1, order).masked_fill(dropped, torch.inf)
    short = dropped.any(dim=1) & found.found.all(dim=1)  # more rows exist beyond those fetched
    if short.any():
        again = _without(memory, queries[short], k, excluded[short], 2 * fetch)
        rows[short], distances[short] = again.rows, again.distances
    return Neighbours(rows, distances)


def typical_distance(memory, sample: int = 1000) -> float:
    """See ``Memory.typical_distance``."""
    if memory.keys_kept:
        return _nearest_other(memory, memory.keys, sample)
    if memory._typical_distance is None:
        raise StorageError("this memory keeps no keys to measure its typical distance by; give sigma")
    return memory._typical_distance


def drop_keys(memory) -> None:
    """See ``Memory.drop_keys``."""
    if not memory.keys_kept:
        return
    if memory.index.exact:
        raise StorageError(
            "an exact index searches the keys themselves; build the memory with a trained index, such as "
            'index="knnlm", before dropping its keys'
        )
    if memory.storage.name == "head":
        raise StorageError("storage='head' recomputes the logits from the keys; they cannot be dropped")
    # What is measured by the keys is measured now, as searches will answer from now on: in the index's own distances.
    memory._typical_distance = _nearest_other(memory, None, 1000)
    keys, index = memory.keys, memory.index
    memory.table.drop("key")
    memory.keys_kept = False
    memory._saved = None  # what is on disk holds the keys
    memory.version += 1
    index.rerank, index.recall = False, None
    if len(memory) == len(memory.table):
        index.recall = measure_recall(index, keys)


def _nearest_other(memory, keys: Tensor | None, sample: int) -> float:
    return nearest_other(memory.index, memory.alive_rows, memory.table["key"], keys, sample)


def nearest_other(index, rows: Tensor, own: Tensor, keys: Tensor | None, sample: int = 1000, first: int = 0) -> float:
    """Median distance from `sample` of `rows` to their nearest other one, as `index` answers with `keys`.

    Row r's own key is ``own[r - first]``.
    """
    if len(rows) > sample:
        chosen = np.random.default_rng(0).choice(len(rows), sample, replace=False)
        rows = rows[torch.from_numpy(np.sort(chosen)).to(rows.device)]
    found = index.search(own[rows - first].float(), 2, keys)
    distances = found.distances.masked_fill(found.rows == rows[:, None], torch.inf).amin(dim=1)
    distances = distances[distances.isfinite() & (distances > 0)]
    return float(distances.median()) if len(distances) else 1.0
