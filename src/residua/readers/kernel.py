"""Distances to weights: the two kernels, and what happens at their edges."""

from __future__ import annotations

import torch
from torch import Tensor

from residua.core import Neighbours
from residua.errors import ParameterError

KERNELS = ("exponential", "gaussian")
NOTICE = 1e-18  # beside 1, in float32; the product of two such numbers is still a normal number


def exponents(distances: Tensor, sigma: float, kernel: str) -> Tensor:
    """log of the weights relative to the nearest's: -d/sigma (ResMem, eq. 7) or -d²/sigma (kNN-LM), from plain
    ascending distances (..., k). Differences are taken first, so that no sigma is too small and nothing too far."""
    nearest = distances[..., :1]
    gap = distances - nearest
    if kernel == "gaussian":
        gap = gap * (distances + nearest)
    return (gap / -sigma).nan_to_num_(0.0, neginf=-torch.inf)  # 0/0: as near as the nearest


def weigh(
    neighbours: Neighbours, sigma: float, kernel: str = "exponential", row_weights: Tensor | None = None
) -> Tensor:
    """Normalised kernel weights of neighbours.

    Parameters
    ----------
    neighbours : Neighbours
        Plain Euclidean distances (q, k).
    sigma : float
        The kernel's width: a distance for ``"exponential"``, a squared distance for ``"gaussian"``.
    kernel : {"exponential", "gaussian"}
    row_weights : float Tensor of shape (q, k), optional
        Importance of each neighbour, >= 0; multiplies its kernel weight.

    Returns
    -------
    float32 Tensor of shape (q, k)
        Rows sum to 1; a query without neighbours gets zeros. Never NaN, however far the neighbours are: the nearest
        one's exponent is subtracted first.

    Examples
    --------
    >>> near_and_far = Neighbours(torch.tensor([[4, 2]]), torch.tensor([[1000.0, 1000.7]]))
    >>> [round(weight, 3) for weight in weigh(near_and_far, sigma=1.0)[0].tolist()]
    [0.668, 0.332]
    """
    logs = exponents(neighbours.distances, sigma, kernel)
    if row_weights is None and neighbours.k and bool((neighbours.rows[:, -1] >= 0).all()):
        weights = logs.exp_()  # all are found, and the nearest's is 1 already
        weights.masked_fill_(weights < NOTICE, 0)
    else:
        weights = unnormalised(logs if row_weights is None else logs + row_weights.log(), neighbours.found)
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30)


def unnormalised(logs: Tensor, found: Tensor) -> Tensor:
    """exp of logs (..., k), the largest of each row 1; 0 where not found, and where it is below float32's notice.

    Weights under NOTICE of the largest cannot change a float32 sum, and their products would be denormal numbers,
    on which a CPU is ten times slower.
    """
    if not logs.shape[-1]:
        return logs
    logs = logs.masked_fill(~found, -torch.inf)
    top = logs.amax(dim=-1, keepdim=True)
    weights = (logs - top.masked_fill(top == -torch.inf, 0)).exp_()
    return weights.masked_fill_(weights < NOTICE, 0)


def check_kernel(kernel: str) -> str:
    """`kernel`, if it is one."""
    if kernel not in KERNELS:
        raise ParameterError(f"kernel={kernel!r}; expected one of {KERNELS}")
    return kernel
