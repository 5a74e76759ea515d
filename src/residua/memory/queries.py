"""Remembered rows, to be asked like new ones."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from residua.core import AbsentLogits, DenseLogits, Encoded

if TYPE_CHECKING:
    from residua.memory.memory import Memory


SAMPLE = 2048  # a p-value of .05 is then within .01 of the truth


def as_queries(memory: Memory, at: np.ndarray) -> Encoded:
    """The remembered rows at positions `at` (m,), counted without the forgotten ones, with their ids: a reader leaves
    out a row's own id. Without labels where no logits were kept; ``StorageError`` where the keys were discarded."""
    there, logits, keys = memory.active_rows[torch.from_numpy(at).to(memory.device)], memory.stored_logits, None
    if memory.schema.key_centre.any():  # keys_at rounds to float32, which such keys do not survive
        keys = memory.keys
    keys = memory.keys_at(there).cpu().numpy() if keys is None else keys[at]
    if logits is None:
        return Encoded(keys, AbsentLogits(len(at), memory.n_outputs), ids=memory.ids[at], source=memory.source)
    said = logits.rows(there)
    if memory.target_centre is not None:  # what is stored of a regression is less this
        said = DenseLogits(memory.schema.targets(said.dense()))
    columns = {"weight": memory.column("weight")[there].cpu().numpy()} if memory.has_column("weight") else {}
    with warnings.catch_warnings():  # what is remembered was looked at when it was
        warnings.simplefilter("ignore")
        how = {"columns": columns, "source": memory.source, "task": memory.task}
        return Encoded(keys, said, memory.labels[at], memory.ids[at], **how)


def sampled_rows(memory: Memory, sample: int = SAMPLE) -> Encoded:
    """At most so many of the remembered rows, always the same ones of the same memory, with their ids: to a reader that
    leaves out a row's own id they are new. ``StorageError`` where the keys were discarded."""
    at = np.arange(len(memory))
    if len(at) > sample:
        at = np.sort(np.random.default_rng(0).choice(len(at), sample, replace=False))
    return as_queries(memory, at)
