"""For a reader that looks back while text is generated: the text so far, kept from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from residua.errors import ParameterError
from residua.readers import Reader
from residua.readers.reader import TextState


class History:
    """The state of a reader that looks back, over the sequences of one ``generate`` call, each a document.

    The token after a position is known one step later, so the newest key of each sequence waits for it.
    """

    def __init__(self):
        self._reader: Reader | None = None
        self._state: TextState | None = None
        self._waiting: list[Tensor | None] = []  # of each sequence, its newest key

    def corrected(
        self,
        reader: Reader,
        fresh: TextState,
        answer: Callable[..., Tensor],
        keys: Tensor,
        logits: Tensor,
        mask: Tensor,
        tokens: Tensor | None,
        past: Any,
    ) -> Tensor:
        """Logits float32 (b, s, V) of the last s positions, those given where the mask is not set.

        `fresh` is ``reader.start()``, for a text that begins; `answer` is ``Correction.answer``. Keys (b, t, d), mask
        and tokens (b, t) are what the model read, and `past` its transformers cache: None where every call is a whole
        text.
        """
        if tokens is None:
            raise ParameterError(
                "a ContinuousCache needs the tokens, and the model was called with inputs_embeds (or "
                "decoder_inputs_embeds): pass input_ids (or decoder_input_ids)"
            )
        if (
            self._state is None
            or reader is not self._reader
            or past is None
            or past.get_seq_length() <= tokens.shape[1]
        ):
            self._reader, self._state, self._waiting = reader, fresh, [None] * len(tokens)
        if past is not None:
            past.reorder_cache = past.crop = _refuse
        state, device, last = self._state, reader.memory.device, logits.shape[1]
        changed = logits.to(torch.float32, copy=True)
        for row, waiting in enumerate(self._waiting):
            held = mask[row]
            own, seen = keys[row][held].float().to(device), tokens[row].to(held.device)[held].to(device)
            # Token i + 1 came after key i: with the key that waits there are as many of both, without one more key.
            own, seen = (own, seen[1:]) if waiting is None else (torch.cat([waiting, own]), seen)
            self._waiting[row] = own[-1:] if len(own) else None
            where = held[-last:].nonzero()[:, 0].to(logits.device)
            early = max(len(own) - len(where), 0)
            document = torch.tensor([row], device=device).expand(len(own))
            state.remember(own[:early], seen[:early], document[:early])
            if len(where) > 1:  # teacher forcing: each position may look at those before it
                known = {"state": state, "documents": document[early:-1], "tokens": seen[early:]}
                changed[row, where[:-1]] = answer(own[early:-1], changed[row, where[:-1]], **known)
            if len(where):
                newest = {"state": state, "documents": document[-1:]}
                changed[row, where[-1:]] = answer(own[-1:], changed[row, where[-1:]], **newest)
        return changed


def _refuse(*_: object, **__: object) -> NoReturn:
    """In place of what reorders or cuts the past."""
    raise ParameterError(
        "a ContinuousCache remembers one text as it grows, and this decoding strategy rewrites it (beam search, "
        "assisted decoding); decode greedily or sample, or attach the reader it is over"
    )
