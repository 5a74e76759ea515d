"""From candidate rows to neighbours: the one place where distances are computed and ordered."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from residua.records import Neighbours

_ROW = 0xFFFFFFFF  # the low half of a packed (distance, row); all ones is "no row"


def blocks(n: int, each: int, budget: int) -> Iterator[slice]:
    """Slices that cover `n` items of `each` elements, so that one slice stays within `budget` elements."""
    step = max(1, budget // max(1, each))
    return (slice(start, start + step) for start in range(0, n, step))


def distances(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """Plain Euclidean distance from each query to each of its rows, by direct difference.

    The identity |x|² + |y|² − 2xy would be faster and loses every digit when keys are far from the origin.

    Parameters
    ----------
    queries : float32 Tensor of shape (q, d)
    keys : float32 Tensor of shape (n, d)
    rows : int64 Tensor of shape (q, c)
        Row numbers, -1 for none.

    Returns
    -------
    float32 Tensor of shape (q, c)
        inf where the row is -1.

    Examples
    --------
    >>> distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0, -1, 1]]))
    tensor([[5., inf, 1.]])
    """
    out = torch.empty(rows.shape, device=queries.device)
    # On a CPU the gathered keys should stay in the cache.
    budget = 2**20 if queries.device.type == "cpu" else 2**24
    for part in blocks(len(queries), rows.shape[1] * queries.shape[1], budget):
        some = rows[part].clamp_min(0)
        # Not keys[some], which waits for every thread even when there is little to gather.
        gathered = keys.index_select(0, some.reshape(-1)).view(*some.shape, keys.shape[1])  # (b, c, d)
        out[part] = gathered.sub_(queries[part, None]).square_().sum(dim=2).sqrt_()
    return out.masked_fill_(rows < 0, torch.inf)


def pack(distances: Tensor, rows: Tensor) -> Tensor:
    """One int64 per neighbour whose order is that of (distance, row).

    The bits of a non-negative float32 order like the number, so they make the high half and the row the low half;
    a missing row comes after every present one, even at distance inf.
    """
    return (distances.contiguous().view(torch.int32).long() << 32) | (rows & _ROW)


def unpack(packed: Tensor) -> Neighbours:
    """The inverse of ``pack``."""
    rows = packed & _ROW
    rows = rows.masked_fill_(rows == _ROW, -1)
    return Neighbours(rows, (packed >> 32).int().view(torch.float32))


def missing(q: int, k: int, device: torch.device) -> Neighbours:
    """`k` missing neighbours for each of `q` queries."""
    shape = (q, k)
    return Neighbours(torch.full(shape, -1, device=device), torch.full(shape, torch.inf, device=device))


def nearest(queries: Tensor, keys: Tensor, rows: Tensor, k: int) -> Neighbours:
    """The `k` nearest among each query's candidate `rows` (q, c), padded with missing ones when c < k."""
    found = distances(queries, keys, rows)
    order = pack(found, rows).argsort(dim=1)[:, :k]
    rows, found = rows.gather(1, order), found.gather(1, order)
    if rows.shape[1] < k:
        lacking = missing(len(queries), k - rows.shape[1], queries.device)
        rows, found = torch.cat([rows, lacking.rows], dim=1), torch.cat([found, lacking.distances], dim=1)
    return Neighbours(rows, found)


def scan(queries: Tensor, keys: Tensor, rows: Tensor, k: int) -> Neighbours:
    """The `k` nearest among all of `rows` (m,), the same for every query, without any shortcut.

    Slow and always right: what the faster searches fall back to when they cannot vouch for their answer.
    """
    best = missing(len(queries), k, queries.device)
    for part in blocks(len(rows), queries.shape[1], 2**24):
        tile = rows[part].expand(len(queries), -1)
        for some in blocks(len(queries), tile.shape[1], 2**22):
            found = nearest(queries[some], keys, tile[some], k)
            both = torch.cat([pack(best.distances[some], best.rows[some]), pack(found.distances, found.rows)], dim=1)
            merged = unpack(both.sort(dim=1).values[:, :k])
            best.rows[some], best.distances[some] = merged.rows, merged.distances
    return best
