"""How a memory changes a prediction: the one object behind scores, explanations and attached models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


class Values(ABC):
    """What each remembered row says when it is a neighbour: a sparse or dense vector over the L outputs."""

    @abstractmethod
    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Output ids int64 (m, c) and values float32 (m, c) of rows (m,); repeated ids of a row add up."""

    def weighted(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What each query gets from its neighbours rows (q, k), none of them -1: output ids int64 (q, k * c) and
        weighted values float32 (q, k * c); repeated ids add up."""
        classes, values = self.entries(rows.reshape(-1))
        values = values * weights.reshape(-1, 1)
        return classes.reshape(len(rows), -1), values.reshape(len(rows), -1)

    @abstractmethod
    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        """scores[q] += sum_i weights[q, i] * value(rows[q, i]), in place; rows (q, k) hold no -1."""


@dataclass(frozen=True)
class Change:
    """``scores = scale * base + sum_i weights_i * value(rows_i)``, exactly.

    Attributes
    ----------
    scale : float32 Tensor of shape (q, 1)
        What is left of the base's own scores.
    rows : int64 Tensor of shape (q, k)
        The neighbours; -1 is missing and has weight 0.
    weights : float32 Tensor of shape (q, k)
        What multiplies each neighbour's value (normalised kernel weights, times lmbda for kNN-LM).
    values : Values
        What the neighbours say.
    """

    scale: Tensor
    rows: Tensor
    weights: Tensor
    values: Values

    def apply(self, base: Tensor) -> Tensor:
        """The changed scores (q, L), float32, from the base's (q, L)."""
        scores = base * self.scale
        if self.rows.shape[1]:
            self.values.add_to(scores, self.rows.clamp_min(0), self.weights)
        return scores

    def entries(self) -> tuple[Tensor, Tensor]:
        """What is added, without a column for every output: ids int64 (q, c), repeated ones add up, and values float32
        (q, c)."""
        return self.values.weighted(self.rows.clamp_min(0), self.weights)

    def contributions(self, query: int) -> tuple[Tensor, Tensor]:
        """Output ids (k, c) and contributed values (k, c) of each neighbour of one query; a missing one gives 0."""
        classes, values = self.values.entries(self.rows[query].clamp_min(0))
        return classes, values * self.weights[query][:, None]
