"""Shares of the neighbours by how near the nearest is: fitted on half the documents, judged on the others."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from residua.core import Neighbours
from residua.errors import ParameterError
from residua.readers.adaptive import AdaptiveLambda
from residua.tuning.likelihood import Targets

log = logging.getLogger(__name__)

MOST = 0.99  # a bucket whose every token was retrieved must allow that the next one is not
HALVINGS = 40


def adaptive_lambda(
    targets: Targets, setting: tuple[int, int, int], lmbda: float, buckets: int, most: float
) -> tuple[AdaptiveLambda | None, dict[str, float]]:
    """The fitted shares, or None where one `lmbda` for all does as well on the documents not fitted on.

    Parameters
    ----------
    targets : Targets
    setting : (int, int, int)
        The chosen k, sigma and temperature, as indices.
    lmbda : float
        The best single share, tuned on all documents.
    buckets : int
        How many, by quantiles of the nearest neighbour's distance.
    most : float
        The largest share allowed.

    Returns
    -------
    AdaptiveLambda or None
    dict
        Perplexity on the other half of the documents: ``"fixed"`` with the single share, ``"adaptive"`` with these.

    Raises
    ------
    ParameterError
        With fewer than two documents, or buckets.
    """
    if not isinstance(buckets, int) or buckets < 2:
        raise ParameterError(f"adaptive={buckets!r}; expected a number of buckets >= 2, or None for a single lmbda")
    fitted = _every_other_document(targets.documents)
    a, b, t = setting
    q, p = targets.given[a, b].double(), targets.base[t].exp()
    usable = fitted & (q >= 0)
    if not usable.any() or fitted.all():
        raise ParameterError(
            "adaptive= fits on half of the validation documents and judges on the other half; expected rows with ids "
            f"of at least two documents that find neighbours, got {len(targets.documents.unique())} document(s)"
        )
    inner = torch.linspace(0, 1, buckets + 1)[1:-1]
    edges = _quantiles(targets.nearest[usable], inner).unique()
    bucket = torch.bucketize(targets.nearest[usable], edges)
    shares = best_shares(p[usable], q[usable], bucket, len(edges) + 1, min(most, MOST), lmbda)
    adaptive = AdaptiveLambda(edges.tolist(), shares.tolist())
    by_token = shares_of(adaptive, targets)

    def perplexity(share: Tensor | float) -> float:
        return float(torch.exp(-targets.per_token(setting, share)[~fitted].mean()))

    measured = {"fixed": perplexity(lmbda), "adaptive": perplexity(by_token)}
    accepted = measured["adaptive"] < measured["fixed"]
    log.info(
        "adaptive lmbda %s: perplexity %.4f against %.4f with lmbda=%g, on the %d tokens it was not fitted on",
        "accepted" if accepted else "rejected",
        measured["adaptive"],
        measured["fixed"],
        lmbda,
        int((~fitted).sum()),
    )
    return (adaptive if accepted else None), measured


def shares_of(lmbda: AdaptiveLambda | float, targets: Targets) -> Tensor | float:
    """What the neighbours get of each token: float32 (n,), or the one number."""
    if not isinstance(lmbda, AdaptiveLambda):
        return lmbda
    nearest = targets.nearest[:, None]
    return lmbda(Neighbours(torch.zeros_like(nearest, dtype=torch.int64), nearest))[:, 0]


def best_shares(p: Tensor, q: Tensor, bucket: Tensor, buckets: int, most: float, default: float) -> Tensor:
    """The share in [0, most] that maximises the sum of log(p + share * (q - p)) in each bucket, float32 (buckets,).

    The sum is concave in the share, so its slope changes sign once: bisection. `default` where a bucket is empty.
    """
    change = q - p
    low, high = torch.zeros(buckets, dtype=torch.float64), torch.full((buckets,), most, dtype=torch.float64)

    def slope(share: Tensor) -> Tensor:
        each = change / (p + share[bucket] * change).clamp_min(1e-300)
        return torch.zeros_like(share).index_add_(0, bucket, each)

    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rising = slope(middle) > 0
        low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
    empty = torch.bincount(bucket, minlength=buckets) == 0
    return ((low + high) / 2).masked_fill(empty, default).float()


def _every_other_document(documents: Tensor) -> Tensor:
    """Bool (n,): tokens of the first, third, fifth … document, in the order the documents came."""
    names, which = documents.unique(return_inverse=True)
    first = torch.full((len(names),), len(documents)).scatter_reduce_(
        0, which, torch.arange(len(documents)), reduce="amin"
    )
    order = first.argsort().argsort()
    return order[which] % 2 == 0


def _quantiles(values: Tensor, at: Tensor) -> Tensor:
    """Values at those shares of the sorted ones (torch.quantile refuses more than 16 million)."""
    return values.sort().values[(at * (len(values) - 1)).round().long()]
