"""Every setting at once, from sorted neighbours; or, for a reader of another arithmetic, one after another.

For one kernel width, the weighted sum over the first k neighbours is a running sum in k, so all k cost one pass; all
widths share one matrix product with the same gathered values; and the base enters as ``D * base + N`` (D the sum of the
unnormalised weights, N that of weights times values), which has the same argmax as ``base + N / D``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, LabelValues, Neighbours, Prediction, TableValues, Values, as_tensor
from residua.core.encoded import labels_of
from residua.core.prediction import proper_labels
from residua.core.probabilities import TINY
from residua.errors import InputError
from residua.memory.schema import Objective
from residua.progress import progress_bar
from residua.readers import KNNLM, NeighbourReader, Reader, ResMem
from residua.readers.neighbour import log_weights, unnormalised
from residua.readers.reader import Exclude
from residua.readers.seen import Seen
from residua.tuning.objective import WHY, Grid, Index, Tally, argmax, plain, squared_error

BLOCK = 3_000_000  # float32 entries of one block of gathered values: 12 MB, beside which a call costs little
KEPT = 2**25  # neighbours that are kept until the best setting is judged: 400 MB


A = TypeVar("A")
B = TypeVar("B")


def parallel_map(work: Callable[[A], B], items: Sequence[A]) -> Iterator[tuple[A, B]]:
    """(item, work(item)) in order, each on one of as many threads as torch uses; torch's own count is restored.

    Many small operations lose more time at torch's barriers between its threads than they gain from them.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    torch.set_num_threads(1)
    try:
        yield from zip(items, pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def is_plain(reader: NeighbourReader) -> bool:
    """Whether this reader's class reads neighbours as ResMem and kNN-LM do: kernel weights, and one share for all."""
    cls, same = type(reader), ("weights", "row_weights", "change", "base", "read", "skip_mask")
    inherited = all(getattr(cls, name) is getattr(NeighbourReader, name) for name in same)
    return inherited and cls.share in (NeighbourReader.share, KNNLM.share, ResMem.share)


class Sweep(Protocol):
    """What counts every setting over blocks of validation rows."""

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Count a block, whose prediction holds the neighbours."""


def count_rows(
    sweep: Sweep,
    reader: Reader,
    validation: Encoded | Iterable[Encoded],
    exclude: Exclude,
    depth: int,
    progress: bool | None,
) -> Seen:
    """Let a sweep count all labelled rows, each with at least `depth` neighbours, with a bar; those rows."""
    seen, classes = list[Seen](), reader.memory.task == "classification"
    with progress_bar(progress, desc="tune", unit="row") as bar:
        for part, prediction in reader.predictions(validation, exclude=exclude, depth=depth):
            truth = as_tensor(labels_of(part, WHY)).to(reader.memory.device)
            sweep.add(part, prediction, truth if classes else truth.reshape(len(part), -1))
            seen.append(Seen.of(part))
            bar.update(len(part))
    if not seen:
        raise InputError("the validation data hold no rows")
    return Seen.join(seen)


class SlowSweep(Tally):
    """One reader for each setting, by its own ``weights``, ``share`` and ``change``."""

    grid: Grid
    readers: list[tuple[tuple[int, ...], NeighbourReader]]

    def __init__(self, reader: NeighbourReader, grid: Grid, objective: Objective):
        super().__init__(tuple(len(values) for values in grid.values()), objective)
        self.grid, self.readers = grid, []
        for index in np.ndindex(*self.shape):
            setting = {name: plain(values[i]) for (name, values), i in zip(grid.items(), index)}
            if setting["k"] or all(i == 0 for name, i in zip(grid, index) if name not in ("k", "temperature")):
                self.readers.append((index, reader.with_params(**setting)))

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Count a block, whose prediction holds the neighbours."""
        keys, right, losses = as_tensor(part.keys), None, []
        weight = self.readers[0][1].loss_weights(part, truth)
        for index, reader in self.readers:
            now, loss, best = reader.reread(prediction, keys, part.logits), None, None
            if self.objective == "squared_error":
                loss = squared_error(now.scores, truth)
            else:
                best = now.argmax().to(truth.device)
            if self.objective == "log_loss":
                loss = -now.log_prob(truth).to(truth.device)
            if loss is not None and weight is not None:
                loss = loss * weight
            if index[0] == 0:  # the base, at one temperature: all other parameters are the same to it
                at = list(self.grid).index("temperature") if "temperature" in self.grid else 0
                where = tuple(i if axis in (0, at) else slice(None) for axis, i in enumerate(index))
                losses.append((where, 0.0 if loss is None else float(loss.sum())))
                right = best == truth if best is not None and best.ndim == 1 else None
            else:
                self.count(index, None if best is None or best.ndim > 1 else best == truth, loss, right)
        self.count_base(truth, right, losses, weight)


class QuickSweep(Tally):
    """All settings of k, sigma, temperature, and of lmbda or residual_weight, in one pass, for readers that weigh by
    kernels."""

    reader: NeighbourReader
    grid: Grid
    at: list[NeighbourReader]  # one for each temperature
    shares: list[tuple[float, float]]  # of the base, and of the neighbours
    kept: list[tuple[Encoded, Prediction]] | None  # the rows and what was found; None where that is much

    def __init__(self, reader: NeighbourReader, grid: Grid, objective: Objective):
        super().__init__(tuple(len(values) for values in grid.values()), objective)
        self.reader, self.grid, self.kept = reader, grid, []
        self._table: TableValues | None = None  # what rows say under all temperatures, side by side (n, T * L)
        self.at = [reader.with_params(temperature=float(t)) for t in grid["temperature"]]
        left = getattr(reader, "base_weight", None) or 1.0
        given = getattr(reader, "residual_weight", None) or 1.0
        self.shares = [(left, float(v)) for v in grid.get("residual_weight", [given])]
        if "lmbda" in grid:
            self.shares = [(1 - float(v), float(v)) for v in grid["lmbda"]]

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Count a block, whose prediction holds the neighbours."""
        weight = self.reader.loss_weights(part, truth)
        starts, right = self._base(part, truth, weight)
        much = self.rows * self.grid["k"][-1] > KEPT
        self.kept = None if much or self.kept is None else [*self.kept, (part, prediction)]
        if self.grid["k"][-1] == 0:
            return
        values = self._values(len(part))
        masks = [reader.skip_mask(reader.base(part.logits)) for reader in self.at]
        skips = [mask.to(truth.device) for mask in masks if mask is not None]
        skipped = torch.stack(skips, dim=1)[:, None, :, None] if skips else None

        def count(rows: slice) -> Tally:
            counted, loss, now, begin = Tally(self.shape, self.objective), None, None, starts[rows]
            left = None if skipped is None else skipped[rows]
            for index, scores, total in self._scored(prediction.neighbours[rows], begin, values, left):
                if "loss" in counted.sums:
                    loss = self._loss(scores, total, begin, truth[rows])
                    loss = loss if weight is None else loss * weight[rows, None, None]
                if right is not None:
                    now = argmax(scores) == truth[rows, None, None]
                counted.count(index, now, loss, None if right is None else right[rows])
            return counted

        # Blocks of queries whose temporaries are small.
        gaps, temperatures, outputs = np.diff(np.r_[0, self.grid["k"]]).max(), *starts.shape[2:]
        said = gaps if isinstance(values[0], LabelValues) else gaps * temperatures
        each = outputs * max(said, temperatures * len(self.grid["sigma"]))
        step = max(1, min(512, int(BLOCK // each)))
        for _, counted in parallel_map(count, [slice(s, s + step) for s in range(0, len(part), step)]):
            self.merge(counted)

    def _base(self, part: Encoded, truth: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The base's own scores at each temperature (n, 1, T, L), counted, and where they are right."""
        starts, losses = [], []
        for t, reader in enumerate(self.at):
            start = reader.base(part.logits)
            logit = reader.score_space == "logit"
            start = (start.logits.dense() / start.temperature if logit else start.table()).to(truth.device)
            # Arithmetic on denormal numbers is ten times slower, and no score can tell 1e-30 from 0.
            starts.append(torch.where(start.abs() < 1e-30, torch.full_like(start, 1e-30), start))
            if "loss" in self.sums:
                alone = starts[-1][:, None, None]
                loss = self._loss(alone, torch.ones_like(alone[..., :1]), alone, truth)[:, 0, 0]
                loss = loss if weight is None else loss * weight
                losses.append(((0, slice(None), t), float(loss.sum())))
        right = argmax(starts[0]) == truth if self.reader.memory.task == "classification" else None
        self.count_base(truth, right, losses, weight)
        return torch.stack(starts, dim=1)[:, None], right

    def _values(self, queries: int) -> list[Values]:
        """What rows say under each temperature; or what they say under all of them, side by side, as one."""
        if self._table is None:
            # Of readers that are not kept, for what a reader makes once it keeps.
            made = (reader.with_params().values(queries) for reader in self.at)
            first = next(made)
            if isinstance(first, LabelValues):
                return [first]
            if not isinstance(first, TableValues):
                return [first, *made]
            tables = (one.table for one in chain([first], made) if isinstance(one, TableValues))
            n, outputs = first.table.shape
            table = first.table.new_empty(n, len(self.at), outputs)
            for t, said in enumerate(tables):
                table[:, t] = said
            self._table = TableValues(table.flatten(1))
        return [self._table]

    def _loss(self, scores: Tensor, total: Tensor, start: Tensor, truth: Tensor) -> Tensor:
        """Losses (b, S, T) of scores (b, S, T, L) times `total` (b, S, 1, 1), which began as `start` (b, 1, T, L)."""
        logit, floor = self.reader.score_space == "logit", self.reader.floor
        if self.reader.memory.task != "classification" or logit:
            scores = scores / total
        if truth.ndim > 1:
            truth = truth[:, None, None]
        if self.objective == "squared_error":
            return squared_error(scores, truth)
        if truth.ndim > 1:  # several labels
            has = torch.sigmoid(scores) if logit else proper_labels(scores, start, floor)
            picked = torch.where(truth > 0, has, 1 - has)
            return -picked.clamp_min(TINY).log_().mean(dim=3)
        if not logit:  # ``proper``, of which one class alone is looked at: the total is in all of it
            scores = torch.maximum(scores, floor * total * start)
        own = truth[:, None, None, None].expand(*scores.shape[:3], 1)
        if logit:
            picked = torch.softmax(scores, dim=3).gather(3, own)[..., 0]
        else:
            picked = scores.gather(3, own)[..., 0] / scores.sum(dim=3)
        return -picked.clamp_min(TINY).log()  # what underflowed still has a finite logarithm

    def _scored(
        self, near: Neighbours, start: Tensor, values: list[Values], skipped: Tensor | None
    ) -> Iterator[tuple[Index, Tensor, Tensor]]:
        """Settings with k > 0, all widths and temperatures at once: index, scores (b, S, T, L) times total
        (b, S, 1, 1), and that."""
        weights, outputs = kernel_weights(self.reader, near, self.grid["sigma"]), start.shape[3]  # (b, S, K)
        weights, rows = weights.to(start.dtype), near.rows.clamp_min(0)  # float64 of a regression
        total = weights @ staircase(near, self.grid["k"][1:]).to(weights.dtype)  # (b, S, K')
        nothing = total == 0  # no neighbour at all: the base, and scales of 1
        divisors = total + nothing
        scales = [torch.where(nothing, divisors, divisors * left) for left, _ in self.shares]
        wide = outputs if isinstance(values[0], LabelValues) else outputs * start.shape[2]
        summed = weights.new_zeros(*weights.shape[:2], wide)
        for place, (done, k) in enumerate(pairwise(self.grid["k"]), start=1):
            summed.baddbmm_(weights[:, :, done:k], _dense(values, rows[:, done:k], outputs).to(weights.dtype))
            heard, divisor = summed.view(*summed.shape[:2], -1, outputs), divisors[:, :, place - 1, None, None]
            for mix, ((_, given), scale) in enumerate(zip(self.shares, scales)):
                by = scale[:, :, place - 1, None, None]
                scores = torch.addcmul(heard if given == 1 else heard * given, by, start)
                if skipped is not None:
                    scores = torch.where(skipped, divisor * start, scores)
                yield (place, slice(None), slice(None), mix)[: len(self.grid)], scores, divisor


def staircase(near: Neighbours, ks: np.ndarray) -> Tensor:
    """Bool (k, K): which of the neighbours are among the first of each of `ks` (K,). Sums over the first, for all of
    them at once, are one matrix product."""
    device = near.rows.device
    return torch.arange(near.k, device=device)[:, None] < torch.as_tensor(ks, device=device)


def kernel_weights(reader: NeighbourReader, near: Neighbours, sigma: np.ndarray) -> Tensor:
    """Unnormalised weights (b, S, K) of neighbours (b, K) under S kernel widths."""
    widths = torch.tensor(sigma, dtype=torch.float32, device=near.rows.device)[:, None]
    logs = log_weights(near.distances[:, None], widths, reader.kernel)
    own = reader.row_weights(near)
    return unnormalised(logs, near.found[:, None], None if own is None else own[:, None])


def _dense(values: list[Values], rows: Tensor, outputs: int) -> Tensor:
    """What rows (b, K) say by each of `values`, dense and side by side (b, K, T * L)."""
    parts = list[Tensor]()
    for one in values:
        classes, said = one.entries(rows.reshape(-1))
        in_order = isinstance(one, TableValues) or (said.shape[1] == outputs and classes.stride(0) == 0)
        if not in_order:  # sparse entries, or not in the order of the classes
            said = said.new_zeros(len(said), outputs).scatter_add_(1, classes, said)
        parts.append(said.view(*rows.shape, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
