"""Every setting at once, from sorted neighbours.

For one kernel width, the weighted sum over the first k neighbours is a running sum in k, so all k cost one pass; all
widths share one matrix product with the same gathered values; and the base enters as ``D * base + N`` (D the sum of the
unnormalised weights, N that of weights times values), which has the same argmax as ``base + N / D``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from residua.core import Logits, Neighbours, Values
from residua.readers import Reader
from residua.readers.kernel import exponents, unnormalised

BLOCK = 1_500_000  # float32 entries of one block of gathered values: 6 MB, about what a core's cache holds


@dataclass
class Scored:
    """Scores of one block of queries under all widths, for one k, temperature and lmbda (indices into the grid)."""

    queries: slice
    k: int
    temperature: int
    lmbda: int
    scores: Tensor  # (b, S, L), times `total`
    total: Tensor  # (b, S, 1), > 0
    base: Tensor  # (b, L)
    reader: Reader


class Sweep:
    """One search's neighbours under a whole grid; ``block`` scores some of the queries."""

    def __init__(self, reader: Reader, neighbours: Neighbours, logits: Logits, grid: dict):
        self.reader, self.neighbours, self.grid = reader, neighbours, grid
        self.at = [reader.with_params(temperature=float(t)) for t in grid["temperature"]]
        self.bases = [_without_denormals(r.base(logits).to(reader.memory.device)) for r in self.at]
        self.values = [r.values(len(neighbours)) for r in self.at]
        # Where T moves what the rows say (ResMem on probabilities), each T gathers its own values; else one serves all.
        every = range(len(self.at))
        self.groups = [[t] for t in every] if reader.temperature_moves_values else [list(every)]
        mixed = [reader.with_params(lmbda=float(v)) for v in grid["lmbda"]] if "lmbda" in grid else [reader]
        self.shares = [r.share() for r in mixed]
        self.shut = None if reader.gate is None else [r.shut(logits) for r in self.at]

    @property
    def parts(self) -> list[slice]:
        """The queries in blocks whose temporaries are small."""
        outputs = self.bases[0].shape[1]
        step = max(1, min(512, BLOCK // (int(self.grid["k"][-1]) * outputs)))
        return [slice(s, min(s + step, len(self.neighbours))) for s in range(0, len(self.neighbours), step)]

    def block(self, part: slice) -> Iterator[Scored]:
        """All settings with k > 0 of the queries in `part`."""
        near = self.neighbours[part]
        weights = kernel_weights(self.reader, near, self.grid["sigma"])  # (b, S, K)
        for group in self.groups:
            outputs = self.bases[0].shape[1]
            said = _dense(self.values[group[0]], near.rows.clamp_min(0), outputs)  # (b, K, L)
            summed = weights.new_zeros(len(near), weights.shape[1], outputs)
            total = weights.new_zeros(len(near), weights.shape[1], 1)
            done = 0
            for index, k in enumerate(self.grid["k"]):
                if k == 0:
                    continue
                more = weights[:, :, done:k]
                summed.baddbmm_(more, said[:, done:k])
                total += more.sum(dim=2, keepdim=True)
                done = k
                nothing = total == 0  # no neighbour at all: the base
                for mix, (left, given) in enumerate(self.shares):
                    divisor = total + nothing
                    scale = torch.where(nothing, 1.0, divisor * left)
                    numerators = summed if given == 1 else summed * given
                    for t in group:
                        base = self.bases[t][part]
                        scores = torch.addcmul(numerators, scale, base[:, None])
                        if self.shut is not None:
                            scores = torch.where(self.shut[t][part, None, None], divisor * base[:, None], scores)
                        yield Scored(part, index, t, mix, scores, divisor, base, self.at[t])


def kernel_weights(reader: Reader, near: Neighbours, sigma: np.ndarray) -> Tensor:
    """Unnormalised weights (b, S, K) of neighbours (b, K) under S kernel widths."""
    widths = torch.tensor(sigma, dtype=torch.float32, device=near.rows.device)[:, None]
    logs = exponents(near.distances[:, None], widths, reader.kernel)
    if "column.weight" in reader.memory.table:
        own = reader.memory.table["column.weight"][near.rows.clamp_min(0)]
        logs = logs + own.log()[:, None]
    return unnormalised(logs, near.found[:, None])


def _dense(values: Values, rows: Tensor, outputs: int) -> Tensor:
    """What rows (b, K) say, dense (b, K, L)."""
    classes, said = values.entries(rows.reshape(-1))
    if said.shape[1] != outputs or classes.stride(0) != 0:  # sparse entries, or not in class order
        said = said.new_zeros(len(said), outputs).scatter_add_(1, classes, said)
    return said.view(*rows.shape, outputs)


def _without_denormals(base: Tensor) -> Tensor:
    """Arithmetic on denormal numbers is ten times slower, and no score can tell 1e-30 from 0."""
    return torch.where(base.abs() < 1e-30, 1e-30, base)
