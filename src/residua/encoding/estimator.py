"""A fitted scikit-learn estimator and rows become ``Encoded``; with ``cv``, by clones that never saw the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.special import logsumexp

from residua.core import ArrayLike, Encoded, Source, Task
from residua.core.source import Functions
from residua.encoding.class_weight import class_weight_of
from residua.encoding.fingerprint import source_of_estimator, warn_if_unknown
from residua.encoding.memorised import warn_if_memorised
from residua.encoding.options import Splitter
from residua.encoding.probe import answered_by, probe_of_table
from residua.encoding.sklearn import (
    FLOOR,
    class_indices,
    gives_several,
    import_sklearn,
    keys_of,
    logits_of,
    require_fitted,
)
from residua.errors import InputError, LabelError, ParameterError, TaskError


def encode_estimator(
    estimator: Any,
    data: Any,
    labels: ArrayLike | None,
    *,
    key: Callable[[Any], Any] | None,
    ids: ArrayLike | None,
    cv: int | Splitter | Iterable[Any] | None,
    task: Task | None,
    like: Source | None,
    fit_params: Mapping[str, Any] | None = None,
    groups: ArrayLike | None = None,
) -> Encoded:
    """Keys and logits of every row of X. See ``residua.encode``, and ``out_of_fold``."""
    if isinstance(data, tuple) and len(data) == 2:
        if labels is not None:
            raise ParameterError("labels= was given, and the data are a pair (X, y); pass one of the two")
        data, labels = data
    X = _rows(data)
    classifier = require_fitted(estimator)
    several = classifier and gives_several(estimator)
    found: Task = "multi-label" if several else "classification" if classifier else "regression"
    if task is not None and task != found:
        raise TaskError(f"task={task!r}, and {type(estimator).__name__} does {found}")
    key = like.functions.key if key is None and like is not None else key
    keys = keys_of(estimator, X, key=key, statistics=None if like is None else like.statistics or None)
    source = source_of_estimator(estimator, keys.name, keys.statistics)
    asked = like.probe if like is not None and like.probe is not None else probe_of_table(X)

    def answers(rows: Any) -> list[np.ndarray]:
        said = logits_of(estimator, rows)
        return [keys_of(estimator, rows, key=key, statistics=keys.statistics or None).keys, said.reshape(len(said), -1)]

    weights = class_weight_of(estimator) if found == "classification" else None
    known = {"functions": Functions(key=key), "class_weight": weights}
    source = replace(source, probe=answered_by(asked, estimator, answers), **known)
    warn_if_unknown(source, saved=bool(source.structure))
    if like is not None:
        like.require(source)
    if cv is None:
        logits = logits_of(estimator, X)
    else:
        if labels is None:
            raise LabelError(f"cv={cv!r} refits on parts of the data, and there are no labels; pass (X, y)")
        logits = out_of_fold(estimator, X, labels, cv, fit_params, groups)
    classes = getattr(labels, "columns", None)
    if found == "classification":
        classes = _words(estimator.classes_)
    if labels is not None:
        one_class = found == "classification"
        labels = class_indices(estimator, labels) if one_class else np.asarray(labels, dtype=np.float64)
    enc = Encoded(keys.keys, logits, labels, ids, source=source, task=found)
    if classes is not None and len(classes) == enc.n_outputs:
        enc.classes = tuple(map(str, classes))
    warn_if_memorised(enc, "encode held-out rows instead, or pass cv=5 for out-of-fold logits")
    return enc


def out_of_fold(
    estimator: Any,
    X: Any,
    y: Any,
    cv: int | Splitter | Iterable[Any],
    fit_params: Mapping[str, Any] | None = None,
    groups: ArrayLike | None = None,
) -> np.ndarray:
    """Logits (or predictions) of each row by a clone fitted on the folds the row is not in, `groups` being for the
    splitter. What has a value per row in the clones' `fit_params` is cut as the rows are.

    Columns are the given estimator's classes; one that a fold's training part lacks has probability 1e-7 in that fold.
    """
    sk = import_sklearn()
    if type(estimator).__name__ == "FrozenEstimator":
        raise ParameterError("cv refits clones, and a FrozenEstimator is never refitted; pass the estimator inside it")
    X, y = _rows(X), np.asarray(y)
    classifier = sk.base.is_classifier(estimator)
    try:
        splitter = sk.model_selection.check_cv(cv, y, classifier=classifier)
    except ValueError as error:
        raise ParameterError(f"cv={cv!r}; expected an int >= 2 or a splitter ({error})") from error
    columns = class_indices(estimator, y) if classifier and y.ndim == 1 else None
    out: np.ndarray | None = None
    times = np.zeros(X.shape[0], dtype=int)
    for fold, (train, test) in enumerate(_splits(splitter, X, y, groups, cv)):
        if columns is not None and len(np.unique(columns[train])) < 2:
            raise LabelError(f"fold {fold} of cv={cv!r} trains on one class alone; use fewer folds or StratifiedKFold")
        clone = sk.base.clone(estimator).fit(_at(X, train), y[train], **_rows_of(fit_params, train, len(y)))
        said = _in_columns_of(estimator, clone, logits_of(clone, _at(X, test)))
        if out is None:
            out = np.empty((len(times), *said.shape[1:]), said.dtype)
        out[test] = said
        times[test] += 1
    if out is None or (times != 1).any():
        tested = f"{int((times == 0).sum())} rows never and {int((times > 1).sum())} more than once"
        raise ParameterError(f"cv={cv!r} tests {tested}; expected each row in exactly one test fold, as with KFold")
    return out


def as_new_rows(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    enc: Encoded,
    folds: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    key: Callable[[Any], Any] | None = None,
    cv: int | Splitter | Iterable[Any] | None = None,
    fit_params: Mapping[str, Any] | None = None,
    groups: ArrayLike | None = None,
) -> Iterator[tuple[Encoded, Encoded]]:
    """What a memory and its queries would be, fold by fold: the rows that a clone of the fitted `estimator` was fitted
    on, and those that it never saw, with the keys and logits of the clone, and the labels and columns of `enc`.

    `folds` are pairs of row numbers; of `fit_params` what has a value per row is cut likewise. With `cv` the logits of
    the first are out of fold, by further clones. Rows of a group share an id.
    """
    sk, X = import_sklearn(), _rows(X)
    if isinstance(cv, Iterable) and not hasattr(cv, "split"):
        cv = len(list(cv))  # its row numbers are of all rows
    for seen, new in folds:
        own = _rows_of(fit_params, seen, len(y))
        own_groups = None if groups is None else np.asarray(groups)[seen]
        clone = sk.base.clone(estimator).fit(_at(X, seen), y[seen], **own)
        keys = keys_of(clone, _at(X, seen), key=key)
        new_keys = keys_of(clone, _at(X, new), key=key, statistics=keys.statistics or None)
        logits = (
            logits_of(clone, _at(X, seen))
            if cv is None
            else out_of_fold(clone, _at(X, seen), y[seen], cv, own, own_groups)
        )
        new_logits = _in_columns_of(estimator, clone, logits_of(clone, _at(X, new)))
        seen_part = _as_rows_of(enc[seen], keys.keys, _in_columns_of(estimator, clone, logits))
        new_part = _as_rows_of(enc[new], new_keys.keys, new_logits)
        if groups is not None:
            numbers = np.unique(groups, return_inverse=True)[1]
            seen_part.ids, new_part.ids = numbers[seen], numbers[new]
        yield seen_part, new_part


def _as_rows_of(enc: Encoded, keys: np.ndarray, logits: np.ndarray) -> Encoded:
    """The same rows with other keys and logits."""
    output: Literal["logits", "predictions"] = "logits" if enc.task == "classification" else "predictions"
    rows = Encoded(keys, logits, columns=enc.columns, task=enc.task, output=output)
    # Now: a clone may be no better than chance at the few rows that it never saw, and that is nobody's mistake.
    rows.labels = enc.labels
    return rows


def _in_columns_of(estimator: Any, clone: Any, said: np.ndarray) -> np.ndarray:
    """The clone's logits (n, classes it has seen) with a column for each class of `estimator`."""
    classes = getattr(estimator, "classes_", ())
    if said.ndim == 1 or len(getattr(clone, "classes_", ())) >= len(classes):
        return said
    floor = (logsumexp(said, axis=1, keepdims=True) + np.log(FLOOR)).astype(np.float32)
    out = np.repeat(floor, len(classes), axis=1)
    out[:, class_indices(estimator, clone.classes_)] = said
    return out


def _splits(splitter: Any, X: Any, y: np.ndarray, groups: ArrayLike | None, cv: Any) -> Iterator[Any]:
    try:
        yield from splitter.split(X, y, groups)
    except ValueError as error:
        if groups is None and "groups" in str(error):
            raise ParameterError(
                f"cv={cv!r} splits by groups ({error}); pass groups= to fit, or cv as splits"
            ) from error
        raise


def _rows_of(fit_params: Mapping[str, Any] | None, rows: np.ndarray, n: int) -> dict[str, Any]:
    """What has a value for each of n rows is cut to some of them."""
    given = (fit_params or {}).items()
    return {name: _at(value, rows) if _size(value) == n else value for name, value in given}


def _words(classes: Any) -> list[str] | None:
    """The classes' own names, or their numbers where these are not simply 0, 1, 2, …"""
    own = np.asarray(classes)
    plain = own.dtype.kind in "iufb" and np.array_equal(own, np.arange(len(own)))
    return None if plain else list(map(str, own.tolist()))


def _size(given: Any) -> int | None:
    """How many rows something has; None for what has none."""
    return None if isinstance(given, str) or not hasattr(given, "__len__") else len(given)


def _at(X: Any, rows: np.ndarray) -> Any:
    return (X.iloc if hasattr(X, "iloc") else np.asarray(X) if isinstance(X, (list, tuple)) else X)[rows]


def _rows(X: Any) -> Any:
    if hasattr(X, "iloc") or sparse.issparse(X):
        return X
    if hasattr(X, "detach"):
        X = X.detach().cpu().numpy()
    if isinstance(X, (np.ndarray, list, tuple)):
        return np.asarray(X)
    what = "an estimator takes an array, sparse matrix or DataFrame X with labels=, or a pair (X, y)"
    raise InputError(f"data is a {type(X).__name__}; {what}")
