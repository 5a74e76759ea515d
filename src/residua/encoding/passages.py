"""Passages of texts as rows: each is kept in a column, and its key is the mean of a language model's states over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from torch import nn

from residua.core import AbsentLogits, ArrayLike, Encoded, Source
from residua.encoding.causal import TextEncoder
from residua.encoding.options import Known, Tokenizer
from residua.encoding.stream import text_encoder
from residua.encoding.text import Document, document_id, encode_prompts
from residua.encoding.windows import TokenBatch, windows
from residua.errors import EncodeError, InputError

Embedder: TypeAlias = Callable[[list[str]], ArrayLike]
TOKENS = "tokens"  # the column that holds a passage, int32 (length,), filled up with
NOTHING = -1
BATCH = 32  # sequences that the model reads at a time


def states_encoder(model: nn.Module, tokenizer: Tokenizer, key: str | None, like: Known | None = None) -> TextEncoder:
    """What reads tokens: an end of text after each, so that the state after the last token counts, too."""
    encoder = text_encoder(model, tokenizer, key=key or (None if like else "head"), like=like, end_of_text=True)
    if not isinstance(encoder, TextEncoder):
        raise EncodeError(f"the model is a {type(model).__name__}; passages are read by a causal language model")
    return encoder


def source_of(encoder: TextEncoder) -> Source:
    return replace(encoder.source, position="mean")


def passage_rows(
    documents: list[Document],
    by: Iterable[str] | None,
    cut: dict[str, Any],
    embedder: TextEncoder,
    encoder: Embedder | None,
) -> Encoded:
    """Passages as rows of a memory."""
    length, step = cut["length"], cut["stride"]
    if (by is not None) != cut["whole"]:
        what = "are found by texts of their own, and none are given" if by is None else "are found by what they say"
        raise InputError(f"these passages {what}; expected by= where the memory was made with it, and only there")
    if by is None:
        pieces = [(one, start) for one in documents for start in _starts(len(one.tokens), length, step)]
        ids = [one.id for one, _ in pieces]
        keyed = [one.tokens[start : start + length] for one, start in pieces]
    else:
        by = [by] if isinstance(by, str) else list(by)
        if not all(isinstance(one, str) and one for one in by):
            raise InputError("by= has a text that is empty, or no str; expected what each passage is found by")
        if len(by) != len(documents):
            raise InputError(f"by= has {len(by)} texts for {len(documents)} passages; expected one for each")
        if (longest := max(len(one.tokens) for one in documents)) > length:
            raise InputError(f"a text has {longest} tokens, and this memory's passages have {length} at most")
        pieces = [(one, 0) for one in documents]
        keyed = [np.asarray(tokens, np.int64) for tokens in encode_prompts(embedder.tokenizer, by, True)]
        ids = [document_id(tokens, one.tokens) for tokens, one in zip(keyed, documents)]
    tokens = np.full((len(pieces), length), NOTHING, np.int32)
    for row, (one, start) in zip(tokens, pieces):
        part = one.tokens[start : start + length]
        row[: len(part)] = part
    return Encoded(
        keys_of(keyed, embedder, encoder),
        AbsentLogits(len(pieces), embedder.n_outputs),
        tokens[:, 0].astype(np.int64),
        np.asarray(ids, np.int64),
        task="classification",
        columns={TOKENS: tokens, "begin": np.array([start for _, start in pieces], np.int64)},
        source=None if encoder else source_of(embedder),
        names=[one.name for one, _ in pieces],
    )


def _starts(tokens: int, length: int, step: int) -> range:
    """Where passages begin: the last one holds the end, and none lies inside the one before it."""
    return range(0, max(1, tokens - length + step), step)


def keys_of(sequences: list[np.ndarray], embedder: TextEncoder, encoder: Embedder | None) -> np.ndarray:
    """Keys (n, d): the mean of the states over each sequence's tokens, or what an encoder makes of its text."""
    if encoder is not None:
        keys: np.ndarray = np.asarray(encoder([embedder.tokenizer.decode(tokens) for tokens in sequences]))
        if keys.ndim != 2 or len(keys) != len(sequences):
            n = len(sequences)
            raise EncodeError(f"encoder= gave shape {keys.shape} for {n} texts; expected ({n}, d)")
        return keys
    means = list[np.ndarray]()
    for start in range(0, len(sequences), BATCH):
        group = sequences[start : start + BATCH]
        cut = (windows(number, tokens, embedder.windowing) for number, tokens in enumerate(group))
        batch = TokenBatch([window for one in cut for window in one])
        keys = embedder.encode(batch).keys
        sums = np.zeros((len(group), keys.shape[1]))
        np.add.at(sums, batch.ids, keys)
        means.append(sums / np.bincount(batch.ids, minlength=len(group))[:, None])
    return np.concatenate(means)
