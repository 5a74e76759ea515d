"""The verb: one search, every setting, the best reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from residua.errors import EmptyMemoryError, InputError, LabelError
from residua.read import Reader
from residua.records import Encoded, batches
from residua.records.logits import as_tensor
from residua.tune.grid import full_grid
from residua.tune.objective import Tally, check_objective
from residua.tune.parallel import side_by_side
from residua.tune.sweep import Sweep


def tune(
    reader: Reader,
    val: Encoded | Iterable[Encoded],
    grid: dict[str, Sequence] | None = None,
    *,
    objective: str | None = None,
    max_fpr: float = 0.05,
    progress: bool | None = None,
) -> Reader:
    """The reader with the best settings on validation data.

    The neighbours are searched once, at the largest k; every setting of the grid is then scored from them. ``k = 0``,
    the base alone at every temperature, always competes, and wins ties: a memory that does not help is not used.

    Parameters
    ----------
    reader : Reader
        Says what is tuned: its class, memory, kernel and space.
    val : Encoded or iterable of Encoded
        Labelled rows. Where they have ids, rows of the memory with the same id are not their neighbours; without
        ids nothing is excluded, and rows that are in the memory would make every setting look too good.
    grid : dict of str to sequence, optional
        Values of ``k``, ``sigma``, ``temperature`` (and ``lmbda`` for KNNLM) that replace the defaults: k geometric
        from 1 to 500, sigma from 1/16 to 8 times the memory's typical distance (squared for the gaussian kernel),
        temperature from 0.25 to 5.
    objective : str, optional
        ``"accuracy"`` (default), ``"log_loss"`` (of ``predict_proba``), ``"conservative"`` (the most examples
        corrected, TPR, while fewer than `max_fpr` of them are broken, FPR: ResMem, section 4.1), or, for regression,
        ``"squared_error"``.
    max_fpr : float, default 0.05
        The conservative rule's bound.
    progress : bool, optional
        A progress bar; by default only on a terminal, when it takes more than two seconds.

    Returns
    -------
    Reader
        A new reader, with ``best_params_`` (dict), ``best_score_`` (float; more is better, so losses are negative) and
        ``cv_results_`` (dict of equally long arrays: the settings, ``accuracy``, ``tpr``, ``fpr``, ``log_loss`` or
        ``squared_error`` as the objective needs, and ``score``).

    Raises
    ------
    InputError, LabelError, ParameterError, EmptyMemoryError
        No rows, no labels, a grid or objective that does not fit, an empty memory.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.arange(8.0)[:, None]
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 1, 1]))
    >>> best = rs.tune(rs.ResMem(memory, k=1), rs.Encoded(keys + 0.1, np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 1, 1]))
    >>> best.best_score_, best.best_params_["k"]
    (1.0, 1)
    """
    memory = reader.memory
    if not len(memory):
        raise EmptyMemoryError("the memory is empty; add rows before tuning")
    objective = check_objective(objective, memory.task)
    grid = full_grid(reader, grid, objective)
    shape = tuple(len(grid.get(name, [None])) for name in ("k", "sigma", "temperature", "lmbda"))
    tally = Tally(shape, objective)
    at = [reader.with_params(temperature=float(t)) for t in grid["temperature"]]
    for batch in batches(val):
        reader.check(batch)
        if batch.labels is None:
            raise LabelError("the validation rows have no labels; tuning needs them")
        truth = as_tensor(batch.labels).to(memory.device)
        truth = truth.reshape(len(batch), -1) if memory.task == "regression" else truth
        right = tally.base(at, batch.logits, truth)
        if grid["k"][-1] == 0 or not len(batch):
            continue
        neighbours = memory.search(batch.keys, int(grid["k"][-1]), exclude_ids=batch.ids)
        swept = Sweep(reader, neighbours, batch.logits, grid)

        def count(part: slice, swept=swept, truth=truth, right=right) -> Tally:
            counted = Tally(shape, objective)
            for scored in swept.block(part):
                counted.add(scored, truth, right)
            return counted

        hidden = None if progress is None else not progress
        with tqdm(total=len(batch), desc="tune", unit="row", disable=hidden, delay=0 if progress else 2) as bar:
            for part, counted in side_by_side(count, swept.parts):
                tally.merge(counted)
                bar.update(part.stop - part.start)
    if not tally.rows:
        raise InputError("the validation data hold no rows")
    results = _flat(tally.results(max_fpr), grid, reader)
    chosen = int(np.argmax(results["score"]))
    params = {name: results[name][chosen].item() for name in grid}
    best = reader.with_params(**params)
    best.best_params_, best.best_score_, best.cv_results_ = params, float(results["score"][chosen]), results
    return best


def _flat(measures: dict[str, np.ndarray], grid: dict, reader: Reader) -> dict[str, np.ndarray]:
    """One row per setting, smallest k first; k = 0 has one row per temperature and keeps the reader's other values."""
    axes = np.meshgrid(*(grid.get(name, [0]) for name in ("k", "sigma", "temperature", "lmbda")), indexing="ij")
    flat = dict(zip(("k", "sigma", "temperature", "lmbda"), (axis.reshape(-1) for axis in axes)))
    out = {name: flat[name].copy() for name in grid}
    out |= {name: values.reshape(-1) for name, values in measures.items()}
    first = np.zeros(axes[0].shape, bool)
    first[0, 0, :, 0] = True
    keep = (flat["k"] > 0) | first.reshape(-1)
    for name in ("sigma", "lmbda"):
        if name in out:
            out[name][flat["k"] == 0] = getattr(reader, name)
    return {name: values[keep] for name, values in out.items()}
