"""What a folder says of a build that is not finished, so that a killed one goes on where it was.

``build.json`` is replaced by rename after each shard and each checkpoint of the index. Files that it does not name
count for nothing: they are what a killed call was writing.
"""

from __future__ import annotations

import contextlib
import json
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from residua.errors import InputError, MemoryFileError, ParameterError
from residua.memory.files import write_json
from residua.memory.manifest import MANIFEST, OWN, generation_of, read_manifest, sweep

FORMAT = 1
BUILD = "build.json"


@dataclass
class Unfinished:
    """A build that is under way.

    Attributes
    ----------
    settings : dict
        What must be the same when the build goes on.
    name : str
        In the names of all its files.
    nature : dict
        What the first batch said of all rows, and the next id.
    shards : list of dict
        The rows on disk, as ``put_rows`` describes them.
    text : list of int
        Checksum of each shard's labels, ids and offsets.
    waiting : list of dict
        The files whose keys are not in the index yet, described.
    index : dict, optional
        The index so far: ``about``, ``file``, how many ``rows``, and the ``typical_distance``.
    head : dict, optional
        The file of the model's last layer, described.
    """

    settings: dict
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    nature: dict | None = None
    shards: list[dict] = field(default_factory=list)
    text: list[int] = field(default_factory=list)
    waiting: list[dict] = field(default_factory=list)
    index: dict | None = None
    head: dict | None = None

    @property
    def rows(self) -> int:
        """Rows on disk."""
        return sum(shard["rows"] for shard in self.shards)

    def write(self, path: Path) -> None:
        """Make this what the folder says, then remove what it no longer names."""
        write_json(path / BUILD, {"format": FORMAT, **asdict(self)})
        self.sweep(path)

    def sweep(self, path: Path) -> None:
        """Remove this build's files that are not named here; one that cannot be removed is only untidy."""
        named = {about["file"] for about in (*self.shards, *self.waiting)}
        named |= {self.index["file"]["file"]} if self.index else set()
        named |= {self.head["file"]} if self.head else set()
        for file in (*path.glob(f"*-{self.name}*"), *path.glob(f"{BUILD}.*.part"), *path.glob(".tmp*")):
            if file.name not in named:
                with contextlib.suppress(OSError):
                    file.unlink()

    def remove(self, path: Path) -> None:
        """The folder has no unfinished build any more. A memory that names its shards keeps them."""
        (path / BUILD).unlink(missing_ok=True)

    def compared(self, batches: Iterator) -> None:
        """Consume from `batches` what is on disk already, and refuse other text.

        Raises
        ------
        InputError
            Another text.
        ParameterError
            The same text in other batches: their rows would not be computed alike.
        """
        done = 0
        for shard, checksum in zip(self.shards, self.text, strict=True):
            rows, found, first, last = 0, 0, None, None
            while rows < shard["rows"]:
                batch = next(batches, None)
                if batch is None:
                    raise InputError(
                        f"the text ends after {done + rows} tokens, and the unfinished build holds {self.rows}: "
                        f"{_OTHERWISE}"
                    )
                if len(batch):
                    first, last = batch.ids[0] if first is None else first, batch.ids[-1]
                rows, found = rows + len(batch), text_checksum(batch, found)
            if rows == shard["rows"] and found != checksum:
                raise InputError(
                    f"tokens {done} to {done + rows - 1} (documents {first} to {last}) are not those that the "
                    f"unfinished build began with: {_OTHERWISE}"
                )
            if rows != shard["rows"]:
                raise ParameterError(
                    "the text comes in other batches than those that the unfinished build began with (another "
                    f"batch_size, or other text): {_OTHERWISE}"
                )
            done += rows


_OTHERWISE = "give the same text and batch_size to go on, or build into a new folder"


def text_checksum(batch, value: int = 0) -> int:
    """CRC-32 of a batch's labels, ids and offsets, continuing `value`; how rows fall into batches does not matter."""
    columns = [np.asarray(column, dtype=np.int64) for column in (batch.labels, batch.ids, batch.offsets)]
    return zlib.crc32(np.stack(columns, axis=1).tobytes(), value)


def opened(path: Path, settings: dict, overwrite: bool) -> tuple[Unfinished, bool]:
    """The build that folder `path` holds or now begins, and whether it only lacks the removal of its ``build.json``.

    Raises
    ------
    ParameterError
        When an unfinished build has other settings, and not `overwrite`.
    MemoryFileError
        When the folder holds a finished memory, and not `overwrite`; or files that are not a memory's.
    """
    settings = json.loads(json.dumps(settings))
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    if (path / BUILD).exists():
        build = _read(path)
        if _finished(path, build):
            sweep(path, read_manifest(path))
            if build.settings == settings:
                return build, True
        elif build.settings == settings:
            build.sweep(path)
            return build, False
        elif build.shards and not overwrite:  # one that holds no rows yet has nothing to lose
            names = [name for name, value in settings.items() if build.settings.get(name) != value]
            differing = ", ".join(f"{name}={settings[name]!r} (there {build.settings.get(name)!r})" for name in names)
            raise ParameterError(
                f"{path} holds an unfinished build with other settings: {differing}. Give its settings to go on, "
                "overwrite=True to start over, or another folder"
            )
        else:
            Unfinished({}, build.name).sweep(path)
    if (path / MANIFEST).exists():
        read_manifest(path)  # another program's, or another version's, is not overwritten
        if not overwrite:
            raise MemoryFileError(
                f"{path} holds a finished memory; load it with Memory.load, or pass overwrite=True to replace it"
            )
    elif not all(file.name.startswith((*OWN, BUILD)) for file in path.iterdir()):
        raise MemoryFileError(f"{path} holds files that are not a memory's; build into an empty or new folder")
    build = Unfinished(settings)
    with writing(path):
        build.write(path)  # a folder that cannot be written is known before the model runs
    return build, False


@contextlib.contextmanager
def writing(path: Path, rows: int = 0) -> Iterator[None]:
    """What fails in here, for want of space or permission, is a ``MemoryFileError`` that says what is safe."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        kept = f"; {rows} rows are safe, and the same call goes on from there" if rows else ""
        raise MemoryFileError(f"cannot write {path}: {why}{kept}") from error


def _finished(path: Path, build: Unfinished) -> bool:
    """Whether the folder's memory is what this build made."""
    if generation_of(path) is None or not build.shards:
        return False
    return read_manifest(path)["shards"][0]["file"].split("-")[1] == build.name


def _read(path: Path) -> Unfinished:
    try:
        data = json.loads((path / BUILD).read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise MemoryFileError(f"{path / BUILD} is of another version; finish it there, or use another folder")
        return Unfinished(**data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, MemoryFileError):
            raise
        raise MemoryFileError(f"{path / BUILD} cannot be read: {error!r}; build into another folder") from error
