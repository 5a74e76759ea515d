"""How often each may ask: a bucket of tokens that fills as time goes by."""

from __future__ import annotations

import time
from collections.abc import Callable


class Rate:
    """Lets `per_second` requests of each name through, and as many at once as come in a second (at least one).

    Examples
    --------
    >>> now = [0.0]
    >>> rate = Rate(2, clock=lambda: now[0])
    >>> [rate.wait("ada") for _ in range(3)], rate.wait("bob")
    ([0.0, 0.0, 0.5], 0.0)
    >>> now[0] = 0.5
    >>> rate.wait("ada"), rate.wait("ada")
    (0.0, 0.5)
    """

    per_second: float | None

    def __init__(self, per_second: float | None, clock: Callable[[], float] = time.monotonic):
        self.per_second, self._clock = per_second, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what is left, and when

    def wait(self, name: str) -> float:
        """0 where one may ask now, which counts; else the seconds after which one may."""
        if self.per_second is None:
            return 0.0
        now, full = self._clock(), max(1.0, self.per_second)
        left, then = self._buckets.get(name, (full, now))
        left = min(full, left + (now - then) * self.per_second)
        allowed = left >= 1
        self._buckets[name] = (left - 1 if allowed else left), now
        return 0.0 if allowed else (1 - left) / self.per_second
