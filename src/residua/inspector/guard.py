"""Who may ask: this machine's browser, at the address with the token, from the page itself, and not too much."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON_BYTES = 2**16  # of a request that edits, or asks
FILE_BYTES = 2**24  # of an upload
UPLOAD = "upload"  # the last part of the one path that takes files

HEADERS = {
    # Scripts, styles and pictures of this server alone, nothing inline, and nobody frames the page.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",  # the address holds the token
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what names one of `hosts`, bears the `token` as the first part of its path, and comes from no other
    page; the token is taken off the path.

    A page elsewhere that knows the port cannot know the token; one whose name was bound to 127.0.0.1 names another
    host; and neither is let through by its ``Origin`` or ``Sec-Fetch-Site``.
    """

    app: ASGIApp
    hosts: frozenset[str]

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str]):
        self.app, self.hosts, self._token = app, frozenset(hosts), token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no websockets
            return
        request = Request(scope)
        refused = self._refused(request)
        if refused is None:
            limit = FILE_BYTES if scope["path"].endswith(f"/{UPLOAD}") else JSON_BYTES
            if _declared(request) > limit:
                refused = refusal(413, f"a request of at most {limit:,} bytes is taken here")
            else:
                rest = "/" + scope["path"].split("/", 2)[2]
                scope = dict(scope, path=rest, raw_path=rest.encode(), root_path="")
                receive = _limited(receive, limit)
        if refused is not None:
            await refused(scope, receive, _with_headers(send))
            return
        await self.app(scope, receive, _with_headers(send))

    def _refused(self, request: Request) -> Response | None:
        """What is answered instead; None: it may pass."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return refusal(421, "this server answers to its own address alone")
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        follows = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"  # a link, to look
        if origin not in (None, f"http://{hosts[0].lower()}") or (site in ("cross-site", "same-site") and not follows):
            return refusal(403, "another page may not ask here")
        given = request.scope["path"].split("/", 2)
        if len(given) < 3 or not hmac.compare_digest(given[1].encode(), self._token):
            return refusal(404, "there is nothing here: use the whole address that was printed")
        return None


class TooLarge(Exception):
    """More came than may come; the application answers it with 413."""


def refusal(status: int, why: str) -> JSONResponse:
    """An answer that says why not."""
    return JSONResponse({"error": why}, status_code=status)


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdecimal() and len(length) < 19 else 2**62


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive`, which raises ``TooLarge`` where a body goes on and on, whatever length it declared."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise TooLarge(f"a request of at most {limit:,} bytes is taken here")
        return message

    return counted


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            said = {name for name, _ in given}  # how long a picture may be kept
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*given, *(one for one in own if one[0] not in said)]}
        await send(message)

    return sent
