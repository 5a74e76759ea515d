"""The manifest of a memory folder: it names every file that counts, each of them on the disk before it is named."""

import contextlib
import json
import os
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from residua.core.atomic import write_json
from residua.errors import MemoryFileError

FORMAT = 3
READABLE = (1, 2, 3)  # 1: ids and columns dense, labels int64; 1 and 2: no schema, and keys as they are
MANIFEST = "manifest.json"
# How the files that a save writes begin; safetensors writes into .tmpXXXXXX and renames, and so may be killed there.
OWN = ("rows-", "edits-", "head-", "names-", "index-", f"{MANIFEST}.", ".tmp")


def put_tensors(path: Path, name: str, tensors: dict[str, torch.Tensor]) -> dict:
    """Write tensors to a safetensors file of folder `path`; what a manifest says of it."""
    save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, path / name)
    return described(path / name)


def get_tensors(path: Path, about: dict) -> dict[str, torch.Tensor]:
    """The tensors of a file that a manifest describes, verified."""
    file = verify(path, about)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise MemoryFileError(f"{file} is not a safetensors file: {error}") from error


def described(file: Path) -> dict:
    """What a manifest says of a written file: name, size and checksum. The file is on the disk when this returns."""
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
    return {"file": file.name, "bytes": file.stat().st_size, "crc32": crc32(file)}


def verify(path: Path, about: dict) -> Path:
    """The path of a file that a manifest describes, if it has the size and checksum it should have."""
    file = path / about["file"]
    if file.parent != path:
        raise MemoryFileError(f"{path / MANIFEST} names {about['file']}, which is not in its folder: it is not ours")
    if not file.is_file():
        raise MemoryFileError(f"{file} is missing; restore it from a copy, or build the memory again")
    if (size := file.stat().st_size) != about["bytes"]:
        raise MemoryFileError(f"{file} has {size} bytes and should have {about['bytes']}: it is torn")
    if crc32(file) != about["crc32"]:
        raise MemoryFileError(f"{file} is corrupted: its checksum is not the manifest's")
    return file


def crc32(file: Path) -> int:
    """Checksum of a file's content."""
    value = 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


@contextlib.contextmanager
def writing(path: Path, safe: str = "") -> Iterator[None]:
    """What fails in here, for want of space or permission, is a ``MemoryFileError`` that says what is `safe`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        ours = isinstance(error, MemoryFileError)
        said = str(error) if ours else f"cannot write {path}: {getattr(error, 'strerror', None) or error}"
        raise MemoryFileError(said + safe) from (error.__cause__ if ours else error)


def read_manifest(path: Path) -> dict:
    """The manifest of folder `path`; ``MemoryFileError`` if it is missing, torn, corrupted or of another format."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        expected = "expected a folder that save wrote"
        raise MemoryFileError(f"{path} is not a memory: it has no {MANIFEST}; {expected}") from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{path / MANIFEST} cannot be read: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found not in READABLE:
        reads = f"this version reads formats {READABLE[0]} to {READABLE[-1]}"
        raise MemoryFileError(f"{path / MANIFEST} has format {found}; {reads}")
    if manifest.get("crc32") != _checksum(manifest):
        raise MemoryFileError(f"{path / MANIFEST} is corrupted: its checksum is not its own")
    return manifest


def commit(path: Path, manifest: dict) -> None:
    """Make `manifest` what folder `path` holds, by rename, then remove the files that it does not name."""
    write_json(path / MANIFEST, manifest | {"crc32": _checksum(manifest)})
    sweep(path, manifest)


def check_folder(path: Path, verb: str, *others: str) -> bool:
    """Whether folder `path` holds a memory; one that holds anything else (but files named like `others`) is refused."""
    if (path / MANIFEST).exists():
        read_manifest(path)  # another program's, or another version's, is not overwritten
        return True
    if not all(file.name.startswith((*OWN, *others)) for file in path.iterdir()):  # our own: a first save was killed
        raise MemoryFileError(f"{path} holds files that are not a memory's; {verb} into an empty or new folder")
    return False


def generation_of(path: Path) -> str | None:
    """The generation that folder `path` holds; None when it holds no whole manifest."""
    try:
        return read_manifest(path)["generation"]
    except (MemoryFileError, KeyError):
        return None


@contextlib.contextmanager
def new_generation(path: Path) -> Iterator[str]:
    """What one save's files have in their names. If it fails they are removed, unless its manifest is in place already:
    an interrupt may come just after."""
    generation = uuid.uuid4().hex[:12]
    try:
        yield generation
    except BaseException:
        if generation_of(path) != generation:
            remove(path.glob(f"*-{generation}*"))
        raise


def sweep(path: Path, manifest: dict) -> None:
    """Remove the files of older generations."""
    named = {described["file"] for described in (*manifest["shards"], *manifest["index"]["files"])}
    named |= {manifest[one]["file"] for one in ("edits", "head", "names") if one in manifest}
    remove(file for file in path.iterdir() if file.name.startswith(OWN) and file.name not in named)


def remove(files: Iterator[Path]) -> None:
    """Remove files; one that cannot be removed is only untidy."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _checksum(manifest: dict) -> int:
    """Checksum of everything else in a manifest."""
    return zlib.crc32(json.dumps({name: value for name, value in manifest.items() if name != "crc32"}).encode())
