"""Remembered rows, to be asked like new ones."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from residua.core import AbsentLogits, Encoded

if TYPE_CHECKING:
    from residua.memory.memory import Memory


def as_queries(memory: Memory, at: np.ndarray) -> Encoded:
    """The remembered rows at positions `at` (m,), counted without the forgotten ones, with their ids: a reader leaves
    out a row's own id. Without labels where no logits were kept; ``StorageError`` where the keys were discarded."""
    some, logits, keys = torch.from_numpy(at).to(memory.device), memory.logits, None
    if memory.schema.key_centre.any():  # keys_at rounds to float32, which such keys do not survive
        keys = memory.keys
    keys = memory.keys_at(memory.active_rows[some]).cpu().numpy() if keys is None else keys[at]
    if logits is None:
        return Encoded(keys, AbsentLogits(len(at), memory.n_outputs), ids=memory.ids[at], source=memory.source)
    own = memory.column("weight")[memory.active_rows[some]].cpu().numpy() if memory.has_column("weight") else None
    columns = {} if own is None else {"weight": own}
    with warnings.catch_warnings():  # what is remembered was looked at when it was
        warnings.simplefilter("ignore")
        how = {"columns": columns, "source": memory.source, "task": memory.task}
        return Encoded(keys, logits.rows(some), memory.labels[at], memory.ids[at], **how)
