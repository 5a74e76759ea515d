"""Rows in named columns that grow in place: appending m rows costs O(m), amortised."""

from __future__ import annotations

import torch
from torch import Tensor


class Table:
    """Equally long tensors by name, on one device. Column views share memory with the table.

    Examples
    --------
    >>> table = Table("cpu")
    >>> table.append({"label": torch.tensor([3, 1])}); table.append({"label": torch.tensor([2])})
    >>> table["label"].tolist(), len(table)
    ([3, 1, 2], 3)
    """

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self._buffers: dict[str, Tensor] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Tensor:
        return self._buffers[name][: self._length]

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return list(self._buffers)

    def append(self, rows: dict[str, Tensor]) -> None:
        """Add rows; every call brings the same columns with the same trailing shapes and dtypes."""
        count = len(next(iter(rows.values())))
        end = self._length + count
        for name, column in rows.items():
            buffer = self._buffers.get(name)
            if buffer is None or len(buffer) < end:
                # The first append takes exactly what it needs, so that a memory built once wastes nothing.
                capacity = end if buffer is None else max(end, len(buffer) * 3 // 2)
                grown = torch.empty((capacity, *column.shape[1:]), dtype=column.dtype, device=self.device)
                if buffer is not None:
                    grown[: self._length] = buffer[: self._length]
                self._buffers[name] = buffer = grown
            buffer[self._length : end] = column
        self._length = end

    def truncate(self, length: int) -> None:
        """Drop the rows from `length` on, as after an append that must be undone."""
        self._length = length

    def keep(self, rows: Tensor) -> None:
        """Keep `rows` (ascending row numbers) and renumber them 0 ... m-1."""
        self._buffers = {name: buffer[: self._length][rows] for name, buffer in self._buffers.items()}
        self._length = len(rows)

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one row, by column."""
        return {name: buffer[:1].nbytes for name, buffer in self._buffers.items()}
