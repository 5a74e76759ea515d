"""A share of its own for each query, by how near its nearest neighbour is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor

from residua import html
from residua.core import Neighbours
from residua.errors import ParameterError
from residua.printable import short


@dataclass(frozen=True)
class AdaptiveLambda:
    """kNN-LM's lmbda by bucket of the nearest neighbour's distance; ``rs.tune(reader, val, adaptive=16)`` fits one.

    Parameters
    ----------
    edges : sequence of b - 1 floats
        Plain (not squared) distances between the buckets, ascending. A distance that equals an edge is below it.
    shares : sequence of b floats in [0, 1]
        The neighbours' share in each bucket; the last is for everything beyond the last edge.

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> import residua as rs
    >>> share = rs.AdaptiveLambda(edges=[1.0, 5.0], shares=[0.8, 0.3, 0.0])
    >>> share(Neighbours(torch.tensor([[4], [2], [7]]), torch.tensor([[0.5], [1.5], [50.0]])))[:, 0].tolist()
    [0.800000011920929, 0.30000001192092896, 0.0]
    """

    edges: Sequence[float]
    shares: Sequence[float]

    def __post_init__(self) -> None:
        try:
            edges, shares = (tuple(map(float, values)) for values in (self.edges, self.shares))
        except (TypeError, ValueError) as error:
            raise ParameterError(f"edges={self.edges!r}, shares={self.shares!r}; expected numbers") from error
        if len(shares) != len(edges) + 1:
            raise ParameterError(f"{len(edges)} edges and {len(shares)} shares; expected one share more than edges")
        if not all(map(math.isfinite, edges)) or any(b <= a for a, b in pairwise(edges)):
            raise ParameterError(f"edges={edges}; expected finite distances, ascending")
        if not all(0 <= share <= 1 for share in shares):
            raise ParameterError(f"shares={shares}; expected shares between 0 and 1")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "shares", shares)

    def __call__(self, neighbours: Neighbours) -> Tensor:
        """The neighbours' share float32 (q, 1); the last bucket's for a query without neighbours."""
        device = neighbours.distances.device
        if not neighbours.k:
            return torch.full((len(neighbours), 1), self.shares[-1], device=device)
        edges, shares = (torch.tensor(given, dtype=torch.float32, device=device) for given in (self.edges, self.shares))
        return shares[torch.bucketize(neighbours.distances[:, :1].contiguous(), edges)]

    def __repr__(self) -> str:
        return f"AdaptiveLambda({short(self)})"

    def _repr_html_(self) -> str:
        edges = [*(f"up to {edge:.4g}" for edge in self.edges), "beyond"]
        return html.table([("nearest distance", "share"), *zip(edges, (f"{share:.4g}" for share in self.shares))])

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        return {"edges": list(self.edges), "shares": list(self.shares)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        return cls(data["edges"], data["shares"])
