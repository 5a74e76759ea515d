"""Files that a manifest names: on the disk before they are named, and verified before they are read."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from residua.core.atomic import atomic_write
from residua.errors import MemoryFileError


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file whole or not at all, flushed to the disk before its rename."""
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def put(path: Path, name: str, tensors: dict[str, torch.Tensor]) -> dict:
    """Write CPU tensors to a safetensors file of folder `path`; what a manifest says of it."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path / name)
    return described(path / name)


def get(path: Path, about: dict) -> dict[str, torch.Tensor]:
    """The tensors of a file that a manifest describes.

    Raises
    ------
    MemoryFileError
        When the file is missing, or is not what was written.
    """
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
    if not file.is_file():
        raise MemoryFileError(f"{file} is missing; restore it from a copy, or build the memory again")
    size = file.stat().st_size
    if size != about["bytes"]:
        raise MemoryFileError(f"{file} has {size} bytes and should have {about['bytes']}: it is torn")
    if crc32(file) != about["crc32"]:
        raise MemoryFileError(f"{file} is corrupted: its checksum is not the manifest's")
    return file


def crc32(file: Path) -> int:
    """The checksum of a file's content."""
    value = 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
