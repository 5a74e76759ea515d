"""A server of memories, from start to a graceful stop."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import uvicorn

from residua.errors import InputError, ParameterError
from residua.readers import Reader
from residua.serving.app import application
from residua.serving.limits import Limits
from residua.serving.logs import Log
from residua.serving.service import Service
from residua.serving.tenants import Tenant
from residua.serving.tokens import Tokens
from residua.web import bound, loopback_hosts

GRACE = 30  # seconds in which what was asked before the stop is answered
CONNECTIONS = 1024


class Server:
    """Serves readers of live memories over HTTP until it is told to stop.

    Parameters
    ----------
    readers : mapping of str to pair (reader, path)
        Each tenant's, by its name: ``rs.load(path, live=True)`` and the folder it is of.
    model : torch module, fitted estimator, or pair (language model, tokenizer), optional
        Without it, callers bring keys and logits.
    name : str, default "base"
        What the model alone is called.
    shape : sequence of int, optional
        Of one example.
    tokens : Path, optional
        A JSON file of names and tokens, which is made where there is none. Needed unless there is one memory, and it is
        served on this machine alone.
    host, port : str and int
        0 takes any port that is free.
    limits : Limits, optional
    certificate, key : Path, optional
        For HTTPS.
    log : text stream, optional
        Where lines of JSON go; by default ``sys.stderr``.

    Attributes
    ----------
    url : str
    service : Service
        What is served.

    Raises
    ------
    InputError, ParameterError, TaskError, SourceMismatchError
    """

    url: str
    service: Service

    def __init__(
        self,
        readers: Mapping[str, tuple[Reader, str | os.PathLike[str]]],
        model: Any = None,
        *,
        name: str = "base",
        shape: Sequence[int] | None = None,
        tokens: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        log: TextIO | None = None,
    ):
        if not readers:
            raise ParameterError("there is no memory to serve")
        if tokens is None and (len(readers) > 1 or not _is_loopback(host)):
            raise InputError(
                "several memories, or an address that others reach, need tokens: name the file that holds them, "
                "tokens= (it is made where there is none)"
            )
        tenants = [Tenant(name, reader, path) for name, (reader, path) in readers.items()]
        self.service = Service(tenants, model, name=name, shape=shape, limits=limits)
        known = None if tokens is None else Tokens.in_file(tokens, readers)
        self._socket = bound(host, port)
        self._socket.listen(CONNECTIONS)  # who comes before it runs waits
        port = self._socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if certificate is None else 'https'}://{shown}:{port}"
        self._log = Log(log or sys.stderr)
        config = uvicorn.Config(
            application(self.service, known, loopback_hosts(port), self._log),
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            backlog=CONNECTIONS,
            timeout_graceful_shutdown=GRACE,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT: then no more is taken, and what was asked is answered."""
        stop = self._server.handle_exit  # from now on: uvicorn itself hears signals only once its loop runs
        before = {one: signal.signal(one, stop) for one in (signal.SIGTERM, signal.SIGINT)}
        shown, warnings.showwarning = warnings.showwarning, self._log.warned
        logger = logging.getLogger("uvicorn")
        logger.addHandler(self._log)
        logger.propagate = False
        try:
            self._server.run([self._socket])
        finally:
            self.close()
            logger.removeHandler(self._log)
            warnings.showwarning = shown
            for one, handler in before.items():
                signal.signal(one, handler)

    def close(self) -> None:
        """Give the port and the model back; twice is once, and ``run`` does it at its end."""
        self._socket.close()
        self.service.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
