"""Whose memory it is that is asked: each tenant has one, live in its folder, and sees no other's."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from residua.core import Source
from residua.errors import InputError, SourceMismatchError
from residua.folder import MANIFEST, folder_of
from residua.memory import Memory
from residua.readers import Reader

Stamp = tuple[int, int, int]


class Tenant:
    """One memory, read by one reader, and edited in its folder before an edit is acknowledged.

    Parameters
    ----------
    name : str
    reader : Reader
        Of a live memory (``rs.load(path, live=True)``): its edits are on the disk when they return.
    path : path
        The memory's folder.
    """

    name: str
    reader: Reader
    memory: Memory

    def __init__(self, name: str, reader: Reader, path: str | os.PathLike[str]):
        self.name, self.reader, self.memory = name, reader, reader.memory
        self._manifest = folder_of(path) / MANIFEST
        self._edits = threading.Lock()
        self._seen: Stamp | None = None  # the memory is at least as new as what this says of the folder
        self.refresh()

    def refresh(self) -> None:
        """Hold what was saved in the folder before this call, by whichever process."""
        if self._stamp() == self._seen:
            return
        with self._edits:
            self._catch_up()

    @contextmanager
    def editing(self) -> Iterator[Memory]:
        """The memory, to be edited by one at a time; what is edited is on the disk when the block ends."""
        with self._edits:
            self._catch_up()
            yield self.memory
            self._seen = self._stamp()

    def _catch_up(self) -> None:
        stamp = self._stamp()  # before the look: what is saved after it is seen the next time
        if stamp != self._seen:
            self.memory.refresh()
            self._seen = stamp

    def _stamp(self) -> Stamp:
        """What changes whenever somebody saves: a manifest is a new file each time."""
        about = self._manifest.stat()
        return about.st_ino, about.st_mtime_ns, about.st_size


def of_one_model(tenants: Sequence[Tenant]) -> Source | None:
    """Whose keys all of these memories hold; ``InputError`` or ``SourceMismatchError`` where they are not alike."""
    first, *others = tenants
    for other in others:
        mine, its = first.memory, other.memory
        if (mine.task, mine.dim, mine.schema.is_text) != (its.task, its.dim, its.schema.is_text):
            raise InputError(
                f"{first.name} is a {mine.task} memory with keys of {mine.dim}, {other.name} a {its.task} memory with "
                f"keys of {its.dim}; one server has one model, and memories of its keys"
            )
        if mine.source is not None and (what := mine.source.difference(its.source) if its.source else "unknown"):
            raise SourceMismatchError(f"the memories of {first.name} and {other.name} are of other models: {what}")
    return first.memory.source
