"""A saved reader, with its memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from residua.errors import MemoryFileError
from residua.memory import Memory
from residua.readers.adaptive import AdaptiveLambda
from residua.readers.cache import ContinuousCache
from residua.readers.knnlm import KNNLM
from residua.readers.reader import FILE, Reader
from residua.readers.resmem import ResMem

READERS = {reader.__name__: reader for reader in (ResMem, KNNLM)}


def load(path: str | os.PathLike, device: str = "cpu") -> Reader:
    """The reader that ``Reader.save`` wrote into folder `path`, with its memory.

    Raises
    ------
    MemoryFileError
        When the folder holds no reader (``rs.Memory.load`` reads a memory alone), or is torn.

    Examples
    --------
    >>> import numpy as np, tempfile, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rs.ResMem(memory, k=2, sigma=0.5).save(folder)
    ...     rs.load(folder).params["sigma"]
    0.5
    """
    file = Path(path) / FILE
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MemoryFileError(f"{path} holds no {FILE}; save a reader there, or use rs.Memory.load") from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{file} cannot be read: {error}") from error
    memory = Memory.load(path, device)
    try:
        return _made(about, memory)
    except (KeyError, TypeError, ValueError) as error:
        raise MemoryFileError(f"{file} does not describe a reader: {error!r}") from error


def _made(about: dict, memory: Memory) -> Reader:
    """The reader of `memory` whose ``to_json`` is `about`."""
    params = dict(about["params"])
    if about["reader"] == ContinuousCache.__name__:
        return ContinuousCache(**{**params, "over": _made(params["over"], memory)})
    if isinstance(params.get("lmbda"), dict):
        params["lmbda"] = AdaptiveLambda.from_json(params["lmbda"])
    loaded = READERS[about["reader"]](memory, **{**params, "k": min(params["k"], len(memory))})
    loaded.k = params["k"]  # rows forgotten since may leave fewer than k: that is no error, before saving or after
    return loaded
