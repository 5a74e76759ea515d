"""What a text said before: each document's recent keys and tokens, weighed by inner product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from residua.core import Array, LabelValues, Term, as_tensor
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


@dataclass(eq=False)
class CacheState:
    """The last `window` rows of each document that may go on, for one run over texts.

    A document that another one follows within a call of ``look_back`` is complete, and let go. `under` is the state of
    the reader that the cache is over.
    """

    window: int
    thetas: tuple[float, ...]  # each a way to weigh the same rows
    device: torch.device
    under: TextState | None = None
    # document: keys (n, d) and the tokens after them (n,)
    _past: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False)

    def look_back(self, keys: Tensor, documents: Array | None, tokens: Array | None = None) -> tuple[Term, ...]:
        """What was said before each row, as a term for each theta, whose weights sum to 1 (to 0 where nothing was).

        Keys are float32 (q, d); documents int (q,), rows of one in order; tokens int (q,) what really comes next.
        Without tokens each row is the end of its document so far, until ``remember`` says how it went on.
        """
        keys = keys.to(self.device, torch.float32)
        if tokens is None:
            names = int_array(documents, "documents", len(keys)).tolist()
            return self._joined([self._now(key, name) for key, name in zip(keys, names)])
        stretches = self.stretches(keys, documents, tokens)
        return self._joined([entry for stretch in stretches for entry in self._weighed(*stretch)])

    def stretches(
        self, keys: Tensor, documents: Array | None, tokens: Array | None
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Each stretch of one document: its keys and tokens after those that were kept, and how many these are.

        Of the last one, which may go on, the newest rows are kept.
        """
        runs = self._runs(keys, documents, tokens)
        for number, run in enumerate(runs, 1):
            stretch = self._continued(*run, keep=number == len(runs))
            yield *stretch, len(stretch[0]) - len(run[1])

    def remember(self, keys: Tensor, tokens: Array, documents: Array) -> None:
        if self.under is not None:
            self.under.remember(keys, tokens, documents)
        for run in self._runs(as_tensor(keys, torch.float32), documents, tokens):
            self._continued(*run)

    def _runs(self, keys: Tensor, documents: Array | None, tokens: Array | None) -> list[tuple[int, Tensor, Tensor]]:
        names = int_array(documents, "documents", len(keys))
        words = torch.from_numpy(int_array(tokens, "tokens", len(keys))).to(self.device)
        keys = keys.to(self.device, torch.float32)
        edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
        return [(int(names[a]), keys[a:b], words[a:b]) for a, b in pairwise(edges) if a < b]

    def _continued(self, document: int, keys: Tensor, tokens: Tensor, keep: bool = True) -> tuple[Tensor, Tensor]:
        """A stretch after what was kept of its document, which is let go; the newest rows of both are kept instead."""
        past = self._past.pop(document, (keys[:0], tokens[:0]))
        both = torch.cat([past[0], keys]), torch.cat([past[1], tokens])
        if keep:
            self._past[document] = both[0][-self.window :].clone(), both[1][-self.window :].clone()
        return both

    def _now(self, key: Tensor, document: int) -> tuple[Tensor, Tensor]:
        if document not in self._past:
            return key[:0].long(), key.new_zeros(len(self.thetas), 1, 0)
        keys, tokens = self._past[document]
        return tokens, torch.softmax(torch.outer(key.new_tensor(self.thetas), keys @ key), dim=1)[:, None]

    def _weighed(self, keys: Tensor, tokens: Tensor, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Distinct tokens (c,) and weights (thetas, b, c) of the rows from `first` on, some rows at a time."""
        for start in range(first, len(keys), ROWS):
            stop = min(start + ROWS, len(keys))
            begin, alike = likeness(keys, start, stop, self.window)
            once, which = tokens[begin : begin + alike.shape[1]].unique(return_inverse=True)
            # A document's first row has nothing before it.
            every = [torch.softmax(alike * theta, dim=1).nan_to_num_(0.0) for theta in self.thetas]
            yield (
                once,
                torch.stack(
                    [weights.new_zeros(len(weights), len(once)).index_add_(1, which, weights) for weights in every]
                ),
            )

    def _joined(self, entries: list[tuple[Tensor, Tensor]]) -> tuple[Term, ...]:
        """A term for each theta, of blocks of rows, each with its own tokens (c,) and weights (thetas, b, c)."""
        count = sum(weights.shape[1] for _, weights in entries)
        width = max((len(tokens) for tokens, _ in entries), default=0)
        rows = torch.full((count, width), -1, device=self.device)
        weights = torch.zeros(len(self.thetas), count, width, device=self.device)
        start = known = 0
        for tokens, own in entries:
            block = slice(start, start + own.shape[1]), slice(0, len(tokens))
            rows[block] = torch.arange(known, known + len(tokens), device=self.device)
            weights[:, *block] = own
            start, known = start + own.shape[1], known + len(tokens)
        # Where nobody has a past a row number must still name a token: the last, which no one said.
        values = LabelValues(torch.cat([*(tokens for tokens, _ in entries), rows.new_zeros(1)]))
        return tuple(Term(rows, each, values, source="past") for each in weights)


def int_array(values: Array | None, name: str, rows: int) -> np.ndarray:
    """`values` as int64 (rows,)."""
    if values is None:
        raise text_error("ContinuousCache", "ids" if name == "documents" else "labels")
    array = as_tensor(values).cpu().numpy()
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise ShapeError(f"{name} are {array.dtype} of shape {array.shape}; expected integers of shape ({rows},)")
    return array.astype(np.int64, copy=False)
