"""What a text said before: each document's recent keys and tokens, and how they are weighed by inner product."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from residua.core.arrays import Array
from residua.core.logits import as_tensor
from residua.core.prediction import LabelValues, Term
from residua.errors import ShapeError
from residua.readers.reader import TextState, text_error

ROWS = 256  # rows compared at a time: they share their candidates, so that one matrix product serves them all


def likeness(keys: Tensor, first: int, last: int, window: int) -> tuple[int, Tensor]:
    """The first row c0 of a document that is compared with its rows `first` to `last`, and their inner products (b, c).

    Rows that do not come before, or are more than `window` back, are -inf. (arXiv 1612.04426, eq. 3.)
    """
    begin = max(0, first - window)
    rows = torch.arange(first, last, device=keys.device)[:, None]
    before = torch.arange(begin, max(last - 1, begin), device=keys.device)
    hidden = (before >= rows) | (before < rows - window)
    return begin, (keys[first:last] @ keys[begin : begin + len(before)].T).masked_fill_(hidden, -torch.inf)


class CacheState:
    """The last `window` rows of each document that may go on, for one run over texts.

    A document that another one follows within a call of ``look_back`` is complete, and let go. `theta` multiplies inner
    products; `under` is the state of the reader that the cache is over.
    """

    window: int
    theta: float
    device: torch.device
    under: TextState | None

    def __init__(self, window: int, theta: float, device: torch.device, under: TextState | None = None):
        self.window, self.theta, self.device, self.under = window, theta, device, under
        self._past: dict[int, tuple[Tensor, Tensor]] = {}  # document: keys (n, d) and the tokens after them (n,)

    def look_back(self, keys: Tensor, documents: Array | None, tokens: Array | None = None) -> Term:
        """What was said before each row, as a term whose weights sum to 1 (to 0 where nothing was).

        Keys are float32 (q, d); documents int (q,), rows of one in order; tokens int (q,) what really comes next, which
        later rows then look back at. Without them each row is the end of its document so far, until ``remember`` says
        how it went on.
        """
        keys = keys.to(self.device)
        if tokens is None:
            names = int_array(documents, "documents", len(keys)).tolist()
            return _joined([self._now(key, name) for key, name in zip(keys, names)], self.device)
        stretches = self.stretches(keys, documents, tokens)
        return _joined([entry for stretch in stretches for entry in self._weighed(*stretch)], self.device)

    def stretches(
        self, keys: Tensor, documents: Array | None, tokens: Array | None
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Each stretch of one document: its keys and tokens after those of it that are kept, and how many these are.

        What was kept of it is let go; of the last one, which may go on, the newest rows are kept.
        """
        runs = self._runs(keys, documents, tokens)
        for number, (document, own_keys, own_tokens) in enumerate(runs):
            old_keys, old_tokens = self._past.pop(document, (own_keys[:0], own_tokens[:0]))
            all_keys, all_tokens = torch.cat([old_keys, own_keys]), torch.cat([old_tokens, own_tokens])
            if number == len(runs) - 1:
                self._keep(document, all_keys, all_tokens)
            yield all_keys, all_tokens, len(old_keys)

    def remember(self, keys: Tensor, tokens: Array, documents: Array) -> None:
        """What really came after rows that were read: keys (q, d), tokens (q,), documents (q,), in order."""
        if self.under is not None:
            self.under.remember(keys, tokens, documents)
        for document, own_keys, own_tokens in self._runs(as_tensor(keys, torch.float32), documents, tokens):
            old_keys, old_tokens = self._past.get(document, (own_keys[:0], own_tokens[:0]))
            self._keep(document, torch.cat([old_keys, own_keys]), torch.cat([old_tokens, own_tokens]))

    def _runs(self, keys: Tensor, documents: Array | None, tokens: Array | None) -> list[tuple[int, Tensor, Tensor]]:
        """(document, keys, tokens) of each stretch of one document."""
        names = int_array(documents, "documents", len(keys))
        words = torch.from_numpy(int_array(tokens, "tokens", len(keys))).to(self.device)
        keys = keys.to(self.device)
        edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
        return [(int(names[a]), keys[a:b], words[a:b]) for a, b in pairwise(edges) if a < b]

    def _keep(self, document: int, keys: Tensor, tokens: Tensor) -> None:
        if len(keys):
            last = slice(-self.window, None)
            self._past[document] = keys[last].clone(), tokens[last].clone()  # copies: what went before is let go

    def _now(self, key: Tensor, document: int) -> tuple[Tensor, Tensor]:
        if document not in self._past:
            return key[:0].long(), key.new_zeros(1, 0)
        keys, tokens = self._past[document]
        return tokens, torch.softmax(self.theta * (keys @ key), dim=0)[None]

    def _weighed(self, keys: Tensor, tokens: Tensor, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Distinct tokens (c,) and weights (b, c) of the rows from `first` on, some rows at a time."""
        for start in range(first, len(keys), ROWS):
            stop = min(start + ROWS, len(keys))
            begin, alike = likeness(keys, start, stop, self.window)
            # A document's first row has nothing before it.
            weights = torch.softmax(alike.mul_(self.theta), dim=1).nan_to_num_(0.0)
            once, which = tokens[begin : begin + alike.shape[1]].unique(return_inverse=True)
            yield once, weights.new_zeros(len(weights), len(once)).index_add_(1, which, weights)


def _joined(entries: list[tuple[Tensor, Tensor]], device: torch.device) -> Term:
    """One term of several blocks of rows, each with its own tokens (c,) and weights (b, c)."""
    count, width = sum(len(weights) for _, weights in entries), max((len(tokens) for tokens, _ in entries), default=0)
    rows = torch.full((count, width), -1, device=device)
    weights = torch.zeros(count, width, device=device)
    start = known = 0
    for tokens, own in entries:
        block = slice(start, start + len(own)), slice(0, len(tokens))
        rows[block] = torch.arange(known, known + len(tokens), device=device)
        weights[block] = own
        start, known = start + len(own), known + len(tokens)
    tokens = torch.cat([tokens for tokens, _ in entries]) if entries else rows.new_empty(0)
    # Where nobody has a past there is no token at all, and a row number must still name one.
    return Term(rows, weights, LabelValues(tokens if len(tokens) else rows.new_zeros(1)), source="past")


def int_array(values: Array | None, name: str, rows: int) -> np.ndarray:
    """`values` as int64 (rows,), or an error that names them."""
    if values is None:
        raise text_error("ContinuousCache", "ids" if name == "documents" else "labels")
    array = as_tensor(values).cpu().numpy()
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise ShapeError(f"{name} are {array.dtype} of shape {array.shape}; expected integers of shape ({rows},)")
    return array.astype(np.int64, copy=False)
