"""Integer columns that are mostly arithmetic: a document's id repeats, its offsets count up."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from residua.core.arrays import ArrayLike

_FEW = 1024  # runs that are kept as such in a column of any length: 24 KB


class RunLengthArray:
    """An int64 column held as runs: (start row, first value, step), where step is 0 (repeats) or 1 (counts up).

    Reading rows costs a binary search each, finding the rows of some values costs the runs and what is found. The runs
    depend on the values alone, not on how they were appended.

    >>> documents = RunLengthArray(torch.tensor([7, 7, 7, 2, 2]))
    >>> documents.count, documents[torch.tensor([0, 4])].tolist(), documents.rows_with([2]).tolist()
    (2, [7, 2], [3, 4])
    """

    dtype = torch.int64
    device: torch.device
    count: int  # runs

    def __init__(self, values: Tensor | None = None, device: torch.device | str = "cpu"):
        self.device = torch.device(device) if values is None else values.device
        self._buffer = torch.empty((3, 0), dtype=torch.int64, device=self.device)
        self._length = self.count = 0  # of values, of runs
        if values is not None and len(values):
            self._buffer = _compress(values)
            self._length, self.count = len(values), self._buffer.shape[1]

    def __len__(self) -> int:
        return self._length

    @property
    def shape(self) -> tuple[int]:
        """(n,), as a dense column's."""
        return (self._length,)

    @property
    def nbytes(self) -> int:
        return 24 * self.count

    @property
    def is_compact(self) -> bool:
        """Whether the runs are few enough (an eighth of the values, or a thousand) to be kept instead of the values."""
        return self.count <= max(_FEW, self._length // 8)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        """The values at `rows`: int64 row numbers 0 ... n-1 of any shape, a slice, or one integer."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(self._length), device=self.device)
        elif isinstance(rows, int):
            if not -self._length <= rows < self._length:
                raise IndexError(f"row {rows} of {self._length}")
            return self[torch.tensor([rows % self._length], device=self.device)][0]
        rows = rows.to(self.device)
        starts, firsts, steps = self._runs
        run = torch.searchsorted(starts, rows, right=True).sub_(1)
        return firsts[run] + steps[run] * (rows - starts[run])

    def appended(self, values: Tensor | RunLengthArray) -> RunLengthArray:
        """With int64 values (m,) at the end, at a cost of O(m), amortised, or of the runs; this one stays as it is.

        Both share their runs. Of several that are made from one so, only the last may be used.
        """
        more = self.first(self._length) if not self._length else copy.copy(self)
        if not len(values):
            return more
        if isinstance(values, RunLengthArray):
            runs = self._following(values)
            if runs is not None:
                more._put(self.count, runs, self._length + len(values))
                return more
            values = values[:]
        values = values.to(self.device)
        # The last run is read again (two of its values tell its step), since the new values may go on with it.
        again = min(2, self._length - int(self._runs[0, -1])) if self.count else 0
        values = torch.cat([self[self._length - again :], values])
        runs = _compress(values)
        runs[0] += self._length - again
        kept = self.count - bool(again)
        if again:
            runs[:2, 0] = self._runs[:2, -1]
        more._put(kept, runs, self._length + len(values) - again)
        return more

    def _put(self, kept: int, runs: Tensor, length: int) -> None:
        """Put `runs` behind the first `kept` ones, for `length` values in all."""
        end = kept + runs.shape[1]
        if end > self._buffer.shape[1]:
            grown = self._buffer.new_empty((3, max(end, self._buffer.shape[1] * 3 // 2)))
            grown[:, : self.count] = self._runs
            self._buffer = grown
        self._buffer[:, kept:end] = runs  # the last run of what was there gains values, and changes none
        self.count, self._length = end, length

    def _following(self, other: RunLengthArray) -> Tensor | None:
        """The runs of `other` as they follow these, without its first where the last one here goes on with all of that;
        None where it would go on with a part."""
        runs = other._runs.to(self.device, copy=True)
        runs[0] += self._length
        if not self.count:
            return runs
        start, value, step = self._runs[:, -1].tolist()
        alone = start == self._length - 1
        apart = int(runs[1, 0]) - (value + step * (self._length - 1 - start))
        if apart not in ((0, 1) if alone else (step,)):
            return runs
        if alone or ((other.count > 1 or len(other) > 1) and int(runs[2, 0]) != apart):
            return None
        return runs[:, 1:]

    def first(self, length: int) -> RunLengthArray:
        """The first `length` values, with runs of their own."""
        part = RunLengthArray(device=self.device)
        part.count, part._length = int(torch.searchsorted(self._runs[0].contiguous(), length)), length
        part._buffer = self._runs[:, : part.count].clone()
        if part.count and int(part._buffer[0, -1]) == length - 1:
            part._buffer[2, -1] = 0  # one value has no step
        return part

    def distinct(self, kept: Tensor) -> int:
        """How many different values the rows have of which `kept`, bool (n,), says so."""
        starts, firsts, steps = self._runs
        if bool((steps != 0).any()):
            return len(self[kept.nonzero()[:, 0]].unique())
        before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])  # kept rows above each row
        ends = torch.cat([starts[1:], starts.new_tensor([self._length])])
        return len(firsts[before[ends] > before[starts]].unique())

    def rows_with(self, values: ArrayLike) -> Tensor:
        """Row numbers of the rows whose value is one of `values` (integers), ascending, int64."""
        wanted = torch.as_tensor(values, dtype=torch.int64, device=self.device).unique()
        starts, firsts, steps = self._runs
        lengths = torch.diff(starts, append=starts.new_tensor([self._length]))
        low = torch.searchsorted(wanted, firsts)
        high = torch.searchsorted(wanted, firsts + steps * (lengths - 1), right=True)
        found = torch.where(steps == 1, high - low, (high - low) * lengths)  # of each run
        hit = found.nonzero()[:, 0]
        found = found[hit]
        place = torch.arange(int(found.sum()), device=self.device)
        place -= (found.cumsum(0) - found).repeat_interleave(found)  # 0, 1, … within each run's finds
        run = hit.repeat_interleave(found)
        counted = wanted[(low[run] + place).clamp_max(max(len(wanted) - 1, 0))] - firsts[run]
        return starts[run] + torch.where(steps[run] == 1, counted, place)

    def to_tensors(self) -> dict[str, Tensor]:
        """Three small tensors on the CPU, ``start``, ``first`` and ``step`` (int8), which `from_tensors` reads."""
        start, first, step = self._runs.cpu()
        return {"start": start.clone(), "first": first.clone(), "step": step.to(torch.int8)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], length: int) -> Self:
        """The inverse of `to_tensors`, on the CPU; ``ValueError`` where these are not the runs of `length` values."""
        start, first, step = tensors["start"], tensors["first"], tensors["step"]
        if [(part.dtype, part.ndim) for part in (start, first, step)] != [(torch.int64, 1)] * 2 + [(torch.int8, 1)]:
            raise ValueError("runs are no columns of int64 and int8")
        ascending = bool((start[1:] > start[:-1]).all())
        if not (len(start) == len(first) == len(step) and ascending and len(start) <= length) or (
            length and (not len(start) or int(start[0]) != 0 or int(start[-1]) >= length)
        ):
            raise ValueError(f"{len(start)} runs do not describe {length} values")
        runs = cls()
        runs._buffer = torch.stack([start, first, step.long()])
        runs.count, runs._length = len(start), length
        if not bool(((step == 0) | (step == 1)).all() and (runs.last >= first).all()):
            raise ValueError("runs step by other than 0 and 1, or beyond the largest int64")
        return runs

    @property
    def last(self) -> Tensor:
        """The last value of each run, its largest, int64."""
        starts, firsts, steps = self._runs
        return firsts + steps * (torch.diff(starts, append=starts.new_tensor([self._length])) - 1)

    @property
    def _runs(self) -> Tensor:
        return self._buffer[:, : self.count]


def _compress(values: Tensor) -> Tensor:
    """The runs (3, r) of int64 values (n,), n > 0, each as long as it can be from the left."""
    steps = values[1:] - values[:-1]
    arithmetic = ((steps == 0) | (steps == 1)) & (values[1:] >= values[:-1])  # a difference may have wrapped around
    place = torch.arange(len(steps), device=values.device)
    # A run ends where the step is neither 0 nor 1, or where it changes; but the value after an end starts anew with
    # any step, so of adjacent changes every second one ends a run.
    changes = torch.zeros_like(arithmetic)
    changes[1:] = arithmetic[1:] & (steps[1:] != steps[:-1])
    settled = torch.where(changes, -1, place).cummax(0).values  # the last place that is no change of step
    ends = ((place - settled) % 2 == 1) ^ ~arithmetic[settled]
    starts = torch.cat([place.new_zeros(1), ends.nonzero()[:, 0] + 1])
    lengths = torch.diff(starts, append=starts.new_tensor([len(values)]))
    step = torch.zeros_like(starts)
    longer = lengths > 1
    step[longer] = steps[starts[longer]]
    return torch.stack([starts, values[starts], step])
