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
    nearest_among,
    nearest_by_blocks,
    ordered,
    torch_candidates,
)
from residua.native import DIMENSIONS, Codes, Kernels, Reading, kernels

_BACKENDS = {"faiss": faiss_candidates, "torch": torch_candidates}
_MADE = ("_compact", "_codes", "_asked", "_coded", "_measured", "_once", "_kernels")  # of keys, or here: anew in a copy
_PAYS = 32  # searches of one query that cost as much as making codes, measured
_USELESS = 1 / 8  # of the keys: where codes leave so many to be measured, of most queries, they are given up


@register_index("exact")
class Exact(Index):
    """The true nearest rows, ties by the lowest row.

    It searches the very keys that `search` is given; only where these are not float32, or some rows are forgotten, it
    keeps a copy of the remembered ones. Keys that lie in files it reads block by block, at every search. Fastest for
    keys around the origin, where the engine that proposes rounds least. `backend` is ``"faiss"`` (the default on a CPU
    where it is installed) or ``"torch"``, with equal answers. Where none is named and ``residua-native`` is installed,
    8-bit codes of the keys are made once enough was asked of the same keys, and tell which few of them to look at.
    """

    exact = True

    def __init__(self, dim: int, device: torch.device | str = "cpu", backend: str | None = None):
        super().__init__(dim, device, backend=backend)
        if backend is None:
            backend = "faiss" if self.device.type == "cpu" and faiss_installed() else "torch"
        if backend not in _BACKENDS:
            raise ParameterError(f"backend={backend!r}; expected one of {tuple(_BACKENDS)}")
        self.backend, self._once = backend, Lock()
        self._kernels = self._native()
        self._build(torch.empty((0, dim)))

    @property
    def n(self) -> int:
        return self._n

    @property
    def coded_bytes(self) -> int:
        """The size of the native codes in RAM, about d + 4 bytes a row; 0 where there are none."""
        codes = self._codes
        return 0 if codes is None else codes.nbytes

    def _native(self) -> Kernels | None:
        """Native kernels, where they search faster than what proposes otherwise."""
        if "backend" in self.params or self.device.type != "cpu" or not 0 < self.dim <= DIMENSIONS:
            return None
        native = kernels()
        return native if native and native.level else None  # in plain C++ it takes longer than FAISS, measured

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._once, self._kernels = Lock(), self._native()
        self._build_of(self._n)

    def _build(self, keys: Rows) -> None:
        self._build_of(len(keys))

    def _build_of(self, n: int) -> None:
        self._n = n
        self._compact: _Compact | None = None
        self._drop_codes()

    def _drop_codes(self) -> None:
        self._codes: Codes | None = None
        self._asked = self._coded = 0  # queries since, and those that codes answered
        self._measured = 0.0  # shares of the keys, summed over these

    def _build_chunked(self, keys: ChunkedTensor) -> None:
        self._build(keys)

    def _check_finite(self, array: Rows, what: str) -> None:
        if not isinstance(array, ChunkedTensor):  # what lies in files is read by searches alone
            super()._check_finite(array, what)

    def _add(self, keys: Tensor) -> None:
        self._drop_codes()
        if self._compact:
            self._compact.add(keys, self._n)
        self._n += len(keys)

    def _forget(self, rows: Tensor) -> None:
        self._drop_codes()
        if self._compact:
            self._compact.drop(self._forgotten)

    def settle(self, remembered: Tensor, keys: Rows | None = None) -> None:
        self._build_of(min(self._n, len(remembered)))  # it is nothing but a number of rows
        super().settle(remembered, keys)

    def _restore(self, keys: Rows | None) -> bool:
        return False

    def _nbytes(self, keys: Rows | None) -> int:
        copied = isinstance(keys, Tensor) and (self._n_forgotten > 0 or keys.dtype != torch.float32)
        return self.coded_bytes + (self._n - self._n_forgotten) * (4 * self.dim + 8) * copied  # a key, and whose it is

    def _search(self, queries: Tensor, k: int, keys: Rows | None) -> Nearest:
        assert keys is not None, "an index that needs keys is searched with them"
        if isinstance(keys, ChunkedTensor):
            remembered = ~self._forgotten[: self.n] if self._n_forgotten else None
            return nearest_by_blocks(queries, keys, k, _BACKENDS[self.backend], remembered)
        compact = self._compacted(keys)
        found = self._by_codes(queries, k, keys, compact)
        return exact_nearest(queries, keys, k, _BACKENDS[self.backend], compact) if found is None else found

    def read_at_once(
        self, reading: Reading, queries: Tensor, centre: Tensor | None, keys: Rows | None, logits: Tensor
    ) -> Tensor | None:
        native, codes = self._kernels, self._codes
        if native is None or not isinstance(keys, Tensor) or reading.k > self._n - self._n_forgotten:
            return None
        if codes is not None:
            table, names = self._compacted(keys) or (keys, None)
            said = reading.by_codes(codes, table, names, queries, centre, logits)
            self._coded += 0 if said is None else len(queries)
            return said
        queries = queries if centre is None else (queries - centre).float()
        if not (keys.is_contiguous() and queries.isfinite().all()):
            return None
        # The same neighbours at the very distances, in the same order, as by codes: so is the answer.
        found = self._search(queries, reading.k, keys)
        if not native.rerank(keys, queries.numpy(), found.rows.numpy(), found.squared.numpy(), reading.k):
            return None
        found = ordered(found.squared, found.rows, reading.k)
        return reading(found.rows.numpy(), found.squared.numpy(), logits)

    def _compacted(self, keys: Tensor) -> tuple[Tensor, Tensor] | None:
        """The keys to search and the row of each, where these are not just `keys`."""
        compact = self._compact
        if compact is None and (self._n_forgotten or keys.dtype != torch.float32):
            with self._once:  # of several threads that search, one makes it
                if self._compact is None:
                    with torch.inference_mode(False):  # a caller's own, in which edits could not change it any more
                        self._compact = _Compact(keys, self._remembered())
                compact = self._compact
        return compact and compact.of()

    def _by_codes(self, queries: Tensor, k: int, keys: Tensor, compact: tuple[Tensor, Tensor] | None) -> Nearest | None:
        """The same by native codes; None where these are not worth it."""
        native, codes = self._kernels, self._codes
        if native is None:
            return None
        table, names = compact or (keys, None)
        if codes is None:
            self._asked += len(queries)
            if self._asked < _PAYS or not table.is_contiguous():
                return None
            with self._once:
                if self._codes is None:
                    self._codes = native.codes(table)
                codes = self._codes
        queries = queries.contiguous()
        found = codes and codes.nearest(queries, table, k)
        if found is None:
            return None
        places, counts, measured = found
        self._coded += len(queries)
        self._measured += max(0.0, measured - k / len(table)) * len(queries)
        if self._coded >= _PAYS and self._measured > _USELESS * self._coded:
            self._codes, self._asked = None, -(2**62)  # until the keys change
        rows = torch.from_numpy(places)
        if names is not None:
            rows = torch.where(rows < 0, rows, names[rows])
        nearest = nearest_among(queries, keys, rows, k)
        if counts.max() > places.shape[1]:  # more are as near as the k-th than there was room for
            many = torch.from_numpy(counts > places.shape[1])
            again = exact_nearest(queries[many], keys, k, _BACKENDS[self.backend], compact)
            nearest.rows[many], nearest.squared[many] = again.rows, again.squared
        return nearest


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
