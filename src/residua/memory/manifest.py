"""The manifest of a memory folder: what it says, whether it is whole, and the files it does not name."""

from __future__ import annotations

import contextlib
import json
import zlib
from pathlib import Path

from residua.errors import MemoryFileError

FORMAT = 2
READABLE = (1, 2)  # 1: ids and columns dense, labels int64
MANIFEST = "manifest.json"
# How the files that a save writes begin; safetensors writes into .tmpXXXXXX and renames, and so may be killed there.
OWN = ("rows-", "edits-", "head-", "names-", "index-", f"{MANIFEST}.", ".tmp")


def read_manifest(path: Path) -> dict:
    """The manifest of folder `path`.

    Raises
    ------
    MemoryFileError
        When it is missing, torn, corrupted or of another format.
    """
    try:
        with open(path / MANIFEST, encoding="utf-8") as file:
            manifest = json.load(file)
    except FileNotFoundError as error:
        raise MemoryFileError(
            f"{path} is not a memory: it has no {MANIFEST}; expected a folder that save wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{path / MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise MemoryFileError(
            f"{path / MANIFEST} has format {found}; this version reads formats {READABLE[0]} to {READABLE[-1]}"
        )
    if manifest.get("crc32") != checksum(manifest):
        raise MemoryFileError(f"{path / MANIFEST} is corrupted: its checksum is not its own")
    return manifest


def checksum(manifest: dict) -> int:
    """Checksum of everything else in a manifest."""
    return zlib.crc32(json.dumps({name: value for name, value in manifest.items() if name != "crc32"}).encode())


def generation_of(path: Path) -> str | None:
    """The generation that folder `path` holds; None when it holds no whole manifest."""
    try:
        return read_manifest(path)["generation"]
    except (MemoryFileError, KeyError):
        return None


def undo(path: Path, generation: str) -> None:
    """Remove the files of a save that failed, unless its manifest is in place: an interrupt may come just after."""
    if generation_of(path) != generation:
        for file in path.glob(f"*-{generation}*"):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def sweep(path: Path, manifest: dict) -> None:
    """Remove the files of older generations; one that cannot be removed is only untidy."""
    named = {described["file"] for described in (*manifest["shards"], *manifest["index"]["files"])}
    named |= {manifest[one]["file"] for one in ("edits", "head", "names") if one in manifest}
    for file in path.iterdir():
        if file.name.startswith(OWN) and file.name not in named:
            with contextlib.suppress(OSError):
                file.unlink()
