"""Queries whose true neighbours are known: by them recall is measured where the keys are not kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from residua.caution import warn
from residua.core import Rows
from residua.index.nearest import nearest_by_blocks, ordered, root
from residua.index.recall import ENOUGH, FALLEN, GROWN, Recall, queries_near

if TYPE_CHECKING:
    from residua.index.index import Index

log: logging.Logger = logging.getLogger(__name__)

QUERIES = 128  # at most; half of them near the rows that were drawn from last
DEPTH = 100  # true neighbours of each that are known: forgotten ones among them leave enough
K = 50
_FAR = torch.finfo(torch.float32).max / 4  # a squared length: those of keys are no more, so that distances are finite


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Queries near keys, and their nearest rows among all that came since, by the keys themselves.

    Keys that are added pass by once, and each list then holds what it would hold if they had been kept. Forgotten rows
    stay in the lists, and are passed over: what is left of a list are the nearest remembered rows, so that forgetting
    and restoring cost nothing.

    Attributes
    ----------
    queries : float32 Tensor of shape (q, d)
        Keys moved as by ``queries_near``: none is the key of a row, unless all around it are copies.
    rows, squared : int64 and float32 Tensors of shape (q, 100)
        Row numbers, and squared distances, in the order of (squared distance, row); -1 and inf fill up.
    since, born : int64 Tensors of shape (q,)
        The first row that the list knows of; how many rows there were when the query was drawn.
    """

    queries: Tensor
    rows: Tensor
    squared: Tensor
    since: Tensor
    born: Tensor

    @classmethod
    def none(cls, dim: int, device: torch.device | str = "cpu") -> Self:
        """No query yet."""
        rows, number = torch.empty((0, DEPTH), dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        return cls(torch.empty((0, dim)), rows, torch.empty((0, DEPTH)), number, number).to(torch.device(device))

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def drawn_at(self) -> int:
        """How many rows there were when queries were drawn last; 0 where there are none."""
        return int(self.born.max()) if len(self) else 0

    def to(self, device: torch.device) -> Self:
        """The same, on another device."""
        return type(self)(*(part.to(device) for part in self.to_tensors().values()))

    def to_tensors(self) -> dict[str, Tensor]:
        """Its attributes, as they go into a file; ``GroundTruth(**tensors)`` is the inverse."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def appended(self, keys: Rows, first: int) -> Self:
        """After rows `first`, … were added, whose `keys` (m, d) these are."""
        if not len(self) or not len(keys):
            return self
        new = nearest_by_blocks(self.queries, keys, min(DEPTH, len(keys)))
        squared, rows = torch.cat([self.squared, new.squared], dim=1), torch.cat([self.rows, new.rows + first], dim=1)
        best = ordered(squared, rows, DEPTH)
        return replace(self, rows=best.rows, squared=best.squared)

    def drawn(self, keys: Rows, first: int, remembered: Tensor) -> Self:
        """With queries near some of the last rows, those from `first` on; `keys` (m, d) are theirs, and `remembered`
        bool (m,). Of the queries there were, half as many as there may be are kept."""
        near, generator = remembered.nonzero()[:, 0].cpu(), torch.Generator().manual_seed(first)
        if len(keys) < 2 or not len(near):
            return self
        kept = torch.randperm(len(self), generator=generator)[: QUERIES // 2].sort().values.to(self.rows.device)
        count = QUERIES - len(kept)
        sample = near[torch.randperm(len(near), generator=generator)[:count]].sort().values.to(self.rows.device)
        queries = queries_near(keys[sample].float(), keys, min(K, len(keys)), generator)
        queries = queries[queries.square().sum(dim=1) <= _FAR]
        filled = torch.full((len(queries), DEPTH), -1, device=queries.device)
        since = torch.full((len(queries),), first, device=queries.device)
        unknown = torch.full(filled.shape, torch.inf, device=queries.device)
        new = type(self)(queries, filled, unknown, since, since + len(keys)).appended(keys, first)
        mine = [getattr(self, field.name)[kept] for field in fields(self)]
        return type(self)(*(torch.cat(both) for both in zip(mine, new.to_tensors().values())))

    def recall(self, index: Index, remembered: Tensor, k: int = K) -> Recall | None:
        """Recall of `index`, which answers without the keys; rows `remembered`, bool (n,), count. None where nothing is
        known of them.

        Of a query whose list knows all rows, it is the share of its true `k` nearest that are found. Of one whose list
        begins later, the rows found that came since are compared with as many true ones of those; where true ones are
        much nearer than the last row found (half its squared distance), these were to be found, too. The value is the
        lower of two: of the queries drawn last, and of the others.
        """
        known = (self.rows >= 0) & remembered[self.rows.clamp_min(0)]
        # A list that is full may end within rows that are as far as its last.
        known &= (self.squared < self.squared[:, -1:]) | self.squared[:, -1:].isinf()
        asked = known.any(dim=1)
        if not asked.any():
            return None
        known, rows, since, born = (part[asked] for part in (known, self.rows, self.since, self.born))
        squared = self.squared[asked].masked_fill(~known, torch.inf)
        found = index.search(self.queries[asked], min(k, int(remembered.sum())), None)
        later = found.rows >= since[:, None]
        count = torch.minimum(later.sum(dim=1), known.sum(dim=1))
        limit = squared.sort(dim=1).values.gather(1, (count - 1).clamp_min(0)[:, None])
        same = (found.rows[:, :, None] == rows[:, None, :]) & (squared <= limit)[:, None, :]
        hits = (same.any(dim=2) & later & (later.cumsum(dim=1) <= count[:, None])).sum(dim=1)
        nearer = (root(2 * squared) < found.distances[:, -1:]).sum(dim=1).clamp_max(found.rows.shape[1])
        wanted = torch.maximum(count, nearer)
        groups = [group for group in (born == born.max(), born < born.max()) if int(wanted[group].sum()) >= k]
        groups = groups or [wanted > 0]
        measured = [
            Recall(int(hits[group].sum()) / most, k, int(group.sum()), int(remembered.sum()), len(remembered))
            for group in groups
            if (most := int(wanted[group].sum()))
        ]
        return min(measured, key=lambda one: one.value, default=None)

    def keep_recall_true(self, index: Index, remembered: Tensor) -> None:
        """Measure anew what `index` says of its recall, where queries were drawn since it was measured, or a third of
        the rows was forgotten. A ``UserWarning`` where it is below 0.9, and was not, or has fallen by more than 0.2."""
        before = index.recall or Recall(1.0, K, 0)
        if not (self.drawn_at > before.rows or GROWN * int(remembered.sum()) < before.n):
            return
        index.recall = measured = self.recall(index, remembered)
        log.info("index %s over %d rows without keys: %s", index.name, len(remembered), measured)
        if measured and measured.value < ENOUGH and (before.value >= ENOUGH or measured.value < before.value - FALLEN):
            since = f"; it was {before.value:.3f}" if before.queries else ""
            said = (
                f"index {index.name!r} finds too few of the true neighbours, by the codes that it keeps: "
                f"{measured}{since}. It is trained anew by building the memory again, for the keys were discarded; or "
                "take an index that keeps more of them"
            )
            warn(said)
