"""The answer of a search."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from residua.errors import ParameterError, ShapeError


@dataclass(frozen=True)
class Neighbours:
    """The k nearest remembered rows of each of q queries.

    Attributes
    ----------
    rows : int64 Tensor of shape (q, k)
        Row numbers in the memory, ordered by (distance, row); -1 where there are fewer than k.
    distances : float32 Tensor of shape (q, k)
        Plain (not squared) Euclidean distances, ascending; inf where the row is missing.
    """

    rows: Tensor
    distances: Tensor

    def __post_init__(self):
        if self.rows.shape != self.distances.shape or self.rows.ndim != 2:
            raise ShapeError(
                f"neighbour rows {tuple(self.rows.shape)} and distances {tuple(self.distances.shape)}: "
                "expected two arrays of one shape (q, k)"
            )

    @property
    def k(self) -> int:
        """How many neighbours were asked for."""
        return self.rows.shape[1]

    @property
    def found(self) -> Tensor:
        """Bool (q, k): False where a row is missing."""
        return self.rows >= 0

    def first(self, k: int) -> Neighbours:
        """The nearest `k` of them. Asking for more than were searched raises ``ParameterError``."""
        if k > self.k:
            raise ParameterError(f"{k} neighbours wanted, {self.k} were searched; search again with k={k}")
        return Neighbours(self.rows[:, :k], self.distances[:, :k])

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, queries) -> Neighbours:
        return Neighbours(self.rows[queries], self.distances[queries])
