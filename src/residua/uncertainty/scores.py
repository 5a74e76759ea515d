"""How badly a class fits a row: the conformal scores of classes. Sets are the classes whose score is small enough."""

from __future__ import annotations

import torch
from torch import Tensor


def lac(probabilities: Tensor) -> Tensor:
    """``1 - p`` (least ambiguous sets, Sadinle et al. 2019): the smallest sets on average; float64 (q, L)."""
    return 1 - probabilities.double()


def aps(probabilities: Tensor, u: Tensor) -> Tensor:
    """What is more probable, and a part `u` (q,) of what the class itself is given (adaptive sets, Romano et al. 2020):
    sets grow where a row is hard; float64 (q, L).

    >>> aps(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0.5])).round(decimals=2).tolist()
    [[0.25, 0.65, 0.9]]
    """
    p, order = probabilities.double().sort(dim=1, descending=True, stable=True)
    return torch.zeros_like(p).scatter_(1, order, p.cumsum(dim=1) - (1 - u.double())[:, None] * p)
