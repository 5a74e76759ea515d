"""Tuning the continuous cache: every window, theta and share from one pass over the validation text; and whether it is
better than the reader under it beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Prediction, as_tensor
from residua.errors import ParameterError
from residua.readers import ContinuousCache
from residua.readers.judged import Judged, groups_of
from residua.readers.past import ROWS, CacheState, likeness
from residua.tuning.grid import LMBDA, values_of
from residua.tuning.likelihood import Targets
from residua.tuning.objective import best_of, losses
from residua.tuning.sweep import parallel_map

WINDOW = np.array([32, 128, 512, 2048])
THETA = 2.0 ** np.arange(-4, 5)  # multiples of what the reader has
FEW = np.array([0.01, 0.02, 0.03])  # beside LMBDA: under a good reader the best cache's share is small


class CacheSweep:
    """The grid of a ``ContinuousCache``; ``lmbda = 0``, the reader under the cache alone, always competes."""

    grid: dict[str, np.ndarray]
    rows: int
    kept: list[Targets]

    def __init__(self, reader: ContinuousCache, grid: Mapping[str, Any] | None):
        self.grid, self.rows, self.kept = cache_grid(reader, grid), 0, []
        self._past = CacheState(int(self.grid["window"][-1]), (reader.theta,), reader.memory.device)
        self._summed = np.zeros(tuple(len(values) for values in self.grid.values()))

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Count some rows, of which `prediction` is the answer of the reader under the cache."""
        if part.ids is None:
            raise ParameterError("the cache reads a document's earlier tokens; expected rows with document ids")
        base = prediction.log_prob(truth).double().cpu()[None]
        given = [torch.empty(len(self.grid["window"]), len(self.grid["theta"]), 0)]
        stretches = self._past.stretches(as_tensor(part.keys).float(), part.ids, truth)
        given += [cached(*stretch, self.grid) for stretch in stretches]
        nothing = torch.zeros(1, len(part))
        seen = Targets(torch.cat(given, dim=2), base, nothing, nothing[0], torch.from_numpy(part.ids))
        self.kept.append(seen)
        self._summed += seen.log_likelihood(self.grid["lmbda"])[:, :, 0]
        self.rows += len(part)

    def results(self) -> dict[str, np.ndarray]:
        """One row per setting: its parameters, mean measures and score."""
        axes = np.meshgrid(*self.grid.values(), indexing="ij")
        results = {name: axis.reshape(-1) for name, axis in zip(self.grid, axes)}
        results |= {name: values.reshape(-1) for name, values in losses(self._summed, self.rows).items()}
        keep = results["lmbda"] > 0
        keep[0] = True  # without a share every window and theta is the same
        return {name: values[keep] for name, values in results.items()}

    def proven(self, reader: ContinuousCache, needed: float | None) -> ContinuousCache:
        """The best setting where it is better than the reader under the cache beyond doubt, by document; else none."""
        results = self.results()
        shared = np.flatnonzero(results["lmbda"])
        chosen = int(shared[np.argmax(results["score"][shared])]) if len(shared) else 0
        best = best_of(reader, results, self.grid, chosen)
        seen = Targets.join(self.kept)
        window, theta = (int(np.searchsorted(self.grid[name], getattr(best, name))) for name in ("window", "theta"))
        without, with_it = -seen.log_p_base[0], -seen.per_row((window, theta, 0), best.lmbda)
        table, groups = torch.stack([without, with_it]).numpy(), groups_of(seen.groups.numpy())
        # What a text remembers is itself: nothing is found again by mistake.
        judged = Judged("log_loss", table, None, groups, np.zeros(len(seen), bool), faultless=False)
        found = replace(judged.evidence(1, 0, needed, by_accuracy=False), against="the reader under it")
        if needed is None:
            found = replace(found, used=best.best_score_ > results["score"][0])
        best = best if found.used else best_of(reader, results, self.grid, 0)
        best.evidence_ = found
        return best


def cache_grid(reader: ContinuousCache, grid: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """The values of window, theta and lmbda, ascending; lmbda starts with 0."""
    full = {"window": WINDOW, "theta": THETA * reader.theta, "lmbda": np.concatenate([FEW, LMBDA[True]])}
    unknown = set(grid or {}) - set(full)
    if unknown:
        tuned = f"the grid names {sorted(unknown)}; ContinuousCache tunes {list(full)}"
        raise ParameterError(f"{tuned}. Tune the reader under it first")
    full = {name: values_of(name, values) for name, values in (full | dict(grid or {})).items()}
    full["lmbda"] = np.unique(np.concatenate([[0.0], full["lmbda"]]))
    if full["window"][0] < 1 or full["theta"][0] <= 0 or full["lmbda"][0] < 0 or full["lmbda"][-1] >= 1:
        raise ParameterError("the grid holds a window < 1, a theta <= 0, or an lmbda outside 0 <= lmbda < 1")
    return full


def cached(keys: Tensor, tokens: Tensor, start: int, grid: dict[str, np.ndarray]) -> Tensor:
    """The cache's probability float32 (W, Theta, n - start) of each row's own token; -1 where nothing is before it."""

    def block(rows: tuple[int, int]) -> Tensor:
        first, last = rows
        out = torch.empty(len(grid["window"]), len(grid["theta"]), last - first)
        for w, window in enumerate(grid["window"].tolist()):
            begin, alike = likeness(keys, first, last, window)
            same = (tokens[begin : begin + alike.shape[1]] == tokens[first:last, None]).float()
            past = (alike > -torch.inf).any(dim=1)
            for t, theta in enumerate(grid["theta"].tolist()):
                weights = torch.softmax(alike * theta, dim=1)
                out[w, t] = torch.where(past, (weights * same).sum(dim=1), -1.0).cpu()
        return out

    blocks = [(first, min(first + ROWS, len(keys))) for first in range(start, len(keys), ROWS)]
    return torch.cat([found for _, found in parallel_map(block, blocks)], dim=2)
