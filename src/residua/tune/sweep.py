"""Every setting at once, from sorted neighbours.

For one kernel width, the weighted sum over the first k neighbours is a running sum in k, so all k cost one pass; all
widths share one matrix product with the same gathered values; and the base enters as ``D * base + N`` (D the sum of the
unnormalised weights, N that of weights times values), which has the same argmax as ``base + N / D``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from residua.read import Reader
from residua.read.kernel import exponents, unnormalised
from residua.records import Logits, Neighbours, Values

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


def sweep(reader: Reader, neighbours: Neighbours, logits: Logits, grid: dict) -> Iterator[Scored]:
    """All settings with k > 0, block by block of queries. Every yielded tensor is overwritten by the next."""
    device = reader.memory.device
    ks, sigmas, temperatures = grid["k"], grid["sigma"], grid["temperature"]
    # Where T moves what the rows say (ResMem on probabilities), each T gathers its own values; else one serves all.
    groups = [[t] for t in range(len(temperatures))]
    if not reader.temperature_moves_values:
        groups = [list(range(len(temperatures)))]
    own = None
    if "column.weight" in reader.memory.table:
        own = reader.memory.table["column.weight"][neighbours.rows.clamp_min(0)].log()
    at = [reader.with_params(temperature=float(t)) for t in temperatures]
    bases = [_without_denormals(r.base(logits).to(device)) for r in at]
    mixes = [r.share() for r in _mixed(reader, grid)]
    queries, outputs = len(neighbours), bases[0].shape[1]
    step = max(1, min(512, BLOCK // (int(ks[-1]) * outputs)))
    for start in range(0, queries, step):
        part = slice(start, min(start + step, queries))
        near = neighbours[part]
        weights = _weights(near, sigmas, reader.kernel, None if own is None else own[part])  # (b, S, K)
        for group in groups:
            said = _dense(at[group[0]].values(queries), near.rows.clamp_min(0), outputs)  # (b, K, L)
            summed = weights.new_zeros(len(near), len(sigmas), outputs)
            total = weights.new_zeros(len(near), len(sigmas), 1)
            done = 0
            for index, k in enumerate(ks):
                if k == 0:
                    continue
                more = weights[:, :, done:k]
                summed.baddbmm_(more, said[:, done:k])
                total += more.sum(dim=2, keepdim=True)
                done = k
                nothing = total == 0  # no neighbour at all: the base
                divisor = total + nothing
                for t in group:
                    base = bases[t][part]
                    for mix, (left, given) in enumerate(mixes):
                        if nothing.any():
                            scale = torch.where(nothing, 1.0, left * divisor)
                        else:
                            scale = divisor * left if left != 1 else divisor
                        numerators = summed if given == 1 else summed * given
                        scores = torch.addcmul(numerators, scale, base[:, None])
                        yield Scored(part, index, t, mix, scores, divisor, base, at[t])


def _mixed(reader: Reader, grid: dict) -> list[Reader]:
    return [reader.with_params(lmbda=float(v)) for v in grid["lmbda"]] if "lmbda" in grid else [reader]


def _weights(near: Neighbours, sigmas, kernel: str, own: Tensor | None) -> Tensor:
    """Unnormalised weights (b, S, K), the largest of each row 1, the missing ones 0."""
    widths = torch.tensor(sigmas, dtype=torch.float32, device=near.rows.device)[:, None]
    logs = exponents(near.distances[:, None], widths, kernel)
    if own is not None:
        logs = logs + own[:, None]
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
