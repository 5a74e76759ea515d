"""A memory of tokens: rows are a document's next tokens, in order, and so hold the text itself."""

from __future__ import annotations

import numpy as np
import torch

from residua.errors import ParameterError, StorageError

OFFSET = "column.offset"  # the label's place in its document, 0-based


def of_tokens(memory) -> bool:
    """See ``Memory.of_tokens``."""
    return memory.task == "classification" and OFFSET in memory.table


def context(memory, row: int, length: int) -> np.ndarray:
    """See ``Memory.context``."""
    if not of_tokens(memory):
        raise StorageError("only a memory of tokens (rows with a column 'offset') has contexts")
    table, row, length = memory.table, int(row), int(length)
    if not 0 <= row < len(table) or length < 0:
        raise ParameterError(f"row {row}, length {length}; expected a row in 0 ... {len(table) - 1} and length >= 0")
    rows = torch.arange(max(row - length, 0), row, device=table.device)
    same = table["id"][rows] == table["id"][row]
    same &= table[OFFSET][rows] == table[OFFSET][row] - (row - rows)
    same &= table["alive"][rows]
    run = same.flip(0).long().cumprod(0).sum()  # how far back the document goes on without a gap
    return table["label"][row - int(run) : row].cpu().numpy().astype(np.int64)
