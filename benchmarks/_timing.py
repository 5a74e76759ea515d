"""Time two things in turn, A B A B ..., so that a machine whose speed drifts is fair to both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable, repeat: int = 5, warm_up: int = 1) -> float:
    """Median wall-clock seconds of `work`."""
    return in_turn({"work": work}, repeat, warm_up)["work"]


def in_turn(works: dict[str, Callable], repeat: int = 5, warm_up: int = 1) -> dict[str, float]:
    """Median wall-clock seconds of each, run one after the other `repeat` times."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(warm_up + repeat):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if round_ >= warm_up:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}
