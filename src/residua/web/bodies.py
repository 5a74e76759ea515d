"""How much may come: a request's body by what it declares, and by what then really comes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Message, Receive


class TooLarge(Exception):
    """More came than may come; an application answers it with 413."""

    def __init__(self, limit: int):
        super().__init__(f"a request of at most {limit:,} bytes is taken here")


def declared(request: Request) -> int:
    """The length that a request says its body has; more than any limit where it says nonsense."""
    length = request.headers.get("content-length", "0")
    return int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 2**62


def limited(receive: Receive, limit: int) -> Receive:
    """`receive`, which raises ``TooLarge`` where a body goes on and on, whatever length it declared."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise TooLarge(limit)
        return message

    return counted
