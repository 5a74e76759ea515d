"""How many of the true neighbours an approximate index finds, measured on its own keys."""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor

from residua.core import Neighbours
from residua.index.blocks import blocks
from residua.index.exact import Exact
from residua.index.index import Index, Recall
from residua.index.rerank import missing, pack, root, squared_distances, unpack

log = logging.getLogger(__name__)

ENOUGH = 0.9
BRUTE = 2**24  # elements of keys that a check on loading may read
FALLEN = 0.2  # less recall than when it was built: four times what 16 queries scatter


def true_neighbours(queries: Tensor, k: int, keys: Tensor) -> Neighbours:
    """The `k` nearest of all `keys`, with only one block of them centred and copied at a time."""
    best = missing(len(queries), k, keys.device)
    packed = pack(best.squared, best.rows)
    for part in blocks(len(keys), keys.shape[1], 2**23):
        block = Exact(keys.shape[1], keys.device)
        block.build(keys[part])
        found = block.search(queries, k, keys[part])
        rows = torch.where(found.rows < 0, -1, found.rows + part.start)
        packed = torch.cat([packed, pack(found.distances.square(), rows)], dim=1).sort(dim=1).values[:, :k]
    return unpack(packed).neighbours()


def _recall(index: Index, asked: Tensor, k: int, limit: Tensor, keys: Tensor) -> float:
    """Share of the `k` neighbours found that are within `limit` (q, 1), by the distances of the keys themselves."""
    rows = index.search(asked, k, keys).rows
    return float((root(squared_distances(asked, keys, rows)) <= limit).float().mean())


def measure_recall(index: Index, keys: Tensor, k: int = 50, queries: int = 256) -> Recall | None:
    """Recall of `index` over `keys` (n, d), none of them forgotten.

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
    own = keys[sample].float()
    near = true_neighbours(own, k, keys).rows
    other = torch.randint(k, (queries, 1), generator=generator).to(keys.device)
    asked = own + (keys[near.gather(1, other)[:, 0]].float() - keys[near[:, -1]].float()) / 2
    limit = true_neighbours(asked, k, keys).distances[:, -1:]
    measured = Recall(_recall(index, asked, k, limit, keys), k, queries)
    log.info("index %s over %d keys: %s", index.name, len(keys), measured)
    if measured.value < ENOUGH:
        warnings.warn(
            f"index {index.name!r} finds too few of the true neighbours: {measured}. Raise overfetch or the "
            'search parameters (nprobe, efSearch), store more bytes per key, or use index="exact"',
            UserWarning,
            stacklevel=3,
        )
    return measured


def check_recall(index: Index, keys: Tensor, forgotten: Tensor, k: int = 10, queries: int = 16) -> float | None:
    """Recall of a loaded `index` on a few of its remembered `keys` (n, d); a ``UserWarning`` where it has fallen.

    Against brute force where the keys are few; of many, each asked key must only find itself. None for fewer than
    two keys.
    """
    remembered = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    remembered[forgotten.long()] = False
    rows = remembered.nonzero()[:, 0]
    if len(rows) < 2:
        return None
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:queries]
    asked = keys[rows[chosen.to(rows.device)]].float()
    k = min(k, len(rows))
    if keys.numel() <= BRUTE:
        measured = _recall(index, asked, k, true_neighbours(asked, k, keys[rows]).distances[:, -1:], keys)
    else:
        itself = squared_distances(asked, keys, index.search(asked, k, keys).rows)[:, :1] == 0
        measured = float(itself.float().mean())
    before = index.recall.value if index.recall else 1.0
    if measured < before - FALLEN:
        warnings.warn(
            f"index {index.name!r} finds {measured:.2f} of the true neighbours of a few of its keys, and found "
            f"{before:.2f} when it was built: it does not fit its keys any more; rebuild() the memory",
            UserWarning,
            stacklevel=3,
        )
    return measured
