"""Rows in named columns that grow in place: appending m rows costs O(m), amortised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from residua.core import ChunkedTensor, Rows
from residua.memory.run_length import RunLengthArray

Column: TypeAlias = torch.Tensor | RunLengthArray | ChunkedTensor


class Table:
    """Equally long columns by name, on one device, that are never changed: what changes them gives another table.

    Tables of one line share their buffers: rows are appended behind those that older tables know, and a column that
    changes is copied. So whoever holds a table, or a column of it, reads on undisturbed.

    Flags that are ``alike`` stay so while the same is appended. Integers (int64, one number per row) are held as
    ``RunLengthArray`` for as long as that pays: ids and offsets then cost next to nothing. A column whose rows lie in
    files is a ``ChunkedTensor``, whose new rows are in RAM. Every kind of column is read by ``table[name][rows]``.
    """

    device: torch.device

    def __init__(self, device: torch.device | str, buffers: Mapping[str, Column] | None = None, length: int = 0):
        self.device = torch.device(device)
        self._buffers: dict[str, Column] = dict(buffers or {})
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Column:
        column = self._buffers[name]
        return column[: self._length] if isinstance(column, Tensor) else column

    def dense(self, name: str) -> Tensor:
        """A column as one tensor, which is a copy if it is held otherwise."""
        column = self[name]
        return column if isinstance(column, Tensor) else column[:]

    def rows(self, name: str) -> Rows:
        """A column that is never held as runs, any but those of one int64 number per row, where it is."""
        column = self[name]
        return column[:] if isinstance(column, RunLengthArray) else column

    @property
    def names(self) -> list[str]:
        return list(self._buffers)

    def appended(self, rows: Mapping[str, Column], room: int = 0) -> Table:
        """With more rows, every time of the same columns, trailing shapes and dtypes; `room` is for how many in the
        end. Of several tables that are made from one so, only the last may be used."""
        end, buffers = self._length + len(next(iter(rows.values()))), dict(self._buffers)
        for name, column in rows.items():
            own = self._buffers.get(name)
            if _is_alike(column) and (own is None or (_is_alike(own) and bool(own[0] == column[0]))):
                one = column[:1].to(self.device) if own is None else own[:1]
                buffers[name] = one.expand(end)
                continue
            if own is None and column.dtype == torch.int64 and len(column.shape) == 1:
                own = RunLengthArray(device=self.device)
            if isinstance(own, ChunkedTensor) or (own is None and isinstance(column, ChunkedTensor)):
                column = column[:] if isinstance(column, RunLengthArray) else column
                buffers[name] = column if own is None else own.appended(column)
                continue
            if isinstance(own, RunLengthArray):
                runs = own.appended(column[:] if isinstance(column, ChunkedTensor) else column)
                if runs.is_compact:
                    buffers[name] = runs
                    continue
                own, column = None, runs[:]  # of this column a dense one is smaller: from now on it is
            column = column if isinstance(column, Tensor) else column[:]
            written = self._length if own is not None else end - len(column)
            if own is None or len(own) < end:
                # The first append takes exactly what it needs, so that a memory built once wastes nothing.
                capacity = max(end, room) if own is None else max(end, room, len(own) * 3 // 2)
                grown = torch.empty((capacity, *column.shape[1:]), dtype=column.dtype, device=self.device)
                if own is not None:
                    grown[:written] = own[:written]
                own = grown
            own[written:end] = column
            buffers[name] = own
        return Table(self.device, buffers, end)

    def first(self, length: int) -> Table:
        """Its first rows."""
        taken = Table(self.device, self._buffers, length)
        for name, column in self._buffers.items():
            if not isinstance(column, Tensor):
                taken._buffers[name] = column.first(length)
        return taken

    def apart(self) -> Table:
        """The same rows, which may be appended to without regard to this table."""
        buffers = {
            name: self[name] if isinstance(column, Tensor) else column.first(self._length)
            for name, column in self._buffers.items()
        }
        return Table(self.device, buffers, self._length)

    def take(self, rows: Tensor) -> Table:
        """A new table of `rows` (ascending row numbers), numbered 0 ... m-1; what lies in files stays there."""
        buffers: dict[str, Column] = {}
        for name in self._buffers:
            column = self[name]
            if isinstance(column, ChunkedTensor):
                buffers[name] = column.take(rows)
            else:
                buffers[name] = RunLengthArray(column[rows]) if isinstance(column, RunLengthArray) else column[rows]
        return Table(self.device, buffers, len(rows))

    def with_column(self, name: str, column: Tensor | ChunkedTensor) -> Table:
        """With `column`, of as many rows, in the place of one that is not held as runs."""
        return Table(self.device, self._buffers | {name: column}, self._length)

    def without(self, name: str) -> Table:
        """Without a column."""
        return self.only(*(key for key in self._buffers if key != name))

    def only(self, *names: str) -> Table:
        """These columns alone."""
        return Table(self.device, {name: self._buffers[name] for name in names}, self._length)

    def rows_with(self, name: str, values: np.ndarray) -> Tensor:
        """Row numbers of the rows whose column `name` holds one of `values` (int64), ascending."""
        column = self[name]
        if isinstance(column, RunLengthArray):
            return column.rows_with(values)
        return torch.from_numpy(np.flatnonzero(np.isin(column[:].cpu().numpy(), values))).to(self.device)

    def active_with_ids(self, ids: np.ndarray, before: int | None = None) -> Tensor:
        """Numbers of the active rows that bear one of `ids`, ascending; `before` looks at earlier rows alone."""
        rows = self.rows_with("id", ids)
        rows = rows if before is None else rows[rows < before]
        return rows[self["active"][rows]]

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one row, by column; a column of runs, or of one value alone, costs next to nothing, rounded down."""
        return {name: _nbytes(self[name]) // max(len(self), 1) for name in self._buffers}


def alike(value: bool, n: int, device: torch.device | str = "cpu") -> Tensor:
    """One value for all of `n` rows, which takes one byte; not to be written to."""
    return torch.full((1,), value, device=device).expand(n)


def _is_alike(column: Column) -> bool:
    if not isinstance(column, Tensor) or column.dtype != torch.bool or column.ndim != 1:
        return False
    return len(column) > 0 and column.stride(0) == 0


def _nbytes(column: Column) -> int:
    return column[:1].nbytes if _is_alike(column) else column.nbytes
