"""Settings from the very rows that a memory is made of, each answered as a new row would be.

A remembered row is its own nearest neighbour, and the model was fitted on it. So the rows come in folds, each with a
reader of a memory that does not answer for them: of the other folds' rows, as a model fitted on those alone sees them;
or, where the model is not fitted again, of all rows, with each row's own id left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from residua.core import Encoded, Softmax, as_tensor
from residua.core.encoded import labels_of
from residua.memory.schema import Objective
from residua.readers import KERNELS, NeighbourReader
from residua.readers.judged import Judged, groups_of
from residua.readers.reader import OWN
from residua.tuning.evidence import judged
from residua.tuning.grid import RESIDUAL_WEIGHT, swept
from residua.tuning.objective import WHY, Grid, best_of, flat, losses, plain, settled
from residua.tuning.sweep import QuickSweep, count_rows

log: logging.Logger = logging.getLogger(__name__)

# A few of each: what chance picks grows with their number.
NEIGHBOURS = 2 ** np.arange(8)
WIDTHS = 2.0 ** np.arange(-2, 4)  # multiples of each memory's typical width
TEMPERATURES = 2.0 ** np.arange(-1, 2.5, 0.5)  # multiples of the model's own
LARGEST = 32.0  # temperature of a model's own, and 1 / the smallest

N = TypeVar("N", bound=NeighbourReader)


def simulated(
    reader: N,
    folds: Sequence[tuple[N, Encoded]],
    given: Mapping[str, float],
    needed: float | None,
    *,
    in_sample: bool,
) -> N:
    """`reader` with the settings that serve its rows best, or the model alone where it is not surely worse.

    Settings are chosen by log-loss (regression: squared error) over all folds. The evidence is cross-fitted, for the
    best of many settings looks too good on the rows it was chosen on: each fold is judged under the settings that are
    best on the others, against the model at the temperature that is best on the others.

    Parameters
    ----------
    reader : NeighbourReader
        That is to be used.
    folds : sequence of (NeighbourReader, Encoded)
        Readers of the same class, kernel and space, and the labelled rows that each is asked. Rows that share an id
        belong together.
    given : dict
        Of ``k``, ``sigma`` and ``temperature`` those that are settled. A k or sigma that is given is used whatever is
        found.
    needed : float or None
        Standard errors, as ``evidence=`` of ``rs.tune``.
    in_sample : bool
        Whether the model may have learned these very rows. It then looks too unsure of them, never too sure, and the
        memory is not read at temperatures below 1; nor where the model is right on every row.

    Returns
    -------
    NeighbourReader
        With ``best_params_``, ``best_score_``, ``results_`` and ``evidence_``, as of ``rs.tune``.
    """
    regression = reader.memory.task == "regression"
    objective: Objective = "squared_error" if regression else "log_loss"
    asked, most = [rows for _, rows in folds], min(len(there.memory) for there, _ in folds) - 1
    temperatures = np.ones(1) if regression else np.union1d([1.0], TEMPERATURES * own_temperature(asked, reader))
    if "temperature" in given:
        temperatures = np.union1d(temperatures, given["temperature"])
    tables = [_swept(there, rows, _grid(there, given, most, temperatures), objective) for there, rows in folds]
    total, n = np.sum([table["score"] for table in tables], axis=0), sum(map(len, asked))
    alone, temperature = tables[0]["k"] == 0, tables[0]["temperature"]
    used = ~alone
    if "temperature" in given:
        used &= temperature == given["temperature"]
    elif not regression and (in_sample or all(map(_is_faultless, asked))):
        used &= temperature >= 1

    parts = []
    for fold, ((there, rows), table) in enumerate(zip(folds, tables)):
        own = 1.0 if regression else own_temperature(asked[:fold] + asked[fold + 1 :], reader)
        best = _best(total - table["score"], used)
        best = there.with_params(**{name: plain(table[name][best]) for name in table if name != "score"})
        bases = [there.with_params(k=0, temperature=t) for t in (1.0, own)]
        parts.append(judged([*bases, best], rows, OWN))
    joined, ids = Judged.join(parts), [rows.ids for rows in asked]
    named = None if any(part is None for part in ids) else np.concatenate([part for part in ids if part is not None])
    # Copies of rows make a leak, but many tables have them by nature: refused, and told in the evidence alone.
    found = replace(joined, groups=groups_of(named)).beyond_matches(2, 1, needed, by_accuracy=False)

    grid = _grid(reader, given, most, temperatures)
    measures = {"squared_error": -total / n, "score": total / n} if regression else losses(total, n)
    results = flat({}, grid, reader) | measures
    if needed is None:
        found = replace(found, used=bool(total[used].max() > total[alone].max()))
    if found.used or "k" in given or "sigma" in given:
        best = best_of(reader, results, grid, _best(total, used))
    else:
        unchanged = np.flatnonzero(alone & (temperature == 1))[0]
        best = settled(best_of(reader, results, grid, int(unchanged)), temperature=given.get("temperature", 1.0))
    best.evidence_ = found
    log.info("%s", found)
    return best


def own_temperature(parts: Sequence[Encoded], reader: NeighbourReader) -> float:
    """The temperature of the model alone that has the least log-loss on some rows, weighed as `reader` weighs them."""

    def loss(log_temperature: float) -> float:
        temperature, total = float(np.exp(log_temperature)), 0.0
        for rows, truth, weight in labelled:
            each = Softmax(rows.logits, temperature).log_prob(truth)
            total -= float((each if weight is None else each * weight.to(each.device)).sum())
        return total

    truths = [as_tensor(labels_of(rows, WHY)) for rows in parts]
    labelled = [(rows, truth, reader.loss_weights(rows, truth)) for rows, truth in zip(parts, truths)]
    found = minimize_scalar(loss, bounds=(-np.log(LARGEST), np.log(LARGEST)), method="bounded", options={"xatol": 0.01})
    return float(np.exp(found.x))


def _is_faultless(rows: Encoded) -> bool:
    """Whether the model is right on every row."""
    return bool((Softmax(rows.logits, 1.0).argmax() == torch.as_tensor(rows.labels)).all())


def _grid(reader: NeighbourReader, given: Mapping[str, float], most: int, temperatures: np.ndarray) -> Grid:
    """What competes, k = 0 among it."""
    k = np.array([min(int(given["k"]), most)]) if "k" in given else NEIGHBOURS[most >= NEIGHBOURS]
    if "sigma" in given:
        sigma = np.array([float(given["sigma"])])
    else:
        sigma = WIDTHS * KERNELS.get(reader.kernel).typical_sigma(reader.memory.median_nn_distance())
    grid = {"k": np.union1d([0], k), "sigma": sigma, "temperature": temperatures}
    return grid | {name: RESIDUAL_WEIGHT for name in swept(reader) if name == "residual_weight"}


def _swept(reader: NeighbourReader, rows: Encoded, grid: Grid, objective: Objective) -> dict[str, np.ndarray]:
    """The summed score of every setting on some rows."""
    sweep = QuickSweep(reader, grid, objective)
    count_rows(sweep, reader.with_params(k=1), rows, OWN, int(grid["k"][-1]), progress=False)
    return flat({"score": sweep.results(0)["score"] * len(rows)}, grid, reader)


def _best(scores: np.ndarray, among: np.ndarray) -> int:
    return int(np.argmax(np.where(among, scores, -np.inf)))
