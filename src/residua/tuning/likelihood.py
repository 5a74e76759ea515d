"""The likelihood of validation rows under every setting of an interpolation, from a few numbers per row.

It gives the class that was true ``p = p_T + share * (q - p_T)``: p_T from the base at temperature T, q from the memory
(or the cache). Neither needs the other classes, so a whole grid costs as many numbers per row as there are q's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from residua.core import Encoded, LabelValues, Logits, Neighbours, Prediction, TopLogits
from residua.errors import InputError
from residua.index.nearest import blocks
from residua.memory.schema import Scorer
from residua.readers import KNNLM, NeighbourReader
from residua.tuning.grid import SWEPT, largest_share
from residua.tuning.objective import Grid, losses
from residua.tuning.sweep import is_plain, kernel_weights, parallel_map, staircase

GROUP = 4  # probabilities multiplied before one logarithm is taken
FLOOR = 1e-75  # so that the product of GROUP of them is a float64
BLOCK = 2**18  # float32 entries of one block's weights, or of its logits: 1 MB, which a core's own cache holds
SUMMED = 2**14  # rows whose likelihoods are summed at a time


@dataclass(frozen=True)
class Targets:
    """n validation rows: what was said of the class that was true. CPU tensors.

    q is the class's probability among what was retrieved, under A x B settings (k x sigma; window x theta).
    """

    p_neighbours: Tensor  # q, float32 (A, B, n); -1 where nothing was retrieved, which leaves the base
    log_p_base: Tensor  # float64 (T, n): the base's log-probability of the class at each temperature
    p_max: Tensor  # float32 (T, n): the largest probability the base gives any class; 0 where no search is skipped
    nearest: Tensor  # float32 (n,): plain distance of the nearest neighbour, inf without one
    groups: Tensor  # int64 (n,): rows that belong together (a document) share a number

    def __len__(self) -> int:
        return self.log_p_base.shape[1]

    @classmethod
    def join(cls, parts: list[Targets]) -> Targets:
        """All rows of `parts`, in order."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts], dim=-1) for field in fields(cls)))

    def log_likelihood(self, shares: np.ndarray, skip: float | None = None) -> np.ndarray:
        """Summed log-likelihood of every setting, float64 (A, B, T, L), at L shares of q, each in [0, 1).

        Rows of which the base is at least `skip` sure are left to the base.
        """
        column = torch.as_tensor(shares, dtype=torch.float64)[:, None]
        skipped = torch.zeros_like(self.p_max, dtype=torch.bool) if skip is None else self.p_max >= skip
        # Classes that no setting retrieved have one closed form; often they are half of all.
        missed = (self.p_neighbours == 0).all(dim=0).all(dim=0)
        fixed = self.log_p_base.sum(dim=1)[:, None] + (missed & ~skipped).sum(dim=1)[:, None] * torch.log1p(-column).T
        rest = (~missed).nonzero()[:, 0]
        given, skipped, base = self.p_neighbours[..., rest], skipped[:, rest], self.log_p_base[:, rest]
        fixed = fixed - base.sum(dim=1)[:, None]  # (T, L)
        base = base.exp().clamp_min(FLOOR)

        def cell(at: tuple[int, int]) -> Tensor:
            q = given[at]
            nothing = q < 0
            return torch.stack([_summed(p, q, nothing | left, column) for p, left in zip(base, skipped)])

        out = np.empty((*given.shape[:2], *fixed.shape))
        for at, found in parallel_map(cell, list(np.ndindex(*given.shape[:2]))):
            out[at] = fixed + found
        return out

    def per_row(self, setting: tuple[int, int, int], shares: Tensor | float, skip: float | None = None) -> Tensor:
        """Log-likelihood float64 (n,) of each row under one setting (indices into A, B, T) and its own share."""
        a, b, t = setting
        q, p = self.p_neighbours[a, b].double(), self.log_p_base[t].exp()
        shares = torch.as_tensor(shares, dtype=torch.float64).expand(p.shape)
        mixed = torch.logaddexp(self.log_p_base[t] + torch.log1p(-shares), (shares * q.clamp_min(0)).log())
        left = q < 0 if skip is None else (q < 0) | (self.p_max[t] >= skip)
        return torch.where(left, self.log_p_base[t], mixed)


def _summed(p: Tensor, q: Tensor, left: Tensor, shares: Tensor) -> Tensor:
    """Sum over rows of log(p + share * (q - p)), for every share: (L,)."""
    change = (q - p).masked_fill_(left, 0)
    odd = -len(p) % GROUP
    p, change = pad(p, (0, odd), value=1.0), pad(change, (0, odd))
    total = p.new_zeros(len(shares))
    step = 1024 * GROUP  # what stays in a core's cache, for all shares
    for start in range(0, len(p), step):
        mixed = torch.addcmul(p[start : start + step], shares, change[start : start + step])
        total += mixed.view(len(shares), GROUP, -1).prod(dim=1).log_().sum(dim=1)
    return total


class Interpolation:
    """The grid of an interpolation with labels, by likelihood: quicker than scores, and sparse over a vocabulary.

    All ``Targets`` are kept, some 400 bytes a row, for what is settled and judged after the sweep.
    """

    reader: NeighbourReader
    grid: Grid
    rows: int
    kept: list[Targets]

    def __init__(self, reader: NeighbourReader, grid: Grid):
        self.reader, self.grid, self.rows = reader, grid, 0
        self._summed = np.zeros(tuple(len(values) for values in grid.values()))
        self._waiting: list[Targets] = []  # not summed yet: many rows at a time cost as little as one
        self.kept = []

    @staticmethod
    def serves(reader: NeighbourReader, grid: Grid, objective: str | Scorer, alike: bool) -> bool:
        """Whether this reader, grid and objective are an interpolation's, all rows that are counted weigh `alike`, and
        no share leaves the base too little."""
        if objective != "log_loss" or set(grid) != set(SWEPT[:4]) or grid["lmbda"][-1] > largest_share(reader):
            return False
        mixes = alike and reader.class_weights is None and is_plain(reader) and type(reader).share is KNNLM.share
        return mixes and isinstance(reader.values(1), LabelValues)

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Count a block, whose prediction holds the neighbours."""
        if "weight" in part.columns and self.reader.memory.has_column("weight"):
            raise InputError("some of the rows have a column 'weight' and others none; give it to all, or to none")
        near, given = prediction.neighbours, torch.empty(0, len(self.grid["sigma"]), len(part))
        nearest = torch.full((len(part),), torch.inf)
        if near.k:
            given = retrieved(self.reader, near, truth, self.grid["k"][1:], self.grid["sigma"])
            nearest = near.distances[:, 0].cpu()
        log_p_base, p_max = base_targets(part.logits, truth, self.grid["temperature"])
        numbered = torch.arange(self.rows, self.rows + len(part)) if part.ids is None else torch.from_numpy(part.ids)
        self.rows += len(part)
        self._waiting.append(Targets(given, log_p_base, p_max, nearest, numbered))
        if sum(map(len, self._waiting)) >= SUMMED:
            self._sum()

    def setting(self, params: Mapping[str, Any]) -> tuple[int, int, int]:
        """Where this k > 0, sigma and temperature are in ``Targets``, which hold no k = 0."""
        k, sigma, t = (int(np.searchsorted(self.grid[name], params[name])) for name in SWEPT[:3])
        return k - 1, sigma, t

    def _sum(self) -> None:
        if not self._waiting:
            return
        seen, self._waiting = Targets.join(self._waiting), []
        self._summed[0] += seen.log_p_base.sum(dim=1).numpy()[:, None]
        self._summed[1:] += seen.log_likelihood(self.grid["lmbda"], self.reader.skip)
        self.kept.append(seen)

    def results(self, max_fpr: float) -> dict[str, np.ndarray]:
        """Mean measures per setting, with an axis for each parameter of the grid."""
        self._sum()
        return losses(self._summed, max(self.rows, 1))


def retrieved(
    reader: NeighbourReader, neighbours: Neighbours, truth: Tensor, ks: np.ndarray, sigma: np.ndarray
) -> Tensor:
    """The probability float32 (K, S, q) that the first k neighbours give each row's class under each width; -1 where
    they have no weight at all. `ks` (K,) ascending; `neighbours` are at least the largest of it."""
    labels, device = reader.memory.column("label"), neighbours.rows.device
    truth = truth.to(device)
    upto = staircase(neighbours, ks).float()  # (k, K)

    def block(part: slice) -> Tensor:
        near = neighbours[part]
        weights = kernel_weights(reader, near, sigma)  # (b, S, k)
        total = weights @ upto  # (b, S, K)
        same = labels[near.rows.clamp_min(0)] == truth[part][:, None]
        right = weights.mul_(same[:, None]) @ upto
        return torch.where(total > 0, right / total.clamp_min(1e-30), -1.0).permute(2, 1, 0).cpu()

    parts = list(blocks(len(neighbours), neighbours.k * len(sigma), BLOCK))
    return torch.cat([found for _, found in parallel_map(block, parts)], dim=2)


def base_targets(logits: Logits, truth: Tensor, temperatures: np.ndarray) -> tuple[Tensor, Tensor]:
    """At each of T temperatures: log-probability float64 (T, q) of the true class, largest probability float32."""
    ts = [float(t) for t in temperatures]

    def block(rows: slice) -> tuple[Tensor, Tensor]:
        some = logits.rows(rows)
        table = some.dense()
        top = table.amax(dim=1)
        own = table.gather(1, truth[rows].to(table.device)[:, None])[:, 0]
        if isinstance(some, TopLogits):  # knows its partition, at one temperature
            partitions = torch.stack([some.logsumexp(None, t) for t in ts])
        else:  # one pass over the classes for each T, in one buffer
            below, buffer = table - top[:, None], torch.empty_like(table)
            sums = (torch.mul(below, 1 / t, out=buffer).exp_().sum(dim=1).log_() + top / t for t in ts)
            partitions = torch.stack(list(sums))
        divisors = torch.tensor(ts, device=table.device)[:, None]
        return (own / divisors - partitions).double().cpu(), (top / divisors - partitions).exp_().cpu()

    own, sure = zip(*(found for _, found in parallel_map(block, list(blocks(len(logits), logits.shape[1], BLOCK)))))
    return torch.cat(own, dim=1), torch.cat(sure, dim=1)
