"""The continuous cache (Grave et al. 2017, arXiv 1612.04426): a text's own recent words, under any other reader."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from numbers import Real

import numpy as np
from torch import Tensor

from residua.core import Change, Encoded, Logits, Neighbours, Values, batches
from residua.core.logits import as_tensor
from residua.errors import IdError, ParameterError, StorageError
from residua.readers.past import PastStream
from residua.readers.reader import QUERIES, Reader, positive

CONTRAST = 10.0  # the usual theta: the exponent of a row with itself, on average over the memory
SAMPLE = 1024  # rows of the memory whose norms are looked at


class ContinuousCache(Reader):
    """Interpolate another reader with what the same text said before, by similarity of its states.

    ``p(w) = lmbda * p_cache(w) + (1 - lmbda) * p_over(w)``, with ``p_cache(w)`` proportional to the sum of
    ``exp(theta * <h_t, h_i>)`` over the earlier rows i of the same document, at most `window` back, that were followed
    by w. The first row of a document has none: ``p_over``. Rows must come in order and say their document (ids) and
    what came next (labels). ``scores`` are proper probabilities.

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
    ParameterError
        When a parameter is out of its range.
    TaskError
        Over a regression memory.
    StorageError
        Without `theta`, over a memory whose keys were dropped.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(2), np.zeros((2, 4)), [0, 1]))
    >>> text = rs.Encoded(np.array([[1.0, 0], [0, 1], [1, 0]]), np.zeros((3, 4)), [2, 3, 2], ids=[0, 0, 0])
    >>> cache = rs.ContinuousCache(rs.KNNLM(memory, k=0), theta=50.0, lmbda=0.5)
    >>> cache.scores(text).round(3).tolist()[-1]
    [0.125, 0.125, 0.625, 0.125]
    """

    names = ("over", "window", "theta", "lmbda")
    stateful = True

    def __init__(self, over: Reader, window: int = 2000, theta: float | None = None, lmbda: float = 0.1):
        if not isinstance(over, Reader):
            raise ParameterError(
                f"over={over!r}; expected a reader, such as rs.KNNLM(memory); with k=0 it is the model alone"
            )
        if not isinstance(window, Real) or isinstance(window, bool) or not float(window).is_integer() or window < 1:
            raise ParameterError(f"window={window!r}; expected a whole number of rows >= 1")
        if not (isinstance(lmbda, Real) and 0 <= lmbda < 1):
            raise ParameterError(f"lmbda={lmbda!r}; expected a share >= 0 and < 1: a cache alone knows no new word")
        self.over, self.window, self.lmbda = over, int(window), float(lmbda)
        self.memory, self.k = over.memory, over.k
        self.temperature, self.sigma, self.kernel = over.temperature, over.sigma, over.kernel
        self.epsilon, self.gate = over.epsilon, over.gate
        self.stream()  # refuses regression
        self.theta = _usual_theta(self.memory) if theta is None else positive("theta", theta)

    @property
    def idle(self) -> bool:
        return self.lmbda == 0 and self.over.idle

    def stream(self) -> PastStream:
        return PastStream(self)

    def base(self, logits: Logits) -> Tensor:
        return self.over.base(logits)

    @property
    def temperature_moves_scores(self) -> bool:
        return self.over.temperature_moves_scores

    @property
    def temperature_moves_values(self) -> bool:
        return self.over.temperature_moves_values

    def probabilities(self, scores: Tensor, base: Tensor) -> Tensor:
        return scores

    def values(self, queries: int) -> Values:
        raise self._depends("what its rows say")

    def change(self, neighbours: Neighbours) -> Change:
        raise self._depends("its change of a prediction")

    def combine(self, keys: Tensor, logits: Logits, exclude_ids=None) -> tuple[Tensor, Tensor]:
        raise self._depends("its answer to one query")

    def read(self, data: Encoded | Iterable[Encoded], exclude_ids=None) -> Iterator[tuple[Tensor, Tensor]]:
        stream, excluded, start = self.stream(), None if exclude_ids is None else np.asarray(exclude_ids), 0
        for batch in batches(data):
            self.check(batch)
            if batch.ids is None or batch.labels is None:
                raise ParameterError(
                    "a ContinuousCache reads texts in order, and needs to know of each row its document (ids) and the "
                    "token that came next (labels); these rows lack " + ("ids" if batch.ids is None else "labels")
                )
            for first in range(0, len(batch), QUERIES):
                part = batch[first : first + QUERIES] if len(batch) > QUERIES else batch
                own = None if excluded is None else excluded[start : start + len(part)]
                start += len(part)
                read = stream.score(
                    as_tensor(part.keys), part.logits, documents=part.ids, tokens=part.labels, exclude_ids=own
                )
                device = self.memory.device
                yield read.log_probabilities().exp_().to(device), self.base(part.logits).to(device)
        if excluded is not None and len(excluded) != start:
            raise IdError(f"exclude_ids have {len(excluded)} rows for {start} queries; expected one row per query")

    def with_params(self, **changed) -> ContinuousCache:
        unknown = set(changed) - set(self.names)
        if unknown:
            raise ParameterError(
                f"ContinuousCache has no parameter {sorted(unknown)}; it has {self.names}, and those of the reader it "
                "is over are changed there: over=reader.with_params(...)"
            )
        return type(self)(**{**self.params, **changed})

    def __repr__(self) -> str:
        return f"ContinuousCache({self.over!r}, window={self.window}, theta={self.theta:g}, lmbda={self.lmbda:g})"

    def _depends(self, what: str) -> ParameterError:
        return ParameterError(
            f"{what} depends on the text before it: read a ContinuousCache row after row (reader.stream()), or ask the "
            "reader it is over (reader.over)"
        )


def _usual_theta(memory) -> float:
    if not len(memory):
        return 1.0
    if "key" not in memory.table:
        raise StorageError("theta=None looks at the memory's keys, and they were dropped: give theta")
    rows = memory.alive_rows
    rows = rows[:: max(1, len(rows) // SAMPLE)]
    squared = memory.table["key"][rows].float().square().sum(dim=1).mean().item()
    return CONTRAST / squared if squared > 0 and math.isfinite(squared) else 1.0
