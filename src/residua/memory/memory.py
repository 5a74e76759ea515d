"""The memory: examples that can be searched, and changed at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Neighbours
from residua.errors import EmptyMemoryError, IdError, StorageError
from residua.index import Index, make_index
from residua.memory import folder
from residua.memory.accept import new_labels
from residua.memory.append import append
from residua.memory.ids import bearing, int_ids
from residua.memory.rows import Rows
from residua.memory.search import drop_keys, search, typical_distance
from residua.memory.storage import Storage, make_storage


class Memory(Rows):
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
    key_dtype : {"float32", "float16", "bfloat16"}, default "float32"
        What keys are stored as. Distances are computed in float32, from the stored keys.
    about : dict, optional
        Anything of JSON types that should be saved with the memory, such as how its text was cut into windows.
    names : dict of int to str, optional
        What to call an id, such as a document's title or path.

    Attributes
    ----------
    task : {"classification", "regression"}
    n_outputs : int
        L, classes or regression outputs.
    dim : int
        d, the width of a key.
    recall : Recall or None
        Measured share of true neighbours that a trained index finds; None for the exact one.
    keys_kept : bool
        Whether the keys are stored; False after ``drop_keys``.
    about, names : dict
        As given; empty otherwise.

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
        key_dtype: str = "float32",
        about: dict | None = None,
        names: dict[int, str] | None = None,
    ):
        wanted = {"index": index, "params": index_params, "overfetch": overfetch}
        self._start(make_storage(storage, m=m, temperature=temperature), wanted, device, key_dtype, about, names)
        append(self, data)
        if not len(self.table):
            raise EmptyMemoryError("the data hold no rows; a memory needs at least one labelled example")
        self.index = self._indexed(self.table["key"])

    @classmethod
    def without_rows(
        cls,
        storage: Storage,
        index_wanted: dict,
        *,
        device: str | torch.device = "cpu",
        key_dtype: str = "float32",
        about: dict | None = None,
        names: dict[int, str] | None = None,
    ) -> Memory:
        """A memory yet without rows, nature and index, for those who fill it from files or write its shards.

        `index_wanted` holds ``index``, ``params`` and ``overfetch``.
        """
        memory = object.__new__(cls)
        memory._start(storage, index_wanted, device, key_dtype, about, names)
        return memory

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
        ids = append(self, data, replace)
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
        for id in int_ids(ids) if self.names else ():  # what a document was called is forgotten with it
            self.names.pop(int(id), None)
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
        StorageError
            When the keys were dropped.
        """
        if not self.keys_kept:
            raise StorageError("this memory keeps no keys to make its index anew from; build it again from the data")
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

        Measured on at most `sample` rows, always the same ones for the same memory; once, when keys are dropped.
        """
        return typical_distance(self, sample)

    def drop_keys(self) -> None:
        """Keep only what a trained index keeps of the keys: a small part of their size.

        Distances are then to the keys as the index compressed them, and its typical distance is measured now.
        ``add``, ``forget`` and ``relabel`` work as before; ``rebuild`` needs the keys. Save to make it last.

        Raises
        ------
        StorageError
            When the index is exact, or ``storage="head"``, which both need the keys.
        """
        drop_keys(self)

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
