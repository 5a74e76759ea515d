"""Which rows a merged row stands for, so that each of them can still be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from residua.core import DenseLogits
from residua.core.logits import grown
from residua.errors import StorageError
from residua.memory.table import Table


@dataclass(frozen=True, eq=False)
class Members:
    """The rows that were merged, and which row of the memory stands for each.

    Entries are only ever added: those of a merged row that was forgotten since say what it was, for ``undo``. A row
    that stands for nothing but itself, since it was added later, has none.
    """

    table: Table  # the rows as they were, on the CPU; labels and ids alone, where the rest was discarded
    rows: Tensor  # int64 (m,): numbers in that table
    owners: Tensor  # int64 (m,), ascending: the row of the memory

    @classmethod
    def none(cls, table: Table) -> Self:
        """Rows that are not merged yet."""
        return cls(table, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))

    @property
    def kept(self) -> bool:
        """Whether they can be merged anew."""
        return "key" in self.table.names

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of the entries."""
        columns = sum(self.table[name].nbytes for name in self.table.names)
        return columns + self.rows.nbytes + self.owners.nbytes

    def appended(self, rows: Tensor, owners: Tensor) -> Self:
        """With entries of new rows of the memory, those of one after another's."""
        return type(self)(self.table, torch.cat([self.rows, rows]), torch.cat([self.owners, owners]))

    def owned(self, active: Tensor) -> Tensor:
        """Which entries are of the rows of the memory that are `active`, bool (n,); bool (m,)."""
        return active.cpu()[self.owners]

    def bearing(self, ids: np.ndarray) -> Tensor:
        """Which entries are of rows that bear one of `ids`, bool (m,)."""
        return torch.isin(self.rows, self.table.rows_with("id", ids))

    def ids(self, entries: Tensor) -> np.ndarray:
        """The ids of some entries, int64."""
        return self.table["id"][self.rows[entries]].numpy()

    def counts(self, n: int) -> Tensor:
        """How many rows each of n rows of the memory stands for, itself where it has no entries; int64 (n,)."""
        return torch.bincount(self.owners, minlength=n)[:n].clamp_min(1)

    def holds(self, owners: Tensor, ids: Tensor) -> Tensor:
        """Whether rows of the memory (q, k) stand for one that bears the id of (q,); bool (q, k)."""
        known, pairs = self._pairs
        ids, found = ids.cpu(), torch.zeros(owners.shape, dtype=torch.bool)
        place = torch.searchsorted(known, ids).clamp_max(max(len(known) - 1, 0))
        some = (known[place] == ids).nonzero()[:, 0] if len(known) else place[:0]  # mostly none: strangers ask
        wanted = owners.cpu()[some] * len(known) + place[some, None]
        if len(some):
            found[some] = pairs[torch.searchsorted(pairs, wanted).clamp_max(len(pairs) - 1)] == wanted
        return found.to(owners.device)

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        """The ids there are, ascending, and of each entry its row of the memory and its id, as one number."""
        known, place = self.table["id"][self.rows].unique(return_inverse=True)
        return known, (self.owners * len(known) + place).unique()

    def take(self, owners: Tensor) -> Self:
        """Of these rows of the memory alone (ascending numbers), which are then numbered 0 ... n-1; members of no row
        are dropped."""
        owners = owners.cpu()
        some = torch.isin(self.owners, owners)
        used, rows = self.rows[some].unique(return_inverse=True)
        table = self.table if len(used) == len(self.table) else self.table.take(used)
        return type(self)(table, rows, torch.searchsorted(owners, self.owners[some]))

    def grown(self, n_outputs: int, label_dtype: torch.dtype) -> Self:
        """Of a memory with so many classes."""
        table = self.table.with_column("label", self.table.dense("label").to(label_dtype))
        if "logits" in table.names:
            table = table.with_column("logits", grown(DenseLogits(table.dense("logits")), n_outputs).table[:])
        return type(self)(table, self.rows, self.owners)

    def discarded(self) -> Self:
        """Labels and ids alone."""
        return type(self)(self.table.only("label", "id"), self.rows, self.owners)

    def require(self, left: Tensor, out: Tensor) -> None:
        """``StorageError`` where the entries `left` of some rows cannot be merged anew without others, `out`."""
        if len(left) and not self.kept:
            rows = torch.isin(self.owners, self.owners[left])
            together = np.unique(self.ids(rows.nonzero()[:, 0]))
            raise StorageError(
                f"id {int(self.ids(out)[0])} is one of {int(rows.sum())} rows that were merged, and they were "
                "discarded (discard_members), without which nobody can take it out: forget all that it was merged "
                f"with, memory.members_of(id), such as {together[:5].tolist()}, or compress the whole memory again"
            )
