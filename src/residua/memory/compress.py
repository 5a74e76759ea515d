"""Fewer rows that stand for many: those of one label are clustered by their keys, and each cluster is one row."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from residua.errors import EmptyMemoryError, MissingDependencyError, ParameterError, StorageError
from residua.index import Index
from residua.memory.history import Changes, Event
from residua.memory.members import Members
from residua.memory.merging import LEAST, merged, put
from residua.memory.schema import Schema
from residua.memory.storage import Storage, make_storage
from residua.memory.store import Contents
from residua.memory.table import Table

if TYPE_CHECKING:
    from residua.memory.memory import Memory

M = TypeVar("M", bound="Memory")

STEPS = 25  # of k-means
MUCH = 10**7  # distances of one step


def compressed(memory: M, rows: int | None, size: int | None, index: str | Index, note: str | None = None) -> M:
    """See ``Memory.compress``; `size` is in bytes."""
    if (rows is None) == (size is None):
        raise ParameterError(f"rows={rows!r} and bytes={size!r}; expected one of them")
    with memory.reading():
        if not len(memory):
            raise EmptyMemoryError("nothing is remembered, and nothing can be merged: add rows before")
        schema = schema_of(memory)
        table, members, places = unmerged(memory)
        storage = make_storage(schema, memory.storage.head)
        if size is not None:
            rows = min(budget(schema, storage, table, size), len(memory))
        elif isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or not 0 < rows <= len(memory):
            raise ParameterError(f"rows={rows!r}; expected a whole number from 1 to {len(memory)}, the rows there are")
        assert rows is not None
        groups = grouped(memory, int(rows))[places]
        few = object.__new__(type(memory))
        wanted = {"index": index, "params": None, "overfetch": memory._index_wanted["overfetch"]}
        contents = Contents(schema, storage, wanted, memory._next_id, about=memory.about, names=memory.names)
        few._begin(contents, Table(memory.device), None)
        few._members = Members.none(table)
        said = f"of {len(memory)} rows"
    order = groups.argsort(stable=True)
    put(few, members[order], groups[order])
    few._begin_index()
    few._events = [Event.of("compress", Changes(0, len(few._table)), note or said)]
    return few


def schema_of(memory: Memory) -> Schema:
    """What rows have in common when they are merged: they have a weight."""
    if memory._keys is None:
        raise StorageError("this memory's keys were discarded, and rows are merged by their keys: compress it before")
    return replace(memory.schema, columns=memory.schema.columns | {"weight": ("float32", ())})


def unmerged(memory: Memory) -> tuple[Table, Tensor, Tensor]:
    """All rows that a memory stands for, as a table on the CPU; numbers of them, and which place among the remembered
    rows (0 ... n-1) stands for each."""
    active, held = memory.active_rows.cpu(), memory._members
    own = torch.arange(len(active)) if held is None else (~torch.isin(active, held.owners)).nonzero()[:, 0]
    table = _apart(memory._table, active[own])
    if "column.weight" not in table.names:
        table = table.with_column("column.weight", torch.ones(len(table)))
    if held is None:
        return table, torch.arange(len(table)), own
    if not held.kept:
        raise StorageError("the rows that this memory's were merged of were discarded, and cannot be merged further")
    entries = held.owned(memory._table["active"][:]).nonzero()[:, 0]
    rows = torch.cat([held.rows[entries], len(held.table) + torch.arange(len(own))])
    places = torch.cat([torch.searchsorted(active, held.owners[entries]), own])
    more = {name: table[name] for name in held.table.names}
    return (held.table.apart().appended(more) if len(own) else held.table), rows, places


def _apart(table: Table, rows: Tensor) -> Table:
    """Some rows of a table as another, on the CPU; what lies in files stays there."""
    table = table.without("active")
    taken = table.apart() if len(rows) == len(table) else table.take(rows.to(table.device))
    if taken.device.type == "cpu":
        return taken
    return Table("cpu").appended({name: taken[name][:].cpu() for name in taken.names})


def budget(schema: Schema, storage: Storage, table: Table, given: int) -> int:
    """How many merged rows have `given` bytes, without an index."""
    one = torch.zeros(1, dtype=torch.int64)
    each = sum(column[:1].nbytes for column in merged(schema, storage, table, one, one).values()) if len(table) else 1
    if isinstance(given, bool) or not isinstance(given, Real) or not each <= given < math.inf:
        raise ParameterError(f"bytes={given!r}, and one row has {each}; expected at least as many")
    return int(min(given // each, len(table)))


def grouped(memory: Memory, rows: int) -> Tensor:
    """The cluster of each remembered row, int64 (n,), numbered 0 ... m-1, m <= `rows`: labels have their share of the
    rows, and at least one."""
    active, task = memory.active_rows, memory.task
    labels = memory.column("label")[active].cpu()
    kinds = torch.zeros(len(labels), dtype=torch.int64)
    if task != "regression":
        kinds = labels.unique(dim=0, return_inverse=True)[1]
    different = int(kinds.max()) + 1
    if rows < different:
        what = "next tokens" if memory.schema.is_text else "labels" if task == "classification" else "sets of labels"
        raise ParameterError(
            f"{rows} rows for a memory of {different} different {what}, and rows of one are merged alone; expected at "
            f"least rows={different}"
        )
    weights = memory.column("weight")[active].cpu().numpy() if memory.has_column("weight") else None
    return divided(memory, active, weights, kinds, rows)


def divided(memory: Memory, rows: Tensor, weights: np.ndarray | None, kinds: Tensor, count: int) -> Tensor:
    """The cluster of each of some rows of a memory, int64 (n,), numbered 0 ... m-1, m <= `count`; a cluster is of one
    of the `kinds`, int64 (n,)."""
    sizes = torch.bincount(kinds).numpy()
    clusters, first = torch.empty(len(rows), dtype=torch.int64), 0
    order, ends = kinds.argsort(stable=True), np.cumsum(sizes)
    for many, size, end in zip(shares(sizes, count), sizes, ends):
        some = order[end - size : end]
        given = None if weights is None else weights[some.numpy()]
        found = clustered(memory, rows[some.to(rows.device)], given, int(many))
        found = found.unique(return_inverse=True)[1]  # k-means may leave a cluster empty
        clusters[some] = first + found
        first += int(found.max()) + 1 if size else 0
    return clusters


def shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """How many clusters groups of these `sizes` get, int64: in proportion, each at least one and no more than it has
    rows, `total` in all where there are so many.

    Examples
    --------
    >>> shares(np.array([1, 9, 90]), 20).tolist(), shares(np.array([2, 2]), 9).tolist()
    ([1, 1, 18], [2, 2])
    """
    low, high = 0.0, float(total)  # what one row of a group is worth
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(np.floor(middle * sizes), 1, sizes).sum() <= total else (low, middle)
    found = np.clip(np.floor(low * sizes), 1, sizes).astype(np.int64)
    left = min(total, int(sizes.sum())) - int(found.sum())
    short = np.argsort(found / np.maximum(low * sizes, LEAST), kind="stable")
    short = short[found[short] < sizes[short]][:left]
    found[short] += 1
    return found


def clustered(memory: Memory, rows: Tensor, weights: np.ndarray | None, count: int) -> Tensor:
    """The cluster of each of some rows, int64 (m,), by k-means of their keys; of many rows, by k-means in each of
    fewer clusters."""
    if count >= len(rows):
        return torch.arange(len(rows))
    if count == 1:
        return torch.zeros(len(rows), dtype=torch.int64)
    if len(rows) * count > MUCH:
        return divided(memory, rows, weights, by_means(memory, rows, weights, math.isqrt(count)), count)
    return by_means(memory, rows, weights, count)


def by_means(memory: Memory, rows: Tensor, weights: np.ndarray | None, count: int) -> Tensor:
    """scikit-learn's k-means of some rows' keys, int64 (m,)."""
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        hint = 'pip install "residua[sklearn]"'
        raise MissingDependencyError(f"compress needs scikit-learn for its k-means: {hint}") from error
    assert memory._keys is not None
    keys = memory._keys.index_select(0, rows).float().cpu().numpy()
    weights = None if weights is None else np.maximum(weights, LEAST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different keys than clusters
        means = KMeans(count, n_init=1, max_iter=STEPS, random_state=0)  # pyright: ignore[reportArgumentType]
        return torch.from_numpy(means.fit_predict(keys, sample_weight=weights).astype(np.int64))
