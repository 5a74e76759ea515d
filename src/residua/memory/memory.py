"""The memory: examples that can be searched, and changed at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from residua.errors import EmptyMemoryError, IdError
from residua.index import Index, make_index
from residua.memory import folder
from residua.memory.accept import adopt, new_labels, row_columns
from residua.memory.ids import bearing, int_ids, rows_of
from residua.memory.search import search, typical_distance
from residua.memory.storage import make_storage
from residua.memory.table import Table
from residua.records import Encoded, Logits, Neighbours, batches

BATCH = 8192  # rows moved to the table at a time, so that storage temporaries stay small


class Memory:
    """Remembered examples: keys, labels, what the model said, ids. One memory serves every reader.

    Parameters
    ----------
    data : Encoded or iterable of Encoded
        At least one row, with labels.
    index : str, default "exact"
        ``"exact"``, ``"auto"``, or any FAISS factory string such as ``"IVF512,PQ32x4fs"``. Neighbours of a trained
        index are re-ranked by their exact distances; its recall is measured when it is built (``memory.recall``).
    index_params : dict, optional
        FAISS run-time parameters, such as ``{"nprobe": 64}``.
    overfetch : int, default 4
        How many candidates per neighbour a trained index brings to the re-ranking.
    storage : {"full", "none", "head", "top-m"}, default "full"
        What is kept of the model's logits: all; nothing (label readers only); the last layer, which recomputes them
        from the keys; or the `m` residual entries largest in magnitude, at one `temperature`.
    m : int, default 128
        Entries kept per row by ``"top-m"`` (ResMem, section 4.3).
    temperature : float, default 1.0
        The temperature ``"top-m"`` residuals are kept for.
    device : str, default "cpu"
        Where rows live and searches run.

    Attributes
    ----------
    task : {"classification", "regression"}
    n_outputs : int
        L, classes or regression outputs.
    dim : int
        d, the width of a key.
    recall : Recall or None
        Measured share of true neighbours that a trained index finds; None for the exact one.

    Raises
    ------
    EmptyMemoryError
        When `data` holds no row.
    LabelError, ShapeError, TaskError, IdError, SourceMismatchError, StorageError, ParameterError
        When rows do not fit; the memory is then as it was.

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

    def __init__(
        self,
        data: Encoded | Iterable[Encoded],
        *,
        index: str = "exact",
        index_params: dict | None = None,
        overfetch: int = 4,
        storage: str = "full",
        m: int = 128,
        temperature: float = 1.0,
        device: str | torch.device = "cpu",
    ):
        self._start(make_storage(storage, m=m, temperature=temperature), device)
        self._index_wanted = {"index": index, "params": index_params, "overfetch": overfetch}
        self._append(data)
        if not len(self.table):
            raise EmptyMemoryError("the data hold no rows; a memory needs at least one labelled example")
        self.index = self._indexed(self.table["key"])

    def _start(self, storage, device) -> None:
        self.table = Table(device)
        self.storage = storage
        self.task = self.n_outputs = self.dim = self.source = None
        self.flat_labels = True  # labels of shape (n,), not (n, m)
        self.version = 0  # counts edits, so that readers know when what they cached is stale
        self._next_id = 0
        self._alive_count = 0
        self.index = None
        self._saved: folder.Saved | None = None

    # --- rows -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many rows are remembered (forgotten ones do not count)."""
        return self._alive_count

    def __repr__(self) -> str:
        return (
            f"Memory({len(self)} rows, keys of {self.dim}, {self.n_outputs} outputs, {self.task}, "
            f"index={self.index.name!r}, storage={self.storage.name!r})"
        )

    @property
    def device(self) -> torch.device:
        """Where the rows live."""
        return self.table.device

    @property
    def recall(self):
        """What the index's build measured; None when exact."""
        return self.index.recall

    @property
    def logits(self) -> Logits | None:
        """What the model said, by row number (forgotten rows included)."""
        return self.storage.logits(self.table)

    @property
    def alive_rows(self) -> Tensor:
        """Row numbers of the remembered rows, ascending, int64."""
        return self.table["alive"].nonzero()[:, 0]

    @property
    def ids(self) -> np.ndarray:
        """Ids of the remembered rows, int64, in row order."""
        return self.table["id"][self.alive_rows].cpu().numpy()

    @property
    def labels(self) -> np.ndarray:
        """Labels of the remembered rows, in row order: int64 (n,), or float32 of the targets' shape."""
        labels = self.table["label"][self.alive_rows].cpu().numpy()
        return labels[:, 0] if self.task == "regression" and self.flat_labels else labels

    @property
    def columns(self) -> list[str]:
        """Names of the extra columns the rows carry."""
        return [name[7:] for name in self.table.names if name.startswith("column.")]

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one row in RAM, by column; the index's own copy is not counted."""
        return self.table.bytes_per_row

    def rows_of(self, ids) -> Tensor:
        """Row numbers of the remembered rows that bear one of `ids`, ascending.

        Raises
        ------
        IdError
            When an id is not an integer or is not in the memory.
        """
        return rows_of(self, ids)

    def __contains__(self, id) -> bool:
        return bool(((self.table["id"] == int(id)) & self.table["alive"]).any())

    # --- edits ------------------------------------------------------------------------------------------------

    def add(self, data: Encoded | Iterable[Encoded], *, replace: bool = False) -> np.ndarray:
        """Remember more rows, at once.

        Parameters
        ----------
        data : Encoded or iterable of Encoded
            Labelled rows. Rows without ids get the next never-used integers. Rows of one call may share an id.
        replace : bool, default False
            Forget the rows that bear one of the ids first, instead of refusing.

        Returns
        -------
        ids : int64 array, one per added row

        Raises
        ------
        IdError
            When an id is present and `replace` is False. On any error the memory is as it was.
        """
        before = len(self.table)
        ids = self._append(data, replace=replace)
        if len(ids):
            if replace:
                self._forget_rows(bearing(self, ids, before))
            self.version += 1
        return ids

    def forget(self, ids) -> int:
        """Forget every row that bears one of `ids`, at once; returns how many rows went.

        The exact index answers as if the rows had never been there; a trained one never returns them, and
        ``rebuild`` removes what its training kept of them (and what saved files hold).

        Raises
        ------
        IdError
            When an id is not in the memory; nothing is forgotten then.
        """
        rows = self.rows_of(ids)
        self._forget_rows(rows)
        return len(rows)

    def relabel(self, ids, labels) -> int:
        """Give every row that bears ``ids[i]`` the label ``labels[i]`` (or one label for all); returns the row count.

        Raises
        ------
        IdError, LabelError, ShapeError
            When an id is unknown or given twice, or a label is out of range; nothing is changed then.
        """
        ids = int_ids(ids)
        if len(np.unique(ids)) != len(ids):
            raise IdError("an id is given twice; expected one label per id")
        rows = self.rows_of(ids)
        labels = new_labels(self, labels, len(ids))
        order = np.argsort(ids)
        position = order[np.searchsorted(ids[order], self.table["id"][rows].cpu().numpy())]
        self.table["label"][rows] = labels[torch.from_numpy(position)].to(self.table["label"])
        self.table["edited"][rows] = True
        self.version += 1
        return len(rows)

    def rebuild(self) -> None:
        """Drop forgotten rows for good, renumber the rest, and train the index anew on what is remembered.

        Raises
        ------
        ParameterError
            When too few rows are left to train the index; the memory is then as it was.
        """
        rows = self.alive_rows
        self.index = self._indexed(self.table["key"][rows])
        self.table.keep(rows)
        self._saved = None
        self.version += 1

    # --- search -----------------------------------------------------------------------------------------------

    def search(self, keys, k: int, exclude_ids=None) -> Neighbours:
        """The k nearest remembered rows of each query.

        Parameters
        ----------
        keys : array or Tensor of shape (q, d)
        k : int
        exclude_ids : int array of shape (q,) or (q, m), optional
            Rows that bear one of a query's ids are not its neighbours (its own id, when it is remembered).

        Returns
        -------
        Neighbours
            Plain Euclidean float32 distances, by (distance, row); missing ones are row -1 at distance inf.
        """
        return search(self, keys, k, exclude_ids)

    def typical_distance(self, sample: int = 1000) -> float:
        """Median distance (plain Euclidean) from a remembered row to its nearest other one; 1.0 when undefined.

        Measured on at most `sample` rows, always the same ones for the same memory.
        """
        return typical_distance(self, sample)

    # --- files ------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the memory into a folder: safetensors shards, and a manifest last, by rename.

        Saving again into the same folder writes only what changed. Whatever fails, a folder that held a memory
        still holds that memory.

        Raises
        ------
        MemoryFileError
            When the folder holds something else, or cannot be written (a full disk, no permission).
        """
        folder.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> Memory:
        """Read a folder that ``save`` wrote. The files' sizes and checksums are verified.

        Raises
        ------
        MemoryFileError
            When the folder is missing, torn or corrupted; the message names the file.
        """
        return folder.load(cls, path, device)

    # --- inside -----------------------------------------------------------------------------------------------

    def _append(self, data, replace: bool = False) -> np.ndarray:
        """Validate and append all rows of `data` to the table, or none."""
        before, next_id, source = len(self.table), self._next_id, self.source
        given, added = [], []
        try:
            for batch in batches(data):
                if not len(batch):
                    continue
                adopt(self, batch)
                for start in range(0, len(batch), BATCH):
                    part = batch[start : start + BATCH] if len(batch) > BATCH else batch
                    if part.ids is None:
                        ids = np.arange(self._next_id, self._next_id + len(part))
                    else:
                        ids = part.ids
                        given.append(np.unique(ids))
                    self._next_id = max(self._next_id, int(ids.max()) + 1)
                    self.table.append(row_columns(self, part, ids))
                    added.append(ids)
            if given and before and not replace:
                present = bearing(self, np.concatenate(given), before)
                if len(present):
                    some = np.unique(self.table["id"][present].cpu().numpy())
                    raise IdError(
                        f"{len(some)} of the ids are in the memory already, such as {some[:5].tolist()}; "
                        "forget them first, or add with replace=True"
                    )
            if self.index is not None:
                self.index.add(self.table["key"][before:])
        except BaseException:  # an interrupt too: the memory stays as it was
            self.table.truncate(before)
            self._next_id, self.source = next_id, source
            if self.index is not None and self.index.n != before:  # interrupted with some of the rows in it
                self.index = self._indexed(self.table["key"])
                self.index.forget((~self.table["alive"]).nonzero()[:, 0])
            raise
        self._alive_count += len(self.table) - before
        return np.concatenate(added) if added else np.empty(0, np.int64)

    def _forget_rows(self, rows: Tensor) -> None:
        if len(rows):
            self.index.forget(rows)
            self.table["alive"][rows] = False
            self._alive_count -= len(rows)
            self.version += 1

    def _indexed(self, keys: Tensor) -> Index:
        """An index of the wanted kind over `keys`."""
        wanted = self._index_wanted
        index = make_index(
            wanted["index"],
            n=len(keys),
            dim=self.dim,
            device=self.device,
            params=wanted["params"],
            overfetch=wanted["overfetch"],
        )
        index.build(keys)
        return index
