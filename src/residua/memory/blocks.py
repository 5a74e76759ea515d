"""Texts encoded by many processes: whoever is free takes the next block of batches, and each block is a file.

The blocks lie in a folder beside the memory that all processes see. A block is taken by its lock, which ends with the
process that holds it, so what a killed one had in hand is taken by another. When all are there, one process builds the
memory from them, as it would from a model: the same batches, and so the same rows.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Generic

import torch
from filelock import FileLock, Timeout
from torch import Tensor, distributed

from residua.core import Encoded
from residua.core.atomic import make_folder, write_json
from residua.errors import EmptyMemoryError, InputError, MemoryFileError, ParameterError
from residua.memory import manifest as files
from residua.memory import store
from residua.memory.batches import B, checksum, columns_of, how_kept
from residua.memory.schema import Schema
from residua.memory.storage import Storage, make_storage
from residua.memory.table import alike
from residua.strict import read_json

EACH = 16  # batches in a block
PATIENCE = 0.1  # seconds between two looks at what others have in hand
BEGUN = "begun.json"  # the settings and the schema that all blocks share


def folder_of(path: Path) -> Path:
    """Where the blocks of a build at `path` lie, for as long as they are needed."""
    return path.with_name(f"{path.name}.blocks")


def meet() -> None:
    """Wait for all processes that a launcher, such as torchrun, has started: none then comes when all is done."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


class Blocks(Generic[B]):
    """The blocks of a build at `path`; `batches` gives all batches each time that it is called, and `encode` makes rows
    of one."""

    path: Path
    folder: Path
    storage: Storage

    def __init__(self, path: Path, batches: Callable[[], Iterable[B]], encode: Callable[[B], Encoded]):
        self.path, self.folder, self._before = path, folder_of(path), files.generation_of(path)
        self._batches, self._encode = batches, encode
        self._read: tuple[int, list[int], Mapping[str, Tensor]] = (-1, [], {})

    def built(self) -> bool:
        """Whether another one has built the memory since this was made: its blocks may then go at any moment."""
        return files.generation_of(self.path) not in (None, self._before)

    def work(self, settings: dict[str, Any], kept: dict[str, Any], tell: Callable[[int], object]) -> None:
        """Begin, or go on with what others began with the same settings: encode the blocks that nobody has in hand,
        until all are there, or another one has built the memory of them; `tell` hears of rows as they are made."""
        try:
            self._join(settings, kept)
            self._share(tell)
        except (OSError, MemoryFileError):
            if not self.built():
                raise

    def _join(self, settings: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agree with the others on what is built.

        The first batch is encoded by everybody: it says what a row is, and the model's last layer where that is stored.
        """
        first = next((batch for batch in self._batches() if len(batch)), None)
        if first is None:
            raise EmptyMemoryError("the text holds no rows; a memory needs at least one labelled example")
        encoded, settings = self._encode(first), json.loads(json.dumps(settings))
        own = Schema.of(encoded, storage=kept, **how_kept(settings))
        with files.writing(self.folder):
            make_folder(self.folder)
            with FileLock(self.folder / "begun.lock"):
                if not (self.folder / BEGUN).exists():
                    said = {"settings": settings, "schema": own.to_json()}
                    write_json(self.folder / BEGUN, said)
        begun = self._json(BEGUN)
        if begun["settings"] != settings:
            names = [name for name, value in settings.items() if begun["settings"].get(name) != value]
            raise ParameterError(
                f"others build {self.path} with other settings: {', '.join(names)}. Give theirs, or remove "
                f"{self.folder} when none of them is at work"
            )
        self.storage = make_storage(Schema.from_json(begun["schema"]))  # whose centre all share, bit for bit
        self.storage.schema = self.storage.schema.check(encoded)
        self.storage.columns(encoded)  # which remembers the model's last layer, where that is stored

    def rows(self, number: int, batch: B) -> dict[str, Tensor]:
        """The columns of the batch of this number (from 0, as ``batches`` gives them), read from its block."""
        block, within = divmod(number, EACH)
        if self._read[0] != block:
            about = self._json(f"{block:06}.json")
            columns = {name: column[:] for name, column in store.get_rows(self.folder, about).items()}
            self._read = block, [0, *accumulate(about["batches"])], columns
        _, ends, columns = self._read
        if within + 1 >= len(ends) or ends[within + 1] - ends[within] != len(batch):
            raise InputError(f"batch {number} has {len(batch)} rows, and {self.folder} holds others: {_OTHER}")
        some = {name: column[ends[within] : ends[within + 1]] for name, column in columns.items()}
        return some | {"active": alike(True, len(batch))}

    def remove(self) -> None:
        """Nobody needs them any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _share(self, tell: Callable[[int], object]) -> None:
        waiting: set[int] | None = None
        while waiting is None or waiting:
            if waiting is None or any(self._free(number) for number in waiting):
                waiting = self._round(tell)
            else:
                time.sleep(PATIENCE)
                waiting = {number for number in waiting if not self._there(number)}

    def _round(self, tell: Callable[[int], object]) -> set[int]:
        """Make what is free; the blocks that others have in hand."""
        waiting: set[int] = set()
        for number, block in enumerate(_blocks(self._batches())):
            if self.built():
                return set()
            if self._there(number):
                if self._json(f"{number:06}.json")["text"] != _checksum(block):
                    raise InputError(f"block {number} of {self.folder} is of another text: {_OTHER}")
                continue
            try:
                with FileLock(self._lock(number), timeout=0):
                    if not self._there(number):
                        self._make(number, block, tell)
            except Timeout:
                waiting.add(number)
        return waiting

    def _make(self, number: int, block: list[B], tell: Callable[[int], object]) -> None:
        parts: list[dict[str, Tensor]] = []
        for batch in block:
            if len(batch):
                parts.append(columns_of(self.storage, batch, self._encode(batch)))
                tell(len(batch))
        with files.writing(self.folder):
            name = f"rows-{number:06}-{uuid.uuid4().hex[:12]}.safetensors"  # what a killed one left is not written over
            joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}
            about = store.put_rows(self.folder, name, joined) if parts else {}
            write_json(self._done(number), about | {"text": _checksum(block), "batches": list(map(len, block))})

    def _there(self, number: int) -> bool:
        return self._done(number).exists()

    def _free(self, number: int) -> bool:
        """Whether a block is neither there nor in somebody's hand."""
        if self._there(number):
            return False
        try:
            with FileLock(self._lock(number), timeout=0):
                return not self._there(number)
        except Timeout:
            return False

    def _done(self, number: int) -> Path:
        return self.folder / f"{number:06}.json"

    def _lock(self, number: int) -> Path:
        return self.folder / f"{number:06}.lock"

    def _json(self, name: str) -> Any:
        try:
            return read_json(self.folder / name)
        except (OSError, ValueError) as error:
            raise MemoryFileError(f"{self.folder / name} cannot be read: {error}; remove it, and call again") from error


_OTHER = "give all processes the same texts and batch_size, or remove the folder"


def _blocks(batches: Iterable[B]) -> Iterator[list[B]]:
    remaining = iter(batches)
    while block := list(islice(remaining, EACH)):
        yield block


def _checksum(block: list[B]) -> int:
    value = 0
    for batch in block:
        value = checksum(batch, value)
    return value
