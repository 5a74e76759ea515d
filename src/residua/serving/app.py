"""From a request to its answer: who asks, how often, how much, and one shape of JSON for all that goes wrong."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from residua import strict
from residua.printable import plain
from residua.serving import metrics
from residua.serving.failures import Refused, refusal, said
from residua.serving.logs import Log
from residua.serving.openapi import document
from residua.serving.page import POLICY, page
from residua.serving.rate import Rate
from residua.serving.routes import Route, routes_of
from residua.serving.service import Service
from residua.serving.tenants import Tenant
from residua.serving.tokens import OPERATOR, Tokens
from residua.web import TooLarge, declared, limited, stranger, with_headers

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": POLICY,
    "cache-control": "no-store",
}
_SMALL = 2**16  # bytes of JSON that are read at once, and not in a thread


def application(service: Service, tokens: Tokens | None, hosts: Collection[str], log: Log) -> ASGIApp:
    """The server of one service.

    With `tokens`, each request bears one. Without, there is one tenant, and whoever asks must be a program of this
    machine, which calls it by one of `hosts`.
    """
    table, counted = routes_of(service), metrics.Metrics(service)
    described = document(table, tokens is not None)
    shown, callers = page(described), _Callers(service, tokens, hosts)

    async def respond(route: Route, request: Request) -> Response:
        about = request.scope["residua"]
        about["route"] = route.path
        try:
            tenant = callers.tenant(request)
            about["tenant"] = tenant.name
            body = {} if route.body is None else await _body(request, route.body.check, service)
            return _json(await route.respond(tenant, body))
        except Exception as error:  # noqa: BLE001 (each has an answer)
            answer = refusal(error, dict(route.meant))
            about["error"] = getattr(error, "kind", type(error).__name__)
            if answer.status_code == 500:
                log.failure(error, request=about["id"])
            return answer

    async def health(request: Request) -> Response:
        return _json({"status": "ok"})

    async def openapi(request: Request) -> Response:
        return _json(described)

    async def shown_page(request: Request) -> Response:
        return Response(shown, media_type="text/html; charset=utf-8")

    async def figures(request: Request) -> Response:
        try:
            callers.operator(request)
        except Refused as error:
            return refusal(error)
        return Response(counted.text(), media_type=metrics.TYPE)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        why = "there is nothing here" if error.status_code == 404 else str(error.detail)
        return said(error.status_code, "RequestError", why, dict(error.headers or {}))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        log.event("start", tenants=len(service.tenants))
        yield
        service.close()
        log.event("stop")

    plain_ones = {"/health": health, "/openapi.json": openapi, "/": shown_page, "/metrics": figures}
    paths = [Path(path, _named(path, answer), methods=["GET"]) for path, answer in plain_ones.items()]
    paths += [Path(one.path, partial(respond, one), methods=[one.method]) for one in table]
    app = Starlette(routes=paths, exception_handlers={HTTPException: unknown}, lifespan=lifespan)
    return _Watched(app, callers, counted, log)


class _Callers:
    """Who asks."""

    def __init__(self, service: Service, tokens: Tokens | None, hosts: Collection[str]):
        self.service, self.tokens, self.hosts = service, tokens, hosts
        self.rate = Rate(service.limits.rate)

    def strange(self, request: Request) -> tuple[int, str] | None:
        """Why a request is refused whatever it asks: without tokens a browser must not be sent here."""
        return None if self.tokens is not None else stranger(request, self.hosts)

    def tenant(self, request: Request) -> Tenant:
        """Whose memory is asked; ``Refused`` where that is nobody's, or asked too often."""
        name = next(iter(self.service.tenants)) if self.tokens is None else self._name(request)
        if name not in self.service.tenants:
            raise Refused(403, "this token shows the metrics, and no memory", "Forbidden")
        if wait := self.rate.wait(name):
            why = f"more than {self.rate.per_second:g} requests in a second; ask again in {wait:.3g} seconds"
            raise Refused(429, why, "TooMany", {"retry-after": str(max(1, round(wait)))})
        return self.service.tenants[name]

    def operator(self, request: Request) -> None:
        """``Refused`` for whoever may not see the figures of all."""
        if self.tokens is not None and self._name(request) != OPERATOR:
            raise Refused(403, "the metrics are the operator's", "Forbidden")

    def _name(self, request: Request) -> str:
        assert self.tokens is not None
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        name = self.tokens.whose(token.strip()) if kind.lower() == "bearer" else None
        if name is None:
            needed = {"www-authenticate": "Bearer"}
            raise Refused(401, "a token is needed: Authorization: Bearer TOKEN", "Unauthorized", needed)
        return name


class _Watched:
    """Around everything: a number for each request, headers for each answer, a count and a line of the log."""

    def __init__(self, app: ASGIApp, callers: _Callers, counted: metrics.Metrics, log: Log):
        self.app, self.callers, self.counted, self.log = app, callers, counted, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        begun, about = time.perf_counter(), {"id": uuid.uuid4().hex[:16], "route": "other", "tenant": ""}
        status = 500
        scope["residua"] = about

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        outgoing = with_headers(watched, {**HEADERS, "x-request-id": about["id"]})
        strange = self.callers.strange(Request(scope))
        app = self.app if strange is None else said(strange[0], "Forbidden", strange[1])
        try:
            await app(scope, receive, outgoing)
        finally:
            seconds = time.perf_counter() - begun
            self.counted.answered(about["route"], about["tenant"], status, seconds)
            facts = {**about, "method": scope["method"], "status": status, "ms": round(1000 * seconds, 2)}
            self.log.event("request", **facts)


async def _body(request: Request, check: strict.Check, service: Service) -> dict[str, Any]:
    """What a request holds, as it must be."""
    limits = service.limits
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "expected a body of type application/json")
    if declared(request) > limits.body:
        raise TooLarge(limits.body)
    counted = Request(request.scope, limited(request.receive, limits.body))
    try:
        async with asyncio.timeout(limits.seconds):
            text = await counted.body()
    except TimeoutError:
        raise Refused(408, f"the request did not come to its end in {limits.seconds:g} seconds") from None
    except ClientDisconnect:
        raise Refused(400, "the request broke off") from None
    return _read(text, check) if len(text) <= _SMALL else await asyncio.to_thread(_read, text, check)


def _read(text: bytes, check: strict.Check) -> dict[str, Any]:
    try:
        found = strict.loads(text)
        check(found, "the request")
    except ValueError as error:
        raise Refused(400, f"this is not what is expected: {error}") from error
    return found


def _named(path: str, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def named(request: Request) -> Response:
        request.scope["residua"]["route"] = path
        return await answer(request)

    return named


def _json(answer: Any) -> Response:
    return JSONResponse(plain(answer))
