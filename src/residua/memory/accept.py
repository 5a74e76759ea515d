"""What a memory accepts as rows: one task, one shape, one source, one set of columns."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from residua.errors import InputError, LabelError, ShapeError, TaskError
from residua.records import Encoded
from residua.records.logits import as_tensor


def adopt(memory, batch: Encoded) -> None:
    """Refuse a batch that does not fit; learn the memory's nature from the first."""
    if batch.labels is None:
        raise LabelError("these rows have no labels; a memory keeps labelled examples")
    if memory.task is None:
        memory.task, memory.dim, memory.n_outputs = batch.task, batch.dim, batch.n_outputs
        memory.flat_labels = batch.labels.ndim == 1
    if batch.task != memory.task:
        raise TaskError(f"{batch.task} rows for a {memory.task} memory")
    if (batch.dim, batch.n_outputs) != (memory.dim, memory.n_outputs):
        raise ShapeError(
            f"rows with keys of {batch.dim} and {batch.n_outputs} outputs; this memory has keys of {memory.dim} "
            f"and {memory.n_outputs} outputs (a new class needs a model that has it)"
        )
    if memory.source is None:
        memory.source = batch.source
    else:
        memory.source.require(batch.source)
    extra = {f"column.{name}" for name in batch.columns}
    if memory.table.names and extra != {name for name in memory.table.names if name.startswith("column.")}:
        raise InputError(f"rows bring columns {sorted(batch.columns)}; this memory's rows have {memory.columns}")
    for name, column in batch.columns.items() if memory.table.names else ():
        own = memory.table[f"column.{name}"][:0].cpu().numpy()
        if column.shape[1:] != own.shape[1:] or not np.can_cast(column.dtype, own.dtype):
            raise InputError(
                f"column {name!r} has rows of shape {column.shape[1:]} and dtype {column.dtype}; this memory's are of "
                f"shape {own.shape[1:]} and dtype {own.dtype}"
            )


def row_columns(memory, batch: Encoded, ids: np.ndarray) -> dict[str, Tensor]:
    """The table's columns for one batch."""
    labels = as_tensor(batch.labels)
    if memory.task == "regression":
        labels = labels.reshape(len(batch), memory.n_outputs)
    always = {
        "key": as_tensor(batch.keys),
        "label": labels,
        "id": as_tensor(np.asarray(ids, np.int64)),
        "alive": torch.ones(len(batch), dtype=torch.bool),
        "edited": torch.zeros(len(batch), dtype=torch.bool),  # relabelled since it was saved
    }
    extra = {f"column.{name}": as_tensor(column) for name, column in batch.columns.items()}
    return {**always, **extra, **memory.storage.columns(batch)}
