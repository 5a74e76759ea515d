"""Weights of what is added up in the exponent, fitted to labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import logsigmoid

STEPS = 100


@dataclass(frozen=True)
class Features:
    """n labelled rows, and the F columns whose weighted sum is their logits. The first is the base's own logits: the
    base alone is a weight of 1 for it, and of 0 for all others."""

    columns: Tensor  # float32 (F, n, L)
    truth: Tensor  # int64 (n,), or 0 and 1 of several labels (n, L)
    importance: Tensor | None = None  # float (n,), >= 0: how much each row's loss weighs

    def __len__(self) -> int:
        return self.columns.shape[1]

    def __getitem__(self, rows: Tensor) -> Self:
        weight = self.importance
        return type(self)(self.columns[:, rows], self.truth[rows], None if weight is None else weight[rows])

    @property
    def base(self) -> np.ndarray:
        """The weights of the base alone, float64 (F,)."""
        return np.eye(1, len(self.columns))[0]

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The rows of all `parts`, in order."""
        weights = [part.importance for part in parts if part.importance is not None]
        columns, truth = torch.cat([part.columns for part in parts], dim=1), torch.cat([part.truth for part in parts])
        return cls(columns, truth, torch.cat(weights) if weights else None)

    def logits(self, weights: np.ndarray) -> Tensor:
        """The weighted sums, float32 (n, L)."""
        given = torch.as_tensor(weights, dtype=self.columns.dtype, device=self.columns.device)
        return (given @ self.columns.flatten(1)).view(self.columns.shape[1:])

    def losses(self, weights: np.ndarray) -> Tensor:
        """What each row loses, float64 (n,), not yet times its importance."""
        return log_losses(self.logits(weights), self.truth)

    def fitted(self, penalty: float) -> np.ndarray:
        """The weights float64 (F,) of the least mean loss plus ``penalty * |weights - base|²``: a convex problem, by
        Newton's method within a trusted radius."""
        flat, base, exclusive = self.columns.flatten(1), self.base, self.truth.ndim == 1
        given = torch.ones(len(self)) if self.importance is None else self.importance
        share = given.to(flat.device, torch.float64) / float(given.sum().clamp_min(1e-30))
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

        return minimize(loss, base, jac=True, hess=curvature, method="trust-exact", options={"maxiter": STEPS}).x


def log_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """-log of the probability of the true class int64 (n,), float64 (n,); of several labels (n, L) their mean."""
    if truth.ndim > 1:
        return -logsigmoid(torch.where(truth > 0, logits, -logits)).double().mean(dim=1)
    return (torch.logsumexp(logits, dim=1) - logits.gather(1, truth[:, None])[:, 0]).double()
