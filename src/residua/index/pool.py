"""Connections to a PostgreSQL database: few, each in one hand at a time, and none that waits for longer than it may."""

from __future__ import annotations

import functools
import math
import os
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import numpy as np

from residua.index.connected import Address

CONNECTIONS = 8  # at once, of a process


class Late(Exception):
    """The time is over."""


class Pool:
    """Connections of this process to one database, each in one hand at a time."""

    def __init__(self, address: Address, psycopg: Any):
        self.address, self.psycopg, self.pid = address, psycopg, os.getpid()
        self._turns, self._idle = BoundedSemaphore(CONNECTIONS), deque[Any]()

    @contextmanager
    def taken(self, until: float, again: bool) -> Iterator[Any]:
        """A connection, whose calls end `until` then; after any error it is closed."""
        if not self._turns.acquire(timeout=max(until - time.monotonic(), 0)):
            raise Late(f"all {CONNECTIONS} connections are in use")
        try:
            try:
                client = self._idle.pop()
            except IndexError:
                client = self._connected(until)
            client.until, client.again = until, again
            try:
                yield client
            except BaseException:
                client.close()
                raise
            self._idle.append(client)
        finally:
            self._turns.release()

    def empty(self) -> None:
        """Close those that nobody uses."""
        while self._idle and self.pid == os.getpid():
            try:
                self._idle.pop().close()
            except IndexError:
                return  # others took the last one

    def _connected(self, until: float) -> Any:
        seconds = math.ceil(self.address.timeout)
        left = max(math.ceil(until - time.monotonic()), 2)  # no client of PostgreSQL waits for less
        given = {"application_name": "residua", "keepalives_idle": seconds, "keepalives_interval": seconds}
        given |= {"tcp_user_timeout": 1000 * seconds, "connect_timeout": left}
        given |= {"password": self.address.secret} if self.address.secret else {}
        client = _connection(self.psycopg).connect(
            autocommit=True, prepare_threshold=None, **given | dict(self.address.options)
        )
        client.adapters.register_dumper(np.ndarray, _keys(self.psycopg))
        return client


@functools.cache
def _connection(psycopg: Any) -> Any:
    class Connection(psycopg.Connection):
        until, again = math.inf, False

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            return super().wait(_in_time(gen, self.until), *args, **kwargs)

    return Connection


@functools.cache
def _keys(psycopg: Any) -> Any:
    class Key(psycopg.adapt.Dumper):
        """A key, as pgvector receives it."""

        format = psycopg.pq.Format.BINARY
        oid = 0  # the server knows which

        def dump(self, key: np.ndarray) -> bytes:
            return struct.pack("!HH", len(key), 0) + key.astype(">f4").tobytes()

    return Key


def _in_time(steps: Any, until: float) -> Any:
    """What psycopg does step by step, and no longer than `until`: libpq itself waits for ever."""
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if time.monotonic() > until:
                raise Late("it gave no answer")
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value
