"""Exact search over the keys themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from residua.errors import ParameterError
from residua.index.index import Index, register_index
from residua.index.nearest import Nearest, exact_nearest, faiss_candidates, faiss_installed, torch_candidates

_BACKENDS = {"faiss": faiss_candidates, "torch": torch_candidates}


@register_index("exact")
class Exact(Index):
    """The true nearest rows, ties by the lowest row.

    It searches the very keys that `search` is given; only where these are not float32, or some rows are forgotten, it
    keeps a copy of the remembered ones. Fastest for keys around the origin, where the engine that proposes rounds
    least. `backend` is ``"faiss"`` (the default on a CPU where it is installed) or ``"torch"``, with equal answers.
    """

    exact = True

    def __init__(self, dim: int, device: torch.device | str = "cpu", backend: str | None = None):
        super().__init__(dim, device, backend=backend)
        if backend is None:
            backend = "faiss" if self.device.type == "cpu" and faiss_installed() else "torch"
        if backend not in _BACKENDS:
            raise ParameterError(f"backend={backend!r}; expected one of {tuple(_BACKENDS)}")
        self.backend = backend
        self._build(torch.empty((0, dim)))

    @property
    def n(self) -> int:
        return self._n

    def _build(self, keys: Tensor) -> None:
        self._n = len(keys)
        self._copied = False
        self._copy = torch.empty((0, self.dim), device=self.device)  # float32; the first `_count` are remembered keys
        self._rows = torch.empty(0, dtype=torch.int64, device=self.device)  # the row of each
        self._count = 0

    def _add(self, keys: Tensor) -> None:
        if self._copied:
            end = self._count + len(keys)
            self._copy, self._rows = (self._with_room(buffer, end) for buffer in (self._copy, self._rows))
            self._copy[self._count : end] = keys
            self._rows[self._count : end] = torch.arange(self._n, self._n + len(keys), device=self.device)
            self._count = end
        self._n += len(keys)

    def _with_room(self, buffer: Tensor, length: int) -> Tensor:
        if length <= len(buffer):
            return buffer
        grown = buffer.new_empty((length * 3 // 2, *buffer.shape[1:]))
        grown[: self._count] = buffer[: self._count]
        return grown

    def _forget(self, rows: Tensor) -> None:
        if not self._copied:
            return
        gone = self._forgotten[self._rows[: self._count]]
        end = self._count - int(gone.sum())
        # The last ones move into the holes, so that forgetting moves what is forgotten, not what is remembered.
        holes, movers = gone[:end].nonzero()[:, 0], end + (~gone[end:]).nonzero()[:, 0]
        for buffer in (self._rows, self._copy):
            buffer[holes] = buffer[movers]
        self._copy[end : self._count] = 0  # nothing of a forgotten key stays behind
        self._count = end

    def _search(self, queries: Tensor, k: int, keys: Tensor | None) -> Nearest:
        assert keys is not None, "an index that needs keys is searched with them"
        if not self._copied and (self._n_forgotten or keys.dtype != torch.float32):
            self._rows, self._copied = self._remembered(), True
            self._copy, self._count = keys.index_select(0, self._rows).float(), len(self._rows)
        compact = (self._copy[: self._count], self._rows[: self._count]) if self._copied else None
        return exact_nearest(queries, keys, k, _BACKENDS[self.backend], compact)
