"""What the arrays of a memory's folder may hold, checked once, when they were read and before anything is made of them.

A checksum says that a file is as it was written, and not by whom. ``residua.described`` checks what JSON says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import Head, as_tensor
from residua.errors import MemoryFileError
from residua.index.ground_truth import DEPTH, QUERIES
from residua.memory.history import Changes
from residua.memory.run_length import RunLengthArray
from residua.memory.schema import KEY_DTYPES, Schema
from residua.memory.table import Column


def columns(schema: Schema, rows: Mapping[str, Column], count: int, keys_kept: bool = True, deep: bool = True) -> None:
    """``MemoryFileError`` where the columns of some rows (a shard's) are not those of `schema`: other names, dtypes,
    shapes, lengths, or values out of their range. Without `deep`, keys and logits are not read."""
    expected = _expected(schema, keys_kept)
    if rows.keys() != expected.keys():
        raise MemoryFileError(f"the rows have columns {sorted(rows)}; expected {sorted(expected)}")
    for name, column in rows.items():
        dtype, shape = expected[name]
        if column.dtype != dtype or tuple(column.shape) != (count, *shape):
            given = f"column {name!r} is {column.dtype} of shape {tuple(column.shape)}"
            raise MemoryFileError(f"{given}; expected {dtype} of shape {(count, *shape)}")
        if not isinstance(column, Tensor) or not column.numel():  # runs of integers, or what stays in its file
            continue
        if name == "key" and deep:
            _within(column, name, schema.largest_key)
        elif name in ("top.values", "top.partition", "column.weight") or (name == "logits" and deep):
            _within(column, name, least=0 if name == "column.weight" else None)
        elif name == "top.ids":
            _within(column, name, schema.n_outputs - 1, 0)
        elif column.dtype == torch.bool and int(column.view(torch.uint8).max()) > 1:
            raise MemoryFileError(f"column {name!r} holds other bytes than 0 and 1")
    labels(schema, rows["label"], count)


def _expected(schema: Schema, keys_kept: bool) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """The dtype of each column, and the shape of one row of it."""
    wide, storage = schema.n_outputs, schema.storage["name"]
    label = {"classification": (torch.int32, ()), "multi-label": (torch.bool, (wide,))}
    found = {"label": label.get(schema.task, (torch.float32, (wide,))), "id": (torch.int64, ())}
    if keys_kept:
        found["key"] = (KEY_DTYPES[schema.key_dtype], (schema.dim,))
    if storage == "full":
        found["logits"] = (torch.float32, (wide,))
    elif storage == "top-m":
        kept = (min(schema.storage["m"], wide),)
        found |= {"top.ids": (torch.int32, kept), "top.values": (torch.float32, kept)}
        found["top.partition"] = (torch.float32, ())
    own = {
        f"column.{name}": (as_tensor(np.empty(0, dtype)).dtype, shape)
        for name, (dtype, shape) in schema.columns.items()
    }
    return found | own


def members(schema: Schema, rows: Mapping[str, Column], count: int) -> None:
    """``MemoryFileError`` where these are not columns of `count` rows that were merged."""
    if "key" in rows:
        columns(schema, rows, count, deep=False)
        return
    if rows.keys() != {"label", "id"} or rows["id"].dtype != torch.int64 or len(rows["id"]) != count:
        raise MemoryFileError(f"the members have columns {sorted(rows)}; expected all, or {count} labels and ids")
    labels(schema, rows["label"][:], count)


def entries(given: Mapping[str, Tensor], members: int, n: int) -> None:
    """``MemoryFileError`` where these do not say which of n rows stands for each of `members`."""
    count = len(given.get("rows", ()))
    _tensors(given, {name: (torch.int64, (count,)) for name in ("rows", "owners")}, "the members' entries")
    if count:
        _within(given["rows"], "rows", members - 1, 0)
        _within(given["owners"], "owners", n - 1, 0)
        if bool((given["owners"].diff() < 0).any()):
            raise MemoryFileError("the members' owners do not ascend")


def keys(schema: Schema, tensors: Mapping[str, Tensor], count: int) -> None:
    """``MemoryFileError`` where these are not `count` keys alone."""
    _tensors(tensors, {"key": (KEY_DTYPES[schema.key_dtype], (count, schema.dim))}, "the last rows' keys")
    if count:
        _within(tensors["key"], "key", schema.largest_key)


def truth(schema: Schema, tensors: Mapping[str, Tensor], n: int) -> None:
    """``MemoryFileError`` where this is not what a ``GroundTruth`` of n rows holds."""
    count, number = len(tensors.get("queries", ())), torch.int64
    expected = {"queries": (torch.float32, (count, schema.dim)), "rows": (number, (count, DEPTH))}
    expected |= {"squared": (torch.float32, (count, DEPTH)), "since": (number, (count,)), "born": (number, (count,))}
    _tensors(tensors, expected, "the queries that recall is measured by")
    if not count:
        return
    if count > QUERIES:
        raise MemoryFileError(f"there are {count} queries that recall is measured by; expected at most {QUERIES}")
    _within(tensors["queries"], "queries")
    _within(tensors["rows"], "rows", n - 1, -1)
    missing = tensors["rows"] < 0
    if not bool((tensors["squared"].isinf() == missing).all()):
        raise MemoryFileError("the true neighbours' squared distances are not of their rows")
    _within(tensors["squared"].masked_fill(missing, 0), "squared", least=0)
    for name in ("since", "born"):
        _within(tensors[name], name, n, 0)


def _tensors(
    given: Mapping[str, Tensor], expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], what: str
) -> None:
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in given.items()}
    if found != expected:
        raise MemoryFileError(f"{what} are {found}; expected {expected}")


def labels(schema: Schema, given: Column, count: int) -> None:
    """``MemoryFileError`` where these are not `count` labels as the table keeps them."""
    dtype, shape = _expected(schema, False)["label"]
    if not isinstance(given, Tensor) or given.dtype != dtype or tuple(given.shape) != (count, *shape):
        raise MemoryFileError(f"labels are {given.dtype} of shape {tuple(given.shape)}; expected {count} of {dtype}")
    if not given.numel():
        return
    if dtype == torch.bool:
        _within(given.view(torch.uint8), "label", 1, 0)
    else:
        _within(given, "label", *((schema.n_outputs - 1, 0) if schema.task == "classification" else ()))


def row_numbers(rows: Tensor, n: int, what: str) -> None:
    """``MemoryFileError`` where these are not numbers of some of n rows, ascending."""
    fits = rows.dtype == torch.int64 and rows.ndim == 1
    if fits and len(rows):
        fits = int(rows[0]) >= 0 and int(rows[-1]) < n and bool((rows.diff() > 0).all())
    if not fits:
        raise MemoryFileError(f"the {what} rows are not ascending numbers of {n} rows")


def changes(schema: Schema, made: Sequence[Changes], n: int) -> None:
    """``MemoryFileError`` where these are not what edits did to n rows."""
    for one in made:
        if not 0 <= one.first <= one.last <= n:
            raise MemoryFileError(f"an edit added rows {one.first} to {one.last - 1}, and there are {n}")
        for what in ("forgotten", "restored", "relabelled"):
            if len(rows := getattr(one, what)):
                row_numbers(rows, n, what)
    given = [given for one in made if len(one.relabelled) for given in (one.before, one.after)]
    if given:
        labels(schema, torch.cat(given), 2 * sum(len(one.relabelled) for one in made))


def ids(column: Column, next_id: int) -> None:
    """``MemoryFileError`` where the next id to be given was given already."""
    largest = column.last if isinstance(column, RunLengthArray) else column[:]
    if len(largest) and int(largest.max()) >= next_id:
        raise MemoryFileError(f"the memory's next id is {next_id}, and a row has id {int(largest.max())} already")


def room(rows: int, shards: Sequence[Mapping[str, Any]], first: Mapping[str, Column]) -> int:
    """`rows`, if files of that size can hold so many rows like the `first` ones; ``MemoryFileError``."""
    kept = [column for column in first.values() if isinstance(column, Tensor)]
    # Integers that are dense in one shard may be a few runs in another.
    each = sum(column[:1].nbytes for column in kept if column.dtype != torch.int64 or column.ndim > 1)
    if rows * each > sum(shard["bytes"] for shard in shards):
        raise MemoryFileError(f"{rows} rows of {each} bytes are more than the files hold")
    return rows


def schema(given: Schema) -> None:
    """``MemoryFileError`` where a schema contradicts itself."""
    one = {"classification": True, "multi-label": False}.get(given.task, given.flat_labels and given.n_outputs == 1)
    kept = given.storage["name"]
    if given.flat_labels != one or given.n_outputs < (2 if given.task == "classification" else 1):
        raise MemoryFileError(f"{given.n_outputs} outputs, flat_labels={given.flat_labels}: this is no {given.task}")
    if given.model_outputs is not None and given.model_outputs > given.n_outputs:
        raise MemoryFileError(f"the model has {given.model_outputs} outputs, and its memory {given.n_outputs}")
    if kept == "top-m" and given.task != "classification":
        raise MemoryFileError(f"a {given.task} memory keeps no top-m logits")
    if {"key", "label", "id"} & given.columns.keys():
        raise MemoryFileError("an extra column is called like one of the memory's own")
    source = given.source
    for name, values in (source.statistics if source else {}).items():
        if name in ("mean", "scale") and not all(type(value) in (int, float) for value in values):
            raise MemoryFileError(f"the keys' {name} is not made of numbers")


def head(schema: Schema, given: Head | None) -> None:
    """``MemoryFileError`` where this is not the last layer that the logits are recomputed by."""
    if schema.storage["name"] != "head":
        return
    if given is None:
        raise MemoryFileError("the logits are recomputed from the keys, and the last layer for it is not there")
    parts = {"weight": (given.weight, (schema.n_outputs, schema.dim)), "bias": (given.bias, (schema.n_outputs,))}
    for name, (part, shape) in parts.items():
        if part is not None:
            if not part.is_floating_point() or tuple(part.shape) != shape:
                raise MemoryFileError(f"the head's {name} is {part.dtype} of {tuple(part.shape)}; expected {shape}")
            _within(part, f"the head's {name}")


def _within(values: Tensor, name: str, most: float | None = None, least: float | None = None) -> None:
    """`values` are finite, and from `least` to `most` (without `least`: no further from 0)."""
    low, high = values.aminmax()
    most = float(np.finfo(np.float32).max) if most is None else most
    if not (float(low) >= (-most if least is None else least) and float(high) <= most):
        expected = f"{-most if least is None else least:.4g} to {most:.4g}"
        raise MemoryFileError(f"{name!r} holds {float(low):.4g} to {float(high):.4g}; expected {expected}")
