"""Encoded batches become shards of a memory folder, and their keys an index."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from residua.core import Encoded, Head, Source
from residua.errors import EmptyMemoryError, InputError
from residua.index import load_index, make_index
from residua.memory import files
from residua.memory.accept import adopt, row_columns
from residua.memory.folder import write_manifest
from residua.memory.memory import Memory
from residua.memory.search import nearest_other
from residua.memory.shard import get_rows, put_rows
from residua.memory.storage import make_storage
from residua.memory.unfinished import Unfinished, text_checksum, writing

log = logging.getLogger(__name__)


class Writer:
    """Goes on with an unfinished build: ``append`` each batch, then ``finish``.

    `memory` holds no rows: it is what they all have in common, and in the end their index.
    """

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
        self._checkpoint()  # a kill may have come between the shard and this

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
        """Drop the waiting keys for an index that holds their codes, where keys are not kept and enough wait."""
        memory, state = self.memory, self.state
        if self.keep_keys or self._waiting_rows() < state.settings["train_rows"] or not self._take_in():
            return
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
