"""Where a memory helps and where it harms: by how near or how sure, by confusion, and how true the confidence is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from residua.core import Task
from residua.evaluation.by_class import SIDES

GROUPS = 4


@dataclass(frozen=True)
class Group:
    """Rows whose value lies between `low` and `high`.

    Attributes
    ----------
    low, high : float
        The smallest and the largest value in it.
    n : int
        How many rows.
    base, reader : float
        Accuracy of the model alone and with its memory; of several labels a row the share of labels that are right, of
        a text perplexity, of a regression mean squared error.
    """

    low: float
    high: float
    n: int
    base: float
    reader: float


@dataclass(frozen=True)
class Confusion:
    """A class taken for another.

    Attributes
    ----------
    label, said : int
        The true class, and the one that is said.
    errors, remaining, fixed, introduced : int
        How often the model alone says it, and the model with its memory; how often the memory turned it into the truth,
        and how often it turned the truth into it.
    """

    label: int
    said: int
    errors: int
    remaining: int
    fixed: int
    introduced: int


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often answers are right, by how sure they are, in bins of equal width.

    Attributes
    ----------
    edges : float64 array of shape (bins + 1,)
        Of the bins, from 0 to 1; each has its upper edge.
    n : int64 array of shape (bins,)
        How many answers are in each.
    confidence, accuracy : float64 arrays of shape (bins,)
        The mean probability of what is said, and the share that is true; NaN in an empty bin.
    """

    edges: np.ndarray
    n: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017, eq. 5): the mean of |accuracy - confidence| over all answers."""
        return float(np.nansum(self.n * np.abs(self.accuracy - self.confidence)) / max(self.n.sum(), 1))


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int) -> Reliability:
    """Of answers with `confidence` (n,), of which `right` (n,) are.

    >>> reliability(np.array([0.75, 0.75]), np.array([True, False]), 2).accuracy.tolist()
    [nan, 0.5]
    """
    place = np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(int) - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=np.asarray(of, np.float64), minlength=bins) for of in (confidence, right))
    sure, true = (np.where(n > 0, total / np.maximum(n, 1), np.nan) for total in sums)
    return Reliability(np.linspace(0, 1, bins + 1), n, sure, true)


def by_value(rows: Mapping[str, np.ndarray], task: Task, is_text: bool, values: np.ndarray, groups: int) -> list[Group]:
    """Rows in groups of about as many by their value (n,), the smallest first; those without one are left out. Rows of
    one value are in one group."""
    known = np.isfinite(values)
    if not known.any():
        return []
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, groups + 1)[1:-1], method="inverted_cdf"))
    place = np.where(known, np.searchsorted(edges, values), -1)
    found = []
    for number in range(len(edges) + 1):
        own = place == number
        if own.any():
            base, now = (_measure(rows, task, is_text, own, side) for side in SIDES)
            found.append(Group(float(values[own].min()), float(values[own].max()), int(own.sum()), base, now))
    return found


def _measure(rows: Mapping[str, np.ndarray], task: Task, is_text: bool, own: np.ndarray, side: str) -> float:
    if is_text:
        return float(np.exp(-rows[f"{side}log_prob"][own].mean(dtype=np.float64)))
    if task == "regression":
        return float(rows[f"{side}squared_error"][own].mean())
    return float((rows[f"{side}prediction"][own] == rows["label"][own]).mean())


def confusions(rows: Mapping[str, np.ndarray]) -> list[Confusion]:
    """Pairs of a true class and another that is said, those first that the memory changes most."""
    label, before, after = (rows[name].astype(np.int64) for name in ("label", "base_prediction", "prediction"))
    width = int(max(label.max(), before.max(), after.max())) + 1

    def count(which: np.ndarray, said: np.ndarray) -> dict[int, int]:
        pairs, n = np.unique(label[which] * width + said[which], return_counts=True)
        return dict(zip(pairs.tolist(), n.tolist()))

    wrong, still = before != label, after != label
    errors, remaining = count(wrong, before), count(still, after)
    fixed, introduced = count(wrong & ~still, before), count(~wrong & still, after)
    found = [
        Confusion(*divmod(pair, width), *(n.get(pair, 0) for n in (errors, remaining, fixed, introduced)))
        for pair in sorted(fixed.keys() | introduced.keys())
    ]
    return sorted(found, key=lambda one: -(one.fixed + one.introduced))
