"""A language model reads a batch of windows: keys and logits of exactly the positions that are asked for."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from residua.core import AbsentLogits, DenseLogits, Encoded
from residua.encoding.capture import Capture
from residua.encoding.ffn import ffn_key, head_key
from residua.encoding.fingerprint import source_of_module
from residua.encoding.head import verified_head
from residua.encoding.text import tokenizer_hash
from residua.encoding.torch import frozen
from residua.encoding.windows import TokenBatch, Window
from residua.errors import EncodeError, InputError, KeyModuleError

log = logging.getLogger(__name__)


class TokenEncoder(ABC):
    """What ``TextEncoder`` and ``PairEncoder`` share: everything but how sequences are made.

    Attributes
    ----------
    key : str
        The key's module, resolved.
    source : Source
        The model, the key and the tokenizer.
    n_outputs : int
        V, the width of the model's logits (its embedding may be padded beyond the tokenizer).
    head : Head or None
        The LM head, when the key is its input and it reproduces the model's logits.
    names : dict of int to str
        The documents' names, filled while they are read.
    """

    def __init__(self, model: nn.Module, tokenizer, *, key: str, logits: bool):
        model = getattr(model, "_orig_mod", model)  # a compiled module's hooks would be optimised away
        if not isinstance(model, nn.Module) or not hasattr(model, "config"):
            raise EncodeError(f"the model is a {type(model).__name__}; expected a transformers model with an LM head")
        self.model, self.tokenizer, self.logits = model, tokenizer, logits
        self.names: dict[int, str] = {}
        self._hooks: ExitStack | None = None
        # Without a cache of attention's keys and values, which nothing reads again.
        self._options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
        head = head_key(model)  # also asked for other keys: no head, no language model
        self._gate = _Gate(model.get_submodule(head.removesuffix(":input")))
        self.key = self._resolve(key, head)
        self._capture = Capture(model, self.key, pool=False)
        self.source = source_of_module(model, self.key, {"tokenizer": tokenizer_hash(tokenizer)})
        with self, frozen(model):
            keys, said = self._rows(self._probe(), logits=True)
        self.n_outputs = int(said.shape[1])
        self.head = verified_head(self._capture.module, self.key, keys, said)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return next(self.model.parameters()).device

    def __enter__(self) -> TokenEncoder:
        if self._hooks is not None:
            raise EncodeError("this encoder is open already; open it once, around all calls of encode")
        with ExitStack() as hooks:
            hooks.enter_context(self._capture)
            hooks.enter_context(self._gate)  # after the capture, which needs every position
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *_) -> None:
        hooks, self._hooks = self._hooks, None
        hooks.close()

    def encode(self, batch: TokenBatch) -> Encoded:
        """Keys, logits, labels, ids (documents) and column ``"offset"`` of a batch's rows, by one forward pass.

        The model runs in evaluation and inference mode and is left as it was. Inside ``with encoder:`` hooks stay on
        the model from one call to the next.

        Raises
        ------
        KeyModuleError
            When the key module does not give one vector per token.
        NonFiniteError
            When a key is NaN or infinite.
        """
        with ExitStack() as stack:
            if self._hooks is None:
                stack.enter_context(self)
            stack.enter_context(frozen(self.model))
            keys, said = self._rows(batch.windows, self.logits)
        return Encoded(
            keys,
            AbsentLogits(len(batch), self.n_outputs) if said is None else DenseLogits(said),
            batch.labels,
            batch.ids,
            columns={"offset": batch.offsets},
            source=self.source,
            task="classification",
            head=self.head,
        )

    @abstractmethod
    def _probe(self) -> list[Window]:
        """A few tokens that any model of the kind reads: they find the key and verify the head."""

    @abstractmethod
    def _inputs(self, windows: list[Window]) -> tuple[dict[str, Tensor], int]:
        """What the model is called with, and the number of positions per sequence that it scores then."""

    def _resolve(self, key: str, head: str) -> str:
        if key != "ffn":
            return head if key == "head" else key
        inputs, _ = self._inputs(self._probe())
        with frozen(self.model):
            found = ffn_key(self.model, lambda: self.model(**inputs, **self._options))
        if found is None:
            log.warning(
                "%s has no feed-forward network in its last block; the key is %r", type(self.model).__name__, head
            )
            return head
        log.info("the key is %r, where the last block's feed-forward network begins", found)
        return found

    def _rows(self, windows: list[Window], logits: bool) -> tuple[Tensor, Tensor | None]:
        """Keys (rows, d) and logits (rows, V) of all targets; None for logits that are not wanted."""
        inputs, length = self._inputs(windows)
        starts = np.arange(len(windows)) * length + [window.first for window in windows]
        wanted = np.concatenate([start + np.arange(len(w.targets)) for start, w in zip(starts, windows)])
        wanted = torch.from_numpy(wanted).to(self.device)
        positions = len(windows) * length
        with self._gate.only(wanted if logits else wanted[:1], positions):
            output = self.model(**inputs, **self._options)
        caught = self._capture.take()
        if caught.numel() != positions * caught.shape[-1]:
            raise KeyModuleError(
                f"the key module {self.key!r} gave shape {tuple(caught.shape)} for {len(windows)} sequences of "
                f"{length} tokens; expected one vector per token: name another module"
            )
        keys = caught.reshape(positions, -1)[wanted]
        if not logits:
            return keys, None
        said = getattr(output, "logits", None)
        if not isinstance(said, Tensor):
            raise EncodeError(
                f"the model returned a {type(output).__name__} without logits; expected an LM head's output"
            )
        said = said.reshape(-1, said.shape[-1])
        if not self._gate.narrowed:  # the head's weights are used without calling it as a module
            said = said[wanted]
        return keys, said

    def _check_tokens(self, tokens: np.ndarray, what: str) -> None:
        if len(tokens) and tokens.max() >= self.n_outputs:
            raise InputError(
                f"{what} has token {tokens.max()}, of a tokenizer of {len(self.tokenizer)}, and the model's vocabulary "
                f"has {self.n_outputs}: use the tokenizer the model was trained with, or resize_token_embeddings"
            )


class _Gate:
    """Lets only the wanted positions through to the LM head: a vocabulary's logits of the rest would be work and
    memory for nothing. Outside ``only`` the head sees what it always does."""

    def __init__(self, head: nn.Module):
        self.narrowed = False
        self._head, self._wanted, self._positions = head, None, 0

    def __enter__(self) -> _Gate:
        self._handle = self._head.register_forward_pre_hook(self._narrow)
        return self

    def __exit__(self, *_) -> None:
        self._handle.remove()

    @contextmanager
    def only(self, wanted: Tensor, positions: int) -> Iterator[None]:
        self.narrowed, self._wanted, self._positions = False, wanted, positions
        try:
            yield
        finally:
            self._wanted = None

    def _narrow(self, _, args: tuple) -> tuple | None:
        if self._wanted is None or not args or args[0].numel() != self._positions * args[0].shape[-1]:
            return None
        self.narrowed = True
        return args[0].reshape(self._positions, -1)[self._wanted][None], *args[1:]  # (1, rows, d)


def padded(sequences: list[np.ndarray], fill: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """int64 (n, longest), filled on the right, and its attention mask, or None when nothing was filled."""
    lengths = np.array([len(sequence) for sequence in sequences])
    there = np.arange(lengths.max()) < lengths[:, None]
    out = np.full(there.shape, fill, dtype=np.int64)
    out[there] = np.concatenate(sequences)
    mask = None if there.all() else torch.from_numpy(there.astype(np.int64)).to(device)
    return torch.from_numpy(out).to(device), mask


def position_limit(model) -> int | None:
    """The most positions a model has, by its configuration; None when it has no such limit (T5, BLOOM)."""
    config = model.config
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return getattr(config, "max_position_embeddings", None)
