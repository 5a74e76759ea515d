"""A language model reads a batch of windows: keys and logits of exactly the positions that are asked for."""

from __future__ import annotations

import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residua.caution import warn
from residua.core import AbsentLogits, DenseLogits, Encoded, Head, Names, Source
from residua.encoding.capture import Capture, device_of
from residua.encoding.fingerprint import source_of_module
from residua.encoding.key_layer import ffn_key, head_key
from residua.encoding.options import Text, Texts, Tokenizer
from residua.encoding.probe import answered, probe_of_tokens, watched
from residua.encoding.text import tokenizer_hash
from residua.encoding.torch import frozen, linear_head
from residua.encoding.windows import TokenBatch, Window, batched
from residua.errors import EncodeError, InputError, KeyModuleError

log: logging.Logger = logging.getLogger(__name__)


class LanguageEncoder(ABC):
    """What ``TextEncoder`` and ``PairEncoder`` share: everything but how sequences are made.

    Has ``key`` (resolved), ``source``, ``n_outputs`` (of the logits: an embedding may be padded beyond the tokenizer),
    ``head`` (when the key is its input and it reproduces the logits) and, by id, the documents' ``names`` and ``sizes``
    (bytes, of those of which every token is a row).
    """

    reading: tuple[str, ...]  # the options of ``batches``
    cut: dict[str, Any]  # how texts become sequences, in JSON types

    model: Any  # a transformers model, whose own methods are asked for
    tokenizer: Any
    logits: bool
    key: str
    source: Source
    n_outputs: int
    head: Head | None
    names: Names
    sizes: dict[int, int]

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, *, key: str, logits: bool):
        model = getattr(model, "_orig_mod", model)  # a compiled module's hooks would be optimised away
        if not isinstance(model, nn.Module) or not hasattr(model, "config"):
            raise EncodeError(f"the model is a {type(model).__name__}; expected a transformers model with an LM head")
        self.model = model
        self.tokenizer, self.logits = tokenizer, logits
        self.names, self.sizes = Names(), {}
        # Without a cache of attention's keys and values, which nothing reads again.
        self._options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
        head = head_key(model)  # also asked for other keys: no head, no language model
        self._head = model.get_submodule(head.removesuffix(":input"))
        self.key = self._resolve(key, head)
        source = source_of_module(model, self.key, {"tokenizer": tokenizer_hash(tokenizer)})
        with frozen(model):
            keys, said = self._rows(self._probe(), logits=True)
            probe = None if watched(model) else answered(probe_of_tokens(model), model, self.key)
        self.source = replace(source, probe=probe)
        self.n_outputs = int(said.shape[1])
        self.head = linear_head(model.get_submodule(self.key.partition(":")[0]), self.key, keys, said)

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    def batches(self, texts: Texts, batch_size: int = 16, **reading: Any) -> Iterator[TokenBatch]:
        """Texts as batches of `batch_size` windows (or pairs), read lazily; no model runs."""
        return batched(self._windows(texts, **reading), batch_size)

    def encode(self, batch: TokenBatch) -> Encoded:
        """A batch's rows, with the column ``"offset"``, by one forward pass in evaluation mode."""
        with frozen(self.model):
            keys, said = self._rows(batch.windows, self.logits)
        logits = DenseLogits(said) if self.logits else AbsentLogits(len(batch), self.n_outputs)
        return Encoded(
            keys,
            logits,
            batch.labels,
            batch.ids,
            task="classification",
            columns={"offset": batch.offsets},
            source=self.source,
            head=self.head,
        )

    @abstractmethod
    def last_row(self, text: Text) -> TokenBatch:
        """A batch whose last row's key is the state after `text`; the label of that row means nothing."""

    @abstractmethod
    def prompt(self, text: Text) -> dict[str, Tensor]:
        """What the model's ``generate`` takes to go on from `text` as a text of a memory goes on."""

    @abstractmethod
    def _windows(self, texts: Texts, **reading: Any) -> Iterator[Window]:
        """The sequences of all texts, in order."""

    @abstractmethod
    def _probe(self) -> list[Window]:
        """A few tokens that any model of the kind reads: they find the key and verify the head."""

    @abstractmethod
    def _inputs(self, windows: list[Window]) -> tuple[dict[str, Tensor], int]:
        """What the model is called with, and the number of positions per sequence that it scores then."""

    def _resolve(self, key: str, head: str) -> str:
        if key != "ffn":
            return head if key == "head" else key
        inputs, length = self._inputs(self._probe())
        with frozen(self.model):
            found = ffn_key(self.model, lambda: self.model(**inputs, **self._options), length)
        if found is None:
            warn(
                f"no feed-forward network of {type(self.model).__name__} runs once and on every position, as far as is "
                f"seen; the key is {head!r}. Pass key= with the name of the module whose input is better, or "
                "key='head' for this one"
            )
            return head
        log.info("the key is %r, where the last block's feed-forward network begins", found)
        return found

    def _rows(self, windows: list[Window], logits: bool) -> tuple[Tensor, Tensor]:
        """Keys (rows, d) and logits (rows, V) of all targets; where logits are not wanted, those of the first."""
        inputs, length = self._inputs(windows)
        starts = np.arange(len(windows)) * length + [window.first for window in windows]
        rows = np.concatenate([start + np.arange(len(w.targets)) for start, w in zip(starts, windows)])
        wanted = torch.from_numpy(rows).to(self.device)
        asked = wanted if logits else wanted[:1]
        positions = len(windows) * length
        # The capture comes first: it needs every position.
        watched = Capture(self.model, self.key, pool=False)
        with watched as capture, _only(self._head, asked, positions) as narrowed:
            try:
                output = self.model(**inputs, **self._options)
            except IndexError as error:  # of an embedding: of tokens, or of positions that no configuration told of
                raise EncodeError(
                    f"the model cannot read {length} tokens, or has no embedding for one of them ({error}); pass "
                    f"window= with fewer than {length}, or the tokenizer that it was trained with"
                ) from error
            caught = capture.take()
        if caught.numel() != positions * caught.shape[-1]:
            given = f"shape {tuple(caught.shape)} for {len(windows)} sequences of {length} tokens"
            expected = "expected one vector per token: name another module"
            raise KeyModuleError(f"the key module {self.key!r} gave {given}; {expected}")
        said = getattr(output, "logits", None)
        if not isinstance(said, Tensor):
            raise EncodeError(f"the model returned a {type(output).__name__} without logits; expected an LM's output")
        said = said.reshape(-1, said.shape[-1])
        # The head's weights may be used without calling it as a module.
        return caught.reshape(positions, -1)[wanted], said if narrowed else said[asked]

    def _check_tokens(self, tokens: np.ndarray, what: str, vocabulary: int | None = None) -> None:
        vocabulary = self.n_outputs if vocabulary is None else vocabulary
        if len(tokens) and tokens.max() >= vocabulary:
            raise InputError(
                f"{what} has token {tokens.max()}, of a tokenizer of {len(self.tokenizer)}, and the model's vocabulary "
                f"has {vocabulary}: use the tokenizer the model was trained with, or resize_token_embeddings"
            )


@contextmanager
def _only(head: nn.Module, wanted: Tensor, positions: int) -> Iterator[list[bool]]:
    """Let only the wanted positions through to the LM head: a vocabulary's logits of the rest would be work and
    memory for nothing. What is yielded stays empty when the head was not called with all `positions`."""
    thread, narrowed = threading.get_ident(), []

    def narrow(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if threading.get_ident() != thread or not args or args[0].numel() != positions * args[0].shape[-1]:
            return None
        narrowed.append(True)
        return args[0].reshape(positions, -1)[wanted][None], *args[1:]  # (1, rows, d)

    handle = head.register_forward_pre_hook(narrow)
    try:
        yield narrowed
    finally:
        handle.remove()


def padded(sequences: list[np.ndarray], fill: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """int64 (n, longest), filled on the right, and its attention mask, or None when nothing was filled."""
    lengths = np.array([len(sequence) for sequence in sequences])
    there = np.arange(lengths.max()) < lengths[:, None]
    out = np.full(there.shape, fill, dtype=np.int64)
    out[there] = np.concatenate(sequences)
    mask = None if there.all() else torch.from_numpy(there.astype(np.int64)).to(device)
    return torch.from_numpy(out).to(device), mask


def position_limit(model: object) -> int | None:
    """The most positions a model has, by its configuration; None when it names no such limit (T5, BLOOM, XLNet)."""
    config = getattr(model, "config", None)
    config = getattr(config, "get_text_config", lambda **_: config)(decoder=True)
    named = (getattr(config, name, None) for name in ("max_position_embeddings", "max_target_positions"))
    limit = next((limit for limit in named if isinstance(limit, int) and limit > 0), None)
    if limit is None or not isinstance(model, nn.Module):
        return limit
    for name, table in model.named_modules():
        # Of a table of positions that has a row for padding (RoBERTa's), this one and those before it are not used.
        if isinstance(table, nn.Embedding) and table.num_embeddings == limit and "position" in name:
            return limit if table.padding_idx is None else limit - int(table.padding_idx) - 1
    return limit
