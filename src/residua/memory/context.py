"""The text before a remembered token."""

from __future__ import annotations

import numpy as np
import torch

from residua.errors import ParameterError
from residua.memory.table import Table


def context(table: Table, row: int, length: int) -> np.ndarray:
    """Labels of up to `length` rows before `row`, of its document and without gaps, oldest first, int64."""
    if not 0 <= row < len(table) or length < 0:
        raise ParameterError(f"row {row}, length {length}; expected a row in 0 ... {len(table) - 1} and length >= 0")
    rows = torch.arange(max(row - length, 0), row, device=table.device)
    ids, offsets = table["id"], table["column.offset"]
    same = (ids[rows] == ids[row]) & (offsets[rows] == offsets[row] - (row - rows)) & table["active"][rows]
    run = int(same.flip(0).long().cumprod(0).sum())  # how far back the document goes on without a gap
    return table["label"][row - run : row].cpu().numpy().astype(np.int64)
