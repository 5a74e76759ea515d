"""One writer at a time: the lock of a memory's folder, among threads and among processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from residua.core.atomic import make_folder
from residua.errors import MemoryFileError
from residua.folder import LOCK, folder_of
from residua.memory.manifest import writing

PATIENCE = 60.0  # seconds


@contextmanager
def locked(path: Path, patience: float | None = None, nested: bool = True) -> Iterator[None]:
    """Nobody else saves into folder `path`, which is made where there is none, until the block ends.

    One thread may take it again inside, unless not `nested`. The lock of a process that has died holds nothing; its
    file stays, for one that is removed while somebody waits for it locks nobody out. ``MemoryFileError`` where another
    holds it for longer than `patience` seconds, by default a minute. Loading takes no lock.
    """
    patience = PATIENCE if patience is None else patience
    with writing(path):
        make_folder(path)
        file = folder_of(path) / LOCK
        if file.is_symlink():
            raise MemoryFileError(f"{file} is a link, and a lock is a file of its own; remove it, and call again")
        held = FileLock(file, is_singleton=nested)
        try:
            held.acquire(timeout=patience)
        except Timeout as error:
            since = f" (waited {patience:g} seconds)" if patience else ""
            raise MemoryFileError(
                f"another process or thread is writing to {path} at this moment{since}; wait until it ends, then call "
                "again, or write into another folder"
            ) from error
    try:
        yield
    finally:
        held.release()
