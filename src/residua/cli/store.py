"""The memory or reader in a folder, as verbs open it: finished, and of the kind that the verb was given data for."""

import json
import warnings
from pathlib import Path

import click

from residua.errors import InputError, MemoryFileError, ParameterError


def memory_at(path: Path, device: str = "cpu", *, of_text: bool | None = None):
    """The memory in folder `path`; with `of_text`, only one that takes text (True) or encoded rows (False)."""
    from residua.memory import Memory

    return _opened(Memory.load, path, device, of_text)


def reader_at(path: Path, name: str | None, device: str, params: dict, *, of_text: bool | None = None):
    """The reader saved beside the memory in folder `path`; with a `name`, a new one with these parameters.

    A memory of text without either is read by kNN-LM with its defaults, and a warning says so. Parameters that begin
    with ``cache_`` put a continuous cache over it, or change the saved one; ``own`` holds those without an option.
    """
    from residua.readers import ContinuousCache, load
    from residua.readers.reader import FILE as SAVED
    from residua.readers.reader import reader_class

    given = {parameter: value for parameter, value in params.items() if value is not None}
    given |= {own: values[0] for own, values in given.pop("own", {}).items()}
    cache = {key.removeprefix("cache_"): given.pop(key) for key in [*given] if key.startswith("cache_")}
    if name is None and given:
        options, usual = ", ".join(f"--{parameter}" for parameter in given), usual_reader(of_text)
        raise ParameterError(f"{options} given without a reader; name the one they describe with --reader {usual}")
    if name is None and (path / SAVED).exists():
        reader = _opened(load, path, device, of_text)
    else:
        memory = memory_at(path, device, of_text=of_text)
        if name is None and not memory.schema.is_text:
            how = f"run 'residua tune {path} VALIDATION.npz' first, or name a reader with --reader resmem"
            raise MemoryFileError(f"{path} holds {len(memory)} rows and no tuned reader; {how}")
        cls = reader_class(name or usual_reader(True))
        unknown = ", ".join(f"--{parameter}" for parameter in sorted(set(given) - set(cls.parameter_names())))
        if unknown:
            raise ParameterError(f"--reader {name} has no {unknown}")
        reader = cls(memory, **given)
        if name is None:
            better = f"'residua tune {path} --text VALIDATION' finds better ones"
            unfit = f"{path} has no tuned reader, and kNN-LM's defaults are seldom the best; {better}"
            warnings.warn(unfit, UserWarning, stacklevel=2)
    if cache and isinstance(reader, ContinuousCache):
        return reader.with_params(**cache)
    return ContinuousCache(reader, **cache) if cache else reader


def usual_reader(of_text: bool | None) -> str:
    """What reads a memory where nothing else is said."""
    return "knnlm" if of_text else "resmem"


def unfinished(path: Path) -> int | None:
    """How many rows of a build that was stopped folder `path` holds; None when there is no such build."""
    from residua.memory.build import BUILD
    from residua.memory.manifest import MANIFEST

    if (path / MANIFEST).exists() or not (path / BUILD).exists():
        return None
    try:
        return sum(shard["rows"] for shard in json.loads((path / BUILD).read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def bytes_in(path: Path) -> int:
    """What the files of a memory's folder take on disk."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def keys_kept(memory) -> str:
    """Whether a memory's keys are on disk beside the index, in words."""
    kept = f"kept as {memory.schema.key_dtype}"
    return kept if memory.keys_kept else "dropped: the index's codes of them are kept"


def _opened(load, path: Path, device: str, of_text: bool | None):
    """The memory, or the reader of one, that `load` finds in a folder whose build is finished."""
    rows = unfinished(path)
    if rows is not None:
        how = f"finish it: give the command that began it again, 'residua build --text ... -o {path}'"
        raise MemoryFileError(f"{path} holds an unfinished build, of which {rows:,} tokens are on disk; {how}")
    found = load(path, device)
    is_text = getattr(found, "memory", found).schema.is_text
    if of_text not in (None, is_text):
        again = f"residua {click.get_current_context().info_name} {path}"
        if is_text:
            raise InputError(f"{path} is a memory of tokens, which takes text and no .npz file: {again} --text ...")
        raise InputError(f"{path} is no memory of tokens: it takes encoded rows: {again} FILE.npz")
    return found
