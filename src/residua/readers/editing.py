"""The verb ``rs.edit``: examples that were answered wrongly become edits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from residua.core import ArrayLike, Encoded, as_tensor, batches
from residua.core.encoded import labels_of
from residua.errors import EmptyMemoryError, LabelError
from residua.memory import Memory
from residua.readers.edited import LOOKED_AT, MARGIN, SAME, Edited, editable, nearest, typical
from residua.readers.reader import QUERIES, Reader

WANTED = "give them: rs.edit(reader, examples, labels)"


def edit(
    reader: Reader,
    examples: Encoded | Iterable[Encoded],
    labels: ArrayLike | None = None,
    *,
    note: str | None = None,
) -> Edited:
    """Set answers right for good: these examples, and what is as near to them as their radius, get these labels.

    Nothing is trained, and nothing else changes: neither the model nor the memory. Each example is an edit, a row of
    ``reader.edits``; those that share an id (the tokens of one text) are one edit, numbered as its others.

    Parameters
    ----------
    reader : Reader
        Of a classifier's or a language model's memory. One that was edited gets more edits, in place.
    examples : Encoded or iterable of Encoded
        What was answered wrongly, encoded by the memory's model; of a text those rows whose next token is to be
        another. Their ``names`` become the edits'.
    labels : int or str array of shape (n,), or one for all, optional
        The right classes, by index or name, or next tokens. None: the labels that the examples have.
    note : str, optional
        What ``edits.log()`` says of it.

    Returns
    -------
    Edited
        `reader` itself where it was edited before. An edit of the very same key and another label is forgotten.

    Raises
    ------
    ParameterError, TaskError, InputError, LabelError, ShapeError, EmptyMemoryError, SourceMismatchError
        No edit is made then.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> wrong = rs.Encoded([[0.9, 0.0, 0.1]], np.zeros((1, 2)), names=["cat.png"])
    >>> reader = rs.edit(rs.ResMem(memory, k=2, sigma=0.5), wrong, [1], note="seen by Ann")
    >>> rs.explain(reader, wrong).sources, reader.predict(wrong).tolist()
    (('edit 0',), [1])
    >>> reader = rs.edit(reader, rs.Encoded(np.zeros((1, 3)), np.zeros((1, 2))), [1])
    >>> reader.edits.ids.tolist()
    [0, 1]
    """
    edited = reader if isinstance(reader, Edited) else None
    memory = editable(reader).memory if edited is None else edited.memory
    given = [batch for batch in batches(examples) if len(batch)]
    if not given:
        raise EmptyMemoryError("the examples hold no rows; expected at least one that is to be answered otherwise")
    rows = _labelled(memory, given, labels)
    usual = typical(memory) if edited is None else edited.same / SAME
    rows = [_measured(memory, batch, usual) for batch in rows]
    if edited is None:
        schema = memory.schema
        kept: dict[str, Any] = {"key_dtype": schema.key_dtype, "normalise": schema.normalise, "device": memory.device}
        return Edited(reader, Memory(_numbered(rows, 0), storage="none", **kept))
    edits = edited.edits
    replaced = np.unique(np.concatenate([_contradicted(edits, batch, edited.same) for batch in rows]))
    with edits.editing("edit", note) as draft:
        if len(replaced):
            draft.forget(replaced)
        draft.add(_numbered(rows, draft._next_id))
    return edited


def _labelled(memory: Memory, given: list[Encoded], labels: ArrayLike | None) -> list[Encoded]:
    """The examples with the labels that they are to get, checked; all else that rows may have is left out but ids and
    names."""
    count, start, rows = sum(map(len, given)), 0, list[Encoded]()
    told = None if labels is None else memory.schema.labels(labels, count).numpy().astype(np.int64)
    for batch in given:
        batch = memory.schema.widened(batch)[:]
        memory.schema.check_query(batch)
        batch.labels = labels_of(batch, WANTED) if told is None else told[start : start + len(batch)]
        batch.task, batch.columns, batch.head = "classification", {}, None
        rows.append(batch)
        start += len(batch)
    keys, said = (np.concatenate(parts) for parts in zip(*((row.keys, labels_of(row, WANTED)) for row in rows)))
    distinct, which = np.unique(keys, axis=0, return_inverse=True)
    if len(np.unique(np.stack([which.reshape(-1), said]), axis=1).T) > len(distinct):
        raise LabelError("two of the examples have the same key and different labels; expected one label for a key")
    return rows


def _measured(memory: Memory, rows: Encoded, usual: float) -> Encoded:
    """The same with their margins; without a row of another label, the typical distance between neighbours."""
    keys, labels = (as_tensor(array).to(memory.device) for array in (rows.keys, labels_of(rows, WANTED)))
    anywhere = torch.full((len(rows),), torch.inf, device=memory.device)
    parts = zip(keys.split(QUERIES), labels.split(QUERIES), anywhere.split(QUERIES))
    margins = torch.cat([nearest(memory, *part[:2], SAME * usual, part[2])[1] for part in parts])
    rows.columns = {MARGIN: torch.where(margins.isinf(), usual, margins).cpu().numpy()}
    return rows


def _contradicted(edits: Memory, rows: Encoded, same: float) -> np.ndarray:
    """The numbers of edits of the same keys and other labels."""
    near = edits.search(rows.keys, min(LOOKED_AT[0], len(edits)))
    found, labels = near.rows.clamp_min(0), as_tensor(labels_of(rows, WANTED)).to(near.rows.device)
    unlike = edits.column("label")[found].long() != labels[:, None]
    which = found[near.found & (near.distances <= same) & unlike]
    return edits.column("id")[which].cpu().numpy()


def _numbered(rows: list[Encoded], first: int) -> list[Encoded]:
    """The same with numbers from `first` on as ids, one for those that shared one."""
    numbers = dict[object, int]()
    for batch in rows:
        given = [object() for _ in range(len(batch))] if batch.ids is None else batch.ids.tolist()
        batch.ids = np.array([numbers.setdefault(id, first + len(numbers)) for id in given], np.int64)
    return rows
