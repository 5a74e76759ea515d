"""One table, one base, one split: the error without and with a memory, and the summary over splits."""

import numpy as np

import residua as rs
from residua.encoding.memorised import share_of_zero_residuals
from residua.errors import ParameterError
from residua.papers.intervals import mean_interval
from residua.papers.tabular.bases import bases_may_stop_early, fit
from residua.papers.tabular.data import REST, TASKS, TRAIN, split
from residua.papers.work import Work

FOLDS = 5
KINDS = ("in_sample", "out_of_fold")


def run(work: Work, *, data, bases, splits: int) -> dict:
    """Every table under every base, over random splits.

    Returns
    -------
    dict
        ``rows``: one entry per table and base with ``errors`` (name -> one per split, in %), ``gain`` (kind -> [mean,
        low, high] of base's error minus ResMem's, paired over splits), ``over_label_knn`` (likewise, of label k-NN's),
        ``out_of_fold_over_in_sample`` (likewise, of ResMem in sample minus out of fold), ``refused`` (kind -> share of
        splits where tuning chose k = 0), ``temperature`` (kind -> the median one chosen with k > 0, or None) and
        ``zero`` (mean share of in-sample residuals that are nearly zero at T = 1, in %).

    Raises
    ------
    ParameterError
        When there is less than one split.
    """
    if splits < 1:
        raise ParameterError(f"splits={splits}; expected at least 1")
    cells = [(name, base, seed) for name in data for base in bases for seed in range(splits)]
    measured = iter(work.map(measure, cells, desc="tabular"))
    rows = [_row(name, base, [next(measured) for _ in range(splits)]) for name in data for base in bases]
    return {"splits": splits, "folds": FOLDS, "rows": rows}


def measure(name: str, base: str, seed: int) -> dict:
    """Errors in % on one split's test rows: of the base, of ResMem with residuals in sample and out of fold (each tuned
    on the validation rows, k = 0 included), and of label k-NN on the same keys, tuned likewise.

    An error is the share of wrong answers, or the squared error as a share of the test targets' variance.
    """
    parts = split(name, seed)
    task = TASKS[name].task
    model = fit(base, task, *parts.train, seed)
    with bases_may_stop_early():
        remembered = {
            "in_sample": rs.encode(model, parts.train),
            "out_of_fold": rs.encode(model, parts.train, cv=FOLDS),
        }
    like = remembered["in_sample"]
    validation, test = (rs.encode(model, part, like=like) for part in (parts.validation, parts.test))
    out = {"zero": 100 * share_of_zero_residuals(like)}
    for kind, enc in remembered.items():
        best = rs.tune(rs.ResMem(rs.Memory(enc), k=1), validation, progress=False)
        # Label k-NN reads keys and labels alone, which both memories share.
        found = rs.evaluate(best, test, validation=validation if kind == "in_sample" else None, n_bootstrap=1)
        base, ours = (found.base_accuracy, found.accuracy) if task == "classification" else (found.base_mse, found.mse)
        out |= {kind: _percent(ours, task, test), f"{kind}_k": best.k, f"{kind}_temperature": best.temperature}
        if kind == "in_sample":
            out |= {"base": _percent(base, task, test), "label_knn": _percent(found.label_knn_tuned, task, test)}
    return out


def _percent(measured: float, task: str, test) -> float:
    """An accuracy or a mean squared error as an error in %."""
    if task == "classification":
        return 100 * (1 - measured)
    return 100 * measured / float(test.labels.astype(np.float64).var())


def _row(name: str, base: str, splits: list[dict]) -> dict:
    columns = {key: np.array([found[key] for found in splits], dtype=float) for key in splits[0]}
    # Splits of one table share rows; draws of a synthetic one do not.
    overlap = 0.0 if TASKS[name].drawn else (1 - TRAIN) * (1 - REST) / TRAIN
    return {
        "data": name,
        "base": base,
        "errors": {key: columns[key] for key in ("base", *KINDS, "label_knn")},
        "gain": {kind: mean_interval(columns["base"] - columns[kind], overlap) for kind in KINDS},
        "out_of_fold_over_in_sample": mean_interval(columns["in_sample"] - columns["out_of_fold"], overlap),
        "over_label_knn": {kind: mean_interval(columns["label_knn"] - columns[kind], overlap) for kind in KINDS},
        "refused": {kind: float((columns[f"{kind}_k"] == 0).mean()) for kind in KINDS},
        "temperature": {kind: _chosen(columns[f"{kind}_temperature"][columns[f"{kind}_k"] > 0]) for kind in KINDS},
        "zero": float(columns["zero"].mean()),
    }


def _chosen(temperatures: np.ndarray) -> float | None:
    return float(np.median(temperatures)) if len(temperatures) else None
