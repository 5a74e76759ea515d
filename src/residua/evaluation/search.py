"""Labelled data, block by block, with the neighbours that every reader compared here shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Neighbours, batches
from residua.core.logits import as_tensor
from residua.errors import IdError, InputError, LabelError
from residua.readers import Reader
from residua.readers.reader import QUERIES


def searched(
    reader: Reader, data: Encoded | Iterable[Encoded], k: int, exclude_ids=None, *, exclude_own: bool = False
) -> Iterator[tuple[Encoded, Tensor, Neighbours]]:
    """Blocks of `data` with their labels as tensors and their k nearest remembered rows.

    Parameters
    ----------
    reader : Reader
        Its memory is searched, and checks the data.
    data : Encoded or iterable of Encoded
        With labels.
    k : int
        0 searches nothing: neighbours of shape (b, 0).
    exclude_ids : int array of shape (n,) or (n, m), optional
    exclude_own : bool
        Exclude each row's own id where the data came with ids.

    Yields
    ------
    Encoded of at most 2048 rows, labels (b,) or (b, L) on the memory's device, Neighbours (b, k)

    Raises
    ------
    LabelError
        When a batch has no labels.
    InputError
        When there is no row at all.
    IdError
        When exclude_ids are not one row per query.
    """
    memory = reader.memory
    excluded = None if exclude_ids is None else np.asarray(exclude_ids)
    start = 0
    for batch in batches(data):
        if batch.labels is None:
            raise LabelError("these rows have no labels; evaluation compares predictions with the truth")
        reader.check(batch)
        for first in range(0, len(batch), QUERIES):
            part = batch[first : first + QUERIES]
            own = part.ids if exclude_own else None
            if excluded is not None:
                own = excluded[start : start + len(part)]
            start += len(part)
            labels = as_tensor(part.labels).to(memory.device)
            if memory.task == "regression":
                labels = labels.reshape(len(part), memory.n_outputs)
            if k:
                neighbours = memory.search(part.keys, k, own)
            else:
                none = torch.empty(len(part), 0, device=memory.device)
                neighbours = Neighbours(none.long(), none)
            yield part, labels, neighbours
    if not start:
        raise InputError("the data hold no rows; expected at least one labelled example")
    if excluded is not None and len(excluded) != start:
        raise IdError(f"exclude_ids have {len(excluded)} rows for {start} queries; expected one row per query")
