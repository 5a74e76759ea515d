"""A memory of more than fits in RAM at once, built as its text streams by, and resumed when it was killed.

Batches become shards of the folder, and their keys an index. ``build.json`` says how far it is, and is replaced by
rename after each shard and each checkpoint of the index. Files it does not name count for nothing: a killed call's.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor

from residua import described
from residua.caution import warn
from residua.core import ChunkedTensor, Encoded, Names
from residua.core.atomic import write_json
from residua.errors import EmptyMemoryError, InputError, MemoryFileError, ParameterError
from residua.folder import BUILD, read_manifest
from residua.index import SECRET, Index, load_index, make_index, median_nn_distance
from residua.memory import arguments, store
from residua.memory import manifest as files
from residua.memory.batches import B, TextBatch, checksum, columns_of, how_kept
from residua.memory.blocks import Blocks, meet
from residua.memory.keys_left import KeysLeft
from residua.memory.lock import locked
from residua.memory.memory import Memory
from residua.memory.schema import KeyDtype, Schema
from residua.memory.storage import Storage, StorageName, describe_storage, make_storage
from residua.memory.summary import summary
from residua.progress import progress_bar
from residua.strict import read_json

log: logging.Logger = logging.getLogger(__name__)

_FORMAT = 2  # 1: of version 0.1, without a schema


def build(
    batches: Iterable[B] | Callable[[], Iterable[B]],
    encode: Callable[[B], Encoded],
    path: str | os.PathLike[str],
    *,
    index: str = "auto",
    index_params: dict[str, Any] | None = None,
    overfetch: float = 4,
    storage: StorageName = "none",
    m: int = 128,
    temperature: float = 1.0,
    key_dtype: KeyDtype = "float32",
    normalise: bool = False,
    keep_keys: bool = True,
    about: dict[str, Any] | None = None,
    names: dict[int, str] | None = None,
    shard_rows: int = 131_072,
    checkpoint_every: float = 60.0,
    train_rows: int = 1_000_000,
    overwrite: bool = False,
    progress: bool | None = None,
    total: int | None = None,
    device: str | torch.device = "cpu",
    mmap: bool = False,
    trust: bool = False,
    together: bool = False,
) -> Memory:
    """Encode batches into the memory folder `path`, a shard at a time; the memory, as ``Memory.load(path)`` gives it on
    this device, or, by `mmap`, leaving its keys in their files.

    Killed at any moment and called again with the same batches and settings, it goes on after the last shard on disk
    and makes the same memory. What is on disk is only compared with the batches, not encoded again.

    Each of `batches` has a length and int64 arrays ``labels``, ``ids`` and ``offsets`` of that length, known without a
    model; `encode` makes an ``Encoded`` of it, with these labels and ids. `names` may still grow while they are read.

    A shard has `shard_rows` rows, rounded up to whole batches. What a kill can lose is the work of `checkpoint_every`
    seconds, for after so long the rows of an unfinished shard are written, too. One call builds in a folder at a time;
    another, in this process or elsewhere, is a ``MemoryFileError``. Without `keep_keys` the index
    is trained when `train_rows` rows wait, and takes in as many at a time, so the folder is never larger than the
    memory, one copy of its index and these keys; with them, it is built over all, at the end. `overwrite` replaces a
    finished memory, once this one is complete, or starts over an unfinished build with other settings; `trust` goes on
    with the index of one that another user began. The rest is as in ``Memory``.

    With `together` any number of processes that see one disk make the same call: they share the work, block by block
    (``Blocks``), one of them builds the memory, and all return it. `batches` is then a function that gives them anew.
    """
    path = Path(path).absolute()
    wanted = {"index": index, "params": index_params, "overfetch": overfetch}
    if not isinstance(index, str):
        raise ParameterError(f"index={index!r}; a build that may be resumed takes an index by its name")
    place, named = (index, index.partition("://")[0]) if "://" in index else (None, index)  # no address is in a file
    params = index_params and {name: value for name, value in index_params.items() if name not in SECRET}
    settings = {"index": named, "index_params": params, "overfetch": overfetch, "storage": storage, "m": m}
    settings |= {"temperature": temperature, "key_dtype": key_dtype, "keep_keys": keep_keys, "about": about}
    settings |= {"shard_rows": shard_rows, "train_rows": train_rows}
    settings |= {"normalise": True} if normalise else {}  # which builds that 0.2 began do not say
    kept = describe_storage(storage, m=m, temperature=temperature)
    arguments.check_settings(kept, key_dtype, normalise, about, None)
    arguments.checked_device(device, mmap)
    if min(shard_rows, train_rows) < 1:
        raise ParameterError(f"shard_rows={shard_rows}, train_rows={train_rows}; expected at least 1 of each")
    if not checkpoint_every > 0:
        raise ParameterError(f"checkpoint_every={checkpoint_every!r}; expected a number of seconds above 0")
    if not keep_keys:
        arguments.check_discard(index == "exact")
        if place is not None:
            raise ParameterError(f"an index on a server ({named}) is built from keys that are kept; discard them later")
    given = batches if callable(batches) else lambda: batches
    shown: dict[str, Any] = {"desc": "remember", "unit": "token", "unit_scale": True}
    blocks = None
    if together:
        if not callable(batches):
            raise ParameterError("together=True reads the batches more than once: give a function that makes them")
        blocks = Blocks(path, batches, encode)
        if not (path / BUILD).exists():
            refuse_finished(path, overwrite)
        meet()
        if not is_made(path, settings):
            with progress_bar(progress, leave=True, **shown) as bar:
                blocks.work(settings, kept, bar.update)
    with _alone(path, wait=together):
        if blocks is not None and not (path / BUILD).exists() and blocks.built():
            blocks.remove()
            return Memory.load(path, device, index=place, mmap=mmap)  # another one has built it
        state, finished = open_build(path, settings, overwrite)
        if not finished:
            remaining = iter(given())
            done = state.skip_done(remaining)
            if state.saved_rows:
                log.info("%s: %d rows are on disk already; going on", path, state.saved_rows)
            with progress_bar(progress, leave=True, total=total, initial=state.saved_rows, **shown) as bar:
                writer = _Writer(path, state, kept, checkpoint_every, bar.set_postfix_str, trust, wanted)
                if blocks is not None:
                    writer.begin(blocks.storage)
                for number, batch in enumerate(remaining, done):
                    if len(batch) and blocks is not None:
                        writer.put(batch, blocks.rows(number, batch))
                    elif len(batch):
                        writer.append(batch, encode(batch))
                    bar.update(len(batch))
                writer.finish(Names(names))
        memory = Memory.load(path, device, index=place, mmap=mmap)
        store.add_summary(path, summary(memory))
        if blocks is not None:
            blocks.remove()
    return memory


@contextmanager
def _alone(path: Path, wait: bool) -> Iterator[None]:
    """The one that writes to folder `path`, and the end of its build; others are an error, or are waited for."""
    with locked(path, patience=-1 if wait else 0, nested=False):
        yield
        (path / BUILD).unlink(missing_ok=True)  # last of all: what a killed call leaves, the next one finds by this


@dataclass
class BuildState:
    """A build that is under way: what must be the same when it goes on, and what is on disk."""

    settings: dict[str, Any]
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])  # in the names of all its files
    schema: dict[str, Any] | None = None
    next_id: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)  # as `store.put_rows` describes them
    text: list[int] = field(default_factory=list)  # checksum of each shard's labels, ids and offsets
    waiting: list[dict[str, Any]] = field(default_factory=list)  # files whose keys are not in the index yet, described
    index: dict[str, Any] | None = None  # the index so far: about, file, how many rows, median_nn_distance
    head: dict[str, Any] | None = None  # the file of the model's last layer, described
    parts: list[dict[str, Any]] = field(default_factory=list)  # of the next shard; `text` is the checksum so far

    @property
    def rows(self) -> int:
        """Rows in whole shards."""
        return sum(shard["rows"] for shard in self.shards)

    @property
    def saved_rows(self) -> int:
        """All rows on disk."""
        return self.rows + sum(part["rows"] for part in self.parts)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What folder `path` says of its build."""
        try:
            data = read_json(path / BUILD)
            described.build(data)
            version = data.pop("format")
            if version == 1:
                nature, index, shards = data.pop("nature"), data["index"], data["shards"]
                if nature:
                    data["next_id"] = nature["_next_id"]
                    nature["key_dtype"] = data["settings"]["key_dtype"]
                    data["schema"] = store.old_schema(nature, store.get_rows(path, shards[-1]))
                if index:
                    index["median_nn_distance"] = index.pop("typical_distance")
            if version in (1, _FORMAT):
                return cls(**data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MemoryFileError(f"{path / BUILD} cannot be read: {error!r}; build into another folder") from error
        raise MemoryFileError(f"{path / BUILD} is of another version; finish it there, or use another folder")

    def write(self, path: Path) -> None:
        """Make this what the folder says, then remove what it no longer names."""
        write_json(path / BUILD, {"format": _FORMAT, **asdict(self)})
        self.sweep(path)

    def sweep(self, path: Path) -> None:
        """Remove this build's files that are not named here."""
        named = {about["file"] for about in (*self.shards, *self.parts, *self.waiting)}
        named |= {self.index[one]["file"] for one in ("file", "truth") if one in self.index} if self.index else set()
        named |= {self.head["file"]} if self.head else set()
        found = (*path.glob(f"*-{self.name}*"), *path.glob(f"{BUILD}.*.part"), *path.glob(".tmp*"))
        files.remove(file for file in found if file.name not in named)

    def made(self, path: Path) -> bool:
        """Whether the folder's memory is what this build made."""
        whole = self.shards and files.generation_of(path) is not None
        return bool(whole) and read_manifest(path)["shards"][0]["file"].split("-")[1] == self.name

    def skip_done(self, batches: Iterator[TextBatch]) -> int:
        """Consume from `batches` what is on disk already, and say how many batches; refuse other text, and the same in
        other batches, whose rows would not be computed alike."""
        otherwise = "give the same text and batch_size to go on, or build into a new folder"
        done = found = consumed = 0
        sums = [*self.text, *(part["text"] for part in self.parts)]
        for number, (block, expected) in enumerate(zip([*self.shards, *self.parts], sums, strict=True)):
            rows, documents = 0, []
            found = found if number > len(self.shards) else 0
            while rows < block["rows"]:
                batch = next(batches, None)
                if batch is None:
                    ends = f"the text ends after {done + rows} tokens, and the unfinished build holds {self.saved_rows}"
                    raise InputError(f"{ends}: {otherwise}")
                documents += [batch.ids[0], batch.ids[-1]] if len(batch) else []
                rows, found, consumed = rows + len(batch), checksum(batch, found), consumed + 1
            if rows != block["rows"]:
                raise ParameterError(
                    "the text comes in other batches than those that the unfinished build began with (another "
                    f"batch_size, or other text): {otherwise}"
                )
            if found != expected:
                raise InputError(
                    f"tokens {done} to {done + rows - 1} (documents {documents[0]} to {documents[-1]}) are not those "
                    f"that the unfinished build began with: {otherwise}"
                )
            done += rows
        return consumed


def open_build(path: Path, settings: dict[str, Any], overwrite: bool) -> tuple[BuildState, bool]:
    """The build that folder `path` holds or now begins, and whether it only lacks the removal of its ``build.json``."""
    settings = json.loads(json.dumps(settings))
    if (path / BUILD).exists():
        state = BuildState.read(path)
        if state.made(path):
            files.sweep(path, read_manifest(path))
            if state.settings == settings:
                return state, True
        elif state.settings == settings:
            state.sweep(path)
            return state, False
        elif state.saved_rows and not overwrite:  # one that holds no rows yet has nothing to lose
            names = [name for name, value in settings.items() if state.settings.get(name) != value]
            differing = ", ".join(f"{name}={settings[name]!r} (there {state.settings.get(name)!r})" for name in names)
            raise ParameterError(
                f"{path} holds an unfinished build with other settings: {differing}. Give its settings to go on, "
                "overwrite=True to start over, or another folder"
            )
        else:
            BuildState({}, state.name).sweep(path)
    refuse_finished(path, overwrite)
    state = BuildState(settings)
    with files.writing(path):
        state.write(path)  # a folder that cannot be written is known before the model runs
    return state, False


def is_made(path: Path, settings: dict[str, Any]) -> bool:
    """Whether folder `path` holds what a build of these settings made, killed just before its very end."""
    if not (path / BUILD).exists():
        return False
    state = BuildState.read(path)
    return state.made(path) and state.settings == json.loads(json.dumps(settings))


def refuse_finished(path: Path, overwrite: bool) -> None:
    """``MemoryFileError`` where folder `path` holds a memory that is not to be overwritten, or anything else."""
    if path.exists() and files.check_folder(path, "build", BUILD) and not overwrite:
        advice = "load it with Memory.load, or pass overwrite=True to replace it"
        raise MemoryFileError(f"{path} holds a finished memory; {advice}")


def _joined(columns: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([one[name] for one in columns]) for name in columns[0]}


class _Writer:
    """Goes on with an unfinished build: ``append`` each batch, then ``finish``."""

    def __init__(
        self,
        path: Path,
        state: BuildState,
        kept: dict[str, Any],
        checkpoint_every: float,
        tell: Callable[[str], None],
        trust: bool,
        wanted: dict[str, Any],
    ):
        self.wanted = wanted  # as ``make_index`` takes it: an address is in no file
        self.path, self.state, self.kept = path, state, kept
        self.tell, self.checkpoint_every, self.written = tell, checkpoint_every, time.monotonic()
        self.keep_keys: bool = state.settings["keep_keys"]
        self.storage: Storage | None = None  # of the first batch on
        self.index: Index | None = None
        self.median: float | None = None
        self.left: KeysLeft | None = None  # of keys that are not kept, once there is an index
        self.columns: list[dict[str, Tensor]] = []  # rows that are in no shard yet
        self.in_parts = 0  # how many of those are in one of its parts
        self.next_id, self.rows, self.text = state.next_id, 0, 0
        if state.schema is None:
            return
        head = store.get_head(path, state.head) if state.head else None
        self.storage = make_storage(Schema.from_json(state.schema), head)
        if state.index:
            files.verify(path, state.index["file"])
            rows = state.index["rows"]
            self.index = load_index(state.index["about"], path, None, torch.empty(0), device="cpu", n=rows, trust=trust)
            self.median = state.index["median_nn_distance"]
            self.left = KeysLeft.none(rows, self.index.dim)
            if "truth" in state.index:
                truth = store.get_truth(path, state.index["truth"], self.storage.schema, rows)
                self.left = replace(self.left, truth=truth)
        self._checkpoint(self.storage)  # a kill may have come between the shard and this
        for part in state.parts:
            self.columns.append({name: column[:] for name, column in store.get_rows(path, part).items()})
            self.rows, self.text = self.rows + part["rows"], part["text"]
        self.in_parts = len(self.columns)

    def begin(self, storage: Storage) -> None:
        """Say what a row is, where nothing has said it yet."""
        if self.storage is None:
            self.storage = storage
            self._empty_index(storage)  # an index that cannot be is known before all else is encoded

    def append(self, batch: TextBatch, encoded: Encoded) -> None:
        if self.storage is None:
            self.begin(make_storage(Schema.of(encoded, storage=self.kept, **how_kept(self.state.settings))))
        assert self.storage is not None, "it has begun"
        self.put(batch, columns_of(self.storage, batch, encoded))

    def put(self, batch: TextBatch, columns: dict[str, Tensor]) -> None:
        """Append rows as columns of the table, once it is said what a row is."""
        storage = self.storage
        assert storage is not None, "rows come after `begin`"
        self.columns.append(columns)
        self.next_id = max(self.next_id, int(batch.ids.max()) + 1)
        self.rows, self.text = self.rows + len(batch), checksum(batch, self.text)
        if self.rows >= self.state.settings["shard_rows"]:
            self.flush(storage)
        elif time.monotonic() - self.written >= self.checkpoint_every:
            self.put_part(storage)

    def put_part(self, storage: Storage) -> None:
        """Put on disk those rows in hand that are not there yet, before they are a shard."""
        state, number = self.state, f"{len(self.state.shards):05}-{len(self.state.parts):05}"
        with self._writing():
            rows = _joined(self.columns[self.in_parts :])
            part = store.put_rows(self.path, f"rows-{state.name}-part-{number}.safetensors", rows)
            self._describe(storage)
            state.parts.append(part | {"text": self.text})
            state.write(self.path)
        self.in_parts, self.written = len(self.columns), time.monotonic()

    def _describe(self, storage: Storage) -> None:
        state = self.state
        if state.head is None and storage.head is not None:
            state.head = store.put_head(self.path, state.name, storage.head)
        state.schema, state.next_id = storage.schema.to_json(), self.next_id

    def flush(self, storage: Storage) -> None:
        """Make the rows in hand a shard on disk, then say so."""
        state, number = self.state, len(self.state.shards)
        rows = _joined(self.columns)
        with self._writing():
            keys = None if self.keep_keys else {"key": rows.pop("key")}
            waiting = shard = store.put_rows(self.path, f"rows-{state.name}-{number:05}.safetensors", rows)
            if keys is not None:
                waiting = files.put_tensors(self.path, f"index-{state.name}-keys-{number:05}.safetensors", keys)
            self._describe(storage)
            state.parts = []
            state.shards.append(shard)
            state.text.append(self.text)
            state.waiting.append(waiting)
            state.write(self.path)
        self.columns, self.in_parts, self.rows, self.text, self.written = [], 0, 0, 0, time.monotonic()
        self._checkpoint(storage)

    def finish(self, names: Names) -> None:
        """Index what is not indexed yet, and write the manifest: the folder is a memory."""
        storage, shards = self.storage, self.state.shards
        if storage is None:
            (self.path / BUILD).unlink()
            raise EmptyMemoryError("the text holds no rows; a memory needs at least one labelled example")
        if self.columns:
            self.flush(storage)
        index = self._take_in(storage)
        if index is None:
            index = self._empty_index(storage)  # an exact one is made of the keys whenever they are loaded
            shards = shards if self.keep_keys else self._with_keys()
            self.keep_keys = True
        inner = self.wanted, self.next_id, self.keep_keys, self.median
        about = {"about": self.state.settings["about"], "names": names, "keys_left": self.left}
        if self.left is not None:  # what the build measured was by the keys
            index.rerank, index.recall = False, None
            self.left.truth.keep_recall_true(index, torch.ones(index.n, dtype=torch.bool))
        contents = store.Contents(storage.schema, storage, *inner, **about)
        with self._writing(), files.new_generation(self.path) as generation:
            store.write_manifest(self.path, generation, contents, index, shards)

    def _writing(self) -> AbstractContextManager[None]:
        rows = self.state.saved_rows
        return files.writing(self.path, f"; {rows} rows are safe, and the same call goes on from there" if rows else "")

    def _waiting_rows(self) -> int:
        return self.state.rows - (self.state.index["rows"] if self.state.index else 0)

    def _empty_index(self, storage: Storage) -> Index:
        return make_index(**self.wanted, n=self._waiting_rows(), dim=storage.schema.dim, device="cpu")

    def _take_in(self, storage: Storage) -> Index | None:
        """The waiting keys become rows of the index, which is returned; None, and nothing happens, if it is exact."""
        state, index = self.state, self.index or self._empty_index(storage)
        if index.exact or not state.waiting:
            return None if state.waiting else index
        keys = ChunkedTensor([self._keys(waiting) for waiting in state.waiting])  # mapped, and never copied whole
        if self.index is None:
            log.info("%s: training index %s on %d rows", self.path, index.name, len(keys))
            self.tell(f"training the index {index.name}")
            index.build(keys)
        else:
            self.tell(f"indexing {len(keys):,} more keys")
            for chunk in keys.chunks:
                index.add(chunk)
        self.tell("")
        if not self.keep_keys and self.index is None:
            storage.check_codes(index, keys)
        self.index, first = index, index.n - len(keys)
        if not self.keep_keys:
            self.left = (self.left or KeysLeft.none(0, index.dim)).passed(keys)
        if not self.keep_keys and (self.median is None or len(keys) >= 1000):
            self.median = median_nn_distance(index, torch.arange(first, index.n), keys, None, first=first)
        state.waiting = []
        return index

    def _checkpoint(self, storage: Storage) -> None:
        """Drop the waiting keys for an index that holds their codes, where keys are not kept and enough wait."""
        state = self.state
        if self.keep_keys or self._waiting_rows() < state.settings["train_rows"]:
            return
        index = self._take_in(storage)
        if index is None:
            return
        with self._writing():
            (name,) = index.save(self.path, f"index-{state.name}-{len(state.shards):05}")
            state.index = {"about": index.to_json(), "file": files.described(self.path / name)}
            state.index |= {"rows": index.n, "median_nn_distance": self.median}
            if self.left is not None:
                name = f"truth-{state.name}-{len(state.shards):05}.safetensors"
                state.index["truth"] = files.put_tensors(self.path, name, self.left.truth.to_tensors())
            state.write(self.path)

    def _keys(self, about: dict[str, Any]) -> Tensor:
        with safe_open(files.verify(self.path, about), "pt") as file:
            return file.get_tensor("key")

    def _with_keys(self) -> list[dict[str, Any]]:
        """Shards that hold their keys, for an index that turned out to be exact because there are few."""
        state = self.state
        few = f"{state.rows} rows are too few for index {state.settings['index']!r}"
        warn(f"{few}: it is exact and needs the keys, so they are kept")
        shards = []
        with self._writing():
            for number, (shard, keys) in enumerate(zip(state.shards, state.waiting, strict=True)):
                rows = store.get_rows(self.path, shard) | {"key": self._keys(keys)}
                shards.append(store.put_rows(self.path, f"rows-{state.name}-{number:05}-keys.safetensors", rows))
        return shards
