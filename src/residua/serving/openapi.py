"""The table of routes as an OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from residua.serving.routes import Route

_WHY = {
    400: "the request is no JSON, or not what its schema says",
    401: "no token, or none that is known",
    403: "this token is for something else, or another page asks",
    404: "there is nothing here",
    408: "the request did not come to its end in time",
    409: "it does not go together with what the memory is now",
    413: "the request is too large",
    415: "the request is not of type application/json",
    421: "another server is meant",
    422: "it is what its schema says, and cannot be used all the same",
    429: "too many requests in this second",
    500: "the server failed",
    503: "the server is too busy, or cannot write to its disk",
}
_EVERY = (403, 421, 429, 500, 503)
_BODY = (400, 408, 409, 413, 415, 422)
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "param": {"type": "null"},
                "code": {"type": "null"},
            },
        }
    },
}


def document(routes: Iterable[Route], tokens: bool) -> dict[str, Any]:
    """What an OpenAPI page holds; `tokens`: whether one is needed."""
    paths: dict[str, Any] = {"/health": {"get": _health()}}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, tokens)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "residua", "version": version("residua"), "summary": "A model and its memory"},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }
    if tokens:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return made


def _operation(route: Route, tokens: bool) -> dict[str, Any]:
    statuses = {*_EVERY, *(_BODY if route.body is not None else ()), *route.told, *((401,) if tokens else ())}
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            "200": {"description": "done", "content": _json(route.answer.schema)},
            **{str(status): _refusal(route.told.get(status, _WHY[status])) for status in sorted(statuses)},
        },
    }
    if route.body is not None:
        made["requestBody"] = {"required": True, "content": _json(route.body.schema)}
    return made | ({"security": [{"token": []}]} if tokens else {})


def _health() -> dict[str, Any]:
    schema = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
    return {
        "operationId": "health",
        "summary": "Whether the server answers.",
        "responses": {"200": {"description": "it does", "content": _json(schema)}},
    }


def _refusal(why: str) -> dict[str, Any]:
    return {"description": why, "content": _json({"$ref": "#/components/schemas/Error"})}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
