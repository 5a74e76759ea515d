"""A file that is written whole or not at all, and is on the disk when the call returns."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from residua.errors import MemoryFileError

_NO_FOLDERS = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)  # some network disks flush files alone


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` by rename when the block ends well; else `path` stays as it was.

    Not even a power cut undoes it afterwards, nor what was put into the same folder, and flushed, before: the new file
    may name it. An ``OSError`` of the block, or of the rename, is a ``MemoryFileError``.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        flush(part)
        flush(path.parent)
        os.replace(part, path)
        flush(path.parent)
    except OSError as error:
        raise MemoryFileError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # where nothing could be written there is nothing to remove
            part.unlink(missing_ok=True)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON file by ``atomic_write``."""
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)


def make_folder(path: Path) -> None:
    """A folder, and those above it, that are there after a power cut, too."""
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in new:
        flush(one.parent)


def flush(path: Path) -> None:
    """Put a file's content, or which files a folder has, on the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # where folders are not opened
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (folder and error.errno in _NO_FOLDERS):
            raise
    finally:
        os.close(descriptor)
