"""Exact search over the keys themselves."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor

from residua.core import ChunkedTensor, Rows
from residua.errors import ParameterError
from residua.index.index import Index, register_index
from residua.index.nearest import (
    Nearest,
    exact_nearest,
    faiss_candidates,
    faiss_installed,
    nearest_by_blocks,
    torch_candidates,
)

_BACKENDS = {"faiss": faiss_candidates, "torch": torch_candidates}


@register_index("exact")
class Exact(Index):
    """The true nearest rows, ties by the lowest row.

    It searches the very keys that `search` is given; only where these are not float32, or some rows are forgotten, it
    keeps a copy of the remembered ones. Keys that lie in files it reads block by block, at every search. Fastest for
    keys around the origin, where the engine that proposes rounds least. `backend` is ``"faiss"`` (the default on a CPU
    where it is installed) or ``"torch"``, with equal answers.
    """

    exact = True

    def __init__(self, dim: int, device: torch.device | str = "cpu", backend: str | None = None):
        super().__init__(dim, device, backend=backend)
        if backend is None:
            backend = "faiss" if self.device.type == "cpu" and faiss_installed() else "torch"
        if backend not in _BACKENDS:
            raise ParameterError(f"backend={backend!r}; expected one of {tuple(_BACKENDS)}")
        self.backend, self._once = backend, Lock()
        self._build(torch.empty((0, dim)))

    @property
    def n(self) -> int:
        return self._n

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_compact": None, "_once": None}  # the next search makes the copy anew

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"_once": Lock()})

    def _build(self, keys: Rows) -> None:
        self._n = len(keys)
        self._compact: _Compact | None = None

    def _build_chunked(self, keys: ChunkedTensor) -> None:
        self._build(keys)

    def _check_finite(self, array: Rows, what: str) -> None:
        if not isinstance(array, ChunkedTensor):  # what lies in files is read by searches alone
            super()._check_finite(array, what)

    def _add(self, keys: Tensor) -> None:
        if self._compact:
            self._compact.add(keys, self._n)
        self._n += len(keys)

    def _forget(self, rows: Tensor) -> None:
        if self._compact:
            self._compact.drop(self._forgotten)

    def settle(self, remembered: Tensor, keys: Rows | None = None) -> None:
        self._n = min(self._n, len(remembered))  # it is nothing but a number of rows
        self._compact = None
        super().settle(remembered, keys)

    def _restore(self, keys: Rows | None) -> bool:
        return False

    def _search(self, queries: Tensor, k: int, keys: Rows | None) -> Nearest:
        assert keys is not None, "an index that needs keys is searched with them"
        if isinstance(keys, ChunkedTensor):
            remembered = ~self._forgotten[: self.n] if self._n_forgotten else None
            return nearest_by_blocks(queries, keys, k, _BACKENDS[self.backend], remembered)
        compact = self._compact
        if compact is None and (self._n_forgotten or keys.dtype != torch.float32):
            with self._once:  # of several threads that search, one makes it
                if self._compact is None:
                    self._compact = _Compact(keys, self._remembered())
                compact = self._compact
        return exact_nearest(queries, keys, k, _BACKENDS[self.backend], compact and compact.of())


class _Compact:
    """The remembered keys in float32 and the row of each, in buffers with room for more."""

    def __init__(self, keys: Tensor, rows: Tensor):
        self.keys, self.rows, self.count = keys.index_select(0, rows).float(), rows, len(rows)

    def of(self) -> tuple[Tensor, Tensor]:
        return self.keys[: self.count], self.rows[: self.count]

    def add(self, keys: Tensor, first: int) -> None:
        end = self.count + len(keys)
        self.keys, self.rows = (self._with_room(buffer, end) for buffer in (self.keys, self.rows))
        self.keys[self.count : end] = keys
        self.rows[self.count : end] = torch.arange(first, first + len(keys), device=keys.device)
        self.count = end

    def _with_room(self, buffer: Tensor, length: int) -> Tensor:
        if length <= len(buffer):
            return buffer
        grown = buffer.new_empty((length * 3 // 2, *buffer.shape[1:]))
        grown[: self.count] = buffer[: self.count]
        return grown

    def drop(self, forgotten: Tensor) -> None:
        gone = forgotten[self.rows[: self.count]]
        end = self.count - int(gone.sum())
        # The last ones move into the holes, so that forgetting moves what is forgotten, not what is remembered.
        holes, movers = gone[:end].nonzero()[:, 0], end + (~gone[end:]).nonzero()[:, 0]
        for buffer in (self.rows, self.keys):
            buffer[holes] = buffer[movers]
        self.keys[end : self.count] = 0  # nothing of a forgotten key stays behind
        self.count = end
