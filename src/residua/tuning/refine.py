"""What is settled after k, sigma, T and one share: shares by distance, and whose searches are skipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Neighbours, as_tensor
from residua.core.encoded import labels_of
from residua.errors import ParameterError
from residua.readers import AdaptiveLambda, NeighbourReader
from residua.readers.reader import Exclude
from residua.tuning.grid import largest_share
from residua.tuning.likelihood import Interpolation, Targets
from residua.tuning.objective import WHY, settled

log: logging.Logger = logging.getLogger(__name__)

MOST = 0.99  # a bucket whose every class was retrieved must allow that the next one is not
HALVINGS = 40
THRESHOLDS = np.concatenate([np.arange(0.05, 0.951, 0.05).round(2), [0.98, 0.99, 0.995, 0.999]])


def check_tolerance(tolerance: float) -> None:
    """Raise when it is no relative loss."""
    if not (isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) and 0 <= tolerance < np.inf):
        raise ParameterError(f"skip={tolerance!r}; expected the relative loss of perplexity allowed, such as 0.005")


N = TypeVar("N", bound=NeighbourReader)


def refined(
    best: N,
    seen: Interpolation | None,
    validation: Encoded | Iterable[Encoded],
    exclude: Exclude,
    adaptive: int | None,
    skip: float | None,
) -> N:
    """`best` with shares by distance, and searches skipped, where they were asked for and hold up."""
    if seen is None:
        memory, base, sure = _losses(best, validation, exclude)

        def loss(threshold: float | None) -> float:
            return float((memory if threshold is None else torch.where(sure >= threshold, base, memory)).mean())
    else:
        targets, setting = Targets.join(seen.kept), seen.setting(best.best_params_)
        if adaptive is not None:
            found, measured = _adaptive_lambda(targets, setting, best.params["lmbda"], adaptive, largest_share(best))
            best = settled(best, adaptive_=measured, **({} if found is None else {"lmbda": found}))
        shares, sure = _shares_of(best.params["lmbda"], targets), targets.p_max[setting[2]]

        def loss(threshold: float | None) -> float:
            return -float(targets.per_row(setting, shares, threshold).mean())

    if skip is not None:
        lowest, skipped = _lowest(loss, sure, loss(None) + np.log1p(skip))
        best = settled(best, skip=lowest, skipped_=skipped)
        log.info("skip=%s saves %.1f %% of the searches", lowest, 100 * skipped)
    best.best_score_ = -loss(best.skip)
    return best


def skippable(seen: Interpolation, params: Mapping[str, Any], score: float) -> float:
    """The share of searches that a setting may skip while its mean log-likelihood is at least `score`."""
    targets, setting = Targets.join(seen.kept), seen.setting(params)

    def loss(threshold: float) -> float:
        return -float(targets.per_row(setting, params["lmbda"], threshold).mean())

    return _lowest(loss, targets.p_max[setting[2]], -score)[1]


def _lowest(loss: Callable[[float], float], sure: Tensor, most: float) -> tuple[float | None, float]:
    """The lowest threshold that costs at most that loss, if any, and the share of searches that it saves; of rows of
    which the base is so `sure`."""
    lowest = next((float(threshold) for threshold in THRESHOLDS if loss(float(threshold)) <= most), None)
    return lowest, 0.0 if lowest is None else float((sure >= lowest).float().mean())


def _losses(reader: NeighbourReader, validation: Encoded | Iterable[Encoded], exclude: Exclude) -> tuple[Tensor, ...]:
    """Each row's loss with the memory and by the base alone (both at the reader's T), and how sure the base is."""
    found = []
    for part, now in reader.searching_all().predictions(validation, exclude=exclude):
        truth, base = as_tensor(labels_of(part, WHY)), now.softmax
        columns = now.log_prob(truth), base.log_prob(truth.to(base.device)), base.confidence().exp()
        found.append(torch.stack([column.double().cpu() for column in columns]))
    memory, base, sure = torch.cat(found, dim=1)
    return -memory, -base, sure


def _adaptive_lambda(
    targets: Targets, setting: tuple[int, int, int], lmbda: float, buckets: int, most: float
) -> tuple[AdaptiveLambda | None, dict[str, float]]:
    """Shares (at most `most`) fitted on half the groups, or None where one `lmbda` does as well on the other half.

    `setting` are the indices of k, sigma and T; `buckets` the quantiles of the nearest neighbour's distance. Also the
    perplexity on the half not fitted on: ``"fixed"`` with `lmbda`, ``"adaptive"`` with the shares.
    """
    if not isinstance(buckets, int) or buckets < 2:
        raise ParameterError(f"adaptive={buckets!r}; expected a number of buckets >= 2, or None for a single lmbda")
    # Every other group (document), in the order they came.
    names, which = targets.groups.unique(return_inverse=True)
    n = len(targets)
    first = torch.full((len(names),), n).scatter_reduce_(0, which, torch.arange(n), reduce="amin")
    fitted = first.argsort().argsort()[which] % 2 == 0
    q, p = targets.p_neighbours[setting[:2]].double(), targets.log_p_base[setting[2]].exp()
    usable = fitted & (q >= 0)
    if not usable.any() or fitted.all():
        raise ParameterError(
            "adaptive= fits on half of the validation data and judges on the other half; expected rows of at least two "
            f"documents (ids) that find neighbours, got {len(names)}"
        )
    nearest = targets.nearest[usable]
    inner = torch.linspace(0, 1, buckets + 1)[1:-1]
    # By sorting: torch.quantile refuses more than 16 million.
    edges = nearest.sort().values[(inner * (len(nearest) - 1)).round().long()].unique()
    bucket = torch.bucketize(nearest, edges)
    shares = _best_shares(p[usable], q[usable], bucket, len(edges) + 1, min(most, MOST), lmbda)
    adaptive = AdaptiveLambda(edges.tolist(), shares.tolist())

    def perplexity(share: Tensor | float) -> float:
        return float(torch.exp(-targets.per_row(setting, share)[~fitted].mean()))

    fixed, adapted = perplexity(lmbda), perplexity(_shares_of(adaptive, targets))
    verdict, judged = "accepted" if adapted < fixed else "rejected", int((~fitted).sum())
    text = "adaptive lmbda %s: perplexity %.4f against %.4f with lmbda=%g, on the %d rows it was not fitted on"
    log.info(text, verdict, adapted, fixed, lmbda, judged)
    return (adaptive if adapted < fixed else None), {"fixed": fixed, "adaptive": adapted}


def _shares_of(lmbda: AdaptiveLambda | float, targets: Targets) -> Tensor | float:
    """What the neighbours get of each row: float32 (n,), or the one number."""
    if not isinstance(lmbda, AdaptiveLambda):
        return lmbda
    nearest = targets.nearest[:, None]
    return lmbda(Neighbours(torch.zeros_like(nearest, dtype=torch.int64), nearest))[:, 0]


def _best_shares(p: Tensor, q: Tensor, bucket: Tensor, buckets: int, most: float, default: float) -> Tensor:
    """The share in [0, most] that maximises the sum of log(p + share * (q - p)) in each bucket, float32 (buckets,).

    The sum is concave in the share, so its slope changes sign once: bisection. `default` where a bucket is empty.
    """
    change = q - p
    low, high = torch.zeros(buckets, dtype=torch.float64), torch.full((buckets,), most, dtype=torch.float64)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        each = change / (p + middle[bucket] * change).clamp_min(1e-300)
        rising = torch.zeros_like(middle).index_add_(0, bucket, each) > 0
        low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
    empty = torch.bincount(bucket, minlength=buckets) == 0
    return ((low + high) / 2).masked_fill(empty, default).float()
