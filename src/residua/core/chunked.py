"""Rows in several tensors that are read like one: those of files that are mapped, all or some of them, and those added
since."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor


class ChunkedTensor:
    """Rows (n, …) in several tensors one after another, of which only what is asked for is read. It never changes.

    Of a chunk some rows may count, by the ascending row numbers in `kept`; None: all do.

    >>> rows = ChunkedTensor([torch.zeros(2, 3), torch.ones(1, 3)])
    >>> rows.shape, rows[torch.tensor([2, 0])][:, 0].tolist(), rows[1:].mean().item()
    ((3, 3), [1.0, 0.0], 0.5)
    >>> rows.take(torch.tensor([1, 2]))[:].mean(dim=1).tolist()
    [0.0, 1.0]
    """

    dtype: torch.dtype
    device: torch.device
    shape: tuple[int, ...]
    chunks: tuple[Tensor, ...]

    def __init__(
        self, chunks: Sequence[Tensor], room: Tensor | None = None, kept: Sequence[Tensor | None] | None = None
    ):
        self.chunks = tuple(chunks)  # at least one
        self.kept: tuple[Tensor | None, ...] = (None,) * len(self.chunks) if kept is None else tuple(kept)
        self._room: Tensor | None = room  # what the last one is the first rows of, where there is room behind it
        first = self.chunks[0]
        self.dtype, self.device = first.dtype, first.device
        counts = [len(chunk if some is None else some) for chunk, some in zip(self.chunks, self.kept)]
        ends = torch.tensor(counts).cumsum(0)
        self._bounds: Tensor = torch.cat([ends.new_zeros(1), ends])
        self.shape = (int(ends[-1]), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel() * self.dtype.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether every row of every chunk counts."""
        return all(some is None for some in self.kept)

    def first(self, length: int) -> ChunkedTensor:
        """Its first rows, without a copy."""
        found = self._parts(0, length)
        chunks = [chunk[part] if some is None else chunk for chunk, some, part in found]
        return ChunkedTensor(chunks, kept=[None if some is None else some[part] for _, some, part in found])

    def take(self, rows: Tensor) -> ChunkedTensor:
        """Those at `rows`, ascending row numbers, numbered anew, without a copy."""
        found = []
        for chunk, some, (first, last) in zip(self.chunks, self.kept, pairwise(self._bounds.tolist())):
            start, stop = torch.searchsorted(rows, torch.tensor([first, last])).tolist()
            there = rows[start:stop] - first
            if len(there) == last - first:
                there = some
            elif some is not None:
                there = some[there]
            if start < stop:
                found.append((chunk, there))
        chunks, kept = zip(*found or [(self.chunks[0][:0], None)])
        return ChunkedTensor(chunks, kept=kept)

    def appended(self, rows: Tensor | ChunkedTensor) -> ChunkedTensor:
        """With more rows: chunks as they are, or copies of a tensor's, at a cost of O(m), amortised. Of several that
        are made from one so, only the last may be used."""
        if isinstance(rows, ChunkedTensor):
            return ChunkedTensor([*self.chunks, *rows.chunks], kept=[*self.kept, *rows.kept])
        chunks, some, last, room = self.chunks, self.kept, self.chunks[-1][:0], self._room
        if room is not None:
            chunks, some, last = chunks[:-1], some[:-1], chunks[-1]
        end = len(last) + len(rows)
        if room is None or end > len(room):
            room = rows.new_empty((end * 3 // 2, *rows.shape[1:]))
            room[: len(last)] = last
        room[len(last) : end] = rows
        return ChunkedTensor([*chunks, room[:end]], room, [*some, None])

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        """The rows at `rows`: int64 row numbers 0 … n-1 of any shape, a mask (n,), a slice, or one integer."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self[torch.from_numpy(np.arange(start, stop, step))]
            found = self._within(start, max(start, stop))
            return found[0] if len(found) == 1 else torch.cat(found)
        if isinstance(rows, int):
            return self[torch.arange(len(self))[rows]]
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        return self.index_select(0, rows.reshape(-1)).view(*rows.shape, *self.shape[1:])

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Copies of the rows at `rows`, int64 row numbers (m,); `dim` is 0."""
        # In ascending order, so that each chunk is asked once.
        rows, order = rows.to(self.device).sort()
        if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < len(self):
            raise IndexError(f"rows {int(rows[0])} … {int(rows[-1])} of {len(self)}")
        out = self.chunks[0].new_empty((len(rows), *self.shape[1:]))
        cuts = torch.searchsorted(rows, self._bounds).tolist()
        for number, (first, last) in enumerate(pairwise(cuts)):
            if first < last:
                there, some = rows[first:last] - self._bounds[number], self.kept[number]
                there = there if some is None else some[there]
                out[order[first:last]] = self.chunks[number].index_select(0, there)
        return out

    def _within(self, start: int, stop: int) -> list[Tensor]:
        """What lies between two rows, as views where all rows count; at least one, which may be empty."""
        found = self._parts(start, stop)
        return [chunk[part] if some is None else chunk.index_select(0, some[part]) for chunk, some, part in found]

    def _parts(self, start: int, stop: int) -> list[tuple[Tensor, Tensor | None, slice]]:
        """The chunks, and which of their rows count, that lie between two rows, and what part of these does."""
        found = []
        for chunk, some, (first, last) in zip(self.chunks, self.kept, pairwise(self._bounds.tolist())):
            if max(start, first) < min(stop, last):
                found.append((chunk, some, slice(max(start - first, 0), stop - first)))
        return found or [(self.chunks[0], self.kept[0], slice(0, 0))]


class Readable(Protocol):
    """Rows (n, …) by row number, however they are held."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def device(self) -> torch.device: ...
    def __getitem__(self, rows: Tensor | slice, /) -> Tensor: ...
    def index_select(self, dim: int, rows: Tensor, /) -> Tensor: ...


Rows: TypeAlias = torch.Tensor | ChunkedTensor  # (n, …) by row number, read by `rows[i]`, `index_select` and slices
