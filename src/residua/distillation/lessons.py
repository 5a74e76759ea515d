"""What a student learns from: a memory's own rows, and what a reader says of each as if its id were not remembered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from residua.core import AbsentLogits, Logits, Queries, as_tensor
from residua.errors import StorageError
from residua.memory import Memory
from residua.progress import progress_bar
from residua.readers import NeighbourReader
from residua.readers.distilled import rows_of
from residua.readers.reader import QUERIES
from residua.readers.student import Readout

TOP = 64  # classes of each row that are kept of what the reader says; the rest is shared among them


@dataclass(frozen=True)
class Lessons:
    """n rows, on the memory's device."""

    keys: Tensor  # (n, d), float64 where the memory's need it
    labels: Tensor  # int64 (n,)
    logits: Logits | None  # the base's, of a residual read-out
    temperature: float  # which divides them
    classes: Tensor | None  # int32 (n, m): whom the reader names; None where no reader was asked
    shares: Tensor | None  # float32 (n, m): of a sum of 1, or 0 where it found no neighbour
    weights: Tensor | None  # float32 (n,): how much each row counts; None: all alike
    rows: str  # of which rows the memory consisted

    def __len__(self) -> int:
        return len(self.labels)


def lessons(
    reader: NeighbourReader, readout: Readout, asked: bool, most: int | None, seed: int, progress: bool | None
) -> Lessons:
    """Of at most so many of the memory's rows, drawn by `seed`. A mixture is taught the neighbours' vote, a residual
    read-out the reader's whole answer; neither where no reader is `asked`."""
    memory = reader.memory
    rows, position = memory.active_rows, np.arange(len(memory))
    if most is not None and len(memory) > most:
        position = np.sort(np.random.default_rng(seed).choice(len(memory), most, replace=False))
        rows = rows[as_tensor(position).to(rows.device)]
    keys = _keys(memory, rows, position)
    labels = memory.column("label")[rows].long()
    logits = _logits(memory, rows) if readout == "residual" else None
    own = reader.class_weights
    weights = None if own is None else own[labels]
    if memory.has_column("weight"):
        given = memory.column("weight")[rows].float()
        weights = given if weights is None else given * weights
    classes = shares = None
    if asked:
        classes, shares = _said(reader, readout, keys, logits, memory.ids[position], progress)
    return Lessons(keys, labels, logits, reader.temperature, classes, shares, weights, rows_of(memory))


def _keys(memory: Memory, rows: Tensor, position: np.ndarray) -> Tensor:
    if not memory.keys_kept:
        raise StorageError("this memory's keys were discarded, and a student learns from them; build the memory again")
    if not memory.schema.key_centre.any():
        return memory.keys_at(rows)
    keys = memory.keys  # in float64: float32 has no digits left for them
    assert keys is not None
    return as_tensor(keys[position]).to(memory.device)


def _logits(memory: Memory, rows: Tensor) -> Logits:
    if memory.stored_logits is None or memory.storage.name not in ("full", "head"):
        raise StorageError(
            f"a residual read-out is added to what the model said, and this memory keeps too little of it (storage="
            f"{memory.storage.name!r}); distil with readout='mixture', or build the memory with storage='full'"
        )
    return memory.stored_logits.rows(rows)


def _said(
    reader: NeighbourReader,
    readout: Readout,
    keys: Tensor,
    logits: Logits | None,
    ids: np.ndarray,
    progress: bool | None,
) -> tuple[Tensor, Tensor]:
    """Classes int32 (n, m) and their shares float32 (n, m) of what the reader says of rows without themselves."""
    reader, memory, outputs = reader.searching_all(), reader.memory, reader.memory.n_outputs
    m = outputs if outputs <= 2 * TOP else TOP
    classes = torch.empty(len(keys), m, dtype=torch.int32, device=memory.device)
    shares = torch.empty(len(keys), m, device=memory.device)
    unknown = AbsentLogits(len(keys), outputs)
    with progress_bar(progress, desc="ask", unit="row", total=len(keys)) as bar:
        for start in range(0, len(keys), QUERIES):
            block = slice(start, start + QUERIES)
            queries = (unknown if logits is None else logits).rows(block)
            for part, now in reader.read(keys[block], queries, ids[block]):
                at = slice(start + part.start, start + min(part.stop, len(keys)))
                if readout == "residual":
                    table = now.probabilities
                else:
                    near = now.near.first(reader.k)
                    weights = reader.weights(near, Queries(keys[at], now.root))
                    table = torch.zeros(len(near), outputs, device=memory.device)
                    voted = memory.column("label")[near.rows.clamp_min(0)].long()
                    table.scatter_add_(1, voted, weights.float())
                if m < outputs:
                    values, named = table.topk(m, dim=1)
                else:
                    values, named = table, torch.arange(outputs, device=table.device).expand(table.shape)
                classes[at] = named.int()
                shares[at] = values / values.sum(dim=1, keepdim=True).clamp_min(1e-30)
            bar.update(len(queries))
    return classes, shares
