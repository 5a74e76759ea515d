"""Long documents in overlapping windows: every target token once, with context before it, never across documents.

A window of `window` input tokens starts every `stride` tokens and scores only what the one before did not, so that
each of its targets has at least ``window - stride`` tokens of context. ResMem's language model (arXiv 2302.01576, §4.3)
uses 256 and 192; kNN-LM (arXiv 1911.00172, §3) 3072 and 1536 on WikiText-103.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from residua.errors import ParameterError

WINDOW = 1024  # tokens, where the model allows more


@dataclass(frozen=True)
class Windowing:
    """How documents are cut.

    Attributes
    ----------
    window : int
        Input tokens per forward pass, at most.
    stride : int
        Tokens from the start of a window to the start of the next.
    prefix : int or None
        A token put before each document, so that its first token is a target too; None for no such token.

    Examples
    --------
    >>> Windowing.of(window=256, min_context=64)
    Windowing(window=256, stride=192, prefix=None)
    >>> [(w.tokens.tolist(), w.targets.tolist()) for w in windows(0, np.arange(1, 8), Windowing(4, 2, None))]
    [([1, 2, 3, 4], [2, 3, 4, 5]), ([3, 4, 5, 6], [6, 7])]
    """

    window: int
    stride: int
    prefix: int | None = None

    @property
    def min_context(self) -> int:
        """Tokens of context that every target has, those of a document's first window apart."""
        return self.window - self.stride

    @classmethod
    def of(
        cls,
        window: int | None = None,
        stride: int | None = None,
        min_context: int | None = None,
        prefix: int | None = None,
        limit: int | None = None,
    ) -> Windowing:
        """A windowing from any of its three numbers.

        Parameters
        ----------
        window : int, optional
            By default 1024, or `limit` when that is less.
        stride : int, optional
            By default three quarters of the window.
        min_context : int, optional
            Another way to say the stride: ``window - stride``.
        prefix : int, optional
            The token before each document.
        limit : int, optional
            The most positions the model has.

        Raises
        ------
        ParameterError
            When a number is out of range, or the three disagree.
        """
        for name, value in (("window", window), ("stride", stride), ("min_context", min_context), ("limit", limit)):
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
            raise ParameterError(
                f"window={window} and stride={stride} give min_context={window - stride}, and {min_context} was asked "
                "for; pass two of the three"
            )
        return cls(window, int(stride), None if prefix is None else int(prefix))

    def to_json(self) -> dict:
        """A plain dictionary of JSON types."""
        return {"window": self.window, "stride": self.stride, "prefix": self.prefix}

    @classmethod
    def from_json(cls, data: dict) -> Windowing:
        """The inverse of ``to_json``."""
        return cls(data["window"], data["stride"], data["prefix"])


@dataclass(frozen=True)
class Window:
    """One sequence for the model and the targets to read from it.

    Attributes
    ----------
    document : int
        Number of the document it is cut from.
    tokens : int64 array of shape (w,)
        The input, the prefix included where it comes first.
    first : int
        Position in `tokens` of the first one whose next token is a target; all after it are such too.
    offset : int
        Index, in the document's tokens, of the first target.
    targets : int64 array of shape (w - first,)
        The next tokens of positions ``first, first + 1, ...``
    """

    document: int
    tokens: np.ndarray
    first: int
    offset: int
    targets: np.ndarray


def windows(document: int, tokens: np.ndarray, windowing: Windowing) -> Iterator[Window]:
    """The windows of one document, in order; none when it holds no target (one token and no prefix)."""
    tokens = np.asarray(tokens, dtype=np.int64)
    skipped = 1  # tokens before the first target's own index: the document's first, which nothing predicts
    if windowing.prefix is not None:
        tokens, skipped = np.concatenate([[windowing.prefix], tokens]), 0
    inputs, done, start = len(tokens) - 1, 0, 0  # position p of the inputs predicts tokens[p + 1]
    while done < inputs:
        end = min(start + windowing.window, inputs)
        yield Window(document, tokens[start:end], done - start, done + skipped, tokens[done + 1 : end + 1])
        done, start = end, start + windowing.stride


@dataclass(frozen=True)
class TokenBatch:
    """Some windows and the rows they hold, known before any model has run.

    Rows are in window order, targets in order within each.
    """

    windows: list[Window] = field(repr=False)

    def __len__(self) -> int:
        return sum(len(window.targets) for window in self.windows)

    @cached_property
    def labels(self) -> np.ndarray:
        """The target tokens, int64 (rows,)."""
        return _joined([window.targets for window in self.windows])

    @cached_property
    def ids(self) -> np.ndarray:
        """The document of each row, int64 (rows,)."""
        return _joined([np.full(len(window.targets), window.document) for window in self.windows])

    @cached_property
    def offsets(self) -> np.ndarray:
        """The index of each target in its document's tokens, int64 (rows,)."""
        return _joined([np.arange(window.offset, window.offset + len(window.targets)) for window in self.windows])


def batched(windows: Iterable[Window], batch_size: int) -> Iterator[TokenBatch]:
    """`batch_size` windows at a time, in order."""
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ParameterError(f"batch_size={batch_size!r}; expected a positive number of windows")
    remaining = iter(windows)
    while group := list(islice(remaining, batch_size)):
        yield TokenBatch(group)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)
