"""Reading token by token: a vocabulary's probabilities, of which only the retrieved tokens are touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from residua.core import Change, DenseLogits, HeadLogits, Logits, Softmax, TokenProbabilities, merge
from residua.core.logits import as_tensor
from residua.core.softmax import rows_at_once
from residua.core.token_probabilities import ENTRIES, TINY
from residua.errors import ShapeError, TaskError

if TYPE_CHECKING:
    from residua.readers.reader import Reader

QUERIES = 2048  # rows searched at a time


class Stream:
    """A reader over texts, row after row in document order. Readers without a state answer each row by itself.

    ``score`` reads rows whose next tokens are known; ``read`` and ``remember`` serve generation, where they are not
    yet. Made by ``reader.stream()``; one for each run over a text.
    """

    def __init__(self, reader: Reader):
        if reader.memory.task != "classification":
            raise TaskError("a stream reads tokens, and this is a regression memory; call predict")
        self.reader = reader

    def score(self, keys, logits: Logits, *, documents=None, tokens=None, exclude_ids=None) -> TokenProbabilities:
        """Probabilities of the next token of q rows, in the order of the text.

        Parameters
        ----------
        keys : array of shape (q, d)
        logits : Logits
            q rows over V tokens.
        documents : int array of shape (q,), optional
            The document of each row. Needed by a ``ContinuousCache``; rows of a document come in order, and documents
            one after another.
        tokens : int array of shape (q,), optional
            The token that really comes next, which later rows may look back at. Needed by a ``ContinuousCache``.
        exclude_ids : int array of shape (q,) or (q, m), optional
            Ids whose rows are not neighbours of each query, such as its own document's.

        Returns
        -------
        TokenProbabilities
            On the logits' device. ``p ∝ max(score, epsilon * p_T)``, as in ``predict_proba``.

        Raises
        ------
        ShapeError
            When keys and logits do not fit each other or the memory.
        """
        keys, logits = self._checked(keys, logits)
        reader = self.reader
        base = Softmax(logits, reader.temperature)
        if reader.k == 0 or not len(reader.memory) or not len(keys):
            return TokenProbabilities.of(base)
        asked = reader.asked(base)
        if asked is not None and not len(asked):
            return TokenProbabilities.of(base)
        keys = keys.to(reader.memory.device)
        exclude_ids = None if exclude_ids is None else as_tensor(exclude_ids).cpu()
        if reader.entries_per_neighbour is None:
            return self._dense(keys, base, asked, exclude_ids)
        device = base.partition.device
        blocks = ((_on(rows, device), change) for rows, change in self._changes(keys, asked, exclude_ids))
        return _joined(base, ((rows, _proper(base, rows, change, reader)) for rows, change in blocks))

    def read(self, keys, logits: Logits, documents=None) -> TokenProbabilities:
        """As ``score``, for rows whose next tokens are not known yet; each is the end of its document so far."""
        return self.score(keys, logits)

    def remember(self, keys, tokens, documents) -> None:
        """What really came after rows that were ``read``: keys (q, d), next tokens (q,), documents (q,), in order.

        Nothing to do for a reader without a state.
        """

    # --- inside -----------------------------------------------------------------------------------------------

    def _checked(self, keys, logits: Logits) -> tuple[Tensor, Logits]:
        keys, memory = as_tensor(keys, torch.float32), self.reader.memory
        if keys.ndim != 2 or keys.shape[1] != memory.dim or logits.shape != (len(keys), memory.n_outputs):
            raise ShapeError(
                f"keys have shape {tuple(keys.shape)} and logits {tuple(logits.shape)}; this memory has keys of "
                f"{memory.dim} and {memory.n_outputs} tokens, and each row has one of both"
            )
        return keys, DenseLogits(logits.dense()) if isinstance(logits, HeadLogits) else logits

    def _changes(self, keys: Tensor, asked: Tensor | None, exclude_ids) -> Iterator[tuple[Tensor | slice, Change]]:
        """Rows of the text and their change: searched many at a time, read as many as stay in a core's cache."""
        reader = self.reader
        each = reader.memory.n_outputs if (c := reader.entries_per_neighbour) is None else reader.k * c
        step = rows_at_once(each, keys.device, ENTRIES)
        for start in range(0, len(keys) if asked is None else len(asked), QUERIES):
            rows = slice(start, start + QUERIES) if asked is None else asked[start : start + QUERIES]
            excluded = None if exclude_ids is None else exclude_ids[_on(rows, "cpu")]
            near = reader.memory.search(keys[rows], reader.k, excluded)
            for first in range(0, len(near), step):
                change = reader.change(near[first : first + step])
                end = first + len(change.rows)
                yield (slice(start + first, start + end) if asked is None else rows[first:end]), change

    def _dense(self, keys: Tensor, base: Softmax, asked: Tensor | None, exclude_ids) -> TokenProbabilities:
        """For values that are as wide as the vocabulary: the probabilities themselves stand for the model's logits."""
        reader, device = self.reader, base.partition.device
        out = base.log_probabilities()
        for rows, change in self._changes(keys, asked, exclude_ids):
            own = reader.base(base.logits.rows(_on(rows, device))).to(keys.device)
            read = reader.probabilities(change.apply(own), own)
            out[_on(rows, device)] = read.clamp_min_(TINY).log_().to(device)
        return TokenProbabilities.of(Softmax(DenseLogits(out)))


Block = tuple[Tensor, Tensor, Tensor, Tensor | None]  # scale, ids, values, floor, as TokenProbabilities has them


def _proper(base: Softmax, rows: Tensor | slice, change: Change, reader: Reader) -> Block:
    """p ∝ max(score, epsilon * p_T) of the rows `rows` of the base, without looking at tokens that have no entry.

    Those score ``scale * p_T``, so their sum is known from that of the entries' p_T.
    """
    device = base.partition.device
    ids, values = (part.to(device) for part in change.entries())
    scale, epsilon = change.scale.to(device), reader.floor
    if not reader.signed and bool((scale >= epsilon).all()):  # as it is: positive, and a sum of 1
        return scale, ids, values, None
    ids, values = merge(ids, values)
    own = base.log_prob(ids.clamp_min(0), rows).exp_().masked_fill_(ids < 0, 0)
    left, least = scale.clamp_min(epsilon), epsilon * own
    score = torch.addcmul(values, scale, own)
    added = torch.maximum(score, least).addcmul_(left, own, value=-1)
    total = left + added.sum(dim=1, keepdim=True)
    if not reader.signed:
        return left / total, ids, added / total, None
    # A token on the floor is put a little below it, so that the floor decides, and no rounding.
    added = torch.where(score <= least, own * left * -(1 + 2**-20), added)
    return left / total, ids, added / total, (epsilon / total).expand_as(left)


def _joined(base: Softmax, blocks: Iterator[tuple[Tensor | slice, Block]]) -> TokenProbabilities:
    """One object from the blocks; rows that are in none are the base's."""
    said = TokenProbabilities.of(base)
    scale, ids, values, floor = said.scale, said.ids, said.values, None
    for rows, (own_scale, own_ids, own_values, own_floor) in blocks:
        width = own_ids.shape[1]
        if width > ids.shape[1]:
            ids, values = (pad(all_, (0, width - ids.shape[1]), value=none) for all_, none in ((ids, -1), (values, 0)))
        scale[rows], ids[rows, :width], values[rows, :width] = own_scale, own_ids, own_values
        if own_floor is not None:
            floor = torch.zeros_like(scale) if floor is None else floor
            floor[rows] = own_floor
    return TokenProbabilities(base, scale, ids, values, floor)


def _on(rows: Tensor | slice, device) -> Tensor | slice:
    return rows if isinstance(rows, slice) else rows.to(device)


def int_array(values, name: str, rows: int) -> np.ndarray:
    """`values` as int64 (rows,), or a ``ShapeError`` that names them."""
    array = as_tensor(values).cpu().numpy()
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise ShapeError(f"{name} are {array.dtype} of shape {array.shape}; expected integers of shape ({rows},)")
    return array.astype(np.int64, copy=False)
