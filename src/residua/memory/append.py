"""Rows become part of a memory: all of them, or none."""

from __future__ import annotations

import numpy as np
import torch

from residua.core import batches
from residua.errors import IdError
from residua.memory.accept import adopt, row_columns
from residua.memory.ids import bearing

BATCH = 8192  # rows moved to the table at a time, so that storage temporaries stay small


def append(memory, data, replace: bool = False) -> np.ndarray:
    """Validate and append all rows of `data` to the table and the index, or none; returns their ids, int64.

    With `replace`, earlier rows that bear one of the ids are left for the caller to forget.
    """
    table, before = memory.table, len(memory.table)
    next_id, source = memory._next_id, memory.source
    given, added, keys = [], [], []
    try:
        for batch in batches(data):
            if not len(batch):
                continue
            adopt(memory, batch)
            for start in range(0, len(batch), BATCH):
                part = batch[start : start + BATCH] if len(batch) > BATCH else batch
                if part.ids is None:
                    ids = np.arange(memory._next_id, memory._next_id + len(part))
                else:
                    ids = part.ids
                    given.append(np.unique(ids))
                memory._next_id = max(memory._next_id, int(ids.max()) + 1)
                columns = row_columns(memory, part, ids)
                if not memory.keys_kept:
                    keys.append(columns.pop("key"))
                table.append(columns)
                added.append(ids)
        if given and before and not replace:
            _refuse_present(memory, np.concatenate(given), before)
        if memory.index is not None and added:
            memory.index.add(table["key"][before:] if memory.keys_kept else torch.cat(keys))
    except BaseException:  # an interrupt too: the memory stays as it was
        _undo(memory, before)
        memory._next_id, memory.source = next_id, source
        raise
    memory._alive_count += len(table) - before
    return np.concatenate(added) if added else np.empty(0, np.int64)


def _refuse_present(memory, ids: np.ndarray, before: int) -> None:
    present = bearing(memory, ids, before)
    if len(present):
        some = np.unique(memory.table["id"][present].cpu().numpy())
        raise IdError(
            f"{len(some)} of the ids are in the memory already, such as {some[:5].tolist()}; "
            "forget them first, or add with replace=True"
        )


def _undo(memory, before: int) -> None:
    table, index = memory.table, memory.index
    if index is None or index.n == before:
        table.truncate(before)
    elif memory.keys_kept:  # interrupted with some of the rows in it
        table.truncate(before)
        memory.index = memory._indexed(table["key"])
        memory.index.forget((~table["alive"]).nonzero()[:, 0])
    else:  # the index cannot be made anew: what it took in stays, forgotten
        table.truncate(index.n)
        table["alive"][before:] = False
        index.forget(torch.arange(before, index.n, device=table.device))
