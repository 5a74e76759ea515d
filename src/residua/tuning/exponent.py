"""Tuning ResMem in the exponent: its two weights are fitted to each k, sigma and T, and only those are a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import DenseLogits, Encoded, Neighbours, Prediction, Queries, as_tensor
from residua.memory.schema import Objective, Scorer
from residua.readers import NeighbourReader, ResMem
from residua.readers.weights import LogitFeatures, log_losses
from residua.tuning.objective import OBJECTIVES, Grid, Index, Tally, argmax
from residua.tuning.simulate import LARGEST
from residua.tuning.sweep import parallel_map

WEIGHTS = ("base_weight", "residual_weight")
LEAST = 1e-6  # of a weight


class ExponentSweep(Tally):
    """All settings of k and sigma; and of temperature where it is given, else 1 and that of the model alone."""

    reader: ResMem
    grid: Grid
    own_temperature: bool

    def __init__(self, reader: ResMem, grid: Grid, objective: Objective, own_temperature: bool):
        super().__init__((), objective)
        self.reader, self.grid, self.own_temperature = reader, grid, own_temperature
        self._kept: list[tuple[Tensor, ...]] = []

    @staticmethod
    def serves(reader: NeighbourReader, grid: Mapping[str, Any] | None, objective: str | Scorer) -> bool:
        """Whether this reader has the weights, nobody else gives them, and no vocabulary makes their columns wide."""
        named, memory = set(grid or {}) - {"k", "sigma", "temperature"}, reader.memory
        mine = isinstance(reader, ResMem) and reader.score_space == "logit"
        return mine and not named and not memory.schema.is_text and objective in OBJECTIVES[memory.task]

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Keep a block, whose prediction holds the neighbours."""
        near, weight = prediction.neighbours, self.reader.loss_weights(part, truth)
        weight = torch.ones(len(truth), device=truth.device) if weight is None else weight
        logits = part.logits.dense().to(truth.device)
        self._kept.append((near.rows, near.distances, as_tensor(part.keys), logits, truth, weight))

    def results(self, max_fpr: float) -> dict[str, np.ndarray]:
        """Mean measures per setting, and the weights fitted to it, with an axis for each parameter of the grid."""
        rows, distances, keys, logits, truth, weight = (torch.cat(parts) for parts in zip(*self._kept))
        near = Neighbours(rows, distances)
        if self.own_temperature:
            alone = LogitFeatures(logits[None], truth, weight).fitted(0)[0]
            self.grid["temperature"] = np.unique([1.0, 1 / np.clip(alone, 1 / LARGEST, LARGEST)])
        temperatures = self.grid["temperature"]
        counted = Tally((len(self.grid["k"]), len(self.grid["sigma"]), len(temperatures)), self.objective)
        weights = np.ones((2, *counted.shape))
        losses: list[tuple[Index, float]] = []
        right = argmax(logits) == truth if truth.ndim == 1 else None
        for t, temperature in enumerate(temperatures):
            at = self.reader.with_params(temperature=float(temperature))
            queries = Queries(keys, at.base(DenseLogits(logits)))
            losses.append(((0, slice(None), t), float(log_losses(logits / at.temperature, truth) @ weight.double())))
            for (k, sigma), (best, scores) in self._fitted(at, near, queries, truth, weight):
                loss = log_losses(scores, truth) * weight
                now = argmax(scores) == truth if right is not None else None
                counted.count((k, sigma, t), now, loss if "loss" in counted.sums else None, right)
                weights[:, k, sigma, t] = best
        counted.count_base(truth, right, losses, weight)
        return counted.results(max_fpr) | dict(zip(WEIGHTS, weights))

    def _fitted(
        self, reader: ResMem, near: Neighbours, queries: Queries, truth: Tensor, weight: Tensor
    ) -> Iterator[tuple[tuple[int, int], tuple[np.ndarray, Tensor]]]:
        """Of each k and sigma, by their places in the grid: the two weights, and all rows' logits (n, L)."""
        ks, sigmas, values, skipped = self.grid["k"], self.grid["sigma"], reader.values(len(truth)), None
        if (mask := reader.skip_mask(queries.base)) is not None:
            skipped = mask.to(truth.device)

        def fit(place: tuple[int, int]) -> tuple[np.ndarray, Tensor]:
            one = reader.with_params(k=int(ks[place[0]]), sigma=float(sigmas[place[1]]))
            columns, heard = one.columns(near.first(one.k), queries, values)
            heard = heard if skipped is None else heard & ~skipped
            features = LogitFeatures(columns, truth, weight)
            best = features[heard].fitted(0).clip(LEAST)
            return best, torch.where(heard[:, None], features.logits(best), columns[0])

        return parallel_map(fit, list(product(range(1, len(ks)), range(len(sigmas)))))
