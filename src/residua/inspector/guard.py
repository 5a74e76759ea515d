"""Who may ask: this machine's browser, at the address with the token, from the page itself, and not too much."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from residua.web import TooLarge, declared, limited, stranger, with_headers

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
        send = with_headers(send, HEADERS)
        request = Request(scope)
        refused = self._refused(request)
        if refused is None:
            limit = FILE_BYTES if scope["path"].endswith(f"/{UPLOAD}") else JSON_BYTES
            if declared(request) > limit:
                refused = refusal(413, str(TooLarge(limit)))
            else:
                rest = "/" + scope["path"].split("/", 2)[2]
                scope = dict(scope, path=rest, raw_path=rest.encode(), root_path="")
                receive = limited(receive, limit)
        await (self.app if refused is None else refused)(scope, receive, send)

    def _refused(self, request: Request) -> Response | None:
        """What is answered instead; None: it may pass."""
        unknown = stranger(request, self.hosts)
        if unknown is not None:
            return refusal(*unknown)
        given = request.scope["path"].split("/", 2)
        if len(given) < 3 or not hmac.compare_digest(given[1].encode(), self._token):
            return refusal(404, "there is nothing here: use the whole address that was printed")
        return None


def refusal(status: int, why: str) -> JSONResponse:
    """An answer that says why not."""
    return JSONResponse({"error": why}, status_code=status)
