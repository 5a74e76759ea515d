"""A memory's folder from outside: what its files are called, and what its JSON files say. No torch is needed for it."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

from residua import described
from residua.errors import MemoryFileError
from residua.strict import read_json

MANIFEST = "manifest.json"  # names every file that counts; written last
BUILD = "build.json"  # of a build that is not finished
READER = "reader.json"  # a saved reader's parameters, beside a manifest of a format up to 3
EDITS = "edits"  # the folder of a saved reader's edits, which are a memory of their own
LOCK = "lock"  # held by whoever writes here; empty
# How the files that a save writes begin; safetensors writes into .tmpXXXXXX and renames, and so may be killed there.
OWN = (
    "rows-",
    "keys-",
    "edits-",
    "head-",
    "names-",
    "truth-",
    "learned-",
    "members-",
    "index-",
    "manifest-",
    f"{MANIFEST}.",
    READER,
    ".tmp",
)
# What a folder may hold beside a memory before there is one: a card, and what a repository's clone or download brings.
BESIDE = (EDITS, "README.md", ".gitattributes", ".git", ".cache")
FORMAT = 4
# 1: ids and columns dense, labels int64; 1 and 2: no schema, keys as they are; up to 3: a reader in a file of its own
READABLE = (1, 2, 3, 4)


def folder_of(path: str | os.PathLike[str]) -> Path:
    """The one name of a folder that may have several."""
    return Path(os.path.realpath(path))


def read_manifest(path: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The manifest of folder `path`; ``MemoryFileError`` if it is missing, torn, corrupted or of another format."""
    file = path / name
    try:
        manifest = read_json(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        expected = "expected a folder that save wrote"
        raise MemoryFileError(f"{path} is not a memory: it has no {name}; {expected}") from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{file} cannot be read: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found not in READABLE:
        reads = f"this version reads formats {READABLE[0]} to {READABLE[-1]}"
        raise MemoryFileError(f"{file} has format {found}; {reads}")
    if manifest.get("crc32") != checksum(manifest):
        raise MemoryFileError(f"{file} is corrupted: its checksum is not its own")
    try:
        described.manifest(manifest)
    except (ValueError, OverflowError) as error:
        raise MemoryFileError(f"{file} is not a manifest that a save wrote: {error}") from error
    return manifest


def checksum(manifest: dict[str, Any]) -> int:
    """Checksum of everything else in a manifest."""
    return zlib.crc32(json.dumps({name: value for name, value in manifest.items() if name != "crc32"}).encode())


def named_files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What a manifest says of each file it names: ``file``, ``bytes``, ``crc32``."""
    edits = manifest.get("edits", [])  # one file up to format 3
    others = [manifest[one] for one in ("head", "names", "truth") if one in manifest]
    edits, index = edits if isinstance(edits, list) else [edits], manifest["index"]
    learned = [one] if (one := (manifest.get("reader") or {}).get("learned")) else []
    if "members" in manifest:
        others += [manifest["members"]["entries"], *manifest["members"]["shards"]]
    return [*manifest["shards"], *index["files"], *index.get("tail", ()), *edits, *others, *learned]


def present(path: Path, about: dict[str, Any]) -> Path:
    """The path of a file that the manifest of folder `path` describes, if it is there and has the size it should."""
    file = path / about["file"]
    if file.parent != path:
        raise MemoryFileError(f"{path / MANIFEST} names {about['file']}, which is not in its folder: it is not ours")
    if file.is_symlink():
        raise MemoryFileError(f"{file} is a link, which may lead anywhere; copy what it leads to in its place")
    if not file.is_file():
        raise MemoryFileError(f"{file} is missing; restore it from a copy, or build the memory again")
    if (size := file.stat().st_size) != about["bytes"]:
        raise MemoryFileError(f"{file} has {size} bytes and should have {about['bytes']}: it is torn")
    return file


def earlier_manifest(generation: str) -> str:
    """What the manifest of an earlier generation is called."""
    return f"{MANIFEST.removesuffix('.json')}-{generation}.json"


def has_reader(path: Path) -> bool:
    """Whether a reader is saved with the memory in folder `path`."""
    try:
        return reader_in(path, read_manifest(path)) is not None
    except MemoryFileError:
        return False


def require_reader(path: Path, about: dict[str, Any] | None) -> dict[str, Any]:
    """What ``reader_in`` found in folder `path`; ``MemoryFileError`` where that is nothing."""
    if about is None:
        raise MemoryFileError(f"{path} holds no reader; save a reader there, or use rs.Memory.load")
    return about


def reader_in(path: Path, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The reader that was saved with a manifest of folder `path`; None where there is none."""
    file = path / (MANIFEST if manifest["format"] > 3 else READER)
    try:
        about = manifest.get("reader") if manifest["format"] > 3 else read_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{file} cannot be read: {error}") from error
    try:
        return None if about is None else _renamed(about)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MemoryFileError(f"{file} does not describe a reader: {error}") from error


def reads_edits(about: dict[str, Any] | None) -> bool:
    """Whether a saved reader, or one that it holds, has edits in a folder of their own."""
    if about is None:
        return False
    held = (value for value in about["params"].values() if isinstance(value, dict) and "reader" in value)
    return about["reader"] == "Edited" or any(map(reads_edits, held))


def _renamed(about: dict[str, Any]) -> dict[str, Any]:
    """A reader as it is described now: version 0.1 called ``skip`` ``gate``. A reader's parameter may be a reader."""
    described.READER(about, "reader")
    params = {"skip" if name == "gate" else name: value for name, value in about["params"].items()}
    nested = {name: _renamed(value) for name, value in params.items() if isinstance(value, dict) and "reader" in value}
    return about | {"reader": about["reader"], "params": params | nested}
