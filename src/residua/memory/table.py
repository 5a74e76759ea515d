"""Rows in named columns that grow in place: appending m rows costs O(m), amortised."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from residua.memory.runs import Runs


class Table:
    """Equally long columns by name, on one device. Views of dense columns share memory with the table.

    Integers (int64, one number per row) are held as ``Runs`` for as long as that pays: ids and offsets then cost next
    to nothing. Either kind of column is read by ``table[name][rows]``.

    Examples
    --------
    >>> table = Table("cpu")
    >>> table.append({"score": torch.tensor([0.5, 2.0])}); table.append({"score": torch.tensor([1.0])})
    >>> table["score"].tolist(), len(table)
    ([0.5, 2.0, 1.0], 3)
    """

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self._buffers: dict[str, Tensor | Runs] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Tensor | Runs:
        column = self._buffers[name]
        return column if isinstance(column, Runs) else column[: self._length]

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return list(self._buffers)

    def append(self, rows: dict[str, Tensor | Runs], room: int = 0) -> None:
        """Add rows; every call brings the same columns with the same trailing shapes and dtypes.

        `room` is the number of rows that the table will have in the end, where it is known.
        """
        count = len(next(iter(rows.values())))
        end = self._length + count
        for name, column in rows.items():
            own = self._buffers.get(name)
            if own is None and column.dtype == torch.int64 and len(column.shape) == 1:
                own = self._buffers[name] = Runs(device=self.device)
            column = column[:] if isinstance(column, Runs) else column
            if isinstance(own, Runs):
                own.append(column)
                if own.worthwhile:
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
        """Drop the rows from `length` on, as after an append that must be undone."""
        for column in self._buffers.values():
            if isinstance(column, Runs) and len(column) > length:
                column.truncate(length)
        self._length = length

    def keep(self, rows: Tensor) -> None:
        """Keep `rows` (ascending row numbers) and renumber them 0 ... m-1."""
        for name, column in self._buffers.items():
            if isinstance(column, Runs):
                column.keep(rows)
            else:
                self._buffers[name] = column[: self._length][rows]
        self._length = len(rows)

    def drop(self, name: str) -> None:
        """Remove a column."""
        del self._buffers[name]

    def rows_with(self, name: str, values: np.ndarray) -> Tensor:
        """Row numbers of the rows whose column `name` holds one of `values` (int64), ascending."""
        column = self[name]
        if isinstance(column, Runs):
            return column.rows_with(values)
        found = np.flatnonzero(np.isin(column.cpu().numpy(), values))
        return torch.from_numpy(found).to(self.device)

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one row, by column; a column of runs costs next to nothing, rounded down."""
        return {
            name: column.nbytes // max(len(column), 1) if isinstance(column, Runs) else column[:1].nbytes
            for name, column in self._buffers.items()
        }
