"""Headers that go out with every answer, unless an answer has its own."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Message, Send


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """`send`, whose answers also bear these headers (names in lower case)."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            said = {name for name, _ in given}
            own = [(name.encode(), value.encode()) for name, value in headers.items()]
            message = {**message, "headers": [*given, *(one for one in own if one[0] not in said)]}
        await send(message)

    return sent
