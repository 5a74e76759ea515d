"""What a text said before: each document's recent keys and tokens, and how they are weighed by inner product."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from residua.core import Logits, TokenProbabilities
from residua.core.logits import as_tensor
from residua.errors import ParameterError
from residua.readers.tokens import Stream, int_array

if TYPE_CHECKING:
    from residua.readers.cache import ContinuousCache

ROWS = 256  # rows weighed at a time: they share their candidates, so that one matrix product serves them all


class PastStream(Stream):
    """The stream of a ``ContinuousCache``. It holds the last `window` rows of each document that may go on; one that
    another follows within a call of ``score`` is complete, and let go."""

    def __init__(self, reader: ContinuousCache):
        super().__init__(reader)
        self._inner = reader.over.stream()
        self._past: dict[int, tuple[Tensor, Tensor]] = {}  # document: keys (n, d) and the tokens after them (n,)

    def score(self, keys, logits: Logits, *, documents=None, tokens=None, exclude_ids=None) -> TokenProbabilities:
        if documents is None or tokens is None:
            raise ParameterError(
                "a ContinuousCache looks back at the same text: give the document of each row and the token that came "
                "next, score(keys, logits, documents=..., tokens=...)"
            )
        keys, logits = self._checked(keys, logits)
        said = self._inner.score(keys, logits, documents=documents, tokens=tokens, exclude_ids=exclude_ids)
        keys, runs, tokens = self._rows(keys, tokens, documents)
        entries = []
        for number, (document, run) in enumerate(runs):
            old_keys, old_tokens = self._past.pop(document, (keys[:0], tokens[:0]))
            own_keys, own_tokens = torch.cat([old_keys, keys[run]]), torch.cat([old_tokens, tokens[run]])
            entries.extend(self._cached(own_keys, own_tokens, len(old_keys)))
            if number == len(runs) - 1:
                self._keep(document, own_keys, own_tokens)
        return self._mixed(said, entries)

    def read(self, keys, logits: Logits, documents=None) -> TokenProbabilities:
        if documents is None:
            raise ParameterError("a ContinuousCache looks back at the same text: read(keys, logits, documents)")
        keys, logits = self._checked(keys, logits)
        said = self._inner.read(keys, logits, documents)
        keys, entries = keys.to(self.reader.memory.device), []
        for row, document in enumerate(int_array(documents, "documents", len(keys)).tolist()):
            own_keys, own_tokens = self._past.get(document, (keys[:0], None))
            if len(own_keys):
                weights = torch.softmax(self.reader.theta * (own_keys @ keys[row]), dim=0)
                entries.append((own_tokens[None], weights[None]))
            else:
                entries.append(_nothing(1, keys.device))
        return self._mixed(said, entries)

    def remember(self, keys, tokens, documents) -> None:
        self._inner.remember(keys, tokens, documents)
        keys, runs, tokens = self._rows(as_tensor(keys, torch.float32), tokens, documents)
        for document, run in runs:
            old_keys, old_tokens = self._past.get(document, (keys[:0], tokens[:0]))
            self._keep(document, torch.cat([old_keys, keys[run]]), torch.cat([old_tokens, tokens[run]]))

    # --- inside -----------------------------------------------------------------------------------------------

    def _rows(self, keys: Tensor, tokens, documents) -> tuple[Tensor, list[tuple[int, slice]], Tensor]:
        """Keys, the rows of each document in turn, and tokens, on the memory's device."""
        names = int_array(documents, "documents", len(keys))
        tokens = torch.from_numpy(int_array(tokens, "tokens", len(keys)))
        edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
        runs = [(int(names[a]), slice(a, b)) for a, b in pairwise(edges) if a < b]
        device = self.reader.memory.device
        return keys.to(device), runs, tokens.to(device)

    def _keep(self, document: int, keys: Tensor, tokens: Tensor) -> None:
        if len(keys):
            last = slice(-self.reader.window, None)
            self._past[document] = keys[last].clone(), tokens[last].clone()  # copies: what went before is let go

    def _cached(self, keys: Tensor, tokens: Tensor, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """p_cache of the rows from `first` on, as (ids (b, c), values (b, c)), some rows at a time."""
        window = self.reader.window
        for start in range(first, len(keys), ROWS):
            stop = min(start + ROWS, len(keys))
            rows = torch.arange(start, stop, device=keys.device)[:, None]
            low, high = max(0, start - window), stop - 1
            if high == low:
                yield _nothing(len(rows), keys.device)
                continue
            before = torch.arange(low, high, device=keys.device)
            hidden = (before >= rows) | (before < rows - window)
            likeness = (keys[start:stop] @ keys[low:high].T).mul_(self.reader.theta).masked_fill_(hidden, -torch.inf)
            weights = torch.softmax(likeness, dim=1).nan_to_num_(0.0)  # a document's first row has nothing before it
            once, which = tokens[low:high].unique(return_inverse=True)
            values = weights.new_zeros(len(rows), len(once)).index_add_(1, which, weights)
            yield once.expand(values.shape), values

    def _mixed(self, said: TokenProbabilities, entries: list[tuple[Tensor, Tensor]]) -> TokenProbabilities:
        if not entries:
            return said
        device = said.scale.device
        ids, values = (part.to(device) for part in _padded(entries))
        share = (values.sum(dim=1, keepdim=True) > 0) * self.reader.lmbda
        return said.mix(share, ids, values)


def _nothing(rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.empty(rows, 0, dtype=torch.int64, device=device), torch.empty(rows, 0, device=device)


def _padded(entries: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Ids and values (b, c) of several blocks below each other; -1 and 0 where a block has fewer than the widest."""
    rows, width = sum(len(ids) for ids, _ in entries), max(ids.shape[1] for ids, _ in entries)
    all_ids, all_values = entries[0][0].new_full((rows, width), -1), entries[0][1].new_zeros(rows, width)
    start = 0
    for ids, values in entries:
        all_ids[start : start + len(ids), : ids.shape[1]] = ids
        all_values[start : start + len(ids), : ids.shape[1]] = values
        start += len(ids)
    return all_ids, all_values
