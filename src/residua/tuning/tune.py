"""The verb: one search, every setting, the best reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tqdm import tqdm

from residua.core import Encoded, batches
from residua.core.logits import as_tensor
from residua.errors import EmptyMemoryError, InputError, LabelError, ParameterError
from residua.readers import KNNLM, ContinuousCache, Reader
from residua.tuning.cache import tune_cache
from residua.tuning.grid import full_grid
from residua.tuning.language import tune_tokens
from residua.tuning.objective import Tally, check_objective
from residua.tuning.parallel import side_by_side
from residua.tuning.results import best_of, flat
from residua.tuning.sweep import Sweep


def tune(
    reader: Reader,
    val: Encoded | Iterable[Encoded],
    grid: dict[str, Sequence] | None = None,
    *,
    objective: str | None = None,
    max_fpr: float = 0.05,
    adaptive: int | None = None,
    gate: float | None = None,
    progress: bool | None = None,
) -> Reader:
    """The reader with the best settings on validation data.

    The neighbours are searched once, at the largest k; every setting of the grid is then scored from them. ``k = 0``,
    the base alone at every temperature, always competes, and wins ties: a memory that does not help is not used.

    On a memory of tokens, KNNLM and ContinuousCache are tuned for perplexity, from what is said of the tokens that
    came alone: no vocabulary-wide table is made, and a token costs about 400 bytes with the default grid. Documents
    that are in the memory are not their own neighbours: they are left out whole, by id. ResMem, and any other
    objective, is swept densely there: for some thousands of tokens, not more.

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
        temperature from 0.25 to 5. For tokens: k doubling from 1 to 1024, sigma from 1/8 to 32 times, lmbda from 0.05
        to 0.95, temperature from 0.7 to 1.5. ContinuousCache: ``theta``, ``window`` and ``lmbda``, over the reader it
        holds, which stays as it is.
    objective : str, optional
        ``"accuracy"`` (default), ``"log_loss"`` (of ``predict_proba``; the default for tokens), ``"conservative"`` (the
        most examples corrected, TPR, while fewer than `max_fpr` of them are broken, FPR: ResMem, section 4.1), or, for
        regression, ``"squared_error"``.
    max_fpr : float, default 0.05
        The conservative rule's bound.
    adaptive : int, optional
        KNNLM on tokens: fit a share ``lmbda`` for each of so many buckets of the nearest neighbour's distance, on every
        other validation document; used if it has the lower perplexity on the documents between (the log says which).
        ``best.adaptive_`` holds both perplexities.
    gate : float, optional
        KNNLM on tokens: find the lowest ``gate`` (tokens of which the base is at least that sure are not searched) that
        costs at most this relative loss of perplexity, such as 0.005. ``best.skipped_`` is the share of searches saved.
    progress : bool, optional
        A progress bar; by default only on a terminal, when it takes more than two seconds.

    Returns
    -------
    Reader
        A new reader, with ``best_params_`` (dict), ``best_score_`` (float; more is better, so losses are negative) and
        ``cv_results_`` (dict of equally long arrays: the settings, ``accuracy``, ``tpr``, ``fpr``, ``log_loss`` or
        ``squared_error`` as the objective needs, ``perplexity`` for tokens, and ``score``).

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
    if isinstance(reader, ContinuousCache):
        if objective not in (None, "log_loss") or adaptive is not None or gate is not None:
            raise ParameterError(
                "a ContinuousCache is tuned for log_loss alone; adaptive= and gate= tune the KNNLM under it, before"
            )
        return tune_cache(reader, val, grid, progress)
    if not len(memory):
        raise EmptyMemoryError("the memory is empty; add rows before tuning")
    objective = check_objective(objective, memory.task, memory.of_tokens)
    if memory.of_tokens and objective == "log_loss" and isinstance(reader, KNNLM):
        return tune_tokens(reader, val, grid, adaptive, gate, progress)
    if adaptive is not None or gate is not None:
        raise ParameterError(
            "adaptive= and gate= tune a KNNLM on a memory of tokens for log_loss; "
            f"this is {type(reader).__name__} on {memory!r} for {objective}"
        )
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
    return best_of(reader, flat(tally.results(max_fpr), grid, reader), grid)
