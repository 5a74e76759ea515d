"""Every setting at once, from sorted neighbours; or, for a reader of another arithmetic, one after another.

For one kernel width, the weighted sum over the first k neighbours is a running sum in k, so all k cost one pass; all
widths share one matrix product with the same gathered values; and the base enters as ``D * base + N`` (D the sum of the
unnormalised weights, N that of weights times values), which has the same argmax as ``base + N / D``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, LabelValues, Neighbours, Prediction, Values, as_tensor
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

BLOCK = 1_500_000  # float32 entries of one block of gathered values: 6 MB, about what a core's cache holds


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

    def __init__(self, reader: NeighbourReader, grid: Grid, objective: Objective):
        super().__init__(tuple(len(values) for values in grid.values()), objective)
        self.reader, self.grid = reader, grid
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
        if self.grid["k"][-1] == 0:
            return
        values = [reader.values(len(part)) for reader in self.at]
        masks = [reader.skip_mask(reader.base(part.logits)) for reader in self.at]
        skips = [mask.to(truth.device) for mask in masks if mask is not None]
        skipped = torch.stack(skips) if skips else None  # (T, n)

        def count(rows: slice) -> Tally:
            counted, loss, now, begin = Tally(self.shape, self.objective), None, None, starts[:, rows]
            left = None if skipped is None else skipped[:, rows]
            for index, scores, total in self._scored(prediction.neighbours[rows], begin, values, left):
                if "loss" in counted.sums:
                    loss = self._loss(scores, total, begin[:, :, None], truth[rows])
                    loss = (loss if weight is None else loss * weight[rows, None]).permute(1, 2, 0)
                if right is not None:
                    now = argmax(scores).permute(1, 2, 0) == truth[rows, None, None]
                counted.count(index, now, loss, None if right is None else right[rows])
            return counted

        # Blocks of queries whose temporaries are small.
        gaps = np.diff(np.r_[0, self.grid["k"]]).max()
        step = max(1, min(512, int(BLOCK // (starts.shape[2] * max(gaps, len(starts) * len(self.grid["sigma"]))))))
        for _, counted in parallel_map(count, [slice(s, s + step) for s in range(0, len(part), step)]):
            self.merge(counted)

    def _base(self, part: Encoded, truth: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The base's own scores at each temperature (T, n, L), counted, and where they are right."""
        starts, losses = [], []
        for t, reader in enumerate(self.at):
            start = reader.base(part.logits)
            logit = reader.score_space == "logit"
            start = (start.logits.dense() / start.temperature if logit else start.table()).to(truth.device)
            # Arithmetic on denormal numbers is ten times slower, and no score can tell 1e-30 from 0.
            starts.append(torch.where(start.abs() < 1e-30, torch.full_like(start, 1e-30), start))
            if "loss" in self.sums:
                alone = starts[-1][None, :, None]
                loss = self._loss(alone, torch.ones_like(alone[..., :1]), alone, truth)[0, :, 0]
                loss = loss if weight is None else loss * weight
                losses.append(((0, slice(None), t), float(loss.sum())))
        right = argmax(starts[0]) == truth if self.reader.memory.task == "classification" else None
        self.count_base(truth, right, losses, weight)
        return torch.stack(starts), right

    def _loss(self, scores: Tensor, total: Tensor, start: Tensor, truth: Tensor) -> Tensor:
        """Losses (T, b, S) of scores (T, b, S, L) times `total` (b, S, 1), which began as `start` (T, b, 1, L)."""
        logit, floor = self.reader.score_space == "logit", self.reader.floor
        if self.reader.memory.task != "classification" or logit:
            scores = scores / total
        if self.objective == "squared_error":
            return squared_error(scores, truth[:, None])
        if truth.ndim > 1:  # several labels
            has = torch.sigmoid(scores) if logit else proper_labels(scores, start, floor)
            picked = torch.where(truth[:, None] > 0, has, 1 - has)
            return -picked.clamp_min(TINY).log_().mean(dim=3)
        if not logit:  # ``proper``, of which one class alone is looked at: the total is in all of it
            scores = torch.maximum(scores, floor * total * start)
        own = truth[None, :, None, None].expand(*scores.shape[:3], 1)
        if logit:
            picked = torch.softmax(scores, dim=3).gather(3, own)[..., 0]
        else:
            picked = scores.gather(3, own)[..., 0] / scores.sum(dim=3)
        return -picked.clamp_min(TINY).log()  # what underflowed still has a finite logarithm

    def _scored(
        self, near: Neighbours, starts: Tensor, values: list[Values], skipped: Tensor | None
    ) -> Iterator[tuple[Index, Tensor, Tensor]]:
        """Settings with k > 0, all widths and temperatures at once: index, scores (T, b, S, L) times total (b, S, 1),
        and that."""
        weights, outputs = kernel_weights(self.reader, near, self.grid["sigma"]), starts.shape[2]  # (b, S, K)
        weights, rows = weights.to(starts.dtype), near.rows.clamp_min(0)  # float64 of a regression
        # Where T moves what the rows say (residuals), each T gathers its own values; labels serve all.
        values = values[:1] if isinstance(values[0], LabelValues) else values
        summed, total = weights.new_zeros(len(values), *weights.shape[:2], outputs), weights.new_zeros(1)
        start, done = starts[:, :, None], 0
        for place, k in enumerate(self.grid["k"]):
            if k == 0:
                continue
            more = weights[:, :, done:k]
            for part, said in zip(summed, values):
                part.baddbmm_(more, _dense(said, rows[:, done:k], outputs).to(weights.dtype))
            total = total + more.sum(dim=2, keepdim=True)
            done = k
            nothing = total == 0  # no neighbour at all: the base
            divisor = total + nothing
            for mix, (left, given) in enumerate(self.shares):
                scale = torch.where(nothing, divisor, divisor * left)  # 1 where there is nothing
                scores = torch.addcmul(summed if given == 1 else summed * given, scale, start)
                if skipped is not None:
                    scores = torch.where(skipped[:, :, None, None], divisor * start, scores)
                yield (place, slice(None), slice(None), mix)[: len(self.grid)], scores, divisor


def kernel_weights(reader: NeighbourReader, near: Neighbours, sigma: np.ndarray) -> Tensor:
    """Unnormalised weights (b, S, K) of neighbours (b, K) under S kernel widths."""
    widths = torch.tensor(sigma, dtype=torch.float32, device=near.rows.device)[:, None]
    logs = log_weights(near.distances[:, None], widths, reader.kernel)
    own = reader.row_weights(near)
    return unnormalised(logs if own is None else logs + own.log()[:, None], near.found[:, None])


def _dense(values: Values, rows: Tensor, outputs: int) -> Tensor:
    """What rows (b, K) say, dense (b, K, L)."""
    classes, said = values.entries(rows.reshape(-1))
    if said.shape[1] != outputs or classes.stride(0) != 0:  # sparse entries, or not in class order
        said = said.new_zeros(len(said), outputs).scatter_add_(1, classes, said)
    return said.view(*rows.shape, outputs)
