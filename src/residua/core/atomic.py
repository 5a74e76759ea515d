"""A file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from residua.errors import MemoryFileError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` by rename when the block ends well; else `path` stays as it was.

    Raises
    ------
    MemoryFileError
        When the block, or the rename, fails with an ``OSError``.

    Examples
    --------
    >>> with atomic_write(Path("a.txt")) as part:
    ...     _ = part.write_text("all of it")
    >>> Path("a.txt").read_text()
    'all of it'
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise MemoryFileError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # where nothing could be written there is nothing to remove
            part.unlink(missing_ok=True)
