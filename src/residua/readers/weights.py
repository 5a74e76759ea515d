"""Weights of columns that are added up, fitted to labelled rows: in the exponent, or to what a regressor lacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import logsigmoid

from residua.readers.judged import Judged

STEPS = 100
STRENGTHS = 10.0 ** np.arange(-6, 3)  # of ridge, beside the mean eigenvalue


@dataclass(frozen=True)
class Features(ABC):
    """n labelled rows, and F columns whose weighted sum is what is said of each."""

    columns: Tensor  # (F, n, L)
    truth: Tensor  # (n,) or (n, L)
    importance: Tensor | None = None  # float (n,), >= 0: how much each row's loss weighs

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, rows: Tensor) -> Self:
        weight = self.importance
        return type(self)(self.columns[:, rows], self.truth[rows], None if weight is None else weight[rows])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The rows of all `parts`, in order."""
        weights = [part.importance for part in parts if part.importance is not None]
        columns, truth = torch.cat([part.columns for part in parts], dim=1), torch.cat([part.truth for part in parts])
        return cls(columns, truth, torch.cat(weights) if weights else None)

    @property
    def share(self) -> Tensor:
        """How much each row's loss weighs, float64 (n,), of a sum of 1."""
        given = torch.ones(len(self)) if self.importance is None else self.importance
        given = given.to(self.columns.device, torch.float64)
        return given / given.sum().clamp_min(1e-30)

    @property
    @abstractmethod
    def base(self) -> np.ndarray:
        """The weights of the base as it is, float64 (F,)."""

    @abstractmethod
    def base_fitted(self) -> np.ndarray:
        """The weights of the base alone at its own best temperature, float64 (F,)."""

    @abstractmethod
    def fitted(self, penalty: float | None, start: np.ndarray | None = None) -> np.ndarray:
        """The weights float64 (F,) of the least mean loss; `start`: where the search begins, which finds the same."""

    @abstractmethod
    def losses(self, weights: np.ndarray) -> Tensor:
        """What each row loses, float64 (n,), not yet times its importance."""

    @abstractmethod
    def right(self, weights: np.ndarray) -> np.ndarray | None:
        """Whether each row's answer is right, bool (n,), where one can be."""


class LogitFeatures(Features):
    """Columns float32 that add up to logits, the base's own first; truth int64 (n,), or 0 and 1 of several labels."""

    @property
    def base(self) -> np.ndarray:
        return np.eye(1, len(self.columns))[0]

    def base_fitted(self) -> np.ndarray:
        return type(self)(self.columns[:1], self.truth, self.importance).fitted(0)[0] * self.base

    def logits(self, weights: np.ndarray) -> Tensor:
        """The weighted sums, float32 (n, L)."""
        given = torch.as_tensor(weights, dtype=self.columns.dtype, device=self.columns.device)
        return (given @ self.columns.flatten(1)).view(self.columns.shape[1:])

    def losses(self, weights: np.ndarray) -> Tensor:
        return log_losses(self.logits(weights), self.truth)

    def right(self, weights: np.ndarray) -> np.ndarray | None:
        if self.truth.ndim > 1:
            return None
        return (self.logits(weights).argmax(dim=1) == self.truth).cpu().numpy()

    def fitted(self, penalty: float | None, start: np.ndarray | None = None) -> np.ndarray:
        """Those of the least mean log-loss plus ``penalty * |weights - base|²`` (None: 1 / n): a convex problem, by
        Newton's method within a trusted radius."""
        penalty = 1 / max(len(self), 1) if penalty is None else penalty
        flat, base, exclusive = self.columns.flatten(1), self.base, self.truth.ndim == 1
        share = self.share
        each = (share if exclusive else share / self.columns.shape[2]).to(flat.dtype)[:, None]
        truth = self.truth.to(flat.dtype)
        if exclusive:
            truth = torch.zeros_like(self.columns[0]).scatter_(1, self.truth[:, None], 1.0)

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            logits, away = self.logits(weights), weights - base
            p = torch.softmax(logits, dim=1) if exclusive else torch.sigmoid(logits)
            slope = flat @ ((p - truth) * each).reshape(-1)
            total = float(log_losses(logits, self.truth) @ share) + penalty * float(away @ away)
            return total, slope.double().cpu().numpy() + 2 * penalty * away

        def curvature(weights: np.ndarray) -> np.ndarray:
            logits = self.logits(weights)
            p = torch.softmax(logits, dim=1) if exclusive else torch.sigmoid(logits)
            found = (flat * (p * each if exclusive else p * (1 - p) * each).reshape(-1)) @ flat.T
            if exclusive:
                mean = torch.einsum("nl,fnl->fn", p, self.columns)
                found -= (mean * each[:, 0]) @ mean.T
            return found.double().cpu().numpy() + 2 * penalty * np.eye(len(weights))

        begin = base if start is None else start
        return minimize(loss, begin, jac=True, hess=curvature, method="trust-exact", options={"maxiter": STEPS}).x


class ResidualFeatures(Features):
    """Columns float64 that add up to what a regressor lacks; truth float64 (n, m), its targets less what it says."""

    @property
    def base(self) -> np.ndarray:
        return np.zeros(len(self.columns))

    def base_fitted(self) -> np.ndarray:
        return self.base

    def losses(self, weights: np.ndarray) -> Tensor:
        """Squared errors, the mean over outputs."""
        given = torch.as_tensor(weights, dtype=self.columns.dtype, device=self.columns.device)
        return (torch.tensordot(given, self.columns, 1) - self.truth).square().mean(dim=1)

    def right(self, weights: np.ndarray) -> None:
        return None

    def fitted(self, penalty: float | None, start: np.ndarray | None = None) -> np.ndarray:
        """Those of ridge regression, each output beside its own spread; its strength beside the columns' mean square is
        `penalty`, None: that of the best generalised cross-validation."""
        scale = self.truth.std(dim=0, correction=0)
        root = self.share.sqrt()[:, None] / torch.where(scale > 0, scale, 1.0)
        x, y = (self.columns * root).flatten(1).T.cpu().numpy(), (self.truth * root).flatten().cpu().numpy()
        values, vectors = np.linalg.eigh(x.T @ x)
        values, moved = values.clip(0), vectors.T @ (x.T @ y)
        size = max(float(values.mean()), 1e-300)

        def ridge(strength: float) -> tuple[float, np.ndarray]:
            by = moved / (values + strength * size)
            error, kept = y @ y - 2 * by @ moved + by @ (values * by), values / (values + strength * size)
            return float(error) / (1 - float(kept.sum()) / len(y)) ** 2, vectors @ by

        tried = [ridge(float(one)) for one in (STRENGTHS if penalty is None else [penalty])]
        return min(tried, key=lambda found: found[0])[1]


def log_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """-log of the probability of the true class int64 (n,), float64 (n,); of several labels (n, L) their mean."""
    if truth.ndim > 1:
        return -logsigmoid(torch.where(truth > 0, logits, -logits)).double().mean(dim=1)
    return (torch.logsumexp(logits, dim=1) - logits.gather(1, truth[:, None])[:, 0]).double()


def cross_fitted(
    folds: Sequence[Features],
    penalty: float | None = None,
    *,
    start: np.ndarray | None = None,
    matched: np.ndarray | None = None,
) -> Judged:
    """All rows, fold after fold: under the base as it is, the base at its own temperature, and all columns, both fitted
    to the other folds.

    Rows `matched`, bool (n,), are remembered themselves. Of which groups rows are, the caller says.
    """
    losses: list[np.ndarray] = []
    right: list[list[np.ndarray | None]] = []
    for place, fold in enumerate(folds):
        others = type(fold).join([one for at, one in enumerate(folds) if at != place])
        ways = [fold.base, others.base_fitted(), others.fitted(penalty, start)]
        losses.append(np.stack([fold.losses(way).cpu().numpy() for way in ways]))
        right.append([fold.right(way) for way in ways])
    every, whole = type(folds[0]).join(list(folds)), np.concatenate(losses, axis=1)
    table = None if right[0][0] is None else np.concatenate([np.stack(one) for one in right], axis=1)  # type: ignore[arg-type]
    return Judged(
        "squared_error" if isinstance(folds[0], ResidualFeatures) else "log_loss",
        whole * (every.share.cpu().numpy() * len(every)),
        table,
        None,
        np.zeros(len(every), bool) if matched is None else matched,
        table is not None and bool(table[0].all()),
    )
