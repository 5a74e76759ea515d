"""What a memory holds: its rows, as they can be read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from residua.core import Logits
from residua.index import Index, Recall
from residua.memory import tokens
from residua.memory.accept import check_settings
from residua.memory.folder import Saved
from residua.memory.ids import bearing, rows_of
from residua.memory.storage import Storage
from residua.memory.table import Table


class Rows:
    """The rows of a ``Memory`` and what is known about them. Row numbers count forgotten rows too."""

    def _start(self, storage: Storage, index_wanted: dict, device, key_dtype: str, about, names) -> None:
        check_settings(storage, key_dtype, about, names)
        self.table = Table(device)
        self.storage = storage
        self.key_dtype = key_dtype
        self.keys_kept = True
        self.about = dict(about or {})
        self.names = {int(number): name for number, name in (names or {}).items()}
        self.task = self.n_outputs = self.dim = self.source = None
        self.flat_labels = True  # labels of shape (n,), not (n, m)
        self.version = 0  # counts edits, so that readers know when what they cached is stale
        self.index: Index | None = None
        self._index_wanted = index_wanted
        self._next_id = 0
        self._alive_count = 0
        self._typical_distance: float | None = None  # measured before the keys were dropped
        self._saved: Saved | None = None

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
    def recall(self) -> Recall | None:
        """What the index's build measured; None when exact."""
        return self.index.recall

    @property
    def keys(self) -> Tensor | None:
        """Keys of shape (n, d), by row number (forgotten rows included), as stored; None when they were dropped."""
        return self.table["key"] if self.keys_kept else None

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
        if self.task == "classification":
            return labels.astype(np.int64)
        return labels[:, 0] if self.flat_labels else labels

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
        return len(bearing(self, np.array([int(id)]))) > 0

    @property
    def of_tokens(self) -> bool:
        """Whether rows are a language model's next tokens: classes, with a column ``offset``."""
        return tokens.of_tokens(self)

    def context(self, row: int, length: int) -> np.ndarray:
        """The tokens before a remembered token: labels of up to `length` rows before `row`, oldest first, int64.

        They are of the same document, without gaps; fewer where the document (or what is remembered of it) starts.

        Raises
        ------
        StorageError
            When this is not a memory of tokens.
        ParameterError
            When there is no such row.

        Examples
        --------
        >>> import residua as rs
        >>> offsets = {"offset": [0, 1, 2, 0]}
        >>> rows = rs.Encoded([[0.0]] * 4, [[0.0] * 9] * 4, [5, 6, 7, 8], [0, 0, 0, 1], columns=offsets)
        >>> rs.Memory(rows).context(2, 10).tolist()
        [5, 6]
        """
        return tokens.context(self, row, length)
