"""Long documents in overlapping windows: every target token once, with context before it, never across documents.

A window of `window` input tokens starts every `stride` tokens and scores only what the one before did not, so that
each of its targets has at least ``window - stride`` tokens of context. ResMem's language model (arXiv 2302.01576, §4.3)
uses 256 and 192; kNN-LM (arXiv 1911.00172, §3) 3072 and 1536 on WikiText-103.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np

from residua.errors import ParameterError

WINDOW = 1024  # tokens, where the model allows more


@dataclass(frozen=True)
class Windowing:
    """How documents become tokens, and these are cut."""

    window: int  # input tokens per forward pass, at most
    stride: int  # from the start of a window to the start of the next
    prefix: int | None = None  # a token put before each document, so that its first token is a target too
    suffix: int | None = None  # a target after each document: here it ends
    split_special_tokens: bool = False  # read what looks like a special token as the text that it is

    @classmethod
    def of(
        cls,
        window: int | None = None,
        stride: int | None = None,
        min_context: int | None = None,
        prefix: int | None = None,
        limit: int | None = None,
        suffix: int | None = None,
        split_special_tokens: bool = False,
    ) -> Self:
        """From any of the numbers, all of them optional: windows of 1024 or the model's `limit`, a stride of three
        quarters of the window, and ``min_context = window - stride``, another way to say the stride."""
        for name, value in {"window": window, "stride": stride, "min_context": min_context, "limit": limit}.items():
            if value is not None and (not isinstance(value, (int, np.integer)) or isinstance(value, bool)):
                raise ParameterError(f"{name}={value!r}; expected a whole number of tokens")
        window = min(limit or WINDOW, WINDOW) if window is None else int(window)
        if window < 2:
            raise ParameterError(f"window={window}; expected at least 2 tokens")
        if limit is not None and window > limit:
            raise ParameterError(f"window={window}, and the model has {limit} positions; pass window={limit} or less")
        if min_context is not None and not 0 <= min_context < window:
            raise ParameterError(f"min_context={min_context}; expected 0 to {window - 1}, less than the window")
        if stride is None:
            stride = window * 3 // 4 if min_context is None else window - min_context
        if not 1 <= stride <= window:
            raise ParameterError(f"stride={stride}; expected 1 to {window}, the window: more would leave tokens out")
        if min_context is not None and min_context != window - stride:
            what = f"window={window} and stride={stride} give min_context={window - stride}"
            raise ParameterError(f"{what}, and {min_context} was asked for; pass two of the three")
        prefix, suffix = (None if token is None else int(token) for token in (prefix, suffix))
        return cls(window, int(stride), prefix, suffix, split_special_tokens)


@dataclass(frozen=True)
class Window:
    """One sequence for the model and the targets to read from it; all arrays are int64."""

    document: int  # the id of the document it is cut from
    tokens: np.ndarray  # (w,): the input, the prefix included where it comes first
    first: int  # position in `tokens` of the first one whose next token is a target; all after it are such too
    offset: int  # index, in the document's tokens, of the first target
    targets: np.ndarray  # (w - first,): the next tokens of positions first, first + 1, ...
    source: np.ndarray | None = None  # what an encoder-decoder's encoder reads; `tokens` is then the target's too


def windows(document: int, tokens: np.ndarray, windowing: Windowing) -> Iterator[Window]:
    """The windows of one document, in order; none when it holds no target (one token, no prefix and no suffix).

    What begins or ends with the prefix or suffix already, as a conversation by its template, gets no second one.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    skipped = 1  # tokens before the first target's own index: the document's first, which nothing predicts
    if windowing.prefix is not None and windowing.prefix not in tokens[:1]:
        tokens, skipped = np.concatenate([[windowing.prefix], tokens]), 0
    if windowing.suffix is not None and windowing.suffix not in tokens[1:][-1:]:
        tokens = np.append(tokens, windowing.suffix)
    inputs, done, start = len(tokens) - 1, 0, 0  # position p of the inputs predicts tokens[p + 1]
    while done < inputs:
        end = min(start + windowing.window, inputs)
        yield Window(document, tokens[start:end], done - start, done + skipped, tokens[done + 1 : end + 1])
        done, start = end, start + windowing.stride


class TokenBatch:
    """Some windows and the rows they hold, in order, known before any model has run: the target tokens (``labels``),
    their documents (``ids``), and their indices in those (``offsets``), int64 (rows,)."""

    windows: list[Window]
    labels: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray

    def __init__(self, windows: list[Window]):
        self.windows, none = windows, np.empty(0, dtype=np.int64)
        self.labels = np.concatenate([none, *(one.targets for one in windows)])
        self.ids = np.concatenate([none, *(np.full(len(one.targets), one.document) for one in windows)])
        offsets = (np.arange(one.offset, one.offset + len(one.targets)) for one in windows)
        self.offsets = np.concatenate([none, *offsets])

    def __len__(self) -> int:
        return len(self.labels)


def batched(windows: Iterable[Window], batch_size: int) -> Iterator[TokenBatch]:
    """`batch_size` windows at a time, in order."""
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ParameterError(f"batch_size={batch_size!r}; expected a positive number of windows")
    remaining = iter(windows)
    while group := list(islice(remaining, batch_size)):
        yield TokenBatch(group)
