"""A memory of more than fits in RAM at once, built as its text streams by, and resumed when it was killed."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from residua.errors import EmptyMemoryError, InputError, ParameterError, StorageError
from residua.index import load_index, make_index
from residua.index.installed import require_faiss
from residua.memory import files
from residua.memory.accept import adopt, row_columns
from residua.memory.folder import write_manifest
from residua.memory.memory import Memory
from residua.memory.search import nearest_other
from residua.memory.shard import get_rows, put_rows
from residua.memory.storage import make_storage
from residua.memory.unfinished import Unfinished, opened, text_checksum, writing
from residua.records import Encoded, Head, Source

log = logging.getLogger(__name__)


def build(
    batches: Iterable,
    encode: Callable[..., Encoded],
    path: str | os.PathLike,
    *,
    index: str = "auto",
    index_params: dict | None = None,
    overfetch: float = 4,
    storage: str = "none",
    m: int = 128,
    temperature: float = 1.0,
    key_dtype: str = "float32",
    keep_keys: bool = True,
    about: dict | None = None,
    names: dict[int, str] | None = None,
    shard_rows: int = 131_072,
    train_rows: int = 1_000_000,
    overwrite: bool = False,
    progress: bool = True,
    total: int | None = None,
    device: str | torch.device = "cpu",
) -> Memory:
    """Encode batches into a memory folder, a shard at a time.

    Killed at any moment and called again with the same batches and settings, it goes on after the last shard on disk
    and makes the same memory. What is on disk is only compared with the batches, not encoded again.

    Parameters
    ----------
    batches : iterable
        Each has a length and int64 arrays ``labels``, ``ids`` and ``offsets`` of that length, known without a model.
        In the same order on every call.
    encode : callable
        Makes an ``Encoded`` of a batch, with these labels and ids.
    path : path
        A new or empty folder, or one that an unfinished build left.
    index, index_params, overfetch, storage, m, temperature, key_dtype, about, names, device
        As in ``Memory``. `names` may still grow while `batches` are read.
    keep_keys : bool, default True
        False drops the keys once the index holds their codes: it is trained when `train_rows` rows wait, and takes in
        as many at a time, so the folder is never larger than the memory, one copy of its index and these keys.
    shard_rows : int, default 131 072
        Rows written at a time, rounded up to whole batches: what a kill can lose.
    train_rows : int, default 1 000 000
        Rows kept waiting for the index where keys are not kept. (Where they are, it is built over all, at the end.)
    overwrite : bool, default False
        Replace a finished memory, once this one is complete, or start over an unfinished build with other settings.
    progress : bool, default True
        Show rows per second, and the time left where `total` rows are foretold.
    total : int, optional

    Returns
    -------
    Memory
        As ``Memory.load(path)`` gives it.

    Raises
    ------
    EmptyMemoryError
        No rows.
    InputError, ParameterError
        Other text, or other settings, than the unfinished build's.
    StorageError
        `keep_keys` is False and the index is exact, or ``storage="head"``.
    MemoryFileError
        A finished memory is there, or the folder cannot be written. Nothing written before is lost.
    SourceMismatchError, ShapeError, LabelError, NonFiniteError
        Rows that do not fit the first ones.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class Batch(SimpleNamespace):
    ...     __len__ = lambda self: len(self.labels)
    >>> tokens = np.arange(6)
    >>> batch = Batch(labels=tokens % 3, ids=np.zeros(6, np.int64), offsets=tokens)
    >>> def encode(batch):
    ...     keys, columns = np.eye(8)[batch.offsets], {"offset": batch.offsets}
    ...     return Encoded(keys, np.zeros((len(batch), 3)), batch.labels, batch.ids, columns=columns)
    >>> memory = build([batch], encode, "mem", index="exact", progress=False)
    >>> len(memory), memory.of_tokens
    (6, True)
    """
    path = Path(path).absolute()
    settings = {"index": index, "index_params": index_params, "overfetch": overfetch, "storage": storage, "m": m}
    settings |= {"temperature": temperature, "key_dtype": key_dtype, "keep_keys": keep_keys, "about": about}
    settings |= {"shard_rows": shard_rows, "train_rows": train_rows}
    wanted = {"index": index, "params": index_params, "overfetch": overfetch}
    memory = Memory.without_rows(
        make_storage(storage, m=m, temperature=temperature), wanted, key_dtype=key_dtype, about=about
    )
    _check(settings)
    state, finished = opened(path, settings, overwrite)
    if not finished:
        batches = iter(batches)
        state.compared(batches)
        if state.rows:
            log.info("%s: %d rows are on disk already; going on", path, state.rows)
        writer = _Writer(memory, path, state)
        with tqdm(desc="remember", unit=" tokens", initial=state.rows, total=total, disable=not progress) as bar:
            for batch in batches:
                if len(batch):
                    writer.append(batch, encode(batch))
                    bar.update(len(batch))
        memory.names = {int(number): name for number, name in (names or {}).items()}
        writer.finish()
    state.remove(path)
    return Memory.load(path, device)


def _check(settings: dict) -> None:
    for name in ("shard_rows", "train_rows"):
        if settings[name] < 1:
            raise ParameterError(f"{name}={settings[name]}; expected at least 1")
    if settings["keep_keys"]:
        return
    if settings["storage"] == "head":
        raise StorageError("storage='head' recomputes the logits from the keys; build with keep_keys=True")
    if settings["index"] == "exact":
        raise StorageError(
            "an exact index searches the keys themselves; build with keep_keys=True, or with a trained index, such "
            'as index="knnlm"'
        )
    require_faiss()


class _Writer:
    """Encoded batches become shards, and their keys an index."""

    def __init__(self, memory: Memory, path: Path, state: Unfinished):
        self.memory, self.path, self.state = memory, path, state
        self.keep_keys = state.settings["keep_keys"]
        self.columns: list[dict[str, Tensor]] = []  # rows that are not on disk yet
        self.rows = self.text = 0
        if state.shards:
            self._restore()

    def _restore(self) -> None:
        memory, state = self.memory, self.state
        nature = dict(state.nature)
        memory.source = nature.pop("source") and Source.from_json(state.nature["source"])
        memory.storage = make_storage(**nature.pop("storage"))
        for name, value in nature.items():
            setattr(memory, name, value)
        # Without rows, but with the columns that all batches must have.
        memory.table.append({name: column[:0] for name, column in get_rows(self.path, state.shards[-1]).items()})
        if state.index:
            files.verify(self.path, state.index["file"])
            memory.index = load_index(
                state.index["about"], self.path, None, torch.empty(0), device="cpu", n=state.index["rows"]
            )
            memory._typical_distance = state.index["typical_distance"]

    def append(self, batch, encoded: Encoded) -> None:
        if not (np.array_equal(encoded.labels, batch.labels) and np.array_equal(encoded.ids, batch.ids)):
            raise InputError("encode returned rows with other labels or ids than its batch has")
        adopt(self.memory, encoded)
        columns = row_columns(self.memory, encoded, encoded.ids)
        if not self.memory.table.names:
            self.memory.table.append({name: column[:0] for name, column in columns.items()})
        self.columns.append(columns)
        self.memory._next_id = max(self.memory._next_id, int(encoded.ids.max()) + 1)
        self.rows, self.text = self.rows + len(encoded), text_checksum(batch, self.text)
        if self.rows >= self.state.settings["shard_rows"]:
            self.flush()

    def flush(self) -> None:
        """Put the rows in hand on disk, then say so."""
        memory, state, number = self.memory, self.state, len(self.state.shards)
        rows = {name: torch.cat([columns[name] for columns in self.columns]) for name in self.columns[0]}
        with writing(self.path, state.rows):
            keys = {} if self.keep_keys else {"key": rows.pop("key")}
            shard = put_rows(self.path, f"rows-{state.name}-{number:05}.safetensors", rows)
            if keys:
                keys = files.put(self.path, f"index-{state.name}-keys-{number:05}.safetensors", keys)
            if state.head is None and getattr(memory.storage, "head", None) is not None:
                head = memory.storage.head
                tensors = {"weight": head.weight.cpu()} | ({} if head.bias is None else {"bias": head.bias.cpu()})
                state.head = files.put(self.path, f"head-{state.name}.safetensors", tensors)
            state.nature = {name: getattr(memory, name) for name in ("task", "dim", "n_outputs", "flat_labels")}
            state.nature |= {"_next_id": memory._next_id, "storage": memory.storage.to_json()}
            state.nature["source"] = memory.source and memory.source.to_json()
            state.shards.append(shard)
            state.text.append(self.text)
            state.waiting.append(keys or shard)
            state.write(self.path)
        self.columns, self.rows, self.text = [], 0, 0
        if not self.keep_keys and self._waiting_rows() >= state.settings["train_rows"] and self._take_in():
            self._checkpoint()

    def finish(self) -> None:
        """Index what is not indexed yet, and write the manifest: the folder is a memory."""
        memory, state = self.memory, self.state
        if self.columns:
            self.flush()
        if not state.shards:
            state.remove(self.path)
            raise EmptyMemoryError("the text holds no rows; a memory needs at least one labelled example")
        shards = state.shards
        if not self._take_in():
            memory.index = self._empty_index()  # an exact one is made of the keys whenever they are loaded
            shards = shards if self.keep_keys else self._with_keys()
            self.keep_keys = True
        memory.keys_kept = self.keep_keys
        if state.head and memory.storage.head is None:  # every row was on disk already
            head = files.get(self.path, state.head)
            memory.storage.head = Head(head["weight"], head.get("bias"))
        with writing(self.path, state.rows):
            write_manifest(memory, self.path, shards)

    def _waiting_rows(self) -> int:
        return self.state.rows - (self.state.index["rows"] if self.state.index else 0)

    def _empty_index(self):
        wanted = self.memory._index_wanted
        return make_index(
            wanted["index"],
            n=self._waiting_rows(),
            dim=self.memory.dim,
            device="cpu",
            params=wanted["params"],
            overfetch=wanted["overfetch"],
        )

    def _take_in(self) -> bool:
        """The waiting keys become rows of the index; False, and nothing happens, where it is exact."""
        memory, state = self.memory, self.state
        if not state.waiting:
            return True
        index = memory.index or self._empty_index()
        if index.exact:
            return False
        keys = torch.cat([self._keys(waiting) for waiting in state.waiting])
        if memory.index is None:
            log.info("%s: training index %s on %d rows", self.path, index.name, len(keys))
            index.build(keys)
        else:
            index.add(keys)
        memory.index = index
        if not self.keep_keys and (memory._typical_distance is None or len(keys) >= 1000):
            first = index.n - len(keys)
            memory._typical_distance = nearest_other(index, torch.arange(first, index.n), keys, None, first=first)
        state.waiting = []
        return True

    def _checkpoint(self) -> None:
        memory, state = self.memory, self.state
        with writing(self.path, state.rows):
            (name,) = memory.index.save(self.path, f"index-{state.name}-{len(state.shards):05}")
            state.index = {"about": memory.index.to_json(), "file": files.described(self.path / name)}
            state.index |= {"rows": memory.index.n, "typical_distance": memory._typical_distance}
            state.write(self.path)

    def _keys(self, about: dict) -> Tensor:
        with safe_open(files.verify(self.path, about), "pt") as file:
            return file.get_tensor("key")

    def _with_keys(self) -> list[dict]:
        """Shards that hold their keys, for an index that turned out to be exact because there are few."""
        state = self.state
        warnings.warn(
            f"{state.rows} rows are too few for index {state.settings['index']!r}: it is exact and needs the keys, so "
            "they are kept",
            UserWarning,
            stacklevel=4,
        )
        with writing(self.path, state.rows):
            return [
                put_rows(
                    self.path,
                    f"rows-{state.name}-{number:05}-keys.safetensors",
                    get_rows(self.path, shard) | {"key": self._keys(keys)},
                )
                for number, (shard, keys) in enumerate(zip(state.shards, state.waiting, strict=True))
            ]
