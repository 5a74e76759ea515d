"""A memory's own rows, to be asked as if each were new."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch

from residua.core import DenseLogits, Encoded
from residua.errors import StorageError
from residua.memory import Memory
from residua.readers.reader import QUERIES


def own_rows(memory: Memory, most: int) -> Iterator[Encoded]:
    """At most so many rows of the memory, with their ids: of documents whole ones, spread over all, each in order."""
    logits = memory.stored_logits
    if logits is None or memory.storage.name not in ("full", "head"):
        raise StorageError(
            f"this memory keeps too little of what the model said (storage={memory.storage.name!r}): give rows to fit "
            "on that are not remembered; of a text, rs.lm.fit(model, tokenizer, reader) reads remembered ones again"
        )
    if not memory.keys_kept:
        raise StorageError("this memory's keys were discarded; give rows to fit on that are not remembered")
    active, ids, labels = memory.active_rows, memory.ids, memory.labels
    _, which, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(sizes))
    place = np.empty(len(sizes), np.int64)
    place[order] = np.arange(len(sizes))
    taken = max(2, int((sizes[order].cumsum() <= most).sum()))
    rows = np.argsort(place[which], kind="stable")[: sizes[order[:taken]].sum()]
    weight = memory.column("weight") if memory.has_column("weight") else None
    for start in range(0, len(rows), QUERIES):
        own = rows[start : start + QUERIES]
        some = torch.from_numpy(own).to(memory.device)
        there = active[some]
        columns = {} if weight is None else {"weight": weight[there].cpu().numpy()}
        keys, said = memory.keys_at(there).cpu().numpy(), logits.rows(there)
        if memory.target_centre is not None:  # what is stored of a regression is less this
            said = DenseLogits(memory.schema.targets(said.dense()))
        with warnings.catch_warnings():  # what is remembered was looked at when it was
            warnings.simplefilter("ignore")
            part = Encoded(
                keys,
                said,
                labels[own],
                ids[own],
                columns=columns,
                source=memory.source,
                task=memory.task,
            )
        yield part
