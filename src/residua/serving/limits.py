"""How much, how often and how long: what one request, and one tenant, may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass, fields

from residua.errors import ParameterError


@dataclass(frozen=True)
class Limits:
    """What is allowed; ``ParameterError`` for what is no limit.

    Attributes
    ----------
    body : int
        Bytes of a request.
    rows : int
        Rows, or documents, of a request.
    tokens : int
        New tokens of a completion.
    seconds : float
        How long a request may take to come, and then to wait for its answer.
    rate : float, optional
        Requests per second of each tenant.
    queue : int
        Requests that may wait; one more is refused.
    batch : int
        Rows that are answered together.
    wait : float
        Seconds for which the first request of a batch waits for others.
    capacity : int, optional
        Rows that each memory may have.
    """

    body: int = 2**24
    rows: int = 1024
    tokens: int = 1024
    seconds: float = 30.0
    rate: float | None = None
    queue: int = 1024
    batch: int = 256
    wait: float = 0.002
    capacity: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (value < 0 or (value == 0 and field.name != "wait")):
                raise ParameterError(f"{field.name}={value!r}; expected a limit above 0")
