"""The memory or reader in a folder, as verbs open it: finished, and of the kind that the verb was given data for."""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path

import click

from residua.errors import InputError, MemoryFileError, ParameterError


def memory_at(path: Path, device: str = "cpu", *, of_tokens: bool | None = None):
    """The memory in folder `path`; with `of_tokens`, only one that takes text (True) or encoded rows (False).

    Raises
    ------
    MemoryFileError
        When there is none, or a build that is not finished.
    InputError
        When it is of the other kind.
    """
    from residua.memory import Memory

    _require_finished(path)
    return _of_kind(Memory.load(path, device), path, of_tokens)


def reader_at(path: Path, name: str | None, device: str, params: dict, *, of_tokens: bool | None = None):
    """The reader saved beside the memory in folder `path`; with a `name`, a new one with these parameters.

    A memory of tokens without either is read by kNN-LM with its defaults, and a warning says so. Parameters that begin
    with ``cache_`` put a continuous cache over it, or change the saved one.

    Raises
    ------
    MemoryFileError
        When there is no memory, or no saved reader and no name.
    ParameterError
        When parameters come without a name, or are not that reader's.
    InputError
        When the memory is of the other kind.
    """
    from residua.readers import ContinuousCache, load
    from residua.readers.load import READERS as CLASSES
    from residua.readers.reader import FILE as SAVED

    given = {parameter: value for parameter, value in params.items() if value is not None}
    cache = {key.removeprefix("cache_"): given.pop(key) for key in [*given] if key.startswith("cache_")}
    if name is None and given:
        options = ", ".join(f"--{parameter}" for parameter in given)
        one = "knnlm" if of_tokens else "resmem"
        raise ParameterError(f"{options} given without a reader; name the one they describe with --reader {one}")
    _require_finished(path)
    if name is None and (path / SAVED).exists():
        reader = load(path, device)
        _of_kind(reader.memory, path, of_tokens)
    else:
        memory = memory_at(path, device, of_tokens=of_tokens)
        if name is None and not memory.of_tokens:
            raise MemoryFileError(
                f"{path} holds {len(memory)} rows and no tuned reader; run 'residua tune {path} VALIDATION.npz' "
                "first, or name a reader with --reader resmem"
            )
        cls = {cls.__name__.lower(): cls for cls in CLASSES.values()}[name or "knnlm"]
        unknown = ", ".join(f"--{parameter}" for parameter in sorted(set(given) - set(cls.names)))
        if unknown:
            raise ParameterError(f"--reader {name} has no {unknown}")
        reader = cls(memory, **{"k": usual_k(cls, memory), **given})
        if name is None:
            warnings.warn(
                f"{path} has no tuned reader, and kNN-LM's defaults are seldom the best; 'residua tune {path} --text "
                "VALIDATION' finds better ones",
                UserWarning,
                stacklevel=2,
            )
    if cache and isinstance(reader, ContinuousCache):
        return reader.with_params(**cache)
    return ContinuousCache(reader, **cache) if cache else reader


def usual_k(cls, memory) -> int:
    """The reader class's default k, or all rows where the memory has fewer."""
    return min(inspect.signature(cls).parameters["k"].default, len(memory))


def unfinished(path: Path) -> int | None:
    """How many rows of a build that was stopped folder `path` holds; None when there is no such build."""
    from residua.memory.manifest import MANIFEST
    from residua.memory.unfinished import BUILD

    if (path / MANIFEST).exists() or not (path / BUILD).exists():
        return None
    try:
        return sum(shard["rows"] for shard in json.loads((path / BUILD).read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _require_finished(path: Path) -> None:
    rows = unfinished(path)
    if rows is not None:
        raise MemoryFileError(
            f"{path} holds an unfinished build, of which {rows:,} tokens are on disk; finish it: give the command that "
            f"began it again, 'residua build --text ... -o {path}'"
        )


def _of_kind(memory, path: Path, of_tokens: bool | None):
    if of_tokens is None or memory.of_tokens == of_tokens:
        return memory
    verb = click.get_current_context().info_name
    if memory.of_tokens:
        raise InputError(
            f"{path} is a memory of tokens, which takes text and no .npz file: residua {verb} {path} --text ..."
        )
    raise InputError(f"{path} is no memory of tokens: it takes encoded rows: residua {verb} {path} FILE.npz")
