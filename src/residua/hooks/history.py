"""What a reader that looks back needs while text is generated: the text so far, kept from one step to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from residua.core import DenseLogits
from residua.errors import ParameterError
from residua.readers import Reader


class History:
    """The stream of a stateful reader (``ContinuousCache``) over the sequences of one ``generate`` call.

    A sequence is a document of the stream. The token after a position is known one step later, so the newest key of
    each sequence waits for it.
    """

    def __init__(self):
        self._reader = self._stream = self._waiting = None

    def changed(
        self, reader: Reader, keys: Tensor, said: Tensor, mask: Tensor, tokens: Tensor | None, output
    ) -> Tensor:
        """Log-probabilities float32 (b, t, V) where the mask is set; see ``TokenCorrection``. `tokens` (b, t) are those
        that the model read."""
        if tokens is None:
            raise ParameterError(
                "a ContinuousCache needs the tokens, and the model was called with inputs_embeds (or "
                "decoder_inputs_embeds): pass input_ids (or decoder_input_ids)"
            )
        past = getattr(output, "past_key_values", None)
        if reader is not self._reader or past is None or past.get_seq_length() <= tokens.shape[1]:
            self._reader, self._stream, self._waiting = reader, reader.stream(), None
        if past is not None:
            _forbid_rewriting(past)
        device, count = reader.memory.device, said.shape[1]
        changed = said.to(torch.float32, copy=True)
        waiting: list = []
        for row in range(len(tokens)):
            held = mask[row]
            own, seen = keys[row][held].float().to(device), tokens[row][held].to(device)
            if self._waiting is not None and self._waiting[row] is not None:
                own, seen = torch.cat([self._waiting[row], own]), seen
            else:
                seen = seen[1:]
            waiting.append(own[-1:] if len(own) else None)
            answered = int(held[-count:].sum())
            early = max(len(own) - answered, 0)
            document = torch.tensor([row], device=device)
            self._stream.remember(own[:early], seen[:early], document.expand(early))
            where = held[-count:].nonzero()[:, 0].to(said.device)
            logits = said[row, where]
            if answered > 1:  # teacher forcing: each position may look at those before it
                read = self._stream.score(
                    own[early:-1],
                    DenseLogits(logits[:-1]),
                    documents=document.expand(answered - 1),
                    tokens=seen[early:],
                )
                changed[row, where[:-1]] = read.log_probabilities().to(changed.device)
            if answered:
                read = self._stream.read(own[-1:], DenseLogits(logits[-1:]), document)
                changed[row, where[-1:]] = read.log_probabilities().to(changed.device)
        self._waiting = waiting
        return changed


def _forbid_rewriting(past) -> None:
    """Beam search and assisted decoding reorder or cut the past, and the history cannot follow."""

    def refuse(*_, **__):
        raise ParameterError(
            "a ContinuousCache remembers one text as it grows, and this decoding strategy rewrites it (beam search, "
            "assisted decoding); decode greedily or sample, or attach the reader it is over"
        )

    past.reorder_cache = past.crop = refuse
