"""The verb: one search, every setting, the best reader."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from residua.core import Encoded, batches
from residua.errors import EmptyMemoryError, ParameterError
from residua.memory.schema import Objective, Scorer
from residua.readers import ContinuousCache, Distilled, Edited, NeighbourReader, Reader, ResMem
from residua.readers.evidence import USUAL
from residua.readers.judged import check_evidence
from residua.readers.reader import OWN, Exclude, of_one_moment
from residua.tuning.budget import check_budget, quickest, seconds_per_row
from residua.tuning.cache import CacheSweep
from residua.tuning.evidence import from_counts, proven
from residua.tuning.exponent import WEIGHTS, ExponentSweep
from residua.tuning.grid import SWEPT, full_grid, largest_share
from residua.tuning.likelihood import Interpolation
from residua.tuning.objective import OBJECTIVES, best_of, flat, settled
from residua.tuning.refine import check_tolerance, refined, skippable
from residua.tuning.scorer import ScorerSweep
from residua.tuning.student import StudentSweep
from residua.tuning.sweep import QuickSweep, SlowSweep, count_rows, is_plain

log: logging.Logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Reader)


@of_one_moment
def tune(
    reader: R,
    validation: Encoded | Iterable[Encoded],
    grid: Mapping[str, Iterable[Any] | float] | None = None,
    *,
    objective: Objective | str | Scorer | None = None,
    exclude: Exclude = OWN,
    max_fpr: float = 0.05,
    adaptive: int | None = None,
    skip: float | None = None,
    budget: float | None = None,
    evidence: float | None = USUAL,
    progress: bool | None = None,
) -> R:
    """The reader with the best settings on validation data, or the model alone where a memory is not surely better.

    The neighbours are searched once, at the largest k; every setting is scored from them, block by block. ``k = 0``,
    the model alone, always competes, and wins ties; the memory is used only where it is better beyond doubt, as
    `evidence` says. Settings that score alike are told apart by their log-loss.

    Readers that weigh by a kernel are swept in one pass: an interpolation tuned for log-loss from what is said of the
    true classes alone (no vocabulary-wide table is made), others densely. In the exponent k and sigma are swept (of T 1
    and that of the model alone), and ``base_weight`` and ``residual_weight`` are fitted to each setting by log-loss; of
    a text ``residual_weight`` is swept from 1 to 16. A reader with weights of its own, and a grid with other
    parameters, is swept setting after setting by its own arithmetic: exact and slower.

    Parameters
    ----------
    reader : Reader
        Whose class, memory, kernel and space are kept. Of one that was edited, the reader under the edits is tuned.
    validation : Encoded or iterable of Encoded
        Labelled rows, not in the memory: rows that are would make every setting look too good.
    grid : dict of str to sequence, optional
        Values of any of the reader's parameters, which replace the defaults: k geometric from 1 to 500, sigma from 1/16
        to 8 times the memory's median nearest-neighbour distance (squared for the gaussian kernel), temperature from
        0.25 to 5, lmbda from 0.05 to 1. For a memory of text: k doubling from 1 to 1024, sigma from 1/8 to 32 times,
        lmbda from 0.05 to 0.95, temperature from 0.7 to 1.5. ContinuousCache: ``theta``, ``window`` and ``lmbda``, over
        the reader it holds, which stays as it is. Distilled: its share, ``lmbda`` or ``gamma``, at the temperature it
        has.
    objective : str or callable, optional
        ``"accuracy"``, ``"log_loss"`` (of ``predict_proba``), ``"conservative"`` (the most examples corrected, TPR,
        while fewer than `max_fpr` of them are broken, FPR: ResMem, section 4.1), or, for regression,
        ``"squared_error"``. By default log-loss, of which chance picks less than of accuracy. Or any scorer of
        scikit-learn's, by its name (``"balanced_accuracy"``, ``"f1_macro"``, ``"roc_auc"``) or as a function
        ``(estimator, X, y)``, where more is better and classes are indices: slower, so that fewer settings compete.
    exclude : "own", None, or int array of shape (n,) or (n, m)
        Ids whose rows are not neighbours of each row: by default its own, where the data came with ids.
    max_fpr : float, default 0.05
    adaptive : int, optional
        KNNLM: fit a share ``lmbda`` for each of so many buckets of the nearest neighbour's distance, on every other
        document (rows that share an id; else every other row); used if it has the lower perplexity on those between
        (the log says which). ``best.adaptive_`` holds both perplexities.
    skip : float, optional
        Find the lowest ``skip`` (rows of which the base is at least that sure are not searched) that costs at most this
        relative loss of perplexity, such as 0.005. ``best.skipped_`` is the share of searches saved.
    budget : float, optional
        Take the quickest setting whose perplexity is at most this share above the best one's, such as 0.01: fewer
        neighbours, and searches skipped, as `skip` does, with what they leave of it. ``best.costs_`` holds the seconds
        that a row takes to search and answer under each k of the grid, measured here, on as many threads: another
        machine may choose otherwise.
    evidence : float or None, default 1.96
        How sure the gain must be on the validation rows, in standard errors of its paired differences (by document, or
        whatever rows share an id). With ``"log_loss"`` the mean loss must be so far below that of the model at its own
        best temperature; with the squared error, below the model's; with ``"accuracy"`` and ``"conservative"`` the
        accuracy must be better at that level by McNemar's exact test, and the log-loss not so far above the model's.
        Else k is 0, and T is 1 unless another temperature has that evidence of its own. A model that is right on every
        row is kept as it is: whatever is surer would look better. A cache must be that much better than the reader it
        is over, else ``lmbda`` is 0. ``best.evidence_`` holds the numbers. None: the best setting is used, whatever
        chance had to do with it.
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.

    Returns
    -------
    Reader
        A new one with ``best_params_`` (dict), ``best_score_`` (more is better, so losses are negative) and
        ``results_`` (dict of equally long arrays: the settings, ``accuracy``, ``tpr``, ``fpr``, ``log_loss``,
        ``perplexity`` or ``squared_error`` as the objective needs, and ``score``).

    Raises
    ------
    InputError, LabelError, ParameterError, EmptyMemoryError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.arange(8.0)[:, None]
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 1, 1]))
    >>> validation = rs.Encoded(keys + 0.1, np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 1, 1])
    >>> best = rs.tune(rs.ResMem(memory, k=1), validation, objective="accuracy", evidence=None)
    >>> best.best_score_, best.best_params_["k"], best.evidence_.p_value
    (1.0, 1, 0.125)
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.ResMem(memory)")
    if isinstance(reader, Edited):  # whose edits stay as they are
        options: dict[str, Any] = dict(adaptive=adaptive, skip=skip, budget=budget, evidence=evidence)
        options |= dict(objective=objective, exclude=exclude, max_fpr=max_fpr, progress=progress)
        under = tune(reader.over, validation, grid, **options)
        best = reader.with_params(over=under)
        vars(best).update({name: value for name, value in vars(under).items() if name.endswith("_")})
        return best
    if isinstance(reader, ContinuousCache):
        if objective not in (None, "log_loss") or (adaptive, skip, budget) != (None, None, None):
            says = "a ContinuousCache is tuned for log_loss alone; adaptive=, skip= and budget= tune the one under it"
            raise ParameterError(says)
        sweep = CacheSweep(reader, grid)
        check_evidence(evidence)
        seen = count_rows(sweep, reader.over, validation, exclude, 0, progress)
        best = sweep.proven(reader, evidence)
        best.tuned_on_ = seen
        log.info("%s", best.evidence_)
        return best
    if isinstance(reader, Distilled):
        if (adaptive, skip, budget) != (None, None, None):
            raise ParameterError("adaptive=, skip= and budget= are about searches, and a student has none")
        check_evidence(evidence)
        shares = StudentSweep(reader, grid, objective or "log_loss")
        seen = count_rows(shares, reader, validation, exclude, 1, progress)
        taught = shares.proven(evidence)
        taught.tuned_on_ = seen
        log.info("%s", taught.evidence_)
        return cast(R, taught)
    if hasattr(reader, "fit"):
        raise ParameterError(f"a {type(reader).__name__} is fitted: call its fit(validation), which needs no grid")
    if not isinstance(reader, NeighbourReader):
        raise ParameterError(f"{type(reader).__name__} searches no neighbours, and tune knows no other settings")
    memory = reader.memory
    if not len(memory):
        raise EmptyMemoryError("the memory is empty; add rows before tuning")
    likely = adaptive is not None or skip is not None or budget is not None  # which are about likelihood
    objective = objective or ("squared_error" if memory.task == "regression" else "log_loss")
    check_evidence(evidence)
    by_scorer = objective not in OBJECTIVES[memory.task]
    check_budget(budget, objective)
    if budget is not None and skip is not None:
        raise ParameterError("budget= skips searches with what it has left; give it, or skip=, not both")
    if likely and objective != "log_loss":
        raise ParameterError(f"adaptive= and skip= are judged by log_loss, and objective={objective!r} was asked for")
    if skip is not None:
        check_tolerance(skip)
    if skip is not None or budget is not None:
        reader = reader.searching_all()
    full = full_grid(reader, grid, objective)
    quick = Interpolation.serves(reader, full, objective)
    sweep: Any
    if adaptive is not None and not quick:
        raise ParameterError(
            "adaptive= fits the share of an interpolation such as KNNLM, with lmbda from 0 to 1 - epsilon = "
            f"{largest_share(reader):g}: beyond it, a class that no neighbour has is all but impossible"
        )
    if quick:
        sweep = Interpolation(reader, full)
    elif isinstance(reader, ResMem) and ExponentSweep.serves(reader, grid, objective):
        full.pop("residual_weight")
        sweep = ExponentSweep(reader, full, cast(Objective, objective), "temperature" not in (grid or {}))
    elif by_scorer:
        sweep = ScorerSweep(reader, full, objective)
    else:
        at_once = {"k", "sigma", "temperature"} <= set(full) <= set(SWEPT) and is_plain(reader)
        sweep = (QuickSweep if at_once else SlowSweep)(reader, full, cast(Objective, objective))
    # What scored best is read again, but where all that it takes is kept.
    if iter(validation) is validation and (budget is not None or not (quick and from_counts(full, exclude))):
        validation = list(batches(validation))
    # Of the searching reader only the neighbours are read, as many as the largest k.
    searching = reader.searching_all().with_params(k=1)
    seen = count_rows(sweep, searching, validation, exclude, int(full["k"][-1]), progress)
    results = flat(sweep.results(max_fpr), full, reader)
    full |= {name: results[name] for name in WEIGHTS if name in results}
    picked, costs = None, dict[int, float]()
    if budget is not None and len(full["k"]) > 1:
        above = np.where(results["k"] > 0, results["score"], -np.inf)
        costs = seconds_per_row(best_of(reader, results, full, int(np.argmax(above))), validation, full)

        def saved(setting: int, score: float) -> float:
            params = {name: results[name][setting] for name in full}
            return skippable(sweep, params, score) if quick else 0.0

        picked = quickest(results, budget, costs, saved)
    best = proven(reader, results, full, objective, sweep, validation, exclude, evidence, picked)
    best.tuned_on_ = seen
    log.info("%s", best.evidence_)
    if budget is not None and best.k:
        best.costs_ = costs
        skip = float(np.expm1(max(0.0, best.best_score_ - results["score"].max() + np.log1p(budget))))
    if likely and best.k:
        return refined(best, sweep if isinstance(sweep, Interpolation) else None, validation, exclude, adaptive, skip)
    if likely:
        log.info("the base alone is used: there is nothing to adapt and nothing to skip")
    return best if skip is None and budget is None else settled(best, skip=None, skipped_=0.0)
