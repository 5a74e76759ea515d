"""How a refusal is said over HTTP: the status of each error of the tree, and one shape of JSON for all."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from residua import errors
from residua.errors import ResiduaError
from residua.web import TooLarge

# The first that fits; all of them are the caller's to mend, but for a disk that cannot be written.
STATUS: dict[type[Exception], int] = {
    TooLarge: 413,
    errors.StaleMemoryError: 409,
    errors.EmptyMemoryError: 409,
    errors.SourceMismatchError: 409,
    errors.StorageError: 409,
    errors.MemoryFileError: 503,
    errors.MissingDependencyError: 501,
    errors.InputError: 422,
    errors.EncodeError: 422,
}


class Refused(Exception):
    """A request that is answered by a status and a reason, before anything was done."""

    status: int
    kind: str
    headers: dict[str, str] | None

    def __init__(self, status: int, why: str, kind: str = "RequestError", headers: dict[str, str] | None = None):
        super().__init__(why)
        self.status, self.kind, self.headers = status, kind, headers


def refusal(error: Exception, meant: dict[type[Exception], int] | None = None) -> JSONResponse:
    """The answer that says why not; `meant`: what errors mean to this route in particular."""
    if isinstance(error, Refused):
        return said(error.status, error.kind, str(error), error.headers)
    for kind, status in {**(meant or {}), **STATUS}.items():
        if isinstance(error, kind):
            return said(status, type(error).__name__, str(error))
    if isinstance(error, ResiduaError):
        return said(422, type(error).__name__, str(error))
    # What went wrong inside is the operator's business: it may hold what others sent.
    return said(500, "InternalError", "the server failed; its log says where")


def said(status: int, kind: str, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in JSON, of the shape that clients of language models know as well."""
    body: dict[str, Any] = {"error": {"type": kind, "message": why, "param": None, "code": None}}
    return JSONResponse(body, status_code=status, headers=headers)
