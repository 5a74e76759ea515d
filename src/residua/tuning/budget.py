"""The quickest setting within a stated loss of the best one: what a row takes under each k, less skipped searches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from residua.core import Encoded, as_tensor, batches
from residua.errors import ParameterError
from residua.readers import NeighbourReader
from residua.tuning.objective import Grid

ROWS = 128  # answered to measure what a row takes: more cost no less a row
TIMES = 5  # of which the quickest counts: all else is the machine's


def check_budget(budget: float | None, objective: object) -> None:
    """``ParameterError`` where it is no relative loss of perplexity, or something else is asked for."""
    if budget is None:
        return
    if not isinstance(budget, (int, float)) or isinstance(budget, bool) or not 0 <= budget < np.inf:
        raise ParameterError(f"budget={budget!r}; expected the relative loss of perplexity allowed, such as 0.01")
    if objective != "log_loss":
        raise ParameterError(f"budget= is a loss of perplexity, judged by log_loss, and objective={objective!r}")


def quickest(
    results: Mapping[str, np.ndarray],
    budget: float,
    costs: Mapping[int, float],
    skippable: Callable[[int, float], float],
) -> int:
    """Which setting answers a row soonest, of those whose perplexity is at most 1 + `budget` times the least.

    Of each k the best one competes, at its `costs` less the share of searches that ``skippable(setting, score)`` saves
    while the score stays so high; of equals the fewest neighbours. Settings without neighbours do not compete.
    """
    score = np.where(results["k"] > 0, results["score"], -np.inf)
    least = float(score.max() - np.log1p(budget))
    best = (int(np.argmax(np.where(results["k"] == k, score, -np.inf))) for k in sorted(costs))
    took = {at: costs[results["k"][at]] * (1 - skippable(at, least)) for at in best if score[at] >= least}
    return min(took, key=took.__getitem__)


def seconds_per_row(reader: NeighbourReader, validation: Encoded | Iterable[Encoded], grid: Grid) -> dict[int, float]:
    """What one of the first validation rows takes to search and to answer, measured here, for each k of the grid."""
    data = next(iter(batches(validation)))[:ROWS]
    keys, readers = as_tensor(data.keys), {int(k): reader.with_params(k=int(k)) for k in grid["k"] if k}
    taken = np.full((TIMES, len(readers)), np.inf)
    for time_, place in np.ndindex(taken.shape):  # in turn, so that a busy moment is nobody's own
        start = time.perf_counter()
        for _, now in list(readers.values())[place].answers(keys, data.logits):
            now.argmax()
        taken[time_, place] = time.perf_counter() - start
    quick = np.minimum.accumulate(taken.min(axis=0)[::-1])[::-1]  # more neighbours take no less
    return dict(zip(readers, (quick / len(data)).tolist()))
