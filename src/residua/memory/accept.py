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


def new_labels(memory, labels, count: int) -> Tensor:
    """Labels for `count` relabelled ids, one each or one for all, if the memory can hold them."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "fiub":
        raise LabelError(f"the new labels have dtype {labels.dtype}; expected class indices or numbers")
    labels = torch.as_tensor(labels)
    if memory.task == "regression":
        if not torch.isfinite(labels.float()).all():
            raise LabelError("the new targets hold NaN or infinity")
    elif labels.is_floating_point():
        raise LabelError(f"the new labels have dtype {labels.dtype}; expected class indices")
    elif labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < memory.n_outputs):
        raise LabelError(f"a new label is out of range; the memory has classes 0 ... {memory.n_outputs - 1}")
    shape = (count, *memory.table["label"].shape[1:])
    try:
        return labels.reshape(()).expand(shape) if labels.numel() == 1 else labels.reshape(shape)
    except RuntimeError as error:
        raise ShapeError(f"{tuple(labels.shape)} labels for {count} ids; expected one each") from error
