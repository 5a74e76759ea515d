"""Any causal language model and any texts become batches of ``Encoded``, one row per token."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from residua.encoding.pairs import PairEncoder
from residua.encoding.text import documents, prefix_of
from residua.encoding.tokens import TokenEncoder, padded, position_limit
from residua.encoding.windows import TokenBatch, Window, Windowing, batched, windows
from residua.errors import InputError, ParameterError


class TextEncoder(TokenEncoder):
    """A causal language model and its tokenizer, ready to turn texts into keys, logits and next tokens.

    A row is one token of a document: its key is the model's state on the tokens before it, its label the token
    itself, its id the document's (a hash of it), and its column ``"offset"`` its place in the document.

    Parameters
    ----------
    model : transformers causal language model
        On any device, in any floating dtype.
    tokenizer : transformers tokenizer
        The one it was trained with.
    key : str, default "ffn"
        ``"ffn"``, where the last block's feed-forward network begins (see ``ffn_key``), or, when there is none,
        the head's input, and the log says so; ``"head"``, the LM head's input; or any module's dotted name, alone
        for its output, with ``:input`` for its input.
    windowing : Windowing, optional
        By default windows of the model's own length, 1024 tokens at most, a stride of three quarters of it, and the
        tokenizer's bos (else eos) token before each document.
    logits : bool, default True
        False leaves the head out: rows then have ``AbsentLogits``, enough for a memory of labels.

    Raises
    ------
    EncodeError, KeyModuleError
        Not a model with a language-modelling head, or no such key module.
    ParameterError
        Windows longer than the model allows.

    Examples
    --------
    >>> import torch
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> class Letters:
    ...     bos_token_id = 0
    ...     def __call__(self, texts, **options):
    ...         return {"input_ids": [[ord(letter) for letter in text] for text in texts]}
    ...     def get_vocab(self):
    ...         return {chr(i): i for i in range(128)}
    >>> sizes = {"vocab_size": 128, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}
    >>> small = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    >>> encoder = TextEncoder(GPT2LMHeadModel(small), Letters())
    >>> encoder.key, encoder.windowing
    ('transformer.h.0.mlp.c_fc:input', Windowing(window=16, stride=12, prefix=0))
    >>> with encoder:
    ...     for batch in encoder.batches(["def f(x):", "import os"]):
    ...         print(encoder.encode(batch), batch.offsets.tolist()[7:11], len(set(batch.ids)))
    Encoded(18 rows, keys of 8, 128 outputs, classification) [7, 8, 0, 1] 2
    """

    def __init__(self, model, tokenizer, *, key: str = "ffn", windowing: Windowing | None = None, logits: bool = True):
        limit = position_limit(model) if hasattr(model, "config") else None
        self.windowing = windowing or Windowing.of(prefix=prefix_of(tokenizer), limit=limit)
        if limit is not None and self.windowing.window > limit:
            raise ParameterError(f"windows of {self.windowing.window} tokens, and the model has {limit} positions")
        super().__init__(model, tokenizer, key=key, logits=logits)
        if self.windowing.prefix is not None:
            self._check_tokens(np.array([self.windowing.prefix]), "the prefix")

    def batches(self, texts, batch_size: int = 16, **options) -> Iterator[TokenBatch]:
        """Texts as batches of `batch_size` windows, read lazily; no model runs.

        `texts` and `options` are those of ``documents``: texts, pairs (name, text), dataset rows, files or a folder;
        ``text_column``, ``glob``, ``errors``.

        Raises
        ------
        InputError
            Texts that cannot be read, hold nothing to predict, or hold tokens outside the model's vocabulary.

        Warns
        -----
        UserWarning
            At the end, when texts were left out: empty, or of one token with none to put before it.
        """
        return batched(self._windows(texts, options), batch_size)

    def _windows(self, texts, options: dict) -> Iterator[Window]:
        read = short = 0
        for document in documents(texts, self.tokenizer, **options):
            self._check_tokens(document.tokens, f"text {document.name!r}")
            self.names[document.id] = document.name
            read += 1
            window = None
            for window in windows(document.id, document.tokens, self.windowing):
                yield window
            short += window is None
        if short:
            why = "have one token and none before it to predict it from (pass longer texts, or a prefix token)"
            if short == read:
                raise InputError(f"all {read} texts {why}")
            warnings.warn(f"{short} of {read} texts {why}; they were left out", UserWarning, stacklevel=2)

    def _probe(self) -> list[Window]:
        tokens = np.arange(min(8, self.windowing.window)) % self.model.get_input_embeddings().weight.shape[0]
        return [Window(0, tokens, 0, 0, tokens)]

    def _inputs(self, windows: list[Window]) -> tuple[dict[str, Tensor], int]:
        fill = getattr(self.tokenizer, "pad_token_id", None) or 0  # masked: any token of the vocabulary will do
        tokens, mask = padded([window.tokens for window in windows], fill, self.device)
        inputs = {"input_ids": tokens} if mask is None else {"input_ids": tokens, "attention_mask": mask}
        return inputs, tokens.shape[1]


def text_encoder(
    model,
    tokenizer,
    *,
    key: str = "ffn",
    window: int | None = None,
    stride: int | None = None,
    min_context: int | None = None,
    logits: bool = True,
) -> TextEncoder | PairEncoder:
    """The encoder for this model: ``PairEncoder`` for an encoder-decoder, else ``TextEncoder``.

    Parameters
    ----------
    model, tokenizer, key, logits
        As in ``TextEncoder``.
    window, stride, min_context : int, optional
        As in ``Windowing.of``. For an encoder-decoder, `window` is the most tokens of a source, and of a target,
        and the others do not apply.

    Raises
    ------
    ParameterError
        `stride` or `min_context` for an encoder-decoder, or numbers out of range.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        if stride is not None or min_context is not None:
            raise ParameterError("stride= and min_context= cut long texts; an encoder-decoder reads pairs whole")
        return PairEncoder(model, tokenizer, key=key, max_source=window, max_target=window, logits=logits)
    limit = position_limit(model) if hasattr(model, "config") else None
    windowing = Windowing.of(window, stride, min_context, prefix_of(tokenizer), limit)
    return TextEncoder(model, tokenizer, key=key, windowing=windowing, logits=logits)
