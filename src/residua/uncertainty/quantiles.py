"""The finite-sample quantile of calibration scores, for all rows or for each group of them."""

from __future__ import annotations

import math

import numpy as np


def threshold(scores: np.ndarray, confidence: float) -> np.ndarray:
    """The ``ceil((n + 1) * confidence)``-th smallest of scores (n, ...), by column; inf where there is none.

    A new row's score, exchangeable with these n, is at most that with a probability of at least `confidence`, whatever
    the scores' distribution, and of at most ``confidence + 1 / (n + 1)`` where no two are alike.

    >>> threshold(np.arange(1.0, 10.0), 0.9), threshold(np.arange(1.0, 9.0), 0.9)
    (array(9.), array(inf))
    """
    rank = math.ceil(round((len(scores) + 1) * confidence, 9))  # 10 * 0.9 is 9, and not a little more
    if rank > len(scores):
        return np.full(scores.shape[1:], np.inf)
    return np.asarray(np.partition(scores, rank - 1, axis=0)[rank - 1])


def needed(confidence: float) -> int:
    """The fewest rows whose threshold is finite.

    >>> needed(0.9), needed(0.95)
    (9, 19)
    """
    return math.ceil(round(confidence / (1 - confidence), 9))


def parted(distances: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges that part distances (n,) into so many groups of one size, fewer where many are alike; and bool (n,), the
    rows that calibrate: all but those that are an edge themselves.

    Between two order statistics rows are as if drawn from the distribution between them, so what is found of them holds
    for a new row there, exactly.
    """
    order = np.argsort(distances, kind="stable")
    at = order[np.arange(1, groups) * len(order) // groups] if len(order) > groups else order[:0]
    kept = np.ones(len(order), bool)
    kept[at] = False
    return np.unique(distances[at]), kept
