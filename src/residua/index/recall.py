"""How many of the true neighbours an approximate index finds, measured on its own keys."""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor

from residua.index.exact import Exact
from residua.index.index import Index, Recall
from residua.index.rerank import blocks, missing, pack, unpack
from residua.records import Neighbours

log = logging.getLogger(__name__)

ENOUGH = 0.9


def true_neighbours(queries: Tensor, k: int, keys: Tensor) -> Neighbours:
    """The `k` nearest of all `keys`, with only one block of them centred and copied at a time."""
    best = missing(len(queries), k, keys.device)
    packed = pack(best.distances, best.rows)
    for part in blocks(len(keys), keys.shape[1], 2**23):
        block = Exact(keys.shape[1], keys.device)
        block.build(keys[part])
        found = block.search(queries, k, keys[part])
        rows = torch.where(found.rows < 0, -1, found.rows + part.start)
        packed = torch.cat([packed, pack(found.distances, rows)], dim=1).sort(dim=1).values[:, :k]
    return unpack(packed)


def measure_recall(index: Index, keys: Tensor, k: int = 50, queries: int = 256) -> Recall | None:
    """Recall of `index` over `keys`, float32 (n, d), none of them forgotten.

    The queries are keys moved by half the difference of two of their own neighbours, because the keys themselves
    are too easy to find for a graph. A row counts as found when it is no further than
    the true k-th neighbour, so that ties do not count against the index. Below 0.9 a ``UserWarning`` says so; None
    when there are fewer than two keys.
    """
    k, queries = min(k, len(keys)), min(queries, len(keys))
    if len(keys) < 2:
        return None
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(keys), generator=generator)[:queries].sort().values.to(keys.device)
    near = true_neighbours(keys[sample], k, keys).rows
    other = torch.randint(k, (queries, 1), generator=generator).to(keys.device)
    asked = keys[sample] + (keys[near.gather(1, other)[:, 0]] - keys[near[:, -1]]) / 2
    limit = true_neighbours(asked, k, keys).distances[:, -1:]
    found = index.search(asked, k, keys)
    hits = (found.distances <= limit) & found.found
    measured = Recall(float(hits.float().mean()), k, queries)
    log.info("index %s over %d keys: %s", index.name, len(keys), measured)
    if measured.value < ENOUGH:
        warnings.warn(
            f"index {index.name!r} finds too few of the true neighbours: {measured}. Raise overfetch or the "
            'search parameters (nprobe, efSearch), store more bytes per key, or use index="exact"',
            UserWarning,
            stacklevel=3,
        )
    return measured
