"""A thread of its own, and those who wait in line for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from residua.serving.failures import Refused

T = TypeVar("T")


class Line:
    """Work is done one after the other, in the order in which it came.

    Parameters
    ----------
    queue : int
        How much may wait; more is refused with 503.
    """

    queue: int

    def __init__(self, queue: int):
        self.queue = queue
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="residua-serving")

    def __len__(self) -> int:
        """How much waits, or is being done."""
        return self._waiting

    async def do(self, work: Callable[..., T], *args: Any, limit: float | None = None) -> T:
        """What `work` gives. ``Refused`` where it was not begun within `limit` seconds, and then it never is; what was
        begun is waited for, for nobody could say how far it had come."""
        if limit is not None and self._waiting >= self.queue:
            raise Refused(503, "too many requests wait; ask again in a second", "Busy", {"retry-after": "1"})
        begun = self._thread.submit(work, *args)
        done = asyncio.wrap_future(begun)
        self._waiting += 1
        done.add_done_callback(self._left)
        try:
            return await asyncio.wait_for(asyncio.shield(done), limit)
        except TimeoutError:
            if not begun.done() and begun.cancel():
                why = f"it was not begun within {limit:g} seconds, and nothing was done; ask again later"
                raise Refused(503, why, "Timeout", {"retry-after": "1"}) from None
            return await done

    def close(self) -> None:
        """Do what is left, and stop."""
        self._thread.shutdown(wait=True)

    def _left(self, _: object) -> None:
        self._waiting -= 1
