"""Any causal language model and any texts become batches of ``Encoded``, one row per token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residua.caution import warn
from residua.encoding.documents import Reading, is_conversation
from residua.encoding.language_model import LanguageEncoder, padded, position_limit
from residua.encoding.options import Text, Texts, Tokenizer
from residua.encoding.text import Document, bos_token, documents, encode_prompts, eos_token
from residua.encoding.torch import frozen
from residua.encoding.windows import TokenBatch, Window, Windowing, windows
from residua.errors import EncodeError, InputError, ParameterError

AHEAD = 0.05  # of the logits' length: what a token may change before it, by the steps of 8-bit numbers it shares


def windowing_of(
    tokenizer: Tokenizer,
    known: dict[str, Any],
    *,
    end_of_text: bool | None = None,
    split_special_tokens: bool | None = None,
) -> dict[str, Any]:
    """The tokens around a document, and how it is read: as `known` of a memory, else as is usual.

    A memory that says nothing of the end of a text, or of special tokens in it, was built without that choice.
    """
    suffix = known.get("suffix") if known else eos_token(tokenizer)
    if end_of_text is not None:
        suffix = eos_token(tokenizer) if end_of_text else None
    if split_special_tokens is None:
        split_special_tokens = bool(known.get("split_special_tokens")) if known else True
    prefix = known.get("prefix", bos_token(tokenizer))
    return {"prefix": prefix, "suffix": suffix, "split_special_tokens": split_special_tokens}


class TextEncoder(LanguageEncoder):
    """A causal language model and its tokenizer, ready to turn any texts into keys, logits and next tokens; by default
    in windows of the model's own length, with the tokenizer's bos (else eos) as prefix, and its eos as suffix."""

    windowing: Windowing
    cut: dict[str, Any]
    reading: tuple[str, ...] = tuple(field.name for field in fields(Reading))

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        key: str = "ffn",
        windowing: Windowing | None = None,
        logits: bool = True,
    ):
        limit = position_limit(model)
        self.windowing = windowing or Windowing.of(limit=limit, **windowing_of(tokenizer, {}))
        if limit is not None and self.windowing.window > limit:
            raise ParameterError(f"windows of {self.windowing.window} tokens, and the model has {limit} positions")
        self.cut = asdict(self.windowing)
        super().__init__(model, tokenizer, key=key, logits=logits)
        self._check_causal()
        if self.windowing.prefix is not None:
            self._check_tokens(np.array([self.windowing.prefix]), "the prefix")

    def last_row(self, text: Text) -> TokenBatch:
        # The next token is not known: any will do as the target of the last position.
        *_, last = windows(0, np.asarray([*self._prompt(text), 0]), replace(self.windowing, suffix=None))
        return TokenBatch([last])

    def prompt(self, text: Text) -> dict[str, Tensor]:
        tokens = self._prompt(text)
        prefix = [] if self.windowing.prefix in (None, *tokens[:1]) else [self.windowing.prefix]
        inputs = torch.tensor([[*prefix, *tokens]], device=self.device)
        return {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}

    def _prompt(self, text: Any) -> list[int]:
        if not (isinstance(text, str) and text) and not is_conversation(text):
            expected = "expected what comes before the predicted token: a str, or a list of messages"
            raise InputError(f"text={text!r}; {expected}")
        (tokens,) = encode_prompts(self.tokenizer, [text], self.windowing.split_special_tokens, answer=True)
        self._check_tokens(np.asarray(tokens), "the text")
        return tokens

    def documents(self, texts: Texts, **reading: Any) -> Iterator[Document]:
        """The texts' names, ids and tokens, in order, as they become rows."""
        split = self.windowing.split_special_tokens
        return documents(texts, self.tokenizer, Reading(**reading), split_special_tokens=split)

    def _windows(self, texts: Texts, **reading: Any) -> Iterator[Window]:
        read = short = 0
        for document in self.documents(texts, **reading):
            self._check_tokens(document.tokens, f"text {document.name!r}")
            self.names.give(document.id, document.name)
            if self.windowing.prefix is not None:  # else the first token is no row
                self.sizes[document.id] = document.size
            read += 1
            window = None
            for window in windows(document.id, document.tokens, self.windowing):
                yield window
            short += window is None
        if short:
            why = "have one token and none before it to predict it from (pass longer texts, or a prefix token)"
            if short == read:
                raise InputError(f"all {read} texts {why}")
            warn(f"{short} of {read} texts {why}; they were left out")

    def _check_causal(self) -> None:
        (first,) = self._probe()
        tokens = first.tokens.copy()
        tokens[-1] = tokens[0]
        with frozen(self.model):
            _, said = self._rows([first, Window(0, tokens, 0, 0, tokens)], logits=True)
        here, there = (part[:-1].float() for part in said.chunk(2))  # of all positions before the token that differs
        if bool(((here - there).norm(dim=1) > AHEAD * here.norm(dim=1)).any()):
            raise EncodeError(
                f"what this {type(self.model).__name__} says at a token depends on the tokens after it, which a memory "
                "would learn to copy; expected a causal language model: BERT and its kind are one with "
                "config.is_decoder=True, XLM with config.causal=True"
            )

    def _probe(self) -> list[Window]:
        tokens = np.arange(min(8, self.windowing.window)) % self.model.get_input_embeddings().weight.shape[0]
        return [Window(0, tokens, 0, 0, tokens)]

    def _inputs(self, windows: list[Window]) -> tuple[dict[str, Tensor], int]:
        fill = getattr(self.tokenizer, "pad_token_id", None) or 0  # masked: any token of the vocabulary will do
        tokens, mask = padded([window.tokens for window in windows], fill, self.device)
        inputs = {"input_ids": tokens} if mask is None else {"input_ids": tokens, "attention_mask": mask}
        return inputs, tokens.shape[1]
