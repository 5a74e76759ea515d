"""Any encoder-decoder model and pairs of texts become batches of ``Encoded``, one row per target token.

The memory of kNN-MT (Khandelwal et al. 2021, arXiv 2010.00710): keys are the decoder's states, on the whole source and
the target so far; labels are the target's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residua.caution import warn
from residua.encoding.decoder import IGNORED, decoder_inputs, has_decoder
from residua.encoding.language_model import LanguageEncoder, padded, position_limit
from residua.encoding.options import Text, Texts, Tokenizer
from residua.encoding.text import document_id, encode_texts, report_empty, utf8_bytes
from residua.encoding.text_pairs import text_pairs
from residua.encoding.windows import WINDOW, TokenBatch, Window
from residua.errors import EncodeError, InputError, ParameterError

_AT_ONCE = 256  # pairs per call of the tokenizer


class PairEncoder(LanguageEncoder):
    """An encoder-decoder language model (T5, BART, ...) and its tokenizer, ready to turn pairs into rows.

    A row is one target token, the closing eos and a language's code included (an eos is added to a target that has
    none): its key is the decoder's state before it, its id the pair's (a hash of it), its column ``"offset"`` its place
    in the target. Sources and targets of more than `max_source` and `max_target` tokens, by default the model's own
    limits and 1024 at most, are cut, and counted in a warning.
    """

    max_source: int
    max_target: int
    cut: dict[str, Any]
    reading: tuple[str, ...] = ("source_column", "target_column", "errors")

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        key: str = "ffn",
        max_source: int | None = None,
        max_target: int | None = None,
        logits: bool = True,
    ):
        reads_text = getattr(model, "main_input_name", None) == "input_ids"  # Whisper hears, Donut sees
        if not (has_decoder(model) and reads_text):
            kind = type(model).__name__
            raise EncodeError(f"the model is a {kind}; expected a transformers encoder-decoder of texts, such as T5")
        own_encoder: Any = model.get_encoder  # its limit may be another than the decoder's
        self.max_source = _length("max_source", max_source, position_limit(own_encoder()))
        self.max_target = _length("max_target", max_target, position_limit(model))
        self.cut = {"window": self.max_source}
        if self.max_target != self.max_source:
            self.cut["max_target"] = self.max_target
        super().__init__(model, tokenizer, key=key, logits=logits)

    def last_row(self, text: Text) -> TokenBatch:
        (batch,) = self.batches([text])  # the row of the closing token comes after the target
        return batch

    def prompt(self, text: Text) -> dict[str, Tensor]:
        if not isinstance(text, str) or not text:
            raise InputError(f"text={text!r}; expected a source, a str")
        inputs = torch.tensor(encode_texts(self.tokenizer, [text], add_special_tokens=True), device=self.device)
        return {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}

    def _windows(self, texts: Texts, **reading: Any) -> Iterator[Window]:
        number = empty = cut = 0
        end = getattr(self.tokenizer, "eos_token_id", None)
        if getattr(self.tokenizer, "tgt_lang", "") is None:
            marked = f"targets are marked as {getattr(self.tokenizer, 'src_lang', None)!r}, the sources' language"
            lacks = f"the tokenizer does not know the targets' language, so {marked}: set tokenizer.tgt_lang"
            warn(lacks)
        pairs = text_pairs(texts, **reading)
        while group := list(islice(pairs, _AT_ONCE)):
            sources = encode_texts(self.tokenizer, [source for source, _ in group], add_special_tokens=True)
            targets = self.tokenizer(text_target=[target for _, target in group], verbose=False)["input_ids"]
            # mBART's tokenizer puts the language's code after the eos.
            targets = [[*one, end] if end is not None and end not in one[-2:] else one for one in targets]
            for (source_text, target_text), whole_source, whole_target in zip(group, sources, targets):
                if source_text and target_text:
                    whole = len(whole_target) <= self.max_target
                    cut += len(whole_source) > self.max_source or not whole
                    source, target = _cut(whole_source, self.max_source, end), _cut(whole_target, self.max_target, end)
                    self._check_tokens(source, f"the source of pair {number}", self._sources)
                    self._check_tokens(target, f"the target of pair {number}")
                    document = document_id(source, target)
                    self.names.give(document, str(number))
                    if whole:
                        self.sizes[document] = utf8_bytes(target_text)
                    yield Window(document, target, 0, 0, target, source)
                else:
                    empty += 1
                number += 1
        report_empty(empty, number)
        if cut:
            to = f"{self.max_source} source and {self.max_target} target tokens"
            warn(f"{cut} of {number} pairs were cut to {to}")

    @property
    def _sources(self) -> int:
        """How many tokens the encoder knows."""
        return self.model.get_input_embeddings().weight.shape[0]

    def _probe(self) -> list[Window]:
        tokens = np.arange(min(8, self.max_source, self.max_target)) % self._sources
        # A source of another length: a key module in the encoder, which gives a vector per source token, is noticed.
        return [Window(0, tokens, 0, 0, tokens, tokens[1:])]

    def _inputs(self, windows: list[Window]) -> tuple[dict[str, Tensor], int]:
        fill = getattr(self.tokenizer, "pad_token_id", None) or 0
        source, mask = padded([window.source for window in windows if window.source is not None], fill, self.device)
        labels, _ = padded([window.targets for window in windows], IGNORED, self.device)
        inputs = {"input_ids": source, "decoder_input_ids": decoder_inputs(self.model, labels)}
        return inputs if mask is None else {**inputs, "attention_mask": mask}, labels.shape[1]


def _cut(tokens: list[int], length: int, end: int | None) -> np.ndarray:
    # What closes the text stays: its last token, and an eos before that.
    closing = 2 if end is not None and tokens[-2:-1] == [end] else 1
    kept = tokens if len(tokens) <= length else [*tokens[: length - closing], *tokens[-closing:]]
    return np.asarray(kept, dtype=np.int64)


def _length(name: str, value: int | None, limit: int | None) -> int:
    if value is None:
        return min(limit or WINDOW, WINDOW)
    if not isinstance(value, (int, np.integer)) or not 2 <= value <= (limit or value):
        raise ParameterError(f"{name}={value!r}; expected 2 to {limit or 'any number of'} tokens")
    return int(value)
