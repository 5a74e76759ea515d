"""Ridge regression of a memory's labels on random features of its keys, kept in step with the memory row by row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from residua.core import Array, LabelValues, Term
from residua.memory import Memory
from residua.readers.seen import prints_of

BLOCK = 8192  # rows whose features are made at a time
RIDGES = tuple(10.0**power for power in range(-8, 2))
TINY = 1e-30  # of a memory whose rows all weigh nothing
ABSENT = -1  # the label of a row that is not remembered


@dataclass(frozen=True, eq=False)
class Sums:
    """Of the remembered rows with features f (M,) and weights w: ``sum w f fᵀ`` and ``sum w f onehot(y)ᵀ``, and which
    rows they are."""

    projection: Tensor  # float32 (d, M): features are relu(key @ projection)
    gram: Tensor  # float64 (M, M)
    by_class: Tensor  # float64 (M, L)
    prints: np.ndarray  # uint64 (n,): of every row's key
    labels: np.ndarray  # int64 (n,), ABSENT where the row is forgotten
    weights: np.ndarray  # float32 (n,)

    @property
    def nbytes(self) -> int:
        """Bytes in RAM."""
        arrays = self.projection, self.gram, self.by_class, self.prints, self.labels, self.weights
        return sum(array.nbytes for array in arrays)

    @classmethod
    def of(cls, memory: Memory, features: int, seed: int, before: Sums | None = None) -> Self:
        """Those of a memory; what `before` has of it already is not read again, and what has gone is taken away."""
        n, device = memory.n_rows, memory.device
        every = torch.arange(n, device=device)
        labels, active = np.full(n, ABSENT, np.int64), memory.active_rows
        labels[active.cpu().numpy()] = memory.column("label")[active].cpu().numpy()
        weights = np.ones(n, np.float32)
        if memory.has_column("weight"):
            weights = memory.column("weight")[every].float().cpu().numpy()
        prints = np.concatenate([prints_of(_keys(memory, rows).cpu().numpy()) for rows in every.split(BLOCK)])
        shape = (features, memory.n_outputs)
        if before is not None and before._can_follow(prints, labels):
            projection, gram = before.projection, before.gram.clone()
            by_class = gram.new_zeros(shape)
            by_class[:, : before.by_class.shape[1]] = before.by_class
            had, weighed = np.full(n, ABSENT, np.int64), np.ones(n, np.float32)
            had[: len(before.labels)], weighed[: len(before.weights)] = before.labels, before.weights
        else:
            drawn = np.random.default_rng(seed).normal(size=(memory.dim, features)) / memory.dim**0.5
            projection = torch.from_numpy(drawn.astype(np.float32)).to(device)
            gram = torch.zeros(features, features, dtype=torch.float64, device=device)
            by_class = gram.new_zeros(shape)
            had, weighed = np.full(n, ABSENT, np.int64), np.ones(n, np.float32)
        made = cls(projection, gram, by_class, prints, labels, weights)
        changed = (had != labels) | ((weighed != weights) & (labels != ABSENT))
        made._add(memory, np.flatnonzero(changed & (had != ABSENT)), had, -weighed)
        made._add(memory, np.flatnonzero(changed & (labels != ABSENT)), labels, weights)
        return made

    def _can_follow(self, prints: np.ndarray, labels: np.ndarray) -> bool:
        """Whether rows have the numbers that they had, and more of them stay than go, which is quicker than anew."""
        had = len(self.prints)
        if had > len(prints) or (self.prints != prints[:had]).any():
            return False
        left = labels[:had][self.labels != ABSENT] != ABSENT
        return int(left.sum()) * 2 >= len(left)

    def _add(self, memory: Memory, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            f = self.features(_keys(memory, torch.from_numpy(some).to(memory.device))).double()  # else sums drift
            weighed = f * torch.from_numpy(weights[some])[:, None].to(f)
            self.gram.addmm_(weighed.T, f)
            self.by_class.index_add_(1, torch.from_numpy(labels[some]).to(f.device), weighed.T)

    def features(self, keys: Tensor) -> Tensor:
        """Of keys as differences from the memory's centre, float32 (n, d): float32 (n, M)."""
        return torch.relu(keys @ self.projection)

    def solved(self, ridge: float | None) -> Ridge:
        """The regression, under a penalty of `ridge` times the mean diagonal of the Gram matrix; None: the best one by
        generalised cross-validation, for which these sums are all that is needed."""
        mean = max(float(self.gram.diagonal().mean()), TINY)
        penalty = mean * (self._best() if ridge is None else ridge)
        factor = torch.linalg.cholesky(self.gram + penalty * torch.eye(len(self.gram)).to(self.gram))
        return Ridge(self, factor, torch.cholesky_solve(self.by_class, factor))

    def _best(self) -> float:
        present = self.labels != ABSENT
        n, truth = int(present.sum()), float(self.weights[present].sum())
        values, vectors = torch.linalg.eigh(self.gram)
        values, moved = values.clamp_min(0), (vectors.T @ self.by_class).square().sum(dim=1)

        def error(ridge: float) -> float:
            by = 1 / (values + ridge * max(float(values.mean()), TINY))
            lost = truth - float((moved * by * (2 - values * by)).sum())
            return lost / max(n - float((values * by).sum()), 1e-9) ** 2

        return min(RIDGES, key=error)


def _keys(memory: Memory, rows: Tensor) -> Tensor:
    """Keys of rows as ``schema.centred`` has those of queries: the centre is that of the first rows, for good."""
    return memory.schema.centred(memory.keys_at(rows))


@dataclass(frozen=True, eq=False)
class Ridge:
    """``A = sum w f fᵀ + penalty``, and what it says of a query of features f: ``fᵀ A⁻¹ sum w f onehot(y)ᵀ``."""

    sums: Sums
    factor: Tensor  # float64 (M, M): the Cholesky factor of A
    weights: Tensor  # float64 (M, L)

    @property
    def nbytes(self) -> int:
        """Bytes in RAM, beside those of the sums."""
        return self.factor.nbytes + self.weights.nbytes

    def asked(self, memory: Memory, keys: Tensor, excluded: Array | None) -> Asked:
        """Queries with keys (q, d), each without the rows that bear one of its `excluded` ids, (q,) or (q, m)."""
        features = self.sums.features(memory.schema.centred(keys.to(memory.device))).double()
        return Asked(self, memory, features, _rows_by_query(memory, excluded))


def _rows_by_query(memory: Memory, excluded: Array | None) -> dict[int, np.ndarray]:
    """Of the queries that exclude remembered rows, the numbers of these."""
    if excluded is None:
        return {}
    rows = memory.active_rows
    ids, rows = memory.column("id")[rows].cpu().numpy(), rows.cpu().numpy()
    order = np.argsort(ids, kind="stable")
    ids, rows = ids[order], rows[order]
    given = np.asarray(torch.as_tensor(excluded).cpu())
    given = given.reshape(len(given), -1)
    first, last = np.searchsorted(ids, given, "left"), np.searchsorted(ids, given, "right")
    found = np.flatnonzero((last > first).any(axis=1))
    return {
        int(query): np.unique(np.concatenate([rows[a:b] for a, b in zip(first[query], last[query])])) for query in found
    }


@dataclass(frozen=True, eq=False)
class Asked:
    """q queries of a ridge regression, some of which are answered as if some rows had never been remembered.

    Taking rows E (features F, weights inside) out of A is exact, by Woodbury's identity:
    ``A_E⁻¹ = A⁻¹ + A⁻¹ Fᵀ (I - F A⁻¹ Fᵀ)⁻¹ F A⁻¹``, under the same penalty.
    """

    ridge: Ridge
    memory: Memory
    features: Tensor  # float64 (q, M)
    without: dict[int, np.ndarray]  # query -> rows

    @cached_property
    def heard(self) -> Tensor:
        """Bool (q,): queries for which a row is left."""
        heard = torch.full((len(self.features),), len(self.memory) > 0, device=self.features.device)
        for query, rows in self.without.items():
            heard[query] = len(rows) < len(self.memory)
        return heard

    @cached_property
    def scores(self) -> Tensor:
        """What the regression says, float64 (q, L)."""
        scores = self.features @ self.ridge.weights
        if self.without:
            once, labels, weighed, reach = self._taken
            for query, rows in self.without.items():
                at = torch.from_numpy(np.searchsorted(once, rows)).to(scores.device)
                own, through = weighed[at], reach[:, at]
                lack = -own @ self.ridge.weights
                roots = self._roots(rows)
                lack[torch.arange(len(at)), labels[at]] += roots
                left = torch.eye(len(at)).to(own) - own @ through
                scores[query] -= (self.features[query] @ through) @ torch.linalg.solve(left, lack)
        return torch.where(self.heard[:, None], scores, 0.0)

    def share(self, query: int) -> tuple[Tensor, Tensor]:
        """The rows that one query hears, and how much it hears each, float64 (n,): what the labels of these rows are
        multiplied by. The largest come first; for each row that it goes without there is a -1 at the end."""
        device = self.features.device
        f, gone = self.features[query], self.without.get(query, np.empty(0, np.int64))
        toward = torch.cholesky_solve(f[:, None], self.ridge.factor)[:, 0]
        if len(gone):
            once, _, weighed, reach = self._taken
            at = torch.from_numpy(np.searchsorted(once, gone)).to(device)
            own, through = weighed[at], reach[:, at]
            left = torch.eye(len(at)).to(own) - own @ through
            toward = toward + through @ torch.linalg.solve(left, own @ toward)
        rows = self.memory.active_rows
        missing = torch.isin(rows, torch.from_numpy(gone).to(device))
        parts = [self.ridge.sums.features(_keys(self.memory, some)).double() @ toward for some in rows.split(BLOCK)]
        share = torch.cat([toward.new_empty(0), *parts]) * torch.from_numpy(self.ridge.sums.weights).to(toward)[rows]
        order = share.abs().masked_fill(missing, -1).argsort(descending=True, stable=True)
        return rows.masked_fill(missing, -1)[order], share.masked_fill(missing, 0)[order]

    def _roots(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.ridge.sums.weights[rows]).to(self.features).sqrt()

    @cached_property
    def _taken(self) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
        """All rows that a query goes without: their numbers, ascending, labels, F (e, M), and A⁻¹ Fᵀ (M, e)."""
        once = np.unique(np.concatenate(list(self.without.values())))
        device = self.features.device
        weighed = self.ridge.sums.features(_keys(self.memory, torch.from_numpy(once).to(device))).double()
        weighed = weighed * self._roots(once)[:, None]
        labels = torch.from_numpy(self.ridge.sums.labels[once]).to(device)
        return once, labels, weighed, torch.cholesky_solve(weighed.T, self.ridge.factor)


class RidgeTerm(Term):
    """`by` times what a ridge regression says of q queries: a sum over all rows, made only when somebody asks
    what each of them says."""

    asked: Asked
    by: float

    shared: ClassVar[bool] = False

    def __init__(self, asked: Asked, by: float):
        vars(self).update(asked=asked, by=by, values=LabelValues(asked.memory.column("label")), source="memory")

    @property
    def signed(self) -> bool:
        return True

    @property
    def width(self) -> None:
        return None

    @cached_property
    def _rows_and_weights(self) -> tuple[Tensor, Tensor]:
        rows, shares = zip(*map(self.asked.share, range(len(self.asked.features))))
        return torch.stack(rows), (self.by * torch.stack(shares)).float()

    @property
    def rows(self) -> Tensor:  # type: ignore[override]
        """All remembered rows (q, n), those first that say most."""
        return self._rows_and_weights[0]

    @property
    def weights(self) -> Tensor:  # type: ignore[override]
        """How much each says, float32 (q, n), of either sign."""
        return self._rows_and_weights[1]

    def add_to(self, scores: Tensor) -> None:
        scores += (self.by * self.asked.scores).to(scores)

    def entries(self) -> tuple[Tensor, Tensor]:
        added = (self.by * self.asked.scores).float()
        return torch.arange(added.shape[1], device=added.device).expand(added.shape), added

    def contributions(self, query: int) -> tuple[Tensor, Tensor]:
        rows, share = self.asked.share(query)
        classes, values = self.values.entries(rows.clamp_min(0))
        return classes, values * (self.by * share).float()[:, None]
