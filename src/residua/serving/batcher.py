"""Requests that arrive together are answered together: a batch closes when it is full, or after a few milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from residua.serving.failures import Refused
from residua.serving.line import Line

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """Asks `answer` for many questions at once.

    While a batch is being answered, the next one collects; so the busier the server, the larger its batches.

    Parameters
    ----------
    answer : callable
        From questions to answers, one for each: what it should be told, or the exception that its asker should get.
    line : Line
        Where it is called.
    most : int
        The size at which a batch closes; a question that is larger is a batch of its own.
    wait : float
        Seconds that the first question of a batch waits for others.
    queue : int
        Questions that may wait; one more is refused with 503.
    """

    answer: Callable[[Sequence[Q]], Sequence[A | Exception]]
    line: Line
    most: int
    wait: float
    queue: int
    sizes: Callable[[int], None]  # told of each batch

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        line: Line,
        most: int,
        wait: float,
        queue: int,
    ):
        self.answer, self.line, self.most, self.wait, self.queue = answer, line, most, wait, queue
        self.sizes = lambda size: None
        self._waiting: deque[tuple[Q, int, asyncio.Future[A]]] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    async def ask(self, question: Q, size: int, limit: float) -> A:
        """The answer to a question of this size; ``Refused`` where it does not come within `limit` seconds."""
        if len(self._waiting) >= self.queue:
            raise Refused(503, "too many requests wait; ask again in a second", "Busy", {"retry-after": "1"})
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        asked: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, size, asked))
        self._arrived.set()
        try:
            async with asyncio.timeout(limit):
                return await asked
        except TimeoutError:
            why = f"no answer within {limit:g} seconds; ask again later, or for less"
            raise Refused(503, why, "Timeout", {"retry-after": "1"}) from None

    def close(self) -> None:
        """Take no more; what waits is no longer answered."""
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            await self._collect()
            batch = self._taken()
            if not batch:
                continue
            self.sizes(sum(size for _, size, _ in batch))
            try:
                answers = await self.line.do(self.answer, [question for question, _, _ in batch])
            except Exception as error:  # noqa: BLE001 (each asker gets it)
                answers = [error] * len(batch)
            for (_, _, asked), answer in zip(batch, answers, strict=True):
                if asked.done():  # it waited too long
                    continue
                if isinstance(answer, Exception):
                    asked.set_exception(answer)
                else:
                    asked.set_result(answer)

    async def _collect(self) -> None:
        until = time.monotonic() + self.wait
        while sum(size for _, size, _ in self._waiting) < self.most and (left := until - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                break

    def _taken(self) -> list[tuple[Q, int, asyncio.Future[A]]]:
        batch, total = list[tuple[Q, int, asyncio.Future[A]]](), 0
        while self._waiting and (not batch or total + self._waiting[0][1] <= self.most):
            one = self._waiting.popleft()
            if not one[2].done():
                batch.append(one)
                total += one[1]
        if not self._waiting:
            self._arrived.clear()
        else:
            self._arrived.set()
        return batch
