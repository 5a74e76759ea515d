"""The memory: examples that can be searched, and changed at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from residua import html
from residua.core import ArrayLike, DenseLogits, Encoded, Ids, Logits, Names, Neighbours, Source, Task, as_tensor
from residua.core.logits import grown
from residua.core.renamed import renamed
from residua.errors import EmptyMemoryError, IdError, InputError, ShapeError, StorageError
from residua.index import Index, Recall, make_index, measure_recall, median_nn_distance
from residua.memory import arguments, store
from residua.memory.context import context
from residua.memory.exclusion import search_excluding
from residua.memory.facts import facts
from residua.memory.purge import Purge, purge
from residua.memory.schema import KeyDtype, Schema, unit
from residua.memory.storage import Storage, StorageName, describe_storage, make_storage
from residua.memory.summary import summary
from residua.memory.table import Column, Table

_INNER = ("key", "active", "edited", "logits", "top.ids", "top.values", "top.partition")  # not for `column`
_BATCH = 8192  # rows moved to the table at a time, so that storage temporaries stay small


@renamed(arguments.GONE)
class Memory:
    """Remembered examples: keys, labels, what the model said, ids. One memory serves every reader.

    Parameters
    ----------
    data : Encoded or iterable of Encoded
        At least one row, with labels. The first batch decides what is subtracted from all keys, ``schema.key_centre``.
    index : str or Index, default "exact"
        ``"exact"``, ``"auto"``, or any FAISS factory string such as ``"IVF512,PQ32x4fs"``; or an index without rows.
    index_params : dict, optional
        Search parameters, such as FAISS's ``{"nprobe": 64}``.
    overfetch : float, default 4
        Candidates per neighbour that a trained index brings to the re-ranking by exact distances.
    storage : {"full", "none", "head", "top-m"}, default "full"
        What is kept of the model's logits: all; nothing (label readers only); the last layer, which recomputes them
        from the keys; or the `m` residual entries largest in magnitude, at one `temperature` (ResMem, section 4.3).
    m, temperature : int and float, default 128 and 1.0
        For ``"top-m"``.
    device : str, default "cpu"
        Where rows live and searches run.
    key_dtype : {"float32", "float16", "bfloat16"}, default "float32"
        What keys are stored as, less their centre. Distances are computed in float32, from the stored keys.
    normalise : bool, default False
        Divide keys by their Euclidean length, those of rows and those of queries: neighbours are then those of the
        largest cosine, at plain Euclidean distances d between unit vectors, d^2 = 2 - 2 cos. A key of zeros is a
        ``NonFiniteError``.
    about : dict, optional
        Anything of JSON types to save with the memory, such as how its text was cut into windows.
    names : dict of int to str, optional
        What to call an id, such as a document's title or path. Those that `data` have are added.

    Attributes
    ----------
    schema : Schema
        What all rows have in common; ``task``, ``dim``, ``n_outputs``, ``flat_labels`` and ``source`` are its own.
    n_rows : int
        Rows ever remembered. Row numbers count forgotten rows too; ``len(memory)``, ``keys``, ``labels``, ``logits``
        and ``ids`` do not.
    stored_logits : Logits or None
        What the model said, by row number; of a regression, less ``target_centre``.
    target_centre : float64 Tensor of shape (L,), or None
        What is subtracted from the stored labels and predictions of a regression.
    recall : Recall or None
        Measured share of true neighbours that a trained index finds; None for the exact one.
    keys_kept, version : bool, int
        False after ``discard_keys``; a count of edits, so that readers know when what they cached is stale.

    Raises
    ------
    EmptyMemoryError, InputError, SourceMismatchError, StorageError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> memory.add(rs.Encoded(np.ones((1, 3)), np.zeros((1, 2)), [0])).tolist()
    [3]
    >>> memory.forget([0, 1])
    2
    >>> len(memory), memory.ids.tolist()
    (2, [2, 3])
    """

    index: Index
    schema: Schema
    storage: Storage
    about: dict[str, Any]
    names: Names
    device: torch.device
    version: int
    task: Task
    dim: int
    n_outputs: int
    flat_labels: bool
    source: Source | None
    keys_kept: bool
    target_centre: Tensor | None
    stored_logits: Logits | None
    recall: Recall | None
    n_rows: int

    def __init__(
        self,
        data: Encoded | Iterable[Encoded],
        *,
        index: str | Index = "exact",
        index_params: dict[str, Any] | None = None,
        overfetch: float = 4,
        storage: StorageName = "full",
        m: int = 128,
        temperature: float = 1.0,
        device: str | torch.device = "cpu",
        key_dtype: KeyDtype = "float32",
        normalise: bool = False,
        about: dict[str, Any] | None = None,
        names: dict[int, str] | None = None,
    ):
        kept = describe_storage(storage, m=m, temperature=temperature)
        arguments.check_settings(kept, key_dtype, normalise, about, names)
        table, batches = Table(arguments.checked_device(device)), arguments.labelled_batches(data)
        first = next(batches, None)
        if first is None:
            raise EmptyMemoryError("the data hold no rows; a memory needs at least one labelled example")
        wanted = {"index": index, "params": index_params, "overfetch": overfetch}
        schema = Schema.of(first, key_dtype=key_dtype, storage=kept, normalise=normalise)
        self._begin(store.Contents(schema, make_storage(schema), wanted, about=about, names=Names(names)), table, None)
        given = dict(self.names)
        ids = self._append(chain([first], batches), None)
        self.index = self._make_index(table)
        said, self.names = self.names, Names(arguments.names_of(data, ids))
        self.names |= said | given
        self._refresh()

    def _begin(self, contents: store.Contents, table: Table, saved: store.Saved | None) -> None:
        self.schema, self._table, self._saved = contents.schema, table, saved
        self._known: store.Known = {} if saved is None else {saved.path: {saved.generation}}
        self.storage, self.about = contents.storage, dict(contents.about or {})
        self.names = Names(contents.names)
        self.device, self.version = table.device, -1
        self._index_wanted, self._next_id = contents.index_wanted, contents.next_id
        self.keys_kept, self._median_nn_distance = contents.keys_kept, contents.median_nn_distance
        self._centre = self.schema.key_centre.to(self.device) if self.schema.key_centre.any() else None
        self.target_centre = None if self.schema.target_centre is None else self.schema.target_centre.to(self.device)

    def _refresh(self, active: int = 0) -> None:
        """Look at the table anew, after every edit: what searches and readers ask for is then one attribute away."""
        schema, table = self.schema, self._table
        self.task, self.dim, self.n_outputs = schema.task, schema.dim, schema.n_outputs
        self.flat_labels, self.source = schema.flat_labels, schema.source
        self.n_rows, self._active_count = len(table), active or int(table.dense("active").sum())
        self.recall = self.index.recall
        self._keys: Tensor | None = table.dense("key") if self.keys_kept else None
        self._columns = {name.removeprefix("column."): table[name] for name in table.names if name not in _INNER}
        self.stored_logits = self.storage.logits(table)
        self.version += 1

    def __len__(self) -> int:
        return self._active_count

    def __contains__(self, id: int) -> bool:
        return len(self._table.active_with_ids(arguments.integer_ids(id))) > 0

    def __repr__(self) -> str:
        what = f"{len(self)} rows, keys of {self.dim}, {self.n_outputs} outputs, {self.task}"
        return f"Memory({what}, index={self.index.name!r}, storage={self.storage.name!r})"

    def _repr_html_(self) -> str:
        return html.facts("Memory", facts(self))

    @property
    def keys(self) -> np.ndarray | None:
        """Keys, float64 (n, d), in row order, of length 1 where they are normalised; None when they were discarded."""
        if self._keys is None:
            return None
        return self._keys[self.active_rows].cpu().double().add_(self.schema.key_centre).numpy()

    @property
    def labels(self) -> np.ndarray:
        """Labels, in row order: int64 (n,), int8 (n, L) of several labels, or float64 of the targets' shape."""
        labels = self._columns["label"][self.active_rows]
        if self.task != "regression":
            return labels.cpu().numpy().astype(np.int64 if self.task == "classification" else np.int8)
        labels = self.schema.targets(labels).numpy()
        return labels[:, 0] if self.flat_labels else labels

    @property
    def logits(self) -> Logits | None:
        """What the model said, in row order (a regressor's predictions); None when it was not kept."""
        logits = self.stored_logits
        if logits is not None and len(self) < self.n_rows:
            logits = logits.rows(self.active_rows)
        if logits is None or self.target_centre is None:
            return logits
        return DenseLogits(self.schema.targets(logits.dense()))

    @property
    def ids(self) -> np.ndarray:
        """Ids, int64 (n,), in row order."""
        return self._columns["id"][self.active_rows].cpu().numpy()

    @property
    def active_rows(self) -> Tensor:
        """Row numbers of the remembered rows, ascending, int64."""
        return self._table.dense("active").nonzero()[:, 0]

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one row in RAM, by column; the index's own copy is not counted."""
        return self._table.bytes_per_row

    @overload
    def column(self, name: Literal["label"]) -> Tensor: ...
    @overload
    def column(self, name: str) -> Column: ...
    def column(self, name: str) -> Column:
        """A column by row number, read by ``column[rows]``: ``"label"``, ``"id"``, or an extra one by its own name.

        Labels are int32 classes (n,), bool (n, L) of several labels, or float32 (n, L): targets less ``target_centre``.
        """
        if name not in self._columns:
            raise InputError(f"there is no column {name!r}; this memory's rows have {sorted(self._columns)}")
        return self._columns[name]

    def has_column(self, name: str) -> bool:
        """Whether the rows carry this column."""
        return name in self._columns

    def keys_at(self, rows: ArrayLike) -> Tensor:
        """The keys of row numbers of any shape, float32 of shape (\\*rows.shape, d); ``StorageError`` without keys."""
        if self._keys is None:
            raise StorageError("this memory's keys were discarded; its index holds nothing but codes of them")
        rows = as_tensor(rows, torch.int64).to(self.device)
        keys = self._keys.index_select(0, rows.reshape(-1))
        keys = keys.float() if self._centre is None else (keys.double() + self._centre).float()
        return keys.view(*rows.shape, self.dim)

    def rows_with_ids(self, ids: Ids) -> Tensor:
        """Row numbers of the remembered rows that bear one of `ids`, ascending; ``IdError`` where none bears one."""
        ids = arguments.integer_ids(ids)
        rows = self._table.active_with_ids(ids)
        missing = np.setdiff1d(ids, self._columns["id"][rows].cpu().numpy())
        if len(missing):
            raise IdError(f"{len(missing)} of the ids are not in the memory, such as {missing[:5].tolist()}")
        return rows

    def context(self, row: int, length: int) -> np.ndarray:
        """The tokens before a remembered token: labels of up to `length` rows before `row`, oldest first, int64.

        They are of the same document, without gaps; fewer where the document (or what is remembered of it) starts.
        """
        if not self.schema.is_text:
            raise StorageError("only a memory of text (rows with a column 'offset') has contexts")
        return context(self._table, int(row), int(length))

    def search(self, keys: ArrayLike, k: int, exclude: Ids | None = None) -> Neighbours:
        """The k nearest remembered rows of each query: plain Euclidean float32 distances, by (distance, row).

        Missing ones are row -1 at distance inf.

        Parameters
        ----------
        keys : array or Tensor of shape (q, d)
        k : int
        exclude : int array of shape (q,) or (q, m), optional
            Rows that bear one of a query's ids are not its neighbours (its own id, when it is remembered).

        Raises
        ------
        ShapeError, NonFiniteError, ParameterError, IdError
        """
        queries = as_tensor(keys)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ShapeError(f"queries have shape {tuple(queries.shape)}; this memory's keys are (n, {self.dim})")
        queries = queries.to(self.device)
        queries = unit(queries) if self.schema.normalise else queries
        queries = (queries if self._centre is None else queries - self._centre).float()  # in float64, as the centre is
        excluded = None if exclude is None else arguments.excluded_ids(exclude, len(queries))
        # Ids that no row bears exclude nothing: a text that is not remembered is searched for as if there were none.
        if excluded is None or not len(self._table.rows_with("id", excluded.unique().numpy())):
            return self.index.search(queries, int(k), self._keys)
        return search_excluding(self.index, queries, int(k), self._keys, self._columns["id"], excluded.to(self.device))

    def median_nn_distance(self, sample: int = 1000) -> float:
        """Median distance (plain Euclidean) from a remembered row to its nearest other key; 1.0 of fewer than two rows.

        Measured on at most `sample` rows, always the same ones for the same memory; once, when keys are discarded.
        ``InputError`` where all keys are the same.
        """
        median = self._median_nn_distance
        if self._keys is not None:
            median = median_nn_distance(self.index, self.active_rows, self._keys, self._keys, sample)
        if median is None:
            raise StorageError("this memory keeps no keys to measure distances between its rows by; give sigma")
        if median == 0:
            raise InputError(
                f"the keys of all {len(self)} remembered rows are the same: there is no typical distance for "
                "sigma=None, and no neighbour is nearer than another; take another layer's output for the key, or give "
                "sigma"
            )
        return median

    def add(self, data: Encoded | Iterable[Encoded], *, replace: bool = False, new_classes: bool = False) -> np.ndarray:
        """Remember more rows, at once; the id of each, int64 (m,). On any error the memory is as it was.

        Parameters
        ----------
        data : Encoded or iterable of Encoded
            Labelled rows. Rows without ids get the next never-used integers. Rows of one call may share an id. Where
            `data` have ``names`` (of each row, or a dict of id to str), those of the added ids are taken over.
        replace : bool, default False
            Forget the rows that bear one of the ids first, instead of refusing with an ``IdError``.
        new_classes : bool, default False
            Take in classes that the model has no output for (encode them with ``new_classes=True``). The memory then
            has more outputs, in the order of the labels, and adds columns to what the model says: 1/L for each new
            class, the rest shared as before. So a base alone never answers with a new class. ``StorageError`` unless
            logits are stored in full, or not at all.
        """
        before, batches = self.n_rows, arguments.labelled_batches(data)
        batches = list(batches) if new_classes else batches
        with self._grown(batches) if isinstance(batches, list) else nullcontext():
            ids = self._append(batches, self.index, replace)
        if replace:
            self._forget_rows(self._table.active_with_ids(ids, before))
        self.names |= arguments.names_of(data, ids)
        return ids

    def forget(self, ids: Ids) -> int:
        """Forget every row that bears one of `ids`, at once; returns how many rows went.

        The exact index answers as if the rows had never been there; a trained one never returns them, and
        ``rebuild`` removes what its training kept of them (and what saved files hold). ``IdError`` where an id is not
        in the memory; nothing is forgotten then.
        """
        rows = self.rows_with_ids(ids)
        self._forget_rows(rows)
        for id in arguments.integer_ids(ids).tolist():  # what a document was called is forgotten with it
            self.names.pop(id, None)
        return len(rows)

    def relabel(self, ids: Ids, labels: ArrayLike) -> int:
        """Give every row that bears ``ids[i]`` the label ``labels[i]`` (or one label for all); returns the row count.

        A class is its index or, where the memory knows its classes' names, its name.
        ``IdError``, ``LabelError`` or ``ShapeError`` where an id is unknown or given twice, or a label is out of range;
        nothing is changed then.
        """
        ids = arguments.integer_ids(ids)
        if len(np.unique(ids)) != len(ids):
            raise IdError("an id is given twice; expected one label per id")
        rows = self.rows_with_ids(ids)
        given, order = self.schema.labels(labels, len(ids)), np.argsort(ids)
        position = order[np.searchsorted(ids[order], self._columns["id"][rows].cpu().numpy())]
        self._table.dense("label")[rows] = given[torch.from_numpy(position)].to(self.device)
        self._table.dense("edited")[rows] = True
        self.version += 1
        return len(rows)

    def rebuild(self) -> None:
        """Drop forgotten rows for good, renumber the rest, and train the index anew on what is remembered.

        ``ParameterError`` where too few rows are left to train it; the memory is then as it was.
        """
        if self._keys is None:
            raise StorageError("this memory keeps no keys to make its index anew from; build it again from the data")
        table = self._table.take(self.active_rows)
        self.index, self._table, self._saved = self._make_index(table), table, None
        self._refresh()

    def discard_keys(self) -> None:
        """Keep only what a trained index keeps of the keys: a small part of their size.

        Distances are then to the keys as the index compressed them, and ``median_nn_distance`` is measured now.
        ``add``, ``forget`` and ``relabel`` work as before; ``rebuild`` needs the keys, as do the exact index and
        ``storage="head"`` (``StorageError``). Save to make it last.
        """
        keys, index = self._keys, self.index
        if keys is None:
            return
        arguments.check_discard(index.exact, self.storage.name)
        # What is measured by the keys is measured now, as searches will answer from now on: in the index's distances.
        self._median_nn_distance = median_nn_distance(index, self.active_rows, keys, None)
        self._table.drop("key")
        self.keys_kept, self._saved = False, None  # what is on disk holds the keys
        index.rerank, index.recall = False, None
        index.recall = measure_recall(index, keys) if len(self) == self.n_rows else None
        self._refresh()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory into a folder: safetensors shards, and a manifest last, by rename.

        Saving again into the same folder writes only what changed. Whatever fails (``MemoryFileError``), a folder that
        held a memory still holds that memory; one that holds something else is left alone. When it returns, not even a
        power cut undoes it.

        A folder that this memory was loaded from, or saved to, is not saved over once somebody else has saved there
        (``StaleMemoryError``). The reader that is saved in such a folder stays; in any other, it goes.
        """
        self._write(path)

    def _write(self, path: str | os.PathLike[str], reader: dict[str, Any] | None = None) -> None:
        inner = self._index_wanted, self._next_id, self.keys_kept, self._median_nn_distance
        contents = store.Contents(self.schema, self.storage, *inner, self.about, self.names, summary(self))
        what = contents, self.index, self._table, self._saved, self._known
        self._saved = store.save(Path(path), *what, reader)

    def purge(self, path: str | os.PathLike[str], *, progress: bool | None = None) -> Purge:
        """``rebuild``, ``save``, and prove that the folder holds nothing of a forgotten row any more.

        Pieces of the forgotten rows that no remembered row has are looked for at every byte of every file there; one
        that is found is a ``MemoryFileError`` that names the file (a copy that somebody else put there). What is a
        figure over many rows stays: the keys' centre, a tuned reader's parameters.
        """
        return purge(self, self._table, Path(path), progress)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """Read a folder that ``save`` wrote; a ``MemoryFileError`` names a file that is missing, torn or corrupted."""
        return cls._read(path, device)[0]

    @classmethod
    def _read(cls, path: str | os.PathLike[str], device: str | torch.device) -> tuple[Self, dict[str, Any] | None]:
        """The memory in a folder, and the reader that was saved with it."""
        memory = cls.__new__(cls)
        contents, memory.index, table, saved = store.load(Path(path), arguments.checked_device(device))
        memory._begin(contents, table, saved)
        memory._refresh()
        return memory, contents.reader

    @contextmanager
    def _grown(self, batches: list[Encoded]) -> Iterator[None]:
        """As many outputs as `batches` have; as before when what is done in here fails."""
        wanted = max([self.n_outputs, *(batch.n_outputs for batch in batches)])
        if wanted == self.n_outputs:
            yield
            return
        arguments.check_growth(self.storage.name, self.schema.is_text)
        before, column = (self.schema, self.storage, self._saved), None
        schema = self.schema.grown(wanted)
        if self.storage.name == "full":
            column = self._table.replace("logits", grown(DenseLogits(self._table.dense("logits")), wanted).table)
        self.schema, self.storage, self._saved = schema, make_storage(schema), None
        try:
            yield
        except BaseException:
            self.schema, self.storage, self._saved = before
            if column is not None:
                self._table.replace("logits", column)
            self._refresh()
            raise

    def _append(self, batches: Iterable[Encoded], index: Index | None, replace: bool = False) -> np.ndarray:
        """All rows become rows of the table and the index, or none; with `replace`, others of their ids are left."""
        table, before, schema, next_id = self._table, len(self._table), self.schema, self._next_id
        added, keys, names = [np.empty(0, np.int64)], list[Tensor](), dict[int, str]()
        try:
            for batch in batches:
                batch = schema.widened(batch)
                schema = schema.check(batch)
                for start in range(0, len(batch), _BATCH):
                    part = batch[start : start + _BATCH] if len(batch) > _BATCH else batch
                    ids = arguments.ids_from(next_id, len(part)) if part.ids is None else part.ids
                    rows = schema.rows(part, ids) | self.storage.columns(part)
                    if not self.keys_kept:
                        keys.append(rows.pop("key"))
                    table.append(rows)
                    added.append(ids)
                    if part.names is not None:
                        names |= zip(ids.tolist(), part.names.tolist())
                    next_id = max(next_id, int(ids.max()) + 1)
            ids = np.concatenate(added)
            if before and not replace and len(ids) and int(ids.min()) < self._next_id:
                arguments.check_absent(table["id"][table.active_with_ids(ids, before)])
            if index is not None and len(ids):
                index.add(table["key"][before:] if self.keys_kept else torch.cat(keys))
        except BaseException:  # an interrupt too: the memory stays as it was
            if before:
                self._undo(before)
            raise
        self.schema, self._next_id = schema, next_id
        self.names |= names
        if index is not None and len(ids):
            self._refresh(before and len(self) + len(ids))
        return ids

    def _undo(self, before: int) -> None:
        """Take back the rows from `before` on, of which an interrupt may have left some in the index."""
        table, index = self._table, self.index
        # Without keys the index cannot be made anew: what it took in stays, forgotten.
        end = before if self.keys_kept else index.n
        table.truncate(end)
        if end > before:
            table.dense("active")[before:] = False
            index.forget(torch.arange(before, end, device=self.device))
        elif index.n > before:
            self.index = self._make_index(table)
            self.index.forget((~table.dense("active")).nonzero()[:, 0])
        self._refresh()

    def _forget_rows(self, rows: Tensor) -> None:
        if len(rows):
            self.index.forget(rows)
            self._table.dense("active")[rows] = False
            self._active_count -= len(rows)
            self.version += 1

    def _make_index(self, table: Table) -> Index:
        """An index of the wanted kind over the keys of `table`."""
        index = make_index(**self._index_wanted, n=len(table), dim=self.schema.dim, device=table.device)
        index.build(table.dense("key"))
        return index
