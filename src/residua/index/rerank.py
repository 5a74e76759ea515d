"""From candidate rows to neighbours: the one place where distances are computed and ordered.

Rows are ordered by *squared* distances, and the root is taken last and by an IEEE root: torch's goes through a vendor's
library that on some processors is not correctly rounded, and ties would fall otherwise there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from residua.core import Neighbours
from residua.index.blocks import blocks
from residua.index.installed import faiss_installed, require_faiss

_ROW = 0xFFFFFFFF  # the low half of a packed (squared distance, row); all ones is "no row"


class Nearest(NamedTuple):
    """Rows int64 (q, k) and squared distances float32 (q, k), ordered by distance, then row; -1 and inf: missing."""

    rows: Tensor
    squared: Tensor

    def neighbours(self) -> Neighbours:
        """The same with plain distances."""
        return Neighbours(self.rows, root(self.squared))


def root(squared: Tensor) -> Tensor:
    """The correctly rounded square root of float32 numbers, on any processor."""
    return torch.from_numpy(np.sqrt(squared.numpy())) if squared.device.type == "cpu" else squared.sqrt()


def squared_distances(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """Squared Euclidean distance from each query to each of its rows, by direct difference.

    The identity |x|² + |y|² − 2xy would be faster and loses every digit when keys are far from the origin.

    Parameters
    ----------
    queries : float32 Tensor of shape (q, d)
    keys : float32, float16 or bfloat16 Tensor of shape (n, d)
        Converted to float32 after gathering.
    rows : int64 Tensor of shape (q, c)
        Row numbers, -1 for none.

    Returns
    -------
    float32 Tensor of shape (q, c)
        inf where the row is -1.

    Examples
    --------
    >>> keys = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    >>> squared_distances(torch.tensor([[0.0, 0.0]]), keys, torch.tensor([[0, -1, 1]]))
    tensor([[25., inf, 1.]])
    """
    if queries.device.type == "cpu" and faiss_installed():
        whole = keys.dtype == torch.float32
        squared = _faiss_squared(queries, keys, rows) if whole else _faiss_squared_of_halves(queries, keys, rows)
    else:
        squared = _torch_squared(queries, keys, rows)
    return squared.masked_fill_(rows < 0, torch.inf)


def _faiss_squared(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """By FAISS's kernel, which reads each key in place: four times quicker than gathering them, measured."""
    faiss = require_faiss()
    queries, keys, rows = queries.contiguous(), keys.contiguous(), rows.contiguous()
    out = torch.empty(rows.shape)
    if out.numel():
        pointers = (faiss.swig_ptr(tensor.numpy()) for tensor in (out, queries, keys, rows))
        faiss.fvec_L2sqr_by_idx(*pointers, queries.shape[1], *rows.shape)
    return out


def _faiss_squared_of_halves(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """The same of keys that must be made float32 first, for some queries at a time: a third quicker than torch."""
    out, place = torch.empty(rows.shape), None
    for part in blocks(len(rows), rows.shape[1] * keys.shape[1], 2**20):
        some = rows[part].clamp_min(0)
        if place is None or len(place) != len(some):
            place = torch.arange(some.numel()).view(some.shape)
        out[part] = _faiss_squared(queries[part], keys.index_select(0, some.reshape(-1)).float(), place)
    return out


def _torch_squared(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    out = torch.empty(rows.shape, device=queries.device)
    # On a CPU the gathered keys should stay in the cache.
    budget = 2**20 if queries.device.type == "cpu" else 2**24
    for part in blocks(len(queries), rows.shape[1] * queries.shape[1], budget):
        some = rows[part].clamp_min(0)
        # Not keys[some], which waits for every thread even when there is little to gather.
        gathered = keys.index_select(0, some.reshape(-1)).view(*some.shape, keys.shape[1])  # (b, c, d)
        out[part] = gathered.float().sub_(queries[part, None]).square_().sum(dim=2)
    return out


def partly_exact(queries: Tensor, keys: Tensor, rows: Tensor, squared: Tensor, depth: int) -> Tensor:
    """Squared distances (q, c) of which the first `depth` columns are exact and the rest estimated.

    Codes that lose what they lose everywhere err by nearly the same squared distance everywhere nearby: the rest are
    moved by the mean error of the further half of those that were computed (the nearer half was chosen for its error).

    Parameters
    ----------
    rows : int64 Tensor of shape (q, c)
        Candidates, nearest by their codes first; -1 for none.
    squared : float32 Tensor of shape (q, c)
        Their squared distances by the codes.
    """
    exact = squared_distances(queries, keys, rows[:, :depth])
    if exact.shape[1] == rows.shape[1]:
        return exact
    error = (exact - squared[:, :depth]).masked_fill(rows[:, :depth] < 0, torch.nan)
    shift = error[:, depth // 2 :].nanmean(dim=1, keepdim=True).nan_to_num_(0)
    rest = (squared[:, depth:] + shift).clamp_min_(0).masked_fill_(rows[:, depth:] < 0, torch.inf)
    return torch.cat([exact, rest], dim=1)


def pack(squared: Tensor, rows: Tensor) -> Tensor:
    """One int64 per neighbour whose order is that of (squared distance, row).

    The bits of a non-negative float32 order like the number, so they make the high half and the row the low half;
    a missing row comes after every present one, even at distance inf.
    """
    return (squared.contiguous().view(torch.int32).long() << 32) | (rows & _ROW)


def unpack(packed: Tensor) -> Nearest:
    """The inverse of ``pack``."""
    rows = packed & _ROW
    rows = rows.masked_fill_(rows == _ROW, -1)
    return Nearest(rows, (packed >> 32).int().view(torch.float32))


def missing(q: int, k: int, device: torch.device) -> Nearest:
    """`k` missing neighbours for each of `q` queries."""
    shape = (q, k)
    return Nearest(torch.full(shape, -1, device=device), torch.full(shape, torch.inf, device=device))


def ordered(squared: Tensor, rows: Tensor, k: int) -> Nearest:
    """The `k` first of candidates (q, c) by (squared distance, row), padded with missing ones when c < k."""
    found = missing(len(rows), k, rows.device)
    count = min(k, rows.shape[1])
    cpu = rows.device.type == "cpu"
    for part in blocks(len(rows), rows.shape[1], 2**18 if cpu else 2**26):  # on a CPU, what stays in the cache
        packed = pack(squared[part], rows[part])
        # NumPy sorts integers several times quicker than torch.
        packed = torch.from_numpy(np.sort(packed.numpy(), axis=1)) if cpu else packed.sort(dim=1).values
        some = unpack(packed[:, :count])
        found.rows[part, :count], found.squared[part, :count] = some.rows, some.squared
    return found


def nearest(queries: Tensor, keys: Tensor, rows: Tensor, k: int) -> Nearest:
    """The `k` nearest among each query's candidate `rows` (q, c), padded with missing ones when c < k."""
    return ordered(squared_distances(queries, keys, rows), rows, k)


def scan(queries: Tensor, keys: Tensor, rows: Tensor, k: int) -> Nearest:
    """The `k` nearest among all of `rows` (m,), the same for every query, without any shortcut.

    Slow and always right: what the faster searches fall back to when they cannot vouch for their answer.
    """
    best = missing(len(queries), k, queries.device)
    for part in blocks(len(rows), queries.shape[1], 2**24):
        tile = rows[part].expand(len(queries), -1)
        for some in blocks(len(queries), tile.shape[1], 2**22):
            found = nearest(queries[some], keys, tile[some], k)
            both = torch.cat([pack(best.squared[some], best.rows[some]), pack(found.squared, found.rows)], dim=1)
            merged = unpack(both.sort(dim=1).values[:, :k])
            best.rows[some], best.squared[some] = merged.rows, merged.squared
    return best
