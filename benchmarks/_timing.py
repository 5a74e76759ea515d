"""Time two things in turn, A B A B ..., so that a machine whose speed drifts is fair to both."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np


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


def quartile(works: dict[str, Callable[[int], object]], rounds: int, calls: int, skipped: int = 4) -> dict[str, float]:
    """Microseconds of a call: the 25th percentile of thread time, over `rounds` in which all take turns at random.

    In its turn each is called a few times more, first, so that the caches are its own. It is given the call's number.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        order = list(works)
        random.Random(number).shuffle(order)
        for name in order:
            for call in range(skipped + calls):
                start = time.thread_time_ns()
                works[name](number * (skipped + calls) + call)
                if call >= skipped:
                    taken[name].append((time.thread_time_ns() - start) / 1000)
    return {name: round(float(np.percentile(times, 25)), 1) for name, times in taken.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch, BLAS and FAISS use one thread, whose time is then all the time."""
    import faiss
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            faiss.omp_set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])
