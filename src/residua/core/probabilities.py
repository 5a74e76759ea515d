"""Probabilities that differ from a base's at a few classes: no row of a vocabulary's numbers is ever made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from residua.core.logits import Softmax, rows_at_once

SCRATCH = 2**20  # float32 entries of the one small table in which repeated classes meet
TINY = torch.finfo(torch.float32).tiny  # a probability that underflowed still has a finite logarithm


@dataclass(frozen=True)
class SparseProbabilities:
    """``p = max(scale * p_T + values at ids, floor * p_T)`` with ``p_T = softmax(logits / T)``: of q rows.

    Whoever makes one sees to it that they sum to 1; ``at``, ``log_prob`` and ``argmax`` touch only the entries.
    """

    softmax: Softmax  # p_T; all else is on its logits' device
    scale: Tensor  # float32 (q, 1): what is left of it
    ids: Tensor  # int64 (q, c): classes whose probability changes; one may be there several times, and -1 is none
    values: Tensor  # float32 (q, c): what is added to each; 0 where the id is -1
    floor: Tensor | None = None  # float32 (q, 1), where values may be negative: the share of p_T that is always left

    @classmethod
    def of(cls, base: Softmax) -> Self:
        """What the model says, unchanged."""
        device = base.partition.device
        empty = torch.empty(len(base), 0, device=device)
        return cls(base, torch.ones(len(base), 1, device=device), empty.long(), empty)

    @classmethod
    def changed(
        cls,
        base: Softmax,
        scale: Tensor,
        entries: tuple[Tensor, Tensor],
        signed: bool,
        floor: float,
        asked: Tensor | None = None,
    ) -> Self:
        """``p`` proportional to ``max(scale * p_T + entries, floor * p_T)``.

        `entries` are ids and values (m, c), which may be negative where `signed`, of rows `asked` int64 (m,), None for
        all: the others are the base's.
        """
        device = base.partition.device
        rows = None if asked is None else asked.to(device)
        ids, values = (part.to(device) for part in entries)
        some = slice(None) if rows is None else rows
        return cls._of_rows(base, rows, *_proper(base, some, scale.to(device), ids, values, signed, floor))

    @classmethod
    def tilted(cls, base: Softmax, entries: tuple[Tensor, Tensor], asked: Tensor | None = None) -> Self:
        """``p`` proportional to ``p_T * exp(entries)``; the rest as for ``changed``.

        The classes without an entry keep their probability, but for the sum, which is known from the others.
        """
        device = base.partition.device
        rows = None if asked is None else asked.to(device)
        ids, values = merge(*(part.to(device) for part in entries))
        own = base.log_prob(ids.clamp_min(0), slice(None) if rows is None else rows).exp_().masked_fill_(ids < 0, 0)
        # Beside the largest factor, so that none overflows.
        top = values.amax(dim=1, keepdim=True).clamp_min(0) if ids.shape[1] else values.new_zeros(len(ids), 1)
        rest = torch.exp(-top)
        added = own * (torch.exp(values - top) - rest)
        total = rest + added.sum(dim=1, keepdim=True)
        return cls._of_rows(base, rows, rest / total, ids, added / total, torch.zeros_like(total))

    @classmethod
    def _of_rows(
        cls, base: Softmax, rows: Tensor | None, scale: Tensor, ids: Tensor, values: Tensor, least: Tensor | None
    ) -> Self:
        """Those of `rows`, None for all; the other rows are the base's."""
        if rows is None:
            return cls(base, scale, ids, values, least)
        whole = cls.of(base)
        shape = len(base), ids.shape[1]
        return cls(
            base,
            whole.scale.to(scale.dtype).index_copy(0, rows, scale),
            ids.new_full(shape, -1).index_copy_(0, rows, ids),
            values.new_zeros(shape).index_copy_(0, rows, values),
            None if least is None else least.new_zeros(len(base), 1).index_copy_(0, rows, least),
        )

    def __len__(self) -> int:
        return len(self.softmax)

    def log_prob(self, targets: Tensor) -> Tensor:
        """Log-probability float32 (q,) of one class per row, int64 (q,)."""
        targets = targets.to(self.scale.device, torch.int64)
        base = self.softmax.log_prob(targets)
        added = torch.where(self.ids == targets[:, None], self.values, 0).sum(dim=1)
        scale = self.scale[:, 0]
        # Where nothing is added the model's own logarithm stands, however small the probability.
        alone = (added == 0) & (scale > 0)
        return torch.where(alone, base + scale.log(), self._changed(base[:, None], added[:, None])[:, 0].log_())

    def at(self, classes: Tensor) -> Tensor:
        """Probabilities float32 of classes int64 (q,) or (q, m), of the same shape."""
        if classes.ndim == 1:
            return self.log_prob(classes).exp_()
        columns = [self.log_prob(column) for column in classes.T]
        return torch.stack(columns, dim=1).exp_() if columns else self.scale.new_empty(classes.shape)

    def argmax(self) -> Tensor:
        """The likeliest class int64 (q,)."""
        base = self.softmax.argmax()
        if not self.ids.shape[1]:
            return base
        ids = self.ids.clamp_min(0)
        top, where = self._changed(self.softmax.log_prob(ids), self._totals).max(dim=1, keepdim=True)
        behind = top[:, 0] < self.scale[:, 0] * self.softmax.confidence().exp()
        best = torch.where(behind, base, ids.gather(1, where)[:, 0])
        if self.floor is None:
            return best
        # The model's best may itself have been lowered; then any class that has no entry may be the likeliest.
        unsure = behind & ((self.ids == base[:, None]) & (self._totals < 0)).any(dim=1)
        for rows in unsure.nonzero()[:, 0].split(rows_at_once(self.softmax.n_outputs, ids.device, SCRATCH)):
            best[rows] = self.log_probabilities(rows).argmax(dim=1)
        return best

    def log_probabilities(self, rows: Tensor | None = None) -> Tensor:
        """Log-probabilities of every class, float32 (m, V), of some rows or of all."""
        out, part = self.softmax.log_probabilities(rows), slice(None) if rows is None else rows
        if not self.ids.shape[1]:
            return out.add_(self.scale[part].log())
        ids = self.ids[part].clamp_min(0)
        changed = self._changed(out.gather(1, ids), self._totals[part], part).log_()
        out += self.scale[part].log()
        return out.scatter_(1, ids, changed)  # a class that is there twice has the same total both times

    def mix(self, scale: Tensor, ids: Tensor, values: Tensor) -> SparseProbabilities:
        """``scale * self + entries``: `scale` float32 (q, 1), `values` (q, c) >= 0 that sum to 1 - scale in each row;
        of probabilities without a floor."""
        ids, values = torch.cat([self.ids, ids], dim=1), torch.cat([self.values * scale, values], dim=1)
        return SparseProbabilities(self.softmax, self.scale * scale, ids, values)

    @cached_property
    def _totals(self) -> Tensor:
        return totals(self.ids, self.values, self.softmax.n_outputs)

    def _changed(self, base: Tensor, added: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Probabilities (m, c), from the model's log-probabilities and what is added."""
        base = base.exp()
        changed = torch.addcmul(added, self.scale[rows], base)
        if self.floor is not None:
            changed = torch.maximum(changed, base.mul_(self.floor[rows]))
        return changed.clamp_min_(TINY)


def _proper(
    base: Softmax, rows: Tensor | slice, scale: Tensor, ids: Tensor, values: Tensor, signed: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Scale, ids, values and floor of ``p ∝ max(score, epsilon * p_T)`` of some rows of the base.

    Classes without an entry score ``scale * p_T``, so their sum is known from that of the entries' p_T.
    """
    if not signed and bool((scale >= epsilon).all()):  # as it is: positive, and a sum of 1
        return scale, ids, values, None
    ids, values = merge(ids, values)
    own = base.log_prob(ids.clamp_min(0), rows).exp_().masked_fill_(ids < 0, 0)
    left, least = scale.clamp_min(epsilon), epsilon * own
    score = torch.addcmul(values, scale, own)
    added = torch.maximum(score, least).addcmul_(left, own, value=-1)
    total = left + added.sum(dim=1, keepdim=True)
    if not signed:
        return left / total, ids, added / total, None
    # A class on the floor is put a little below it, so that the floor decides, and no rounding.
    added = torch.where(score <= least, own * left * -(1 + 2**-20), added)
    return left / total, ids, added / total, (epsilon / total).expand_as(left)


def totals(ids: Tensor, values: Tensor, width: int) -> Tensor:
    """What the values of each entry's token sum to in its row, float32 (q, c); ids (q, c) below `width`, -1 is token 0.

    Rows meet in one small table, of which only the touched places are cleared: faster than sorting.
    """
    out = torch.empty_like(values)
    step = rows_at_once(width, ids.device, SCRATCH)
    table = values.new_zeros(min(step, len(ids)), width)
    for start in range(0, len(ids), step):
        rows = slice(start, start + step)
        own = ids[rows].clamp_min(0)
        here = table[: len(own)].scatter_add_(1, own, values[rows])
        torch.gather(here, 1, own, out=out[rows])
        here.scatter_(1, own, 0.0)
    return out


def merge(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's tokens once, with the sum of their values: ids int64 (q, c), -1 (of value 0) for none; the new ids
    (q, u) are -1 where a row has fewer than u."""
    if not ids.numel():
        return ids, values
    width = int(ids.max()) + 1
    summed = totals(ids, values, max(width, 1))
    # Every entry writes its place where its token's others do; the one whose place stays there stands for them all.
    places = torch.arange(ids.shape[1], device=ids.device)
    step = rows_at_once(width + 1, ids.device, SCRATCH)
    table = ids.new_empty(min(step, len(ids)), width + 1)
    stands = torch.empty_like(ids, dtype=torch.bool)
    for start in range(0, len(ids), step):
        rows = slice(start, start + step)
        own = torch.where(ids[rows] < 0, width, ids[rows])
        last = table[: len(own)].scatter_(1, own, places.expand_as(own)).gather(1, own)
        stands[rows] = (last == places) & (own < width)
    column = stands.cumsum(dim=1) - 1
    unique = int(column[:, -1].max()) + 1
    row, place = stands.nonzero(as_tuple=True)
    to = row, column[row, place]
    out = ids.new_full((len(ids), unique), -1), values.new_zeros(len(ids), unique)
    out[0][to], out[1][to] = ids[row, place], summed[row, place]
    return out
