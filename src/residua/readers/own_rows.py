"""A memory's own rows, to be asked as if each were new."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from residua.core import Encoded
from residua.errors import StorageError
from residua.memory import Memory
from residua.memory.queries import as_queries
from residua.readers.reader import QUERIES


def own_rows(memory: Memory, most: int) -> Iterator[Encoded]:
    """At most so many rows of the memory, with their ids: of documents whole ones, spread over all, each in order."""
    if memory.stored_logits is None or memory.storage.name not in ("full", "head"):
        raise StorageError(
            f"this memory keeps too little of what the model said (storage={memory.storage.name!r}): give rows to fit "
            "on that are not remembered; of a text, rs.lm.fit(model, tokenizer, reader) reads remembered ones again"
        )
    if not memory.keys_kept:
        raise StorageError("this memory's keys were discarded; give rows to fit on that are not remembered")
    if memory.is_compressed:
        raise StorageError(
            "these rows were merged (compress), and one of them left out leaves out all that it stands for, which no "
            "new row does: give rows to fit on that are not remembered, or fit on the memory that was compressed"
        )
    _, which, sizes = np.unique(memory.ids, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(sizes))
    place = np.empty(len(sizes), np.int64)
    place[order] = np.arange(len(sizes))
    taken = max(2, int((sizes[order].cumsum() <= most).sum()))
    rows = np.argsort(place[which], kind="stable")[: sizes[order[:taken]].sum()]
    for start in range(0, len(rows), QUERIES):
        yield as_queries(memory, rows[start : start + QUERIES])
