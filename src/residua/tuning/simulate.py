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

from residua.core import Encoded
from residua.memory.schema import Objective
from residua.readers import KERNELS, NeighbourReader
from residua.readers.reader import OWN
from residua.tuning.evidence import Judged, groups_of, judged
from residua.tuning.objective import Grid, best_of, flat, losses, plain, settled
from residua.tuning.sweep import QuickSweep, count_rows

log: logging.Logger = logging.getLogger(__name__)

# A few of each: what chance picks grows with their number.
NEIGHBOURS = 2 ** np.arange(8)
WIDTHS = 2.0 ** np.arange(-2, 4)  # multiples of each memory's typical width
TEMPERATURES = 2.0 ** np.arange(-1, 2.5, 0.5)
COPIES = "rows that have the very key of another, and the model alone is kept; leave copies of rows out"

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
        Of ``k``, ``sigma`` and ``temperature`` those that are settled. A k that is given is used whatever is found.
    needed : float or None
        Standard errors, as ``evidence=`` of ``rs.tune``.
    in_sample : bool
        Whether the model may have learned these very rows. It then looks too unsure of them, never too sure, and the
        memory is not read at temperatures below 1.

    Returns
    -------
    NeighbourReader
        With ``best_params_``, ``best_score_``, ``results_`` and ``evidence_``, as of ``rs.tune``.
    """
    regression = reader.memory.task == "regression"
    objective: Objective = "squared_error" if regression else "log_loss"
    most = min(len(there.memory) for there, _ in folds) - 1
    tables = [_swept(there, rows, _grid(there, given, most), objective) for there, rows in folds]
    total, n = np.sum([table["score"] for table in tables], axis=0), sum(len(rows) for _, rows in folds)
    alone, temperature = tables[0]["k"] == 0, tables[0]["temperature"]
    used = ~alone
    if not regression:
        used &= temperature == given["temperature"] if "temperature" in given else temperature >= in_sample

    parts = []
    for (there, rows), table in zip(folds, tables):
        others = total - table["score"]
        made = [_at(there, table, _best(others, among)) for among in (alone, used)]
        parts.append(judged([there.with_params(k=0, temperature=1.0), *made], rows, OWN))
    copies = None if given.get("k") else COPIES
    joined, ids = Judged.join(parts), [rows.ids for _, rows in folds]
    named = None if any(part is None for part in ids) else np.concatenate([part for part in ids if part is not None])
    joined = replace(joined, groups=groups_of(named))
    found = joined.beyond_matches(2, 1, needed, False, copies, stacklevel=4)

    grid = _grid(reader, given, most)
    measures = {"squared_error": -total / n, "score": total / n} if regression else losses(total, n)
    results = flat({}, grid, reader) | measures
    if needed is None:
        found = replace(found, used=bool(total[used].max() > total[alone].max()))
    if found.used or given.get("k"):
        best = best_of(reader, results, grid, _best(total, used))
    else:
        unchanged = np.flatnonzero(alone & (temperature == 1))[0]
        best = settled(best_of(reader, results, grid, int(unchanged)), temperature=given.get("temperature", 1.0))
    best.evidence_ = found
    log.info("%s", found)
    return best


def _grid(reader: NeighbourReader, given: Mapping[str, float], most: int) -> Grid:
    """What competes, k = 0 among it; a given temperature among the others, at which the model alone competes."""
    memory = reader.memory
    k = np.array([min(int(given["k"]), most)]) if "k" in given else NEIGHBOURS[most >= NEIGHBOURS]
    grid: Grid = {"k": np.union1d([0], k)}
    if "sigma" in given:
        grid["sigma"] = np.array([float(given["sigma"])])
    else:
        grid["sigma"] = WIDTHS * KERNELS.get(reader.kernel).typical_sigma(memory.median_nn_distance())
    every = [1.0] if memory.task == "regression" else np.union1d(TEMPERATURES, given.get("temperature", 1.0))
    return grid | {"temperature": np.asarray(every)}


def _swept(reader: NeighbourReader, rows: Encoded, grid: Grid, objective: Objective) -> dict[str, np.ndarray]:
    """The summed score of every setting on some rows."""
    sweep = QuickSweep(reader, grid, objective)
    count_rows(sweep, reader.with_params(k=1), rows, OWN, int(grid["k"][-1]), progress=False)
    return flat({"score": sweep.results(0)["score"] * len(rows)}, grid, reader)


def _best(scores: np.ndarray, among: np.ndarray) -> int:
    return int(np.argmax(np.where(among, scores, -np.inf)))


def _at(reader: N, table: dict[str, np.ndarray], setting: int) -> N:
    return reader.with_params(**{name: plain(table[name][setting]) for name in ("k", "sigma", "temperature")})
