"""Rows in named columns that grow in place: appending m rows costs O(m), amortised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from residua.memory.run_length import RunLengthArray

Column: TypeAlias = torch.Tensor | RunLengthArray


class Table:
    """Equally long columns by name, on one device. Views of dense columns share memory with the table.

    Integers (int64, one number per row) are held as ``RunLengthArray`` for as long as that pays: ids and offsets then
    cost next to nothing. Either kind of column is read by ``table[name][rows]``.
    """

    device: torch.device

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self._buffers: dict[str, Column] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Column:
        column = self._buffers[name]
        return column if isinstance(column, RunLengthArray) else column[: self._length]

    def dense(self, name: str) -> Tensor:
        """A column that is never held as runs, to be read and changed: any but those of one int64 number per row."""
        column = self[name]
        return column[:] if isinstance(column, RunLengthArray) else column

    @property
    def names(self) -> list[str]:
        return list(self._buffers)

    def append(self, rows: Mapping[str, Column], room: int = 0) -> None:
        """Add rows, every time of the same columns, trailing shapes and dtypes; `room` is for how many in the end."""
        end = self._length + len(next(iter(rows.values())))
        for name, column in rows.items():
            own = self._buffers.get(name)
            if own is None and column.dtype == torch.int64 and len(column.shape) == 1:
                own = self._buffers[name] = RunLengthArray(device=self.device)
            column = column[:] if isinstance(column, RunLengthArray) else column
            if isinstance(own, RunLengthArray):
                own.append(column)
                if own.is_compact:
                    continue
                own, column = None, own[:]  # of this column a dense one is smaller: from now on it is
            written = self._length if own is not None else end - len(column)
            if own is None or len(own) < end:
                # The first append takes exactly what it needs, so that a memory built once wastes nothing.
                capacity = max(end, room) if own is None else max(end, room, len(own) * 3 // 2)
                grown = torch.empty((capacity, *column.shape[1:]), dtype=column.dtype, device=self.device)
                if own is not None:
                    grown[:written] = own[:written]
                self._buffers[name] = own = grown
            own[written:end] = column
        self._length = end

    def truncate(self, length: int) -> None:
        """Drop the rows from `length` on; columns that an interrupted append left longer, too."""
        for column in self._buffers.values():
            if isinstance(column, RunLengthArray) and len(column) > length:
                column.truncate(length)
        self._length = length

    def take(self, rows: Tensor) -> Table:
        """A new table of `rows` (row numbers, in the order they are given), numbered 0 ... m-1."""
        taken = Table(self.device)
        for name in self._buffers:
            column = self[name][rows]
            taken._buffers[name] = RunLengthArray(column) if isinstance(self[name], RunLengthArray) else column
        taken._length = len(rows)
        return taken

    def replace(self, name: str, column: Tensor) -> Tensor:
        """Put `column`, of at least as many rows, in the place of a dense one, which is returned."""
        before, self._buffers[name] = self.dense(name), column
        return before

    def drop(self, name: str) -> None:
        del self._buffers[name]

    def rows_with(self, name: str, values: np.ndarray) -> Tensor:
        """Row numbers of the rows whose column `name` holds one of `values` (int64), ascending."""
        column = self[name]
        if isinstance(column, RunLengthArray):
            return column.rows_with(values)
        return torch.from_numpy(np.flatnonzero(np.isin(column.cpu().numpy(), values))).to(self.device)

    def active_with_ids(self, ids: np.ndarray, before: int | None = None) -> Tensor:
        """Numbers of the active rows that bear one of `ids`, ascending; `before` looks at earlier rows alone."""
        rows = self.rows_with("id", ids)
        rows = rows if before is None else rows[rows < before]
        return rows[self["active"][rows]]

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one row, by column; a column of runs costs next to nothing, rounded down."""
        return {
            name: column.nbytes // max(len(column), 1) if isinstance(column, RunLengthArray) else column[:1].nbytes
            for name, column in self._buffers.items()
        }
