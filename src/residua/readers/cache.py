"""The continuous cache (Grave et al. 2017, arXiv 1612.04426): a text's own recent words, under any other reader."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Real
from typing import Any, Self

from torch import Tensor

from residua.core import Array, Change, Encoded, Logits, Prediction
from residua.errors import ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.readers.familiarity import Familiarity
from residua.readers.neighbour import positive, whole
from residua.readers.past import CacheState
from residua.readers.reader import OWN, Exclude, Reader, TextState, reader_of, register_reader

CONTRAST = 10.0  # the usual theta: the exponent of a row with itself, on average over the memory
SAMPLE = 1024  # rows of the memory whose norms are looked at


@register_reader
class ContinuousCache(Reader):
    """Interpolate another reader with what the same text said before.

    ``p(w) = lmbda * p_cache(w) + (1 - lmbda) * p_over(w)``, with ``p_cache(w)`` proportional to the sum of
    ``exp(theta * <h_t, h_i>)`` over the earlier rows i of the same document, at most `window` back, that were followed
    by w; ``p_over`` for a document's first row. Rows must come in order and say their document (ids) and what came
    next (labels). ``scores`` are proper probabilities.

    Parameters
    ----------
    over : Reader
        What is interpolated with: ``rs.KNNLM(memory)``, ``rs.ResMem(memory)``, another cache, or
        ``rs.KNNLM(memory, k=0)`` for the model alone.
    window : int, default 2000
        How many rows back.
    theta : float, optional
        How sharp: the factor of the inner product, > 0. None: ten over the mean squared norm of the memory's keys.
    lmbda : float in [0, 1), default 0.1
        The cache's share.

    Raises
    ------
    ParameterError, TaskError, StorageError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(2), np.zeros((2, 4)), [0, 1]))
    >>> text = rs.Encoded(np.array([[1.0, 0], [0, 1], [1, 0]]), np.zeros((3, 4)), [2, 3, 2], ids=[0, 0, 0])
    >>> cache = rs.ContinuousCache(rs.KNNLM(memory, k=0), theta=50.0, lmbda=0.5)
    >>> cache.scores(text).round(3).tolist()[-1]
    [0.125, 0.125, 0.625, 0.125]
    """

    memory: Memory
    k: int
    temperature: float
    over: Reader
    window: int
    theta: float
    lmbda: float

    def __init__(self, over: Reader, window: int = 2000, theta: float | None = None, lmbda: float = 0.1):
        if not isinstance(over, Reader):
            raise ParameterError(
                f"over={over!r}; expected a reader, such as rs.KNNLM(memory); with k=0 it is the model alone"
            )
        self.over, self.window = over, whole("window", window, 1, "a whole number of rows >= 1")
        if not (isinstance(lmbda, Real) and 0 <= lmbda < 1):
            raise ParameterError(f"lmbda={lmbda!r}; expected a share >= 0 and < 1: a cache alone knows no new word")
        if over.memory.task != "classification":
            what = f"a cache remembers tokens, and this is a {over.memory.task} memory"
            raise TaskError(f"{what}; read it with ResMem or KNNLM")
        self.memory, self.k, self.temperature, self.lmbda = over.memory, over.k, over.temperature, float(lmbda)
        self.theta = usual_theta(self.memory) if theta is None else positive("theta", theta)

    @property
    def is_noop(self) -> bool:
        return self.lmbda == 0 and self.over.is_noop

    def familiarity(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> Familiarity:
        """That of the reader under the cache: what a text has said itself is no part of the memory."""
        return self.over.familiarity(data, exclude)

    def start(self) -> CacheState:
        return CacheState(self.window, (self.theta,), self.memory.device, self.over.start())

    def read(
        self,
        keys: Tensor,
        logits: Logits,
        excluded: Array | None = None,
        *,
        depth: int = 0,
        state: TextState | None = None,
        documents: Array | None = None,
        tokens: Array | None = None,
    ) -> Iterator[tuple[slice, Prediction]]:
        if not isinstance(state, CacheState):
            raise ParameterError(
                "what a ContinuousCache says depends on the text before: read its rows in order, with the state that "
                "reader.start() gives; or ask the reader it is over (reader.over)"
            )
        text = {"documents": documents, "tokens": tokens}
        for rows, under in self.over.read(keys, logits, excluded, depth=depth, state=state.under, **text):
            own = {name: None if given is None else given[rows] for name, given in text.items()}
            (past,) = state.look_back(keys[rows].float(), **own)
            share = (past.weights.sum(dim=1, keepdim=True) > 0) * self.lmbda
            change = Change(1 - share, (replace(past, weights=past.weights * share),))
            yield rows, Prediction(under, under.neighbours, lambda change=change: change)

    def _made(self, params: dict[str, Any]) -> Self:
        return type(self)(**params)

    @classmethod
    def from_json(cls, params: dict[str, Any], memory: Memory) -> Self:
        return cls(**{**params, "over": reader_of(params["over"], memory)})

    def __repr__(self) -> str:
        return f"ContinuousCache({self.over!r}, window={self.window}, theta={self.theta:g}, lmbda={self.lmbda:g})"


def usual_theta(memory: Memory) -> float:
    """How sharp a cache is where nobody says."""
    if not len(memory):
        return 1.0
    if not memory.keys_kept:
        raise StorageError("theta=None looks at the memory's keys, and they were dropped: give theta")
    rows = memory.active_rows
    rows = rows[:: max(1, len(rows) // SAMPLE)]
    squared = memory.keys_at(rows).square().sum(dim=1).mean().item()
    return CONTRAST / squared if squared > 0 and math.isfinite(squared) else 1.0
