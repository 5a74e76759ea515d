"""A server that is reached by an address: what the adapters of all engines share.

An address says where a collection is, who asks, and how long a call may take. The secret in it is in no file, no error,
no ``repr`` and no pickle: whoever unpickles an index takes it from the environment.
"""

from __future__ import annotations

import importlib
import os
import re
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit
from weakref import WeakValueDictionary

from residua.errors import EngineError, MissingDependencyError, ParameterError
from residua.index.remote import Server

TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Address:
    """Where a collection is, as an engine's client takes it; `uri` says it to people."""

    uri: str
    collection: str
    secret: str = field(repr=False)
    timeout: float
    options: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Parts:
    """What the text of an address says."""

    url: SplitResult
    path: str  # before the collection
    collection: str
    timeout: float
    options: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, address: str | None, engine: str, expected: str, known: Iterable[str], longest: int) -> Self:
        """What `address` says; ``ParameterError`` where it is none of `engine`, has options that are not `known`, or a
        collection's name of more than `longest` characters. No error repeats it, for it may hold a password."""
        if not isinstance(address, str):
            raise ParameterError(f'index="{engine}" needs an address: {expected}')
        try:
            url = urlsplit(address)
            _ = url.hostname, url.port
        except ValueError as error:
            raise ParameterError(
                f"the address of index {engine!r} cannot be read: {error}; expected {expected}"
            ) from error
        path, _, collection = unquote(url.path).rpartition("/")
        if url.scheme != engine or not re.fullmatch(rf"[A-Za-z_]\w{{0,{longest - 1}}}", collection, re.ASCII):
            raise ParameterError(
                f"a collection of index {engine!r} is called {collection!r}; expected {expected}, and a collection's "
                f"name of letters, digits and _, at most {longest}"
            )
        options = dict(parse_qsl(url.query, keep_blank_values=True))
        known = {*known, "timeout"}
        if unknown := sorted(options.keys() - known):
            raise ParameterError(f"the address of index {engine!r} has options {unknown}; known are {sorted(known)}")
        given = options.pop("timeout", str(TIMEOUT))
        try:
            timeout = float(given)
        except ValueError:
            timeout = 0.0
        if not 0 < timeout < 1e6:
            raise ParameterError(f"timeout={given!r} in the address of index {engine!r}; expected seconds")
        return cls(url, path, collection, timeout, options)


class ConnectedServer(Server):
    """The server at an `address`, connected when it is first asked, and once in a process."""

    title: ClassVar[str]
    variable: ClassVar[str]  # of the environment, that has the secret where the address has none

    def __init__(self, address: Address):
        self.address = address

    @classmethod
    def at(cls, address: Address) -> Self:
        """The one of that address, once in this process."""
        if not address.secret:
            address = replace(address, secret=os.environ.get(cls.variable, ""))
        key = (cls, replace(address, collection=""), os.getpid())
        found = _SERVERS.get(key)
        if not isinstance(found, cls):
            found = _SERVERS[key] = cls(address)
        return found

    @property
    def identity(self) -> Hashable:
        return self.address.uri, self.address.options

    def __reduce__(self) -> Any:
        return type(self).at, (replace(self.address, secret=""),)

    @contextmanager
    def errors(self, what: str, name: object, patience: float | None = None) -> Iterator[None]:
        """Whatever a client raises in it is an ``EngineError`` that says what was not done in `patience` seconds."""
        try:
            yield
        except (MissingDependencyError, EngineError):
            raise
        except Exception as error:  # of the client, and of whatever that came upon
            said = self.said(error).strip().partition("\n")[0] or type(error).__name__
            where, within = f"{self.title} at {self.address.uri}", f"within {patience or self.address.timeout:g} s"
            raise EngineError(f"{where} did not do {what} of {name} {within}: {said}") from error

    @abstractmethod
    def said(self, error: Exception) -> str:
        """What a client's error says to people."""


_SERVERS: WeakValueDictionary[Hashable, ConnectedServer] = WeakValueDictionary()


def required(package: str, extra: str) -> Any:
    """The module of a client, or ``MissingDependencyError`` naming the extra."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        said = f'this index needs {package}, which is not installed: pip install "residua[{extra}]"'
        raise MissingDependencyError(said) from error


def check_params(kind: str | None, kinds: Iterable[str], numbers: dict[str, float | None]) -> None:
    """``ParameterError`` unless `kind` is one of `kinds` and all numbers that are given are above 0."""
    if kind is not None and kind not in (kinds := tuple(kinds)):
        raise ParameterError(f"kind={kind!r}; expected one of {kinds}, whose distances are true")
    for name, value in numbers.items():
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise ParameterError(f"{name}={value!r}; expected a number above 0")
