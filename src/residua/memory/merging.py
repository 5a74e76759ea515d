"""What a merged row says: the mean of its members, by their weights; and merging anew what some of these left.

Keys, probabilities (not logits) and targets are means, so that the residual is the mean of its members', and the weight
is their sum. A merged row is called by the member nearest to its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from residua.core import Logits, TopLogits
from residua.errors import IdError
from residua.memory.schema import KEY_DTYPES, Schema, unit
from residua.memory.storage import BLOCK, Storage
from residua.memory.table import Column, Table, alike

if TYPE_CHECKING:
    from residua.memory.memory import Memory

LEAST = 1e-30  # a weight; a probability whose logarithm is a float32


def bearing(memory: Memory, ids: np.ndarray, required: bool = False) -> tuple[Tensor, Tensor]:
    """The remembered rows that bear one of `ids` and stand for themselves, ascending; and the members of merged ones
    that do, by their entries. Where all are `required`, ``IdError`` for one that nobody bears."""
    table, held, entries = memory._table, memory._members, torch.empty(0, dtype=torch.int64)
    rows = table.active_with_ids(ids)
    if held is not None:
        rows = rows[~torch.isin(rows, held.owners.to(rows.device))]
        entries = (held.bearing(ids) & held.owned(table["active"][:])).nonzero()[:, 0]
    if required:
        found = [table["id"][rows].cpu().numpy(), *([] if held is None else [held.ids(entries)])]
        missing = np.setdiff1d(ids, np.concatenate(found))
        if len(missing):
            raise IdError(f"{len(missing)} of the ids are not in the memory, such as {missing[:5].tolist()}")
    return rows, entries


def ids_held(memory: Memory) -> np.ndarray:
    """The ids of all remembered rows, and of all that these stand for."""
    held = memory._members
    if held is None:
        return memory.ids
    return np.concatenate([memory.ids, held.ids(held.owned(memory._table["active"][:]).nonzero()[:, 0])])


def put(memory: Memory, rows: Tensor, groups: Tensor) -> None:
    """Remember one row for each group 0 ... g-1, ascending, of `rows` of the members' table."""
    held, left, before = memory._members, memory._keys_left, len(memory._table)
    if held is None or not len(rows):
        return
    columns = merged(memory.schema, memory.storage, held.table, rows, groups)
    if left is not None:
        memory._keys_left = left.appended(columns.pop("key")[:])
    added = int(groups[-1]) + 1
    memory._table = memory._table.appended(columns | {"active": alike(True, added)})
    memory._members = held.appended(rows, before + groups)
    memory._refresh(memory._active_count + added)


def take_out(memory: Memory, entries: Tensor) -> None:
    """Merge anew, without these entries' members, what stands for them."""
    held = memory._members
    if held is None or not len(entries):
        return
    owners = held.owners[entries].unique()
    left = torch.isin(held.owners, owners)
    left[entries] = False
    left = left.nonzero()[:, 0]
    held.require(left, entries)
    memory._drop(owners.to(memory.device))
    put(memory, held.rows[left], held.owners[left].unique(return_inverse=True)[1])


def set_apart(memory: Memory, entries: Tensor) -> None:
    """Make rows of their own of these entries' members."""
    held = memory._members
    if held is None:
        return
    entries = entries[held.counts(memory.n_rows)[held.owners[entries]] > 1]
    take_out(memory, entries)
    put(memory, held.rows[entries], torch.arange(len(entries)))


def merged(schema: Schema, storage: Storage, table: Table, rows: Tensor, groups: Tensor) -> dict[str, Column]:
    """The columns of one row for each group 0 ... g-1 of `rows` of a table (m,); `groups` (m,) ascending, each with at
    least one."""
    sizes = torch.bincount(groups)
    ends = sizes.cumsum(0)
    starts, total = ends - sizes, len(sizes)
    weight = table["column.weight"][rows].double()
    summed = torch.zeros(total, dtype=torch.float64).index_add_(0, groups, weight)
    even = (summed <= 0)[groups]  # rows without weight count alike
    share = torch.where(even, 1.0 / sizes[groups], weight / summed.clamp_min(LEAST)[groups])
    keys = torch.zeros(total, schema.dim, dtype=torch.float64)
    for part in _parts(len(rows), schema.dim):
        keys.index_add_(0, groups[part], table["key"][rows[part]].double() * share[part, None])
    if schema.normalise:
        opposite = (keys + schema.key_centre == 0).all(dim=1)  # a mean without a direction: one member stands for it
        keys[opposite] = table["key"][rows[starts[opposite]]].double()
        keys = unit(keys + schema.key_centre) - schema.key_centre
    away = torch.empty(len(rows), dtype=torch.float64)
    for part in _parts(len(rows), schema.dim):
        away[part] = (table["key"][rows[part]].double() - keys[groups[part]]).square().sum(dim=1)
    order = away.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    called = rows[order[starts]]
    columns: dict[str, Column] = {name: table[name][called] for name in table.names if name != "key"}
    columns["key"] = keys.to(KEY_DTYPES[schema.key_dtype])
    columns["column.weight"] = summed.float()
    if schema.task == "regression":
        means = torch.zeros(total, schema.n_outputs, dtype=torch.float64)
        columns["label"] = means.index_add_(0, groups, table["label"][rows].double() * share[:, None]).float()
    return columns | _said(schema, storage, table, rows, groups, share, starts, columns["label"])


def _said(
    schema: Schema,
    storage: Storage,
    table: Table,
    rows: Tensor,
    groups: Tensor,
    share: Tensor,
    starts: Tensor,
    labels: Column,
) -> dict[str, Column]:
    """What the model said of each group in the mean, as `storage` keeps it."""
    if storage.name == "head":  # which says it of the mean key
        return {}
    logits = storage.logits(table, table.rows("key"))
    if logits is None:
        return {}
    found: list[dict[str, Tensor]] = []
    step = max(1, BLOCK // (4 * schema.n_outputs))  # groups at a time
    edges = [*range(0, len(starts), step), len(starts)]
    bounds = [*starts.tolist(), len(rows)]
    for first, last in pairwise(edges):
        mean = torch.zeros(last - first, schema.n_outputs, dtype=torch.float64)
        for part in _parts(bounds[last] - bounds[first], schema.n_outputs):
            part = slice(bounds[first] + part.start, min(bounds[first] + part.stop, bounds[last]))
            said = _probabilities(schema, logits, rows[part])
            mean.index_add_(0, groups[part] - first, said.double() * share[part, None])
        found.append(_kept(schema, storage, mean, labels[first:last]))
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def _probabilities(schema: Schema, logits: Logits, rows: Tensor) -> Tensor:
    """What was said of `rows` as it is averaged: probabilities, or a regressor's predictions less their centre."""
    if schema.task == "regression":
        return logits.dense(rows)
    if schema.task == "multi-label":
        return torch.sigmoid(logits.dense(rows).double())
    if isinstance(logits, TopLogits):  # what was not kept reads as 0
        some = logits.rows(rows)
        said = (some.values.double() / some.temperature - some.partition.double()[:, None]).exp()
        return said.new_zeros(some.shape).scatter_(1, some.ids.long(), said)
    return torch.softmax(logits.dense(rows).double(), dim=1)


def _kept(schema: Schema, storage: Storage, mean: Tensor, labels: Tensor) -> dict[str, Tensor]:
    if schema.task == "regression":
        return {"logits": mean.float()}
    if schema.task == "multi-label":
        return {"logits": (mean.clamp_min(LEAST).log() - (1 - mean).clamp_min(LEAST).log()).float()}
    said = mean.clamp_min(LEAST).log()
    if schema.storage["name"] == "full":
        return {"logits": said.float()}
    t, m = schema.storage["temperature"], min(schema.storage["m"], schema.n_outputs)
    ids = said.scatter(1, labels.long()[:, None], torch.inf).topk(m, dim=1).indices  # the label's own is kept first
    values = (t * said.gather(1, ids)).float()
    return {"top.ids": ids.int(), "top.values": values, "top.partition": torch.zeros(len(ids))}


def _parts(n: int, wide: int) -> Iterator[slice]:
    step = max(1, BLOCK // (4 * wide))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
