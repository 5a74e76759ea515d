"""The answer of a search."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from residua.errors import ParameterError, ShapeError


@dataclass(frozen=True)
class Neighbours:
    """The k nearest remembered rows of each of q queries, ordered by (distance, row)."""

    rows: Tensor  # int64 (q, k): row numbers in the memory; -1 where there are fewer than k
    distances: Tensor  # float32 (q, k): plain (not squared) Euclidean; inf where the row is missing

    def __post_init__(self) -> None:
        if self.rows.shape != self.distances.shape or self.rows.ndim != 2:
            shapes = f"neighbour rows {tuple(self.rows.shape)} and distances {tuple(self.distances.shape)}"
            raise ShapeError(f"{shapes}: expected two arrays of one shape (q, k)")

    @property
    def k(self) -> int:
        """How many neighbours were asked for."""
        return self.rows.shape[1]

    @property
    def found(self) -> Tensor:
        """Bool (q, k): False where a row is missing."""
        return self.rows >= 0

    def first(self, k: int) -> Neighbours:
        """The nearest `k` of them; ``ParameterError`` if fewer were searched."""
        if k > self.k:
            raise ParameterError(f"{k} neighbours wanted, {self.k} were searched; search again with k={k}")
        return Neighbours(self.rows[:, :k], self.distances[:, :k])

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, queries: slice | Tensor) -> Neighbours:
        return Neighbours(self.rows[queries], self.distances[queries])
