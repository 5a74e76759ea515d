"""The memory: examples that can be searched, and changed at any moment."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from copy import copy
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from residua import html
from residua.core import ArrayLike, DenseLogits, Encoded, Ids, Logits, Names, Neighbours, Rows, Source, Task, as_tensor
from residua.core.logits import grown
from residua.core.renamed import renamed
from residua.errors import EmptyMemoryError, IdError, InputError, ShapeError, StorageError
from residua.index import (
    ENOUGH,
    MORE_EXACT,
    DecodedKeys,
    Index,
    Recall,
    RemoteIndex,
    make_index,
    median_nn_distance,
)
from residua.memory import arguments, store
from residua.memory.compress import compressed
from residua.memory.context import context
from residua.memory.exclusion import search_excluding
from residua.memory.facts import facts
from residua.memory.frame import to_arrow, to_frame
from residua.memory.history import Changes, Event
from residua.memory.keys_left import KeysLeft
from residua.memory.merging import bearing, ids_held, set_apart, take_out
from residua.memory.run_length import RunLengthArray
from residua.memory.saved import Savable
from residua.memory.schema import KeyDtype, Schema, unit
from residua.memory.storage import Storage, StorageName, describe_storage, make_storage
from residua.memory.summary import summary
from residua.memory.table import Column, Table, alike
from residua.memory.where import others, said
from residua.native import Reading

if TYPE_CHECKING:
    import pandas

log: logging.Logger = logging.getLogger(__name__)

_INNER = ("key", "active", "logits", "top.ids", "top.values", "top.partition")  # not for `column`
_BATCH = 8192  # rows moved to the table at a time, so that storage temporaries stay small


@renamed(arguments.GONE)
class Memory(Savable):
    """Remembered examples: keys, labels, what the model said, ids. One memory serves every reader.

    Threads may search and edit it at the same time: an edit is prepared while searches go on, takes effect at once, or,
    where it fails or is interrupted, not at all.

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
    keys_kept, version : bool, int
        False after ``discard_keys``; a count of edits, so that readers know when what they cached is stale.
    names : Names
        What ids are called, a dict of int to str.

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
        ids = self._append(chain([first], batches), absent=False)
        self._begin_index()
        said, self.names = self.names, Names(arguments.names_of(data, ids))
        self.names |= said | given
        self._events = [Event.of("create", Changes(0, len(self._table)))]

    def _begin(self, contents: store.Contents, table: Table, saved: store.Saved | None) -> None:
        self._stand_alone()
        self.schema, self._table, self._saved = contents.schema, table, saved
        self._known: store.Known = {} if saved is None else {saved.path: {saved.generation}}
        self.storage, self.about = contents.storage, dict(contents.about or {})
        self.names = Names(contents.names)
        self.device, self.version, self._active_count = table.device, -1, 0
        self._index_wanted, self._next_id = contents.index_wanted, contents.next_id
        self.keys_kept, self._median_nn_distance = contents.keys_kept, contents.median_nn_distance
        self._centre = self.schema.key_centre.to(self.device) if self.schema.key_centre.any() else None
        self.target_centre = None if self.schema.target_centre is None else self.schema.target_centre.to(self.device)
        self._events: list[Event] = []
        self._keys_left, self._members = contents.keys_left, contents.members
        self._trust, self._given = False, None  # whoever wrote the folder, and what stands for its index
        self._assigned: tuple[tuple[int, int], ...] = ()  # ids first ... last - 1 that no caller gave

    def _to_contents(self) -> store.Contents:
        inner = self._index_wanted, self._next_id, self.keys_kept, self._median_nn_distance
        more = self.about, self.names, summary(self), None, self._keys_left, self._members
        return store.Contents(self.schema, self.storage, *inner, *more)

    def _refresh(self, active: int = 0) -> None:
        """Look at the table anew, after every edit: what searches and readers ask for is then one attribute away."""
        schema, table = self.schema, self._table
        self.task, self.dim, self.n_outputs = schema.task, schema.dim, schema.n_outputs
        self.flat_labels, self.source = schema.flat_labels, schema.source
        self.n_rows, self._active_count = len(table), active or int(table.dense("active").sum())
        self._keys: Rows | None = table.rows("key") if self.keys_kept else None
        self._columns = {name.removeprefix("column."): table[name] for name in table.names if name not in _INNER}
        known = DecodedKeys(self.index, len(table)) if self._keys is None else self._keys
        self.stored_logits = self.storage.logits(table, known)
        self.version += 1

    def __len__(self) -> int:
        return self._active_count

    def __contains__(self, id: int) -> bool:
        rows, entries = bearing(self, arguments.integer_ids(id))
        return len(rows) + len(entries) > 0

    def __repr__(self) -> str:
        what = f"{len(self)} rows, keys of {self.dim}, {self.n_outputs} outputs, {self.task}"
        return f"Memory({what}, index={self.index.name!r}, storage={self.storage.name!r})"

    def _repr_html_(self) -> str:
        return html.facts("Memory", facts(self))

    @property
    def recall(self) -> Recall | None:
        """Measured share of true neighbours that a trained index finds; None for the exact one.

        It is measured again as the memory grows and shrinks, and a ``UserWarning`` says when it falls. Without keys, by
        a few queries whose true neighbours were noted while the keys of all rows passed by.
        """
        return self.index.recall

    @property
    def keys(self) -> np.ndarray | None:
        """Keys, float64 (n, d), in row order, of length 1 where they are normalised; None when they were discarded."""
        now = self.now
        if now._keys is None:
            return None
        return now._keys[now.active_rows].cpu().double().add_(now.schema.key_centre).numpy()

    @property
    def labels(self) -> np.ndarray:
        """Labels, in row order: int64 (n,), int8 (n, L) of several labels, or float64 of the targets' shape."""
        now = self.now
        labels = now._columns["label"][now.active_rows]
        if self.task != "regression":
            return labels.cpu().numpy().astype(np.int64 if self.task == "classification" else np.int8)
        labels = self.schema.targets(labels).numpy()
        return labels[:, 0] if self.flat_labels else labels

    @property
    def logits(self) -> Logits | None:
        """What the model said, in row order (a regressor's predictions); None when it was not kept."""
        now = self.now
        logits = now.stored_logits
        if logits is not None and len(now) < now.n_rows:
            logits = logits.rows(now.active_rows)
        if logits is None or self.target_centre is None:
            return logits
        return DenseLogits(self.schema.targets(logits.dense()))

    @property
    def ids(self) -> np.ndarray:
        """Ids, int64 (n,), in row order."""
        now = self.now
        return now._columns["id"][now.active_rows].cpu().numpy()

    @property
    def distinct_ids(self) -> int:
        """How many different ids there are, such as documents of a text."""
        now, ids = self.now, self.now._columns["id"]
        if isinstance(ids, RunLengthArray):
            return ids.distinct(now._table.dense("active"))
        return len(np.unique(now.ids))

    @property
    def active_rows(self) -> Tensor:
        """Row numbers of the remembered rows, ascending, int64."""
        return self._table.dense("active").nonzero()[:, 0]

    @property
    def bytes_per_row(self) -> dict[str, int]:
        """Bytes of one row in RAM, by column, rounded down.

        ``"index"`` is what the index holds beside the keys once it was searched, and ``"tail"`` the keys that are left
        for a while where they are discarded; ``"members"`` is what merged rows stand for (``compress``). A column that
        lies in a file (``load(mmap=True)``) counts as well: what is read of it stays in RAM while there is room. A
        reader may keep more: its own ``bytes_per_row`` says it.
        """
        now = self.now
        beside = {"index": now.index.nbytes(now._keys)}
        if now._keys_left is not None:
            beside["tail"] = now._keys_left.nbytes
        if now._members is not None:
            beside["members"] = now._members.nbytes
        return now._table.bytes_per_row | {name: size // max(now.n_rows, 1) for name, size in beside.items()}

    @overload
    def column(self, name: Literal["label"]) -> Tensor: ...
    @overload
    def column(self, name: str) -> Column: ...
    def column(self, name: str) -> Column:
        """A column by row number, read by ``column[rows]``: ``"label"``, ``"id"``, or an extra one by its own name.

        Labels are classes (n,) in the smallest of int8, int16 and int32 that holds them all, bool (n, L) of several
        labels, or float32 (n, L): targets less ``target_centre``.
        """
        if name not in self._columns:
            raise InputError(f"there is no column {name!r}; this memory's rows have {sorted(self._columns)}")
        return self._columns[name]

    def has_column(self, name: str) -> bool:
        """Whether the rows carry this column."""
        return name in self._columns

    def to_frame(self, *, keys: bool = False) -> pandas.DataFrame:
        """A pandas data frame with one row per remembered row, in row order.

        Parameters
        ----------
        keys : bool, default False
            Also the keys, float64 (d,) each, in a column ``key``.

        Returns
        -------
        pandas.DataFrame
            Columns ``id`` (and ``name``, where ids have names), ``label`` and, where classes have names, ``class``; of
            several labels, or targets, ``label_0``, ``label_1``, … or by their names. Then the memory's own columns;
            where a name is taken, ``column.<name>``.

        Raises
        ------
        MissingDependencyError, StorageError

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> more = {"classes": ["cat", "dog"], "columns": {"year": [7, 8, 9]}}
        >>> rows = rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1], **more)
        >>> rs.Memory(rows, names={2: "c.png"}).to_frame()
           id   name  label class  year
        0   0      0      0   cat     7
        1   1      1      1   dog     8
        2   2  c.png      1   dog     9
        """
        return to_frame(self, keys)

    def to_arrow(self, *, keys: bool = False) -> Any:
        """The same as a ``pyarrow.Table``, keys as lists of d numbers, for whatever reads Arrow:
        ``polars.from_arrow(table)``, ``datasets.Dataset(table)``. Libraries that ask for Arrow themselves take the
        memory as it is: ``polars.DataFrame(memory)``.
        """
        return to_arrow(self, keys)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def keys_at(self, rows: ArrayLike) -> Tensor:
        """The keys of row numbers of any shape, float32 of shape (\\*rows.shape, d); ``StorageError`` without keys."""
        kept = self._keys
        if kept is None:
            raise StorageError("this memory's keys were discarded; its index holds nothing but codes of them")
        rows = as_tensor(rows, torch.int64).to(self.device)
        keys = kept.index_select(0, rows.reshape(-1))
        keys = keys.float() if self._centre is None else (keys.double() + self._centre).float()
        return keys.view(*rows.shape, self.dim)

    def rows_with_ids(self, ids: Ids) -> Tensor:
        """Row numbers of the remembered rows that bear one of `ids`, ascending; ``IdError`` where none bears one."""
        rows, entries = bearing(self, arguments.integer_ids(ids), required=True)
        if self._members is None:
            return rows
        return torch.cat([rows, self._members.owners[entries].unique().to(rows.device)]).sort().values

    def bears(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Whether rows (q, k) bear the id of (q,), or stand for one that does; bool (q, k)."""
        own = self._columns["id"][rows] == ids[:, None]
        return own if self._members is None else own | self._members.holds(rows, ids)

    @property
    def is_compressed(self) -> bool:
        """Whether rows were merged (``compress``)."""
        return self._members is not None

    @property
    def counts(self) -> np.ndarray:
        """How many rows each remembered row stands for, int64 (n,), in row order: 1 unless it was merged
        (``compress``)."""
        now = self.now
        return now.counts_at(now.active_rows).cpu().numpy()

    def counts_at(self, rows: Tensor) -> Tensor:
        """``counts`` by row numbers of any shape, int64."""
        if self._members is None:
            return torch.ones_like(rows)
        return self._members.counts(self.n_rows).to(rows.device)[rows]

    def members_of(self, id: int) -> np.ndarray:
        """The ids of all rows that stand together with `id` in a merged row (``compress``), itself among them, int64,
        ascending; ``IdError`` where nobody bears it.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> keys = np.array([[0.0], [0.1], [9.0], [9.1]])
        >>> few = rs.Memory(rs.Encoded(keys, np.zeros((4, 2)), [0, 0, 1, 1])).compress(rows=2)
        >>> few.members_of(3).tolist(), few.counts.tolist(), len(few)
        ([2, 3], [2, 2], 2)
        """
        now = self.now
        rows, held = now.rows_with_ids(id), now._members
        found = now._table["id"][rows].cpu().numpy()
        if held is not None:
            entries = torch.isin(held.owners, rows.cpu()).nonzero()[:, 0]
            found = np.concatenate([found, held.ids(entries)])
        return np.unique(found)

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
        with self.reading():
            self._require_now()
            # Ids that no row bears exclude nothing: a text that is not remembered is searched for as without them.
            if excluded is None or not any(map(len, bearing(self, excluded.unique().numpy()))):
                return self.index.search(queries, int(k), self._keys)
            return search_excluding(self.index, queries, int(k), self._keys, self.bears, excluded.to(self.device))

    def read_at_once(self, reading: Reading, keys: Tensor, logits: Tensor) -> Tensor | None:
        """What `reading` makes of the logits (q, L) of a few queries, keys float32 (q, d), both contiguous and on the
        CPU, where native kernels search and read at once; None: ``search``, which also says what is wrong."""
        if self.schema.normalise or keys.shape[1] != self.dim:
            return None
        with self.reading():
            self._require_now()
            return self.index.read_at_once(reading, keys, self._centre, self._keys, logits)

    def median_nn_distance(self, sample: int = 1000) -> float:
        """Median distance (plain Euclidean) from a remembered row to its nearest other key; 1.0 of fewer than two rows.

        Measured on at most `sample` rows, always the same ones for the same memory; once, when keys are discarded.
        ``InputError`` where all keys are the same.
        """
        with self.reading():
            self._require_now()
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

    def add(
        self,
        data: Encoded | Iterable[Encoded],
        *,
        replace: bool = False,
        new_classes: bool = False,
        note: str | None = None,
    ) -> np.ndarray:
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
        note : str, optional
            What the log says of it.
        """

        def added(draft: Memory) -> np.ndarray:
            before, batches = draft.n_rows, arguments.labelled_batches(data)
            if new_classes:
                batches = list(batches)
                draft._grow(max([draft.n_outputs, *(batch.n_outputs for batch in batches)]))
            ids = draft._append(batches, absent=not replace)
            if replace:
                rows, entries = bearing(draft, ids)
                draft._drop(rows[rows < before])
                take_out(draft, entries)
            draft._call(arguments.names_of(data, ids))
            return ids

        return self._edited("add", note, added)

    def forget(self, ids: Ids, *, note: str | None = None) -> int:
        """Forget every row that bears one of `ids`, at once; returns how many rows went.

        The exact index answers as if the rows had never been there; a trained one never returns them, and
        ``rebuild`` removes what its training kept of them (and what saved files hold). ``IdError`` where an id is not
        in the memory; nothing is forgotten then. The log says `note` of it.

        A row that was merged with others (``compress``) is taken out of them: what is left is merged anew.
        ``StorageError`` where the rows for that were discarded.
        """

        def forgotten(draft: Memory) -> int:
            rows, entries = bearing(draft, arguments.integer_ids(ids), required=True)
            draft._drop(rows)
            take_out(draft, entries)
            draft.rename({id: () for id in arguments.integer_ids(ids).tolist()})  # its name is forgotten with it
            return len(rows) + len(entries)

        return self._edited("forget", note, forgotten)

    def where(self, **columns: ArrayLike | Iterable[float]) -> Self:
        """A memory of its own that remembers those rows alone whose columns hold what is asked for.

        Parameters
        ----------
        **columns : number or iterable of numbers
            The value of a column, or those of which it holds one: an extra column by its name, ``id`` or ``label``. A
            row counts where all columns are right; none asked for is all rows.

        Returns
        -------
        Memory
            A copy, as of ``copy.copy``: what it does not remember is forgotten in it, and ``undo`` brings that back. A
            trained index, or one on a server, still finds as many neighbours as there are: where few of its rows are
            left it is asked for more, and at last their keys are read.

        Raises
        ------
        InputError, ParameterError
            Where there is no such column, it is not of numbers, or what is asked for is none.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> rows = rs.Encoded(np.eye(4), np.zeros((4, 2)), [0, 1, 1, 0], columns={"year": [2021, 2022, 2023, 2023]})
        >>> memory = rs.Memory(rows)
        >>> memory.where(year=range(2022, 2030), label=1).ids.tolist()
        [1, 2]
        """

        def forgotten(draft: Memory) -> None:
            draft._drop(others(draft, columns))
            left = set(ids_held(draft).tolist()) if draft.names else set[int]()
            draft.rename({id: () for id in draft.names if id not in left})

        some = copy(self)
        some._edited("forget", said(columns), forgotten)
        return some

    def compress(
        self,
        rows: int | None = None,
        *,
        bytes: int | None = None,
        index: str | Index = "exact",
        note: str | None = None,
    ) -> Self:
        """A memory of its own of fewer rows, each of which stands for many: this one stays as it is.

        Rows of one label (a text's: of one next token) are clustered by their keys, by k-means, and each cluster
        becomes one row: the mean of its members' keys and of the model's *probabilities* there, so that its residual is
        the mean of theirs, and with their sum for a column ``weight``, which multiplies kernel weights. Of a regression
        all rows are clustered, and targets are means, too. A merged row has the id, the name and the other columns of
        the member nearest to it; ``counts`` and ``members_of`` say what it stands for.

        ``forget`` of any member merges the others anew, ``relabel`` makes it a row of its own, and a query does not
        find a row that stands for its own id. For that the members are kept beside the merged rows, and saved in the
        same folder, from which a loaded memory reads them when one is forgotten. ``discard_members`` drops them.

        Parameters
        ----------
        rows : int
            At most so many; at least one for each label.
        bytes : int
            As many as have at most so many bytes, counting their keys, labels, logits, ids and other columns, and
            neither an index nor the members.
        index : str or Index, default "exact"
            As of ``Memory``.
        note : str, optional
            What the log says of it.

        Returns
        -------
        Memory
            Of the same storage. With ``"head"`` what the model said is recomputed from the mean key, which gives the
            mean of the members' *logits* instead. Its own rows are nothing to fit a reader to (``Pooled.fit()``): give
            that validation rows.

        Raises
        ------
        ParameterError
            Too few rows or bytes, or more rows than there are.
        StorageError
            The keys, or the members, were discarded.
        MissingDependencyError
            Without scikit-learn.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> keys = np.array([[0.0], [1.0], [9.0], [10.0], [11.0]])
        >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((5, 2)), [0, 0, 1, 1, 1]))
        >>> few = memory.compress(rows=2)
        >>> few.keys[:, 0].tolist(), few.counts.tolist(), few.column("weight").tolist()
        ([0.5, 10.0], [2, 3], [2.0, 3.0])
        >>> few.forget(2)
        1
        >>> few.keys[:, 0].tolist(), few.counts.tolist(), len(memory)
        ([0.5, 10.5], [2, 2], 5)
        """
        return compressed(self, rows, bytes, index, note)

    def discard_members(self, *, note: str | None = None) -> None:
        """Keep of the rows that were merged (``compress``) their ids and labels alone: in RAM now, and in the folder
        once the memory is saved.

        A merged row can then be forgotten with all that it stands for, and none of these alone (``StorageError``).
        """

        def discarded(draft: Memory) -> None:
            if draft._members is not None and draft._members.kept:
                draft._members = draft._members.discarded()
                draft._saved = draft._saved and draft._saved.anew(draft.n_rows)
                draft._refresh()

        self._edited("discard_members", note, discarded)

    def relabel(self, ids: Ids, labels: ArrayLike, *, note: str | None = None) -> int:
        """Give every row that bears ``ids[i]`` the label ``labels[i]`` (or one label for all); returns the row count.

        A class is its index or, where the memory knows its classes' names, its name. The log says `note` of it.
        ``IdError``, ``LabelError`` or ``ShapeError`` where an id is unknown or given twice, or a label is out of range;
        nothing is changed then.
        """
        ids = arguments.integer_ids(ids)
        if len(np.unique(ids)) != len(ids):
            raise IdError("an id is given twice; expected one label per id")

        def relabelled(draft: Memory) -> int:
            set_apart(draft, bearing(draft, ids, required=True)[1])
            rows = draft.rows_with_ids(ids)
            given, order = draft.schema.labels(labels, len(ids)), np.argsort(ids)
            position = order[np.searchsorted(ids[order], draft._columns["id"][rows].cpu().numpy())]
            column = draft._table.dense("label").clone()
            column[rows] = given[torch.from_numpy(position)].to(draft.device)
            draft._table = draft._table.with_column("label", column)
            draft._refresh()
            return len(rows)

        return self._edited("relabel", note, relabelled)

    def rename(self, names: Mapping[int, Iterable[str]], *, note: str | None = None) -> None:
        """Give ids these names, each all that it has from now on; none forgets those that it had."""

        def renamed(draft: Memory) -> None:
            new = {int(id): tuple(all) for id, all in names.items()}
            new = {id: all for id, all in new.items() if all != draft.names.all(id)}
            if new:
                draft.names = draft.names.copy()
                for id, all in new.items():
                    draft.names.set(id, *all)
                draft.version += 1

        self._edited("rename", note, renamed)

    def rebuild(self, *, note: str | None = None) -> None:
        """Drop forgotten rows for good, renumber the rest, and train the index anew on what is remembered.

        Where ``"auto"``, ``"knnlm"`` or ``"knnlm-fast"`` was asked for and what it makes still finds less than 0.9 of
        the true neighbours (a ``UserWarning`` says so), the next more exact one is taken; the last is ``"exact"``.
        ``ParameterError`` where too few rows are left to train it; the memory is then as it was. Edits before it cannot
        be undone any more.
        """

        def rebuilt(draft: Memory) -> None:
            if draft._keys is None:
                raise StorageError("this memory keeps no keys to make its index anew from; build it again")
            table = draft._table.take(draft.active_rows)
            table = table.with_column("active", alike(True, len(table), table.device))
            draft._dropped += len(draft._table) - len(table)
            index, asked = draft._make_index(table), draft._index_wanted["index"]
            while index.recall is not None and index.recall.value < ENOUGH and asked in MORE_EXACT:
                asked = MORE_EXACT[asked]
                log.info("index %r is replaced by %r", index.name, asked)
                index = draft._make_index(table, asked)
            draft._saved = draft._saved and draft._saved.anew(draft.n_rows, draft.active_rows)
            draft._members = draft._members and draft._members.take(draft.active_rows)
            draft.index, draft._table, draft._renumbered = index, table, table
            draft._refresh()

        self._edited("rebuild", note, rebuilt)

    def discard_keys(self, *, note: str | None = None) -> None:
        """Keep only what a trained index keeps of the keys: a small part of their size.

        Distances are then to the keys as the index compressed them, and ``median_nn_distance`` is measured now.
        ``storage="head"`` recomputes the logits from the codes: a ``UserWarning`` where these say too little of the
        keys, ``StorageError`` where they say nothing. ``add``, ``forget`` and ``relabel`` work as before; ``rebuild``
        needs the keys, as does the exact index (``StorageError``). Save to make it last. Keys of rows that are added
        later are kept, in the folder too, until they are a quarter of all and the index is written anew, or until
        ``compact``; for good stay 128 points near keys, by which ``recall`` is measured.
        """

        def discarded(draft: Memory) -> None:
            keys, index = draft._keys, draft.index
            if keys is None:
                return
            arguments.check_discard(index.exact)
            draft.storage.check_codes(index, keys)
            # What is measured by the keys is measured now, as searches will answer then: in the index's distances.
            draft._median_nn_distance = median_nn_distance(index, draft.active_rows, keys, None)
            draft._keys_left = KeysLeft.none(0, draft.dim, draft.device).passed(keys, draft._table.dense("active"))
            draft._table = draft._table.without("key")
            # What is on disk holds the keys.
            draft.keys_kept, draft._saved = False, draft._saved and draft._saved.anew(draft.n_rows)
            draft._refresh()

        self._edited("discard_keys", note, discarded)

    def _grow(self, wanted: int) -> None:
        """Have so many outputs."""
        if wanted == self.n_outputs:
            return
        arguments.check_growth(self.storage.name, self.schema.is_text)
        if self.storage.name == "full":
            column = grown(DenseLogits(self._table.dense("logits")), wanted).table[:]
            self._table = self._table.with_column("logits", column)
        self.schema = self.schema.grown(wanted)
        self._table = self._table.with_column("label", self._table.dense("label").to(self.schema.label_dtype))
        self._members = self._members and self._members.grown(wanted, self.schema.label_dtype)
        self.storage, self._saved = make_storage(self.schema), self._saved and self._saved.anew(len(self._table))
        self._refresh()

    def _append(self, batches: Iterable[Encoded], absent: bool) -> np.ndarray:
        """All rows become rows of the table, and of its index when the draft does; ids that are given must be `absent`,
        or belong to one of the rows that are added."""
        table, before, schema, next_id = self._table, len(self._table), self.schema, self._next_id
        added, left, names = [np.empty(0, np.int64)], self._keys_left, dict[int, str]()
        for batch in batches:
            batch = schema.widened(batch)
            if self._members is not None and "weight" not in batch.columns:  # it stands for itself
                batch = batch[:]
                batch.columns["weight"] = np.ones(len(batch), np.float32)
            schema = schema.check(batch)
            for start in range(0, len(batch), _BATCH):
                part = batch[start : start + _BATCH] if len(batch) > _BATCH else batch
                ids = arguments.ids_from(next_id, len(part)) if part.ids is None else part.ids
                if part.ids is None:
                    self._assigned = arguments.joined(self._assigned, next_id, next_id + len(part))
                rows = schema.rows(part, ids) | self.storage.columns(part)
                if left is not None:
                    left = left.appended(rows.pop("key"))
                table = table.appended(rows)
                added.append(ids)
                if part.names is not None:
                    names |= zip(ids.tolist(), part.names.tolist())
                next_id = max(next_id, int(ids.max()) + 1)
        ids = np.concatenate(added)
        if absent and before and len(ids) and int(ids.min()) < self._next_id:
            arguments.check_absent(table["id"][table.active_with_ids(ids, before)])
            if self._members is not None:
                arguments.check_absent(torch.from_numpy(self._members.ids(bearing(self, ids)[1])))
        self.schema, self._next_id, self._table = schema, next_id, table
        self._keys_left = left
        self._call(names)
        if len(ids):
            self._refresh(self._active_count + len(ids))
        return ids

    def _call(self, names: dict[int, str]) -> None:
        """Call ids by these names."""
        if names:
            self.names = self.names.copy()
            self.names |= names
            self.version += 1

    def _drop(self, rows: Tensor) -> None:
        if len(rows):
            active = self._table.dense("active").clone()
            active[rows] = False
            self._table = self._table.with_column("active", active)
            self._refresh(self._active_count - len(rows))

    def _begin_index(self) -> None:
        """Make the index of a new memory."""
        self.index = self._make_index(self._table)
        if isinstance(self.index, RemoteIndex):  # which does not say its token to whoever copies it
            self._given = self.index.fresh()
            self._index_wanted = {**self._index_wanted, "index": self._given, "params": None}

    def _make_index(self, table: Table, instead: str | None = None) -> Index:
        """An index of the wanted kind, or of another, over the keys of `table`."""
        wanted: dict[str, Any] = self._index_wanted if instead is None else {"index": instead}
        index = make_index(**wanted, n=len(table), dim=self.schema.dim, device=table.device)
        index.build(table.rows("key"))
        return index
