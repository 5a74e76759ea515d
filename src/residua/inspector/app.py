"""The page's server: what can be asked, and where."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from residua.drawing.look import png
from residua.errors import InputError, ResiduaError, StaleMemoryError
from residua.inspector.guard import UPLOAD, Guard, refusal
from residua.inspector.session import Session, settings_of
from residua.printable import plain
from residua.strict import Check, list_of, loads, record, text
from residua.web import TooLarge

SIDE = 512  # pixels of a shown picture
IDS = 10_000  # of one edit
PICTURED = ("memory", "row", "upload")

# All that is served as it is, by its whole name: no path leads to a file.
STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_ID = r"-?\d{1,19}"  # in digits: a page's numbers have no more than 53 bits
_IDS = list_of(text(_ID, "an id in digits"), IDS)
_NOTE = {"note": text()}
# What is told with each edit, field by field.
_TOLD = {
    "forget": record({"ids": _IDS}, _NOTE, closed=True),
    "relabel": record({"ids": _IDS, "label": text()}, _NOTE, closed=True),
    "undo": record({}, closed=True),
    "keep": record({}, closed=True),
}
_SEARCHED = ("label", "name", "text", "id")


def application(session: Session, token: str, hosts: Iterable[str]) -> ASGIApp:
    """The server of one session, for whoever has the token and calls it by one of these hosts."""

    def asked(answer: Callable[[dict[str, str]], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            return _json(await run_in_threadpool(answer, dict(request.query_params)))

        return respond

    def edited(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            told = _told(request, await request.body(), _TOLD[name])
            return _json(await run_in_threadpool(getattr(session, name), **told))

        return respond

    async def bring(request: Request) -> Response:
        _require(request, "application/octet-stream")
        body = await request.body()
        number = await run_in_threadpool(session.uploads.bring, request.path_params["kind"], body)
        return _json({"example": f"upload-{number}"})

    async def picture(request: Request) -> Response:
        kind, number = request.path_params["kind"], request.path_params["number"]
        known = kind in PICTURED and re.fullmatch(_ID, number)
        found = await run_in_threadpool(session.picture, kind, int(number)) if known else None
        if found is None:
            return refusal(404, "there is no such picture")
        step = -(-max(found.shape[:2]) // SIDE)
        body = await run_in_threadpool(png, found[::step, ::step])
        return Response(body, media_type="image/png", headers={"cache-control": "private, max-age=600"})

    answers: dict[str, Callable[[dict[str, str]], Any]] = {
        "about": lambda given: session.about(),
        "status": lambda given: session.status(),
        "figures": lambda given: session.figures(settings_of(given)),
        "examples": lambda given: _examples(session, given),
        "explanation": lambda given: session.explanation(example=given.pop("example", ""), settings=settings_of(given)),
        "memories": lambda given: _memories(session, given),
    }
    routes = [
        *(Route(path, _static) for path in STATIC),
        *(Route(f"/{name}", asked(answer)) for name, answer in answers.items()),
        *(Route(f"/{name}", edited(name), methods=["POST"]) for name in _TOLD),
        Route("/picture/{kind}/{number}", picture),
        Route(f"/{{kind}}/{UPLOAD}", bring, methods=["POST"]),
    ]
    handlers: Any = {ResiduaError: _refused, TooLarge: _refused}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, hosts)


def _static(request: Request) -> Response:
    name, kind = STATIC[request.scope["path"]]
    return Response((files("residua.inspector") / "static" / name).read_bytes(), media_type=kind)


def _examples(session: Session, given: dict[str, str]) -> dict[str, Any]:
    page, which = _page(given), given.pop("which", "all")
    return session.examples(settings_of(given), which, page)


def _memories(session: Session, given: dict[str, str]) -> dict[str, Any]:
    page = _page(given)
    return session.remembered(page, **{name: given.get(name, "") for name in _SEARCHED})


def _page(given: dict[str, str]) -> int:
    page = given.pop("page", "0")
    if not (page.isdecimal() and len(page) < 10):
        raise InputError(f"page={page!r}; expected a whole number, counted from 0")
    return int(page)


def _told(request: Request, body: bytes, check: Check) -> dict[str, Any]:
    """What an edit was told, ids as numbers; ``InputError`` for anything else than that."""
    _require(request, "application/json")  # which no form of another page can send
    try:
        told = loads(body)
        check(told, "the request")
    except ValueError as error:
        raise InputError(f"this is not what is expected: {error}") from error
    if "ids" in told:
        told["ids"] = [int(id) for id in told["ids"]]
    return told


def _require(request: Request, kind: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip() != kind:
        raise InputError(f"expected a body of type {kind}")


def _json(answer: Any) -> Response:
    return Response(json.dumps(plain(answer), allow_nan=False), media_type="application/json")


def _refused(request: Request, error: Exception) -> Response:
    status = 413 if isinstance(error, TooLarge) else 409 if isinstance(error, StaleMemoryError) else 400
    return refusal(status, str(error))
