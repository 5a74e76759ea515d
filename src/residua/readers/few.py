"""Answers to a few queries, in NumPy: the readers' equations once more, for an image or a token.

A call of torch costs some microseconds whatever it does, and one query needs hundreds of them: more than the
arithmetic, and more than the search. So where queries are few, a dozen calls of NumPy say the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from residua.core import AbsentLogits, DenseLogits, Logits, Neighbours, TopLogits
from residua.core.logits import Base, Softmax
from residua.core.probabilities import TINY

NOTICE = 1e-18  # beside 1, in float32; the product of two such numbers is still a normal number
LEAST = 1e-30  # of a sigma in float32
USUAL_KERNELS = ("exponential", "gaussian")  # which are written here, and natively
ENTRIES = 2**18  # float32 numbers, 1 MB, of the largest array that is made


@dataclass(frozen=True)
class Plain:
    """A few queries that NumPy can answer: of a classifier's logits that are at hand, on the CPU, each with all its
    neighbours."""

    logits: np.ndarray  # float32 (q, L), finite
    temperature: float
    rows: np.ndarray  # int64 (q, k)
    distances: np.ndarray  # float32 (q, k)
    squared: bool  # whether the kernel is the Gaussian
    sigma: float

    @classmethod
    def of(cls, base: Base, near: Neighbours, k: int, sigma: float, squared: bool) -> Plain | None:
        """None where they are not, or where distances of more digits ask for an answer of more."""
        if not isinstance(base, Softmax) or not k or near.distances.dtype != torch.float32:
            return None
        table = base.logits.table if isinstance(base.logits, DenseLogits) else None
        if not isinstance(table, Tensor) or table.dtype != torch.float32 or table.numel() > ENTRIES:
            return None
        if table.device.type != "cpu" or near.rows.device.type != "cpu" or near.rows.numel() > ENTRIES:
            return None
        near = near if near.k == k else near.first(k)
        logits, rows = table.numpy(), near.rows.numpy()
        if rows[:, -1].min() < 0 or not np.isfinite(logits).all():
            return None
        return cls(logits, base.temperature, rows, near.distances.numpy(), squared, sigma)

    def weights(self, sigma: float | None = None) -> np.ndarray:
        """The kernel's, float32 (q, k), of a sum of 1, of the reader's width or another."""
        return weigh(self.distances, sigma or self.sigma, self.squared)

    def labels(self, labels: Tensor) -> np.ndarray:
        """The neighbours' (q, k)."""
        return labels.numpy().take(self.rows)

    def said(self, logits: Logits) -> np.ndarray | None:
        """What the model said of the neighbours, float32 (q, k, L), a copy; None where that is much, or not all of it
        was kept."""
        if self.rows.size * self.logits.shape[1] > ENTRIES or isinstance(logits, (TopLogits, AbsentLogits)):
            return None
        return logits.dense(torch.from_numpy(self.rows.ravel())).numpy().reshape(*self.rows.shape, -1)


class Answers(ABC):
    """What a reader says of q queries over L classes, as ``Few``; each reader's own say how ``scores`` come about."""

    in_logits: bool = False  # whether scores are logits

    def __init__(self, logits: np.ndarray, temperature: float):
        self.logits, self.temperature = logits, temperature  # the model's (q, L), and T

    @abstractmethod
    def scores(self) -> np.ndarray:
        """The changed scores (q, L)."""

    def start(self) -> np.ndarray:
        """What is changed (q, L): logits / T, or their softmax."""
        return self._start

    @cached_property
    def _start(self) -> np.ndarray:
        scaled = self.logits / np.float32(self.temperature)
        return scaled if self.in_logits else softmax(scaled)

    def probabilities(self, floor: float) -> np.ndarray:
        """``max(scores, floor * start)``, renormalised, or the softmax of scores that are logits, (q, L)."""
        if self.in_logits:
            return softmax(self.scores())
        positive = np.maximum(self.scores(), np.float32(floor) * self._start)
        positive /= positive.sum(axis=1, keepdims=True)
        return positive

    def log_probabilities(self, floor: float) -> np.ndarray:
        """Their logarithms (q, L)."""
        said = self.probabilities(floor)
        np.maximum(said, np.float32(TINY), out=said)
        return np.log(said, out=said)

    def in_gauge(self, floor: float) -> np.ndarray:
        """The same, and the logsumexp of the model's own logits on top."""
        said = self.log_probabilities(floor)
        said += self.partition()[:, None]
        return said

    @cached_property
    def _passed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``passed`` of the model's logits as they are."""
        return passed(self.logits)

    def partition(self) -> np.ndarray:
        """logsumexp of the model's logits at T = 1, (q,)."""
        top, _, total = self._passed
        return top + np.log(total)


class Residuals(Answers):
    """ResMem's: the neighbours' labels less what the model said of them (eq. 7-8), added to probabilities or logits."""

    def __init__(
        self, plain: Plain, labels: np.ndarray, said: np.ndarray, shares: tuple[float, float], in_logits: bool
    ):
        super().__init__(plain.logits, plain.temperature)
        self.in_logits, self._plain, self._labels, self._said, self._shares = in_logits, plain, labels, said, shares

    def scores(self) -> np.ndarray:
        left, given = self._shares
        lacks = softmax(self._said / np.float32(self.temperature))
        own, labels = lacks.reshape(-1, lacks.shape[2]), self._labels.ravel()
        own[np.arange(len(own)), labels] -= 1  # first: so no residual is no change, exactly
        change = np.matmul(self._plain.weights()[:, None], lacks)[:, 0]
        return self._start * np.float32(left) - change * np.float32(given)


class Interpolated(Answers):
    """kNN-LM's: a share of the neighbours' labels (eq. 3)."""

    def __init__(self, plain: Plain, labels: np.ndarray, share: float):
        super().__init__(plain.logits, plain.temperature)
        self._plain, self._labels, self._share = plain, labels, share

    @cached_property
    def _heard(self) -> np.ndarray:
        return votes(self._labels, self._plain.weights() * np.float32(self._share), self.logits.shape[1])

    def scores(self) -> np.ndarray:
        return self._start * np.float32(1 - self._share) + self._heard

    def log_probabilities(self, floor: float) -> np.ndarray:
        said = self._by_token(floor)
        if said is None:
            return super().log_probabilities(floor)
        return np.subtract(said, self.partition()[:, None], out=said)

    def in_gauge(self, floor: float) -> np.ndarray:
        said = self._by_token(floor)
        return super().in_gauge(floor) if said is None else said

    def _by_token(self, floor: float) -> np.ndarray | None:
        """``in_gauge`` where a vocabulary is passed but once: the logits of all tokens that no neighbour names change
        alike. None where some may be on the floor."""
        left = 1 - self._share
        if not left or floor > left:
            return None
        top, spread, total = self._passed
        partition = top + np.log(total)
        if self.temperature == 1:
            out = self.logits + np.float32(np.log(left))
        else:
            scaled = self.logits / np.float32(self.temperature)
            top, spread, total = passed(scaled)
            out = scaled + (partition - top - np.log(total / np.float32(left)))[:, None]
        for row, classes in enumerate(self._labels):
            said = spread[row, classes] * (np.float32(left) / total[row]) + self._heard[row, classes]
            out[row, classes] = np.log(np.maximum(said, np.float32(TINY))) + partition[row]
        return out


class Pooled(Answers):
    """The pooled reader's: votes of several widths, and what the model said of the same neighbours, in the exponent."""

    in_logits = True

    def __init__(
        self,
        plain: Plain,
        labels: np.ndarray,
        said: np.ndarray,
        widths: list[float],
        coefficients: list[float],
        unheard: float,
    ):
        super().__init__(plain.logits, plain.temperature)
        self._plain, self._labels, self._said, self._widths = plain, labels, said, widths
        self._coefficients, self._unheard = np.asarray(coefficients, np.float32), unheard

    def scores(self) -> np.ndarray:
        weights = np.stack([self._plain.weights(width) for width in self._widths], axis=1)  # (q, S, k)
        classes, shape = self.logits.shape[1], weights.shape
        labels = np.repeat(self._labels, shape[1], axis=0)
        heard = votes(labels, weights.reshape(-1, shape[2]), classes).reshape(*shape[:2], classes)
        said = np.matmul(weights, softmax(self._said / np.float32(self.temperature)))
        unheard = np.float32(self._unheard) * np.maximum(softmax(self._start), np.float32(TINY / self._unheard))
        out = self._start * self._coefficients[0]
        parts = np.log1p(heard / unheard[:, None]), np.log1p(said / unheard[:, None]), heard, said
        for at, part in enumerate(parts):
            out += np.tensordot(self._coefficients[1 + at :: 4], part, (0, 1))
        return out


def votes(labels: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """The neighbours' weights (q, k) by their labels (q, k), float32 (q, classes)."""
    q = len(labels)
    if q > 1:
        labels = labels + np.arange(0, q * classes, classes, dtype=np.int64)[:, None]
    said = np.bincount(labels.ravel(), weights.ravel(), minlength=q * classes)
    return said.astype(np.float32).reshape(q, classes)


def weigh(distances: np.ndarray, sigma: float, squared: bool) -> np.ndarray:
    """Kernel weights float32 (q, k), of a sum of 1, of plain ascending distances; `squared`: of the Gaussian."""
    apart = distances - distances[:, :1]
    with np.errstate(over="ignore"):  # so far away that it has no weight
        if squared:
            apart *= distances + distances[:, :1]
        apart /= np.float32(-sigma)
    weights = np.exp(apart, out=apart)
    weights[weights < NOTICE] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis. One call of torch is worth five of NumPy."""
    return torch.softmax(torch.from_numpy(logits), dim=-1).numpy()


def passed(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest logit (q,), exp of all logits less that one (q, L), and its sum (q,)."""
    top = logits.max(axis=1)
    spread = np.exp(logits - top[:, None])
    return top, spread, spread.sum(axis=1)
