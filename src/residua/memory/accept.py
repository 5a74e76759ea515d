"""What a memory accepts as rows: one task, one shape, one source, one set of columns."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded
from residua.core.logits import as_tensor
from residua.errors import InputError, LabelError, NonFiniteError, ParameterError, ShapeError, TaskError

KEY_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_settings(storage, key_dtype: str, about: dict | None, names: dict[int, str] | None) -> None:
    """Refuse what a memory cannot be kept with."""
    if key_dtype not in KEY_DTYPES:
        raise ParameterError(f"key_dtype={key_dtype!r}; expected one of {tuple(KEY_DTYPES)}")
    if key_dtype == "bfloat16" and storage.name == "head":
        raise ParameterError(
            "bfloat16 keys are too coarse to recompute logits from (storage='head'); use float16 or float32"
        )
    try:
        json.dumps(about)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"about={about!r} is not made of JSON types: {error}") from error
    for number, name in (names or {}).items():
        if not (isinstance(number, (int, np.integer)) and isinstance(name, str)):
            raise ParameterError(f"names hold {number!r}: {name!r}; expected the name, a str, of each id, an int")


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
    """The table's columns for one batch; classes as int32, half of what Encoded holds."""
    labels = as_tensor(batch.labels)
    always = {
        "key": _stored_keys(memory, batch),
        "label": labels.int() if memory.task == "classification" else labels.reshape(len(batch), memory.n_outputs),
        "id": as_tensor(np.asarray(ids, np.int64)),
        "alive": torch.ones(len(batch), dtype=torch.bool),
        "edited": torch.zeros(len(batch), dtype=torch.bool),  # relabelled since it was saved
    }
    extra = {f"column.{name}": as_tensor(column) for name, column in batch.columns.items()}
    return {**always, **extra, **memory.storage.columns(batch)}


def _stored_keys(memory, batch: Encoded) -> Tensor:
    keys = as_tensor(batch.keys)
    stored = keys.to(KEY_DTYPES[memory.key_dtype])
    if memory.key_dtype != "float32" and not stored.isfinite().all():
        raise NonFiniteError(
            f"keys as large as {float(keys.abs().max()):.3g} do not fit {memory.key_dtype}; "
            f"use key_dtype='{'bfloat16' if memory.key_dtype == 'float16' else 'float32'}'"
        )
    return stored


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
