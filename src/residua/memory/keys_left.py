"""What a memory without keys keeps of them: those that its index file lacks, and what recall is measured by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from residua.core import Rows
from residua.index import GroundTruth
from residua.memory.table import Table

TAIL = 4  # an index file is written anew once it lacks more than a quarter of what it has


@dataclass(frozen=True, eq=False)
class KeysLeft:
    """The *tail*, keys of the last rows, and queries whose true neighbours among all rows are known.

    The tail lets a save leave a large index file as it is. It holds at most a quarter as many rows as came before it;
    once there are more it goes, and leaves queries behind. Never changed in place.
    """

    start: int  # the first row whose key is kept
    tail: Table  # of a column "key"
    truth: GroundTruth

    @classmethod
    def none(cls, rows: int, dim: int, device: torch.device | str = "cpu") -> Self:
        """Of no row of so many."""
        return cls(rows, Table(device), GroundTruth.none(dim, device))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.start + len(self.tail)

    @property
    def is_long(self) -> bool:
        """Whether the tail is to go."""
        return len(self.tail) * TAIL > self.start

    @property
    def nbytes(self) -> int:
        """Bytes of the tail in RAM."""
        return len(self.tail) * sum(self.tail.bytes_per_row.values())

    def keys(self, first: int) -> Tensor:
        """The keys of rows `first`, …, where the tail has them."""
        return self.tail.rows("key")[first - self.start :]

    def appended(self, keys: Rows) -> Self:
        """With the keys of more rows."""
        return replace(self, tail=self.tail.appended({"key": keys}), truth=self.truth.appended(keys, self.rows))

    def passed(self, keys: Rows, remembered: Tensor | None = None) -> Self:
        """After the keys of more rows (m, d), in place of a tail, were seen and discarded. Queries are drawn near those
        `remembered`, bool (m,), where a quarter came since the last ones were drawn."""
        truth, first, rows = self.truth.appended(keys, self.rows), self.rows, self.rows + len(keys)
        if (rows - truth.drawn_at) * TAIL > truth.drawn_at:
            near = torch.ones(len(keys), dtype=torch.bool) if remembered is None else remembered
            truth = truth.drawn(keys, first, near)
        return replace(self, start=rows, tail=Table(self.tail.device), truth=truth)

    def first(self, rows: int, truth: GroundTruth) -> Self:
        """Of so many rows, and what `truth` knew then."""
        return replace(self, tail=self.tail.first(rows - self.start), truth=truth)

    def drawn(self, active: Tensor) -> Self:
        """With queries near the remembered rows of a tail that is to go; `active`: bool (n,)."""
        if not self.is_long:
            return self
        return replace(self, truth=self.truth.drawn(self.tail.rows("key"), self.start, active[self.start :]))

    def cut(self) -> Self:
        """Without a tail that is to go."""
        return replace(self, start=self.rows, tail=Table(self.tail.device)) if self.is_long else self

    def apart(self) -> Self:
        """The same, which may be appended to without regard to this one."""
        return replace(self, tail=self.tail.apart())
