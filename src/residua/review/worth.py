"""What each neighbour does for a query, in closed form: its influence, and its KNN-Shapley value.

Leaving a row out of a memory leaves the other neighbours of a query as they are, and lets the next nearest in. So
one search with one neighbour more says what every memory without one row would answer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from residua.core import Neighbours, Prediction
from residua.readers import NeighbourReader


def without(near: Neighbours, dropped: Tensor, k: int) -> Neighbours:
    """The nearest `k` of neighbours (q, m) that are not `dropped`, bool (q, m), in their order."""
    order = dropped.to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
    gone = dropped.gather(1, order)
    rows, distances = near.rows.gather(1, order), near.distances.gather(1, order)
    return Neighbours(rows.masked_fill(gone, -1), distances.masked_fill(gone, torch.inf))


def answered(reader: NeighbourReader, prediction: Prediction, near: Neighbours, keys: Tensor) -> Prediction:
    """What `reader` makes of other neighbours of the same queries, of keys (q, d), in float64 where it can."""
    near = Neighbours(near.rows, near.distances.double())
    return reader.reread(replace(prediction, near=near), keys, prediction.root.logits)


def influences(
    reader: NeighbourReader, prediction: Prediction, near: Neighbours, keys: Tensor, labels: Tensor
) -> Tensor:
    """By how much each of the k nearest raises a label's probability, float64 (q, k): with it, less without it.

    `near` holds k + 1 neighbours of each query that `prediction` has searched, and `labels` (q,) are of all queries.
    """
    asked = slice(None) if prediction.asked is None else prediction.asked
    every = torch.arange(near.k, device=near.rows.device)

    def told(kept: Tensor) -> Tensor:
        some = Neighbours(near.rows[:, kept], near.distances[:, kept])
        return answered(reader, prediction, some, keys).at(labels)[asked].double()

    whole = told(every[:-1])
    return torch.stack([whole - told(every[every != left]) for left in every[:-1]], dim=1)


def shapley(match: np.ndarray, players: np.ndarray, k: int) -> np.ndarray:
    """KNN-Shapley values float64 (q, r) of the r nearest rows, in order (Jia et al. 2019, theorem 1).

    The game is unweighted label k-NN: a set of rows earns the share of the label among the K nearest of it, over K.
    `match` bool (q, r): which of the nearest have the query's label; `players` int (q,): how many rows play. Where all
    of them are among the r, values sum to the share among all. Else values from the r-th on are taken for 0, and each
    is off by at most 1/r (r >= K).

    Examples
    --------
    >>> shapley(np.array([[True, False, True]]), np.array([3]), 1).round(4).tolist()
    [[0.8333, -0.1667, 0.3333]]
    """
    ranks = np.arange(1, match.shape[1] + 1)
    change = match.astype(np.float64)
    last = np.where(players <= ranks[-1:], np.minimum(k, players) / (k * np.maximum(players, 1)), 0.0)
    ends = np.minimum(players, match.shape[1]) - 1  # each query's farthest row
    change[:, :-1] -= match[:, 1:]
    change *= np.minimum(k, ranks) / (k * ranks)
    change[ranks - 1 > ends[:, None]] = 0  # nobody is there
    reach = np.flatnonzero(ends >= 0)
    change[reach, ends[reach]] = match[reach, ends[reach]] * last[reach]
    return change[:, ::-1].cumsum(axis=1)[:, ::-1]
