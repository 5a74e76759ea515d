"""Exact search: a fast engine proposes, exact distances decide, and a bound proves that nothing was missed."""

from __future__ import annotations

import torch
from torch import Tensor

from residua.index.blocks import blocks, mean
from residua.index.engines import faiss_candidates, torch_candidates
from residua.index.index import Index
from residua.index.installed import faiss_installed
from residua.index.rerank import Nearest, missing, nearest, root, scan

_UNIT = 2.0**-24  # the unit roundoff of float32


class Exact(Index):
    """The true nearest rows, ties by the lowest row.

    The engine works on keys with their mean subtracted, because its |x|² + |y|² − 2xy loses precision far from the
    origin. It returns a few more candidates than asked; their distances are recomputed from the keys themselves.
    Where the engine's rounding could have hidden a nearer row, that query alone is asked again for more.

    Parameters
    ----------
    dim : int
    device : torch.device
    engine : {"faiss", "torch"}, optional
        Default: FAISS on a CPU where it is installed, otherwise torch. The answers are the same.

    Examples
    --------
    >>> index = Exact(dim=1, device="cpu", engine="torch")
    >>> keys = torch.tensor([[0.0], [3.0], [1.0]])
    >>> index.build(keys); index.search(torch.tensor([[1.0]]), 2, keys)
    Neighbours(rows=tensor([[2, 0]]), distances=tensor([[0., 1.]]))
    >>> index.forget(torch.tensor([2])); index.search(torch.tensor([[1.0]]), 2, keys).rows
    tensor([[0, 1]])
    """

    name = "exact"
    exact = True

    def __init__(self, dim: int, device: torch.device | str, engine: str | None = None):
        super().__init__(dim, device)
        if engine is None:
            engine = "faiss" if self.device.type == "cpu" and faiss_installed() else "torch"
        self.engine = engine
        self._build(torch.empty((0, dim), device=self.device))

    @property
    def n(self) -> int:
        return self._n

    def _build(self, keys: Tensor) -> None:
        self._n = self._count = len(keys)
        self._mean = mean(keys)
        self._centred = (keys - self._mean).contiguous()  # the first `_count` rows are the remembered ones
        self._rows: Tensor | None = None  # the row at each position; None while that is the position itself
        self._positions: Tensor | None = None  # its inverse, by row; -1 where forgotten

    def _add(self, keys: Tensor) -> None:
        end = self._count + len(keys)
        if self._rows is not None:
            self._rows = self._room(self._rows, self._count, end)
            self._rows[self._count : end] = torch.arange(self._n, self._n + len(keys), device=self.device)
            self._positions = self._room(self._positions, self._n, self._n + len(keys))
            self._positions[self._n : self._n + len(keys)] = torch.arange(self._count, end, device=self.device)
        self._centred = self._room(self._centred, self._count, end)
        torch.sub(keys, self._mean, out=self._centred[self._count : end])
        self._n, self._count = self._n + len(keys), end

    def _room(self, buffer: Tensor, used: int, length: int) -> Tensor:
        if length <= len(buffer):
            return buffer
        grown = buffer.new_empty((max(length, len(buffer) * 3 // 2), *buffer.shape[1:]))
        grown[:used] = buffer[:used]
        return grown

    def _forget(self, rows: Tensor) -> None:
        if self._rows is None:
            self._rows = torch.arange(len(self._centred), device=self.device)
            self._positions = self._rows.clone()
        holes = self._positions[rows]
        holes = holes[holes >= 0]
        end = self._count - len(holes)
        self._positions[rows] = -1
        # The last rows move into the holes, so that forgetting costs what is forgotten, not what is remembered.
        tail = torch.arange(end, self._count, device=self.device)
        movers = tail[self._positions[self._rows[tail]] >= 0]
        holes = holes[holes < end]
        for buffer in (self._rows, self._centred):
            buffer[holes] = buffer[movers]
        self._positions[self._rows[holes]] = holes
        self._centred[end : self._count] = 0  # nothing of a forgotten key stays behind
        self._count = end

    def _search(self, queries: Tensor, k: int, keys: Tensor) -> Nearest:
        wanted = min(k, self._count)
        if not wanted:
            return missing(len(queries), k, self.device)
        fetch = wanted + 8 + wanted // 16
        parts = list(blocks(len(queries), fetch, 2**22))
        if len(parts) == 1:
            return self._search_block(queries, k, keys, wanted, fetch)
        found = [self._search_block(queries[part], k, keys, wanted, fetch) for part in parts]
        return Nearest(*map(torch.cat, zip(*found)))

    def _search_block(self, queries: Tensor, k: int, keys: Tensor, wanted: int, fetch: int) -> Nearest:
        if fetch >= self._count or 4 * fetch > self._count > 2**14:
            return scan(queries, keys, self._remembered(), k)
        centred = queries - self._mean
        propose = faiss_candidates if self.engine == "faiss" else torch_candidates
        squared, positions = propose(centred, self._centred[: self._count], fetch)
        rows = positions if self._rows is None else self._rows[positions]
        found = nearest(queries, keys, rows, k)
        doubtful = ~self._proven(centred, squared[:, -1], found.squared[:, wanted - 1])
        if doubtful.any():
            again = self._search_block(queries[doubtful], k, keys, wanted, 4 * fetch)
            found.rows[doubtful], found.squared[doubtful] = again.rows, again.squared
        return found

    def _remembered(self) -> Tensor:
        return torch.arange(self._count, device=self.device) if self._rows is None else self._rows[: self._count]

    def _proven(self, centred: Tensor, furthest: Tensor, kth: Tensor) -> Tensor:
        """Bool (q,): can no row beyond the candidates be as near as the k-th neighbour, of squared distance `kth`?

        A row that near has a centred norm of at most |q| + d_k, and for such rows the engine's squared distance
        and ours are each within a few (d + 8) unit roundoffs of the truth, relative to (|q| + d_k)²: rounding
        of the centring, of two norms, of a dot product and of a sum of d squares.
        """
        reach = (torch.linalg.vector_norm(centred, dim=1) + root(kth)).square_()
        return furthest - 8 * (self.dim + 8) * _UNIT * reach > kth
