"""What every index promises: nearest rows of a key table, and nothing about ids or labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from residua.core import Neighbours
from residua.errors import NonFiniteError, ParameterError, ShapeError, StorageError
from residua.index.blocks import blocks
from residua.index.rerank import Nearest, missing


@dataclass(frozen=True)
class Recall:
    """Share of the true `k` nearest rows that were found, over `queries` queries.

    Examples
    --------
    >>> print(Recall(0.9934, 50, 256))
    recall@50 = 0.993 on 256 queries near its keys
    """

    value: float
    k: int
    queries: int

    def __str__(self) -> str:
        return f"recall@{self.k} = {self.value:.3f} on {self.queries} queries near its keys"

    def to_json(self) -> dict:
        """A plain dictionary of JSON types; ``Recall(**data)`` is the inverse."""
        return asdict(self)


class Index(ABC):
    """Nearest neighbours over the rows of a key table that somebody else owns.

    Rows are numbered in the order they were built and added, and keep their numbers when others are forgotten.
    Whatever the engine, the distances returned are recomputed from the stored keys, so they mean the same thing;
    an approximate index can also answer without them, in distances to the keys as it compressed them.

    Attributes
    ----------
    name : str
        ``"exact"``, or the FAISS factory string.
    exact : bool
        Whether the answer is always the true one.
    recall : Recall or None
        What `build` measured, for an approximate index.
    """

    name: str
    exact: bool
    recall: Recall | None = None

    def __init__(self, dim: int, device: torch.device | str):
        self.dim = dim
        self.device = torch.device(device)

    def build(self, keys: Tensor) -> None:
        """Index the rows of `keys`, (n, d) in float32, float16 or bfloat16, in place of what was indexed before."""
        self._build(self._checked(keys, "keys"))

    def add(self, keys: Tensor) -> None:
        """Append the rows of `keys`, (m, d) of the same dtypes, as rows n ... n+m-1."""
        keys = self._checked(keys, "keys")
        if len(keys):
            self._add(keys)

    def forget(self, rows: Tensor) -> None:
        """Never return `rows` (int64 row numbers) again. Forgetting one twice is no error."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device=self.device).reshape(-1).unique()
        if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < self.n:
            raise ParameterError(f"rows {int(rows[0])} ... {int(rows[-1])} to forget; the index has {self.n} rows")
        if len(rows):
            self._forget(rows)

    def search(self, queries: Tensor, k: int, keys: Tensor | None) -> Neighbours:
        """The `k` nearest rows of each query.

        Parameters
        ----------
        queries : float32 Tensor of shape (q, d)
        k : int
            How many neighbours; more than there are rows is no error.
        keys : float32, float16 or bfloat16 Tensor of shape (n, d), or None
            All rows, forgotten ones included. None where they were not kept: an approximate index then answers
            with the distances to its own compressed keys.

        Returns
        -------
        Neighbours
            Plain (not squared) Euclidean distances, ordered by (squared distance, row); row -1 at distance inf where
            there are fewer than `k`.

        Raises
        ------
        ShapeError, NonFiniteError, ParameterError
            Queries of another width, queries with NaN or infinity, a negative `k`.
        StorageError
            No keys, and an exact index.
        """
        if k < 0:
            raise ParameterError(f"k={k} neighbours asked for; expected 0 or more")
        queries = self._checked(queries, "queries")
        if keys is None:
            if self.exact:
                raise StorageError(
                    f"index {self.name!r} computes distances from the keys, and they are not kept; "
                    'use a trained index such as "knnlm"'
                )
        elif len(keys) < self.n or keys.shape[1:] != (self.dim,):
            raise ShapeError(f"keys have shape {tuple(keys.shape)}; this index covers ({self.n}, {self.dim})")
        if not (k and len(queries) and self.n):
            return missing(len(queries), k, self.device).neighbours()
        with torch.no_grad():
            return self._search(queries, k, keys if keys is None else keys[: self.n]).neighbours()

    def save(self, folder: Path, stem: str) -> list[str]:
        """Write what cannot be rebuilt from the keys into `folder`; the names of the files written."""
        return []

    def to_json(self) -> dict:
        """Everything else that `load_index` needs, in JSON types."""
        return {"name": self.name}

    def _checked(self, array: Tensor, what: str) -> Tensor:
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise ShapeError(f"{what} have shape {tuple(array.shape)}; this index holds keys of shape (n, {self.dim})")
        # Half precision keys stay as they are, because all of them at once in float32 might not fit.
        halves = (torch.float16, torch.bfloat16) if what == "keys" else ()
        array = array.detach().to(self.device, array.dtype if array.dtype in halves else torch.float32)
        finite = [array[part].isfinite().all(dim=1) for part in blocks(len(array), self.dim, 2**24)]
        bad = sum(int((~some).sum()) for some in finite)
        if bad:
            raise NonFiniteError(f"{bad} of {len(array)} {what} hold NaN or infinity; remove or repair them first")
        return array

    @property
    @abstractmethod
    def n(self) -> int:
        """How many rows were ever indexed, forgotten ones included."""

    @abstractmethod
    def _build(self, keys: Tensor) -> None: ...

    @abstractmethod
    def _add(self, keys: Tensor) -> None: ...

    @abstractmethod
    def _forget(self, rows: Tensor) -> None: ...

    @abstractmethod
    def _search(self, queries: Tensor, k: int, keys: Tensor | None) -> Nearest: ...

    def __repr__(self) -> str:
        measured = f", {self.recall}" if self.recall else ""
        return f"{type(self).__name__}({self.name!r}, n={self.n}, dim={self.dim}{measured})"
