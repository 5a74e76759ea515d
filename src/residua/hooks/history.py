"""For a reader that looks back while text is generated: the text so far, kept from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from residua.readers import Reader
from residua.readers.reader import TextState


class Text:
    """Sequences of one batch, each a document: what the model read at n positions, and its keys there.

    The token after a position is known one step later, so the newest key of each sequence waits for it.
    """

    def __init__(self, key: str | None):
        self.key = key  # the layer whose keys these are; None: of a text that is not known
        # Of each call, what the model read: keys (b, t, d), tokens (b, t), and a bool mask (b, t) that is not padding.
        self._calls: list[tuple[Tensor, ...]] = []
        self.touched = False  # whether the cache has moved on since, where it tells
        self._reader: Reader | None = None
        self._state: TextState | None = None  # the reader's own, of these calls; None: to be made from them
        self._waiting: list[Tensor | None] = []  # of each sequence, its newest key

    def __len__(self) -> int:
        return sum(tokens.shape[1] for _, tokens, _ in self._calls)

    @property
    def sequences(self) -> int:
        """b; 0 for a text that begins."""
        return len(self._calls[0][1]) if self._calls else 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_reader": None, "_state": None, "_waiting": []}  # a copy does not take a memory along

    def cut(self, length: int) -> None:
        """Keep the first `length` positions."""
        while (extra := len(self) - length) > 0:
            self._state = None
            last = self._calls.pop()
            if (left := last[1].shape[1] - extra) > 0:
                self._calls.append(tuple(part[:, :left] for part in last))

    def select(self, rows: Tensor) -> None:
        """Let sequence i be what sequence rows[i] was."""
        self._state = None
        self._calls = [tuple(part[rows.to(part.device)] for part in call) for call in self._calls]

    def repeat(self, times: int) -> None:
        """Let `times` sequences take the place of each."""
        self.select(torch.arange(self.sequences).repeat_interleave(times))

    def corrected(
        self,
        reader: Reader,
        fresh: TextState,
        answer: Callable[..., Tensor],
        keys: Tensor,
        logits: Tensor,
        mask: Tensor,
        tokens: Tensor,
    ) -> Tensor:
        """Logits float32 (b, s, V) of the last s positions, those given where the mask is not set.

        Keys (b, t, d), mask and tokens (b, t) are what the model read now; `fresh` is ``reader.start()``, for a text
        that begins, and `answer` is ``Correction.answer``.
        """
        if self._state is None or reader is not self._reader:
            self._recall(reader, fresh)
        # Should anything fail, the text is as long as it was, and its state is made anew.
        state, self._state, waiting = self._state or fresh, None, []
        last, changed = logits.shape[1], logits.to(torch.float32, copy=True)
        for row in range(len(tokens)):
            before = self._waiting[row] if self._waiting else None
            held = mask[row]
            own, seen, newest = _pairs(before, keys[row][held], tokens[row].to(held.device)[held], reader)
            waiting.append(newest)
            where = held[-last:].nonzero()[:, 0].to(logits.device)
            early = max(len(own) - len(where), 0)
            document = torch.full((len(own),), row, device=own.device)
            state.remember(own[:early], seen[:early], document[:early])
            if len(where) > 1:  # teacher forcing: each position may look at those before it
                known = {"state": state, "documents": document[early:-1], "tokens": seen[early:]}
                changed[row, where[:-1]] = answer(own[early:-1], changed[row, where[:-1]], **known)
            if len(where):
                now = {"state": state, "documents": document[-1:]}
                changed[row, where[-1:]] = answer(own[-1:], changed[row, where[-1:]], **now)
        self._calls.append((keys, tokens.clone(), mask.clone()))  # the caller may use its own again
        self._state, self._waiting, self.touched = state, waiting, False
        return changed

    def _recall(self, reader: Reader, fresh: TextState) -> None:
        """Tell a reader what was read before it came."""
        self._reader, self._state, self._waiting = reader, fresh, []
        if not self._calls:
            return
        keys, tokens, mask = (torch.cat(parts, dim=1) for parts in zip(*self._calls, strict=True))
        for row, held in enumerate(mask):
            own, seen, newest = _pairs(None, keys[row][held], tokens[row].to(held.device)[held], reader)
            fresh.remember(own[:-1], seen, torch.full((len(seen),), row, device=own.device))
            self._waiting.append(newest)


def _pairs(
    waiting: Tensor | None, keys: Tensor, tokens: Tensor, reader: Reader
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys (m + 1, d) of one sequence, the one that waited first, the tokens (m,) that came after all but the last, and
    the key that waits next (1, d)."""
    device = reader.memory.device
    keys, tokens = keys.float().to(device), tokens.to(device)
    if waiting is not None:
        keys = torch.cat([waiting, keys])
    elif len(tokens):
        tokens = tokens[1:]  # nothing waits for the first token of a text
    return keys, tokens, keys[-1:] if len(keys) else None
