"""Writing a memory folder: every file that counts is on the disk before the manifest names it."""

import contextlib
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from residua.core import ChunkedTensor, Rows
from residua.core.atomic import write_json
from residua.errors import MemoryFileError
from residua.folder import MANIFEST, checksum, named_files, present, read_manifest

# How the files that a save writes begin; safetensors writes into .tmpXXXXXX and renames, and so may be killed there.
OWN = ("rows-", "edits-", "head-", "names-", "index-", f"{MANIFEST}.", ".tmp")
MAPPED = frozenset({"key", "logits"})  # columns that may stay in their file
_HEADER = 10**8  # safetensors itself reads no longer one


def put_tensors(path: Path, name: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write tensors to a safetensors file of folder `path`; what a manifest says of it."""
    save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, path / name)
    return described(path / name)


def get_tensors(path: Path, about: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a file that a manifest describes, verified."""
    file = verify(path, about)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise MemoryFileError(f"{file} is not a safetensors file: {error}") from error


def map_tensors(path: Path, about: dict[str, Any]) -> dict[str, Rows]:
    """The same, but the large ones (``MAPPED``) stay in the file, as ``ChunkedTensor``, and what they hold is not
    verified: only the file's size, its header and all else."""
    file, found = present(path, about), dict[str, Rows]()
    if "small_crc32" not in about:  # of an older version
        verify(path, about)
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dict)
                tensor = opened.get_tensor(name)
                found[name] = ChunkedTensor([tensor]) if name in MAPPED else tensor.clone()
    except SafetensorError as error:
        raise MemoryFileError(f"{file} is not a safetensors file: {error}") from error
    except RuntimeError as error:  # of torch, which maps it
        raise MemoryFileError(f"{file} cannot be mapped: {error}") from error
    if small_crc32(file, found) != about.get("small_crc32", small_crc32(file, found)):
        raise MemoryFileError(f"{file} is corrupted: the checksum of its small columns is not the manifest's")
    return found


def small_crc32(file: Path, tensors: Mapping[str, Rows]) -> int:
    """Checksum of a safetensors file's header and of all its tensors but the large ones."""
    with open(file, "rb") as stream:
        length = stream.read(8)
        value = zlib.crc32(stream.read(min(int.from_bytes(length, "little"), _HEADER)), zlib.crc32(length))
    for name in sorted(tensors.keys() - MAPPED):
        value = zlib.crc32(tensors[name][:].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), value)
    return value


def described(file: Path) -> dict[str, Any]:
    """What a manifest says of a written file: name, size and checksum. The file is on the disk when this returns."""
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
    return {"file": file.name, "bytes": file.stat().st_size, "crc32": crc32(file)}


def verify(path: Path, about: dict[str, Any]) -> Path:
    """The path of a file that a manifest describes, if it has the size and checksum it should have."""
    file = present(path, about)
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


def commit(path: Path, manifest: dict[str, Any]) -> None:
    """Make `manifest` what folder `path` holds, by rename, then remove the files that it does not name."""
    write_json(path / MANIFEST, manifest | {"crc32": checksum(manifest)})
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


def sweep(path: Path, manifest: dict[str, Any]) -> None:
    """Remove the files of older generations."""
    named = {about["file"] for about in named_files(manifest)}
    remove(file for file in path.iterdir() if file.name.startswith(OWN) and file.name not in named)


def remove(files: Iterator[Path]) -> None:
    """Remove files; one that cannot be removed is only untidy."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
