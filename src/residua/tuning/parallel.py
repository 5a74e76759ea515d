"""Blocks of small tensors side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch


def side_by_side(work: Callable, items: Sequence) -> Iterator[tuple]:
    """(item, work(item)) in order, on as many threads as torch uses.

    Many small operations lose more time at torch's barriers between its threads than they gain from them, so each
    block runs on one thread and the blocks run beside each other. torch's own thread count is restored at the end.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    torch.set_num_threads(1)
    try:
        yield from zip(items, pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
