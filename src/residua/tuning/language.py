"""Tuning KNNLM on a token memory: the best setting, then shares by distance, then the gate."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from residua.core import Encoded
from residua.readers import KNNLM
from residua.tuning.adaptive import adaptive_lambda, shares_of
from residua.tuning.gate import lowest_gate
from residua.tuning.grid import full_grid
from residua.tuning.results import best_of, flat, losses
from residua.tuning.token_grid import check_shares, largest_share
from residua.tuning.tokens import targets

log = logging.getLogger(__name__)


def tune_tokens(
    reader: KNNLM,
    val: Encoded | Iterable[Encoded],
    grid: dict | None,
    adaptive: int | None,
    gate: float | None,
    progress: bool | None,
) -> KNNLM:
    """See ``tune``."""
    grid = full_grid(reader, grid, "log_loss")
    check_shares(reader, grid["lmbda"])
    seen = targets(reader, val, grid, progress)
    kept_gate = reader.gate if gate is None else None
    shape = tuple(len(grid[name]) for name in ("k", "sigma", "temperature", "lmbda"))
    summed = np.empty(shape)
    summed[0] = seen.base.sum(dim=1).numpy()[:, None]
    summed[1:] = seen.log_likelihood(grid["lmbda"], kept_gate)
    best = best_of(reader, flat(losses(summed, len(seen)), grid, reader), grid)
    if best.k == 0:
        if adaptive is not None or gate is not None:
            log.info("the base alone scored best: there is nothing to adapt and nothing to skip")
        if gate is not None:
            return settle(best, gate=None, skipped_=0.0)
        return best
    setting = tuple(
        int(np.searchsorted(grid[name], best.best_params_[name])) - (name == "k")
        for name in ("k", "sigma", "temperature")
    )
    if best.best_params_["sigma"] in (grid["sigma"][0], grid["sigma"][-1]) and len(grid["sigma"]) > 1:
        log.info("the best sigma, %g, is at the edge of its grid; a wider grid may do better", best.sigma)
    if adaptive is not None:
        found, measured = adaptive_lambda(seen, setting, best.lmbda, adaptive, largest_share(reader))
        best = settle(best, adaptive_=measured, **({} if found is None else {"lmbda": found}))
    if gate is not None:
        lowest, skipped = lowest_gate(seen, setting, shares_of(best.lmbda, seen), gate)
        best = settle(best, gate=lowest, skipped_=skipped)
        log.info("gate %s skips %.1f %% of the searches", lowest, 100 * skipped)
    if adaptive is not None or gate is not None:
        best.best_score_ = float(seen.per_token(setting, shares_of(best.lmbda, seen), best.gate).mean())
    return best


def settle(best: KNNLM, **changed) -> KNNLM:
    """`best` with parameters changed, in ``best_params_`` too; names that end in _ are what was measured."""
    measured = {name: value for name, value in changed.items() if name.endswith("_")}
    params = {name: value for name, value in changed.items() if name not in measured}
    other = best.with_params(**params)
    other.best_params_ = {**best.best_params_, **params}
    for name in ("best_score_", "cv_results_", "adaptive_", "skipped_"):
        if hasattr(best, name):
            setattr(other, name, getattr(best, name))
    for name, value in measured.items():
        setattr(other, name, value)
    return other
