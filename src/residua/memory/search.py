"""Searching a memory: queries are checked, and rows that must not answer are left out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from residua.errors import IdError, ShapeError
from residua.records import Neighbours
from residua.records.logits import as_tensor


def search(memory, keys, k: int, exclude_ids=None) -> Neighbours:
    """See ``Memory.search``."""
    queries = as_tensor(keys, torch.float32).to(memory.device)
    if queries.ndim != 2 or queries.shape[1] != memory.dim:
        raise ShapeError(f"queries have shape {tuple(queries.shape)}; this memory's keys are (n, {memory.dim})")
    k = int(k)
    if exclude_ids is None:
        return memory.index.search(queries, k, memory.table["key"])
    excluded = np.asarray(exclude_ids)
    if excluded.shape[:1] != (len(queries),) or excluded.ndim > 2 or excluded.dtype.kind not in "iu":
        raise IdError(
            f"exclude_ids have shape {excluded.shape} and dtype {excluded.dtype} for {len(queries)} "
            "queries; expected integers, (q,) or (q, m)"
        )
    if not len(memory):
        return memory.index.search(queries, k, memory.table["key"])
    excluded = torch.from_numpy(excluded.astype(np.int64)).to(memory.device)
    return _without(memory, queries, k, excluded[:, None] if excluded.ndim == 1 else excluded, k + 4)


def _without(memory, queries: Tensor, k: int, excluded: Tensor, fetch: int) -> Neighbours:
    found = memory.index.search(queries, fetch, memory.table["key"])
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


def typical_distance(memory, sample: int) -> float:
    """See ``Memory.typical_distance``."""
    rows = memory.alive_rows
    if len(rows) > sample:
        chosen = np.random.default_rng(0).choice(len(rows), sample, replace=False)
        rows = rows[torch.from_numpy(np.sort(chosen)).to(rows.device)]
    found = memory.search(memory.table["key"][rows], 2)
    distances = found.distances.masked_fill(found.rows == rows[:, None], torch.inf).amin(dim=1)
    distances = distances[distances.isfinite() & (distances > 0)]
    return float(distances.median()) if len(distances) else 1.0
