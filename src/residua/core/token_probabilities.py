"""Probabilities over a vocabulary that differ from a model's at a few tokens: no row of V numbers is ever made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from residua.core.logits import Logits
from residua.core.softmax import Softmax, rows_at_once

ENTRIES = 2**18  # entries worked on at a time, so that what one step leaves is in the cache for the next
SCRATCH = 2**20  # float32 entries of the one small table in which repeated tokens meet
TINY = torch.finfo(torch.float32).tiny  # a probability that underflowed still has a finite logarithm


@dataclass(frozen=True)
class TokenProbabilities:
    """``p = max(scale * softmax(logits / T) + values at ids, floor * softmax(logits / T))``: probabilities of q rows.

    Whoever makes one sees to it that they sum to 1; ``at``, ``log_prob`` and ``argmax`` touch only the entries.

    Attributes
    ----------
    softmax : Softmax
        What the model says, at its temperature; all else is on its logits' device.
    scale : float32 Tensor of shape (q, 1)
        What is left of it.
    ids : int64 Tensor of shape (q, c)
        Tokens whose probability changes; one may be there several times, and -1 is none.
    values : float32 Tensor of shape (q, c)
        What is added to each; 0 where the id is -1.
    floor : float32 Tensor of shape (q, 1), optional
        Where values may be negative: the share of the model's own probability that is always left.

    Examples
    --------
    >>> from residua.core import DenseLogits
    >>> base = TokenProbabilities.of(DenseLogits(torch.tensor([[0.2, 0.3, 0.5]]).log()))
    >>> mixed = base.mix(0.5, ids=torch.tensor([[1, 1]]), values=torch.tensor([[0.5, 0.5]]))
    >>> [round(p, 3) for p in mixed.at(torch.tensor([[0, 1, 2]]))[0].tolist()]
    [0.1, 0.65, 0.25]
    >>> mixed.argmax().tolist()
    [1]
    """

    softmax: Softmax
    scale: Tensor
    ids: Tensor
    values: Tensor
    floor: Tensor | None = None

    @classmethod
    def of(cls, said: Softmax | Logits, temperature: float = 1.0) -> TokenProbabilities:
        """What the model says, unchanged: scale 1 and no entries."""
        said = said if isinstance(said, Softmax) else Softmax(said, temperature)
        device = said.partition.device
        empty = torch.empty(len(said), 0, device=device)
        return cls(said, torch.ones(len(said), 1, device=device), empty.long(), empty)

    @property
    def logits(self) -> Logits:
        """The model's logits (q, V)."""
        return self.softmax.logits

    @property
    def temperature(self) -> float:
        """Of the model's softmax."""
        return self.softmax.temperature

    def __len__(self) -> int:
        return len(self.softmax)

    # --- questions --------------------------------------------------------------------------------------------

    def log_prob(self, targets: Tensor) -> Tensor:
        """Log-probability float32 (q,) of one token per row, int64 (q,)."""
        targets = targets.to(self.scale.device, torch.int64)
        said = self.softmax.log_prob(targets)
        added = torch.zeros_like(said)
        for rows in self._blocks():
            added[rows] = torch.where(self.ids[rows] == targets[rows, None], self.values[rows], 0).sum(dim=1)
        scale = self.scale[:, 0]
        # Where nothing is added the model's own logarithm stands, however small the probability.
        alone = (added == 0) & (scale > 0)
        return torch.where(alone, said + scale.log(), self._changed(said[:, None], added[:, None])[:, 0].log_())

    def at(self, tokens: Tensor) -> Tensor:
        """Probabilities float32 of tokens int64 (q,) or (q, m), of the same shape."""
        if tokens.ndim == 1:
            return self.log_prob(tokens).exp_()
        columns = [self.log_prob(column) for column in tokens.T]
        return torch.stack(columns, dim=1).exp_() if columns else self.scale.new_empty(tokens.shape)

    def argmax(self) -> Tensor:
        """The likeliest token int64 (q,)."""
        own = self.softmax.best
        if not self.ids.shape[1]:
            return own.token
        top, token = self._likeliest_entry()
        behind = top < self.scale[:, 0] * own.log_prob.exp()
        token = torch.where(behind, own.token, token)
        if self.floor is None:
            return token
        # The model's best may itself have been lowered; then any token that has no entry may be the likeliest.
        open_rows = behind & ((self.ids == own.token[:, None]) & (self._totals < 0)).any(dim=1)
        for rows in open_rows.nonzero()[:, 0].split(rows_at_once(self.logits.shape[1], token.device, SCRATCH)):
            token[rows] = self._log_rows(rows).argmax(dim=1)
        return token

    def log_probabilities(self) -> Tensor:
        """Log-probabilities of every token, float32 (q, V)."""
        return self._log_rows(None)

    # --- changes ----------------------------------------------------------------------------------------------

    def mix(self, share: float | Tensor, ids: Tensor, values: Tensor) -> TokenProbabilities:
        """``(1 - share) * self + share * entries``.

        Parameters
        ----------
        share : float, or float32 Tensor of shape (q, 1)
            In [0, 1].
        ids : int64 Tensor of shape (q, c)
        values : float32 Tensor of shape (q, c)
            Probabilities that sum to 1 where `share` is not 0.
        """
        left = 1 - share
        return TokenProbabilities(
            self.softmax,
            self.scale * left,
            torch.cat([self.ids, ids], dim=1),
            torch.cat([self.values * left, values * share], dim=1),
            None if self.floor is None else self.floor * left,
        )

    # --- inside -----------------------------------------------------------------------------------------------

    @cached_property
    def _totals(self) -> Tensor:
        return totals(self.ids, self.values, self.logits.shape[1])

    def _blocks(self) -> Iterator[slice]:
        """The rows, some at a time; none where there are no entries."""
        count = self.ids.shape[1]
        step = rows_at_once(count, self.ids.device, ENTRIES)
        return (slice(start, start + step) for start in range(0, len(self) if count else 0, step))

    def _changed(self, said: Tensor, added: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Probabilities (m, c) of tokens of rows, from the model's log-probabilities and what is added to them."""
        own = said.exp()
        changed = torch.addcmul(added, self.scale[rows], own)
        if self.floor is not None:
            changed = torch.maximum(changed, own.mul_(self.floor[rows]))
        return changed.clamp_min_(TINY)

    def _likeliest_entry(self) -> tuple[Tensor, Tensor]:
        """Probability and token (q,) of each row's likeliest entry."""
        found = []
        for rows in self._blocks():
            ids = self.ids[rows].clamp_min(0)
            said = self.softmax.log_prob(ids, rows)
            top, where = self._changed(said, self._totals[rows], rows).max(dim=1, keepdim=True)
            found.append((top[:, 0], ids.gather(1, where)[:, 0]))
        top, token = zip(*found)
        return torch.cat(top), torch.cat(token)

    def _log_rows(self, rows: Tensor | None) -> Tensor:
        """Log-probabilities (m, V) of some rows, or of all."""
        out = self.softmax.log_probabilities(rows)
        every = torch.arange(len(self), device=out.device) if rows is None else rows
        step = rows_at_once(self.ids.shape[1], out.device, ENTRIES)
        for start in range(0, len(every) if self.ids.shape[1] else 0, step):
            part, own = every[start : start + step], out[start : start + step]
            ids = self.ids[part].clamp_min_(0)
            changed = self._changed(own.gather(1, ids), self._totals[part], part).log_()
            own += self.scale[part].log()
            own.scatter_(1, ids, changed)  # a token that is there twice has the same total both times
        return out if self.ids.shape[1] else out.add_(self.scale[every].log())


def totals(ids: Tensor, values: Tensor, width: int) -> Tensor:
    """What the values of each entry's token sum to in its row, float32 (q, c); ids (q, c) below `width`, -1 is none
    (and is given the total of token 0).

    A few rows at a time meet in one small table, of which only the touched places are cleared: several times faster
    than sorting.
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
    """Each row's tokens once, with the sum of their values.

    Parameters
    ----------
    ids : int64 Tensor of shape (q, c)
        -1 is none.
    values : float32 Tensor of shape (q, c)
        0 where the id is -1.

    Returns
    -------
    ids : int64 Tensor of shape (q, u)
        Unique in each row, -1 where a row has fewer than u.
    values : float32 Tensor of shape (q, u)

    Examples
    --------
    >>> ids, values = merge(torch.tensor([[7, 5, 7]]), torch.tensor([[0.5, 1.0, 0.25]]))
    >>> sorted(zip(ids[0].tolist(), values[0].tolist()))
    [(5, 1.0), (7, 0.75)]
    """
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
