"""A query's own rows: searching past them, and knowing them among its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from residua.core import Neighbours, Rows, as_tensor
from residua.index import Index

Bears: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # rows (q, k) and ids (q,): whether a row bears it, bool (q, k)


def search_excluding(
    index: Index, queries: Tensor, k: int, keys: Rows | None, bears: Bears, excluded: Tensor, fetch: int = 0
) -> Neighbours:
    """The k nearest rows of each query that bear none of its ids `excluded` (q, m), first among `fetch` (or k + 4)."""
    fetch = fetch or k + 4
    found = index.search(queries, fetch, keys)
    rows, drop = found.rows.clamp_min(0), ~found.found
    for column in excluded.T:
        drop |= bears(rows, column)
    order = drop.to(torch.uint8).argsort(dim=1, stable=True)[:, :k]  # the kept first, in their order
    dropped = drop.gather(1, order)
    rows = found.rows.gather(1, order).masked_fill(dropped, -1)
    distances = found.distances.gather(1, order).masked_fill(dropped, torch.inf)
    short = dropped.any(dim=1) & found.found.all(dim=1)  # more rows exist beyond those fetched
    if short.any():
        again = search_excluding(index, queries[short], k, keys, bears, excluded[short], 2 * fetch)
        rows[short], distances[short] = again.rows, again.distances
    return Neighbours(rows, distances)


def remembered(near: Neighbours, bears: Bears, own: np.ndarray | None) -> Tensor:
    """Bool (q,): the queries that may be remembered themselves, since a neighbour has their very key (distance 0) or
    their `own` id (q,)."""
    found = (near.distances[:, :1] == 0).any(dim=1)
    if own is None or not near.k:
        return found
    same = bears(near.rows.clamp_min(0), as_tensor(own).to(near.rows.device))
    return found | (same & near.found).any(dim=1)
