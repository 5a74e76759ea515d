"""The inspector: a page on this machine, at an address that nobody can guess."""

from __future__ import annotations

import html
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from residua.core import Encoded
from residua.drawing.look import Images
from residua.errors import MissingDependencyError
from residua.explanation.explanation import Decoder
from residua.inspector.session import Session
from residua.readers import Reader

HERE = "127.0.0.1"
PATIENCE = 30.0  # seconds until it answers


class Inspector:
    """A page that is being served.

    Attributes
    ----------
    url : str
        Its address, with the token; whoever has it may look and edit.
    session : Session
        What is inspected.
    """

    url: str
    session: Session

    def __init__(self, session: Session, port: int):
        try:
            import uvicorn

            from residua.inspector.app import application
            from residua.web import bound, loopback_hosts
        except ImportError as error:
            raise MissingDependencyError(f'the inspector needs {error.name}: pip install "residua[inspect]"') from error
        self.session, self._socket = session, bound(HERE, port)
        port = self._socket.getsockname()[1]
        token = secrets.token_urlsafe(32)
        self.url = f"http://{HERE}:{port}/{token}/"
        config = uvicorn.Config(
            application(session, token, loopback_hosts(port)),
            lifespan="off",
            ws="none",
            access_log=False,  # addresses hold the token
            log_level="error",
            server_header=False,
            limit_concurrency=64,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        until = time.monotonic() + PATIENCE
        while not self._server.started and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)

    def wait(self) -> None:
        """Until it is closed, or interrupted."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Answer no more; what was not kept stays in the memory, and goes with it."""
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Inspector({self.url})"

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        return f'<p><a href="{url}" target="_blank" rel="noreferrer noopener">residua inspector</a></p>'


def inspect(
    reader: Reader,
    test: Encoded | Iterable[Encoded] | None = None,
    *,
    model: Any = None,
    prepare: Callable[[Any], Any] | None = None,
    images: Images | None = None,
    remembered: Images | None = None,
    tokenizer: Decoder | None = None,
    path: str | os.PathLike[str] | None = None,
    rows: int | None = None,
    port: int = 0,
) -> Inspector:
    """Look at a memory in a browser: what it does to each example, what its settings do to all of them, what is in it.

    The page is served on this machine alone, by a thread, until it is closed. Its numbers are those of
    ``rs.evaluate`` and ``rs.explain``; edits are the memory's own, and can be undone.

    Parameters
    ----------
    reader : Reader
        Of a memory's neighbours; of a ``ContinuousCache`` the one under it.
    test : Encoded or iterable of Encoded, optional
        The examples that are looked at, and that settings are judged by, where they have labels. They are searched
        once.
    model : torch module, fitted estimator, or pair (language model, tokenizer), optional
        Reads what is brought to the page: a vector, a text.
    prepare : callable, optional
        From a picture (PIL's, RGB) to what the model takes of one example, so that pictures can be brought, too.
    images, remembered : array or tensor (n, h, w[, c]) or (n, c, h, w), sequence, mapping, callable, path, optional
        Pictures of the test rows, by row number, and of what is remembered, by id; or a folder that names are in.
        Without, names that are paths of pictures are opened.
    tokenizer : optional
        Shows tokens as text, where no language model is given.
    path : path, optional
        The memory's folder: what is kept is saved there, together with what others saved meanwhile.
    rows : int, optional
        The most rows of `test` that are held: by default 10 000, and fewer of a vocabulary.
    port : int, default 0
        0 takes any that is free.

    Returns
    -------
    Inspector
        With its ``url``, ``wait()`` and ``close()``.

    Raises
    ------
    MissingDependencyError, InputError, ParameterError, LabelError, ShapeError, SourceMismatchError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> data = rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1])
    >>> with rs.inspect(rs.ResMem(rs.Memory(data), k=2), data) as page:  # doctest: +SKIP
    ...     page.wait()
    """
    where = None if path is None else Path(path)
    about: dict[str, Any] = {"model": model, "prepare": prepare, "images": images, "remembered": remembered}
    return Inspector(Session(reader, test, tokenizer=tokenizer, path=where, rows=rows, **about), port)
