"""The memory or reader in a folder, as verbs open it: finished, and of the kind that the verb was given data for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from residua.caution import warn
from residua.cli.loaders import check_npz
from residua.cli.options import indexed, mapped, trusted
from residua.cli.output import command
from residua.errors import InputError, MemoryFileError, ParameterError
from residua.folder import BUILD, MANIFEST, has_reader, read_manifest
from residua.printable import short
from residua.strict import read_json

if TYPE_CHECKING:
    from residua.memory import Memory
    from residua.readers import Reader

log: logging.Logger = logging.getLogger(__name__)


def checked(path: Path, of_text: bool | None = None, files: Iterable[Path] = ()) -> dict:
    """The manifest of the memory in folder `path`, of which all is refused that can be known without torch.

    With `of_text`, it must be a memory that takes text (True) or encoded rows (False). `files` are those it is given.
    """
    rows = unfinished(path)
    if rows is not None:
        how = f"finish it: give the command that began it again, 'residua build --text ... -o {path}'"
        raise MemoryFileError(f"{path} holds an unfinished build, of which {rows:,} tokens are on disk; {how}")
    manifest = read_manifest(path)
    if "summary" in manifest:
        _require_kind(path, "documents" in manifest["summary"], of_text)
    check_npz(files)
    return manifest


def memory_at(
    path: Path,
    device: str = "cpu",
    *,
    of_text: bool | None = None,
    files: Iterable[Path] = (),
    edit: bool = False,
    live: bool = False,
) -> Memory:
    """The memory in folder `path`; `of_text` and `files` are as in ``checked``.

    To `edit` it: nobody else writes there until the verb ends. A `live` one is as ``rs.Memory.open`` gives it.
    """
    checked(path, of_text, files)
    from residua.memory import Memory

    if edit:
        from residua.memory.lock import locked

        click.get_current_context().with_resource(locked(path))

    opened = Memory.load(path, device, index=indexed(), mmap=mapped(), trust=trusted(), live=live)
    return _opened(path, opened, of_text)


def reader_at(
    path: Path,
    name: str | None,
    device: str,
    params: dict,
    *,
    of_text: bool,
    files: Iterable[Path] = (),
    live: bool = False,
) -> Reader:
    """The reader saved beside the memory in folder `path`; with a `name`, a new one with these parameters.

    `of_text` and `files` are as in ``checked``, `live` as in ``memory_at``. A memory of text without either is read by
    kNN-LM with its defaults, and a warning says so. Parameters that begin with ``cache_`` put a continuous cache over
    it, or change the saved one; ``own`` holds those without an option.
    """
    given = {parameter: value for parameter, value in params.items() if value is not None}
    given |= {own: values[0] for own, values in given.pop("own", {}).items()}
    cache = {key.removeprefix("cache_"): given.pop(key) for key in [*given] if key.startswith("cache_")}
    if name is None and given:
        options, usual = ", ".join(f"--{parameter}" for parameter in given), usual_reader(of_text)
        raise ParameterError(f"{options} given without a reader; name the one they describe with --reader {usual}")
    checked(path, of_text, files)
    saved = name is None and has_reader(path)
    if name is None and not saved and not of_text:
        how = f"run 'residua tune {path} VALIDATION.npz' first, or name a reader with --reader resmem"
        raise MemoryFileError(f"{path} holds no tuned reader; {how}")
    from residua.readers import ContinuousCache, load
    from residua.readers.reader import reader_class

    if saved:
        reader = load(path, device, index=indexed(), mmap=mapped(), trust=trusted(), live=live)
        _opened(path, reader.memory, of_text)
    else:
        memory = memory_at(path, device, of_text=of_text, live=live)
        cls = reader_class(name or usual_reader(True))
        unknown = ", ".join(f"--{parameter}" for parameter in sorted(set(given) - set(cls.parameter_names())))
        if unknown:
            raise ParameterError(f"--reader {name} has no {unknown}")
        reader = cls(memory, **given)
        if name is None:
            better = f"'residua tune {path} --text VALIDATION' finds better ones"
            unfit = f"{path} has no tuned reader, and kNN-LM's defaults are seldom the best; {better}"
            warn(unfit)
    if cache and isinstance(reader, ContinuousCache):
        reader = reader.with_params(**cache)
    elif cache:
        reader = ContinuousCache(reader, **cache)
    log.info("reader: %s, %s", short(reader), "saved beside the memory" if saved else "not a saved one")
    return reader


def usual_reader(of_text: bool | None) -> str:
    """What reads a memory where nothing else is said."""
    return "knnlm" if of_text else "resmem"


def unfinished(path: Path) -> int | None:
    """How many rows of a build that was stopped folder `path` holds; None when there is no such build."""
    if (path / MANIFEST).exists() or not (path / BUILD).exists():
        return None
    try:
        state = read_json(path / BUILD)
        return sum(block["rows"] for block in (*state["shards"], *state.get("parts", ())))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def bytes_in(path: Path) -> int:
    """What the files of a memory's folder take on disk."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def next_step(path: Path, of_text: bool) -> str:
    """What one types next about the memory in folder `path`: evaluate its reader, or tune one first."""
    if has_reader(path):
        verb, data, why = "evaluate", "TEST", "neither remembered nor tuned on"
    else:
        verb, data, why = "tune", "VALIDATION", "not remembered"
    return command(verb, path, *(("--text", data) if of_text else (f"{data}.npz",)), why=why)


def _opened(path: Path, memory: Memory, of_text: bool | None) -> Memory:
    _require_kind(path, memory.schema.is_text, of_text)
    made = memory.source and f"keys from {memory.source.key} of {memory.source.name}"
    log.info("memory %s: %r, %s", path, memory, made or "keys given as arrays")
    return memory


def _require_kind(path: Path, is_text: bool, of_text: bool | None) -> None:
    """Refuse a memory of text where a verb was given encoded rows, and the reverse."""
    if of_text in (None, is_text):
        return
    if is_text:
        again = command(click.get_current_context().info_name or "", path, "--text")
        raise InputError(f"{path} is a memory of tokens, which takes text and no .npz file: {again} ...")
    how = "it takes encoded rows, FILE.npz; tokens are remembered by residua build --text"
    raise InputError(f"{path} is no memory of tokens: {how}")
