"""The cheapest setting within a stated loss of the best one: time goes with the number of neighbours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np

from residua.core import Encoded, as_tensor, batches
from residua.errors import ParameterError
from residua.readers import NeighbourReader
from residua.tuning.objective import Grid

ROWS = 128  # answered to measure what a row takes: more cost no less a row
TIMES = 3  # of which the quickest counts: all else is the machine's


def check_budget(budget: float | None, objective: object) -> None:
    """``ParameterError`` where it is no relative loss of perplexity, or something else is asked for."""
    if budget is None:
        return
    if not isinstance(budget, (int, float)) or isinstance(budget, bool) or not 0 <= budget < np.inf:
        raise ParameterError(f"budget={budget!r}; expected the relative loss of perplexity allowed, such as 0.01")
    if objective != "log_loss":
        raise ParameterError(f"budget= is a loss of perplexity, judged by log_loss, and objective={objective!r}")


def cheapest(results: Mapping[str, np.ndarray], budget: float) -> int:
    """Which setting has the fewest neighbours of those whose perplexity is at most 1 + `budget` times the least; of
    several the best. Settings without neighbours do not compete."""
    score = np.where(results["k"] > 0, results["score"], -np.inf)
    near = score >= score.max() - np.log1p(budget)
    fewest = near & (results["k"] == results["k"][near].min())
    return int(np.argmax(np.where(fewest, score, -np.inf)))


def seconds_per_row(reader: NeighbourReader, validation: Encoded | Iterable[Encoded], grid: Grid) -> dict[int, float]:
    """What one of the first validation rows takes to search and to answer, measured here, for each k of the grid."""
    data = next(iter(batches(validation)))[:ROWS]
    keys, taken = as_tensor(data.keys), {}
    for k in (int(k) for k in grid["k"] if k):
        one, times = reader.with_params(k=k), []
        for _ in range(TIMES):
            start = time.perf_counter()
            for _, now in one.answers(keys, data.logits):
                now.argmax()
            times.append(time.perf_counter() - start)
        taken[k] = min(times) / len(data)
    return taken
