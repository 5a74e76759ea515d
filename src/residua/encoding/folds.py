"""Out-of-fold logits: what the estimator says of a row when it was not fitted on it."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from residua.encoding.sklearn import FLOOR, class_indices, import_sklearn, logits_of, rows_of
from residua.errors import LabelError, ParameterError


def out_of_fold(estimator, X, y, cv) -> np.ndarray:
    """Logits (or predictions) of each row by a clone fitted on the folds the row is not in, float32.

    `cv` is an int or a splitter, as in ``sklearn.model_selection.cross_val_predict``. Columns are the given
    estimator's classes; a class that a fold's training part lacks has the probability 1e-7 in that fold.

    Raises
    ------
    ParameterError
        When the folds do not test every row exactly once, or the estimator is frozen and cannot be refitted.
    LabelError
        When a fold's training part holds a single class, or labels are not the estimator's classes.
    """
    sk = import_sklearn()
    if type(estimator).__name__ == "FrozenEstimator":
        raise ParameterError("cv refits clones, and a FrozenEstimator is never refitted; pass the estimator inside it")
    X, y = rows_of(X), np.asarray(y)
    classifier = sk.base.is_classifier(estimator)
    try:
        splitter = sk.model_selection.check_cv(cv, y, classifier=classifier)
    except ValueError as error:
        raise ParameterError(f"cv={cv!r}; expected an int >= 2 or a splitter ({error})") from error
    columns = class_indices(estimator, y) if classifier else None
    n = X.shape[0]
    out, times = None, np.zeros(n, dtype=int)
    for fold, (train, test) in enumerate(splitter.split(X, y)):
        if classifier and len(np.unique(columns[train])) < 2:
            raise LabelError(f"fold {fold} of cv={cv!r} trains on one class alone; use fewer folds or StratifiedKFold")
        clone = sk.base.clone(estimator).fit(_take(X, train), y[train])
        said = logits_of(clone, _take(X, test))
        if classifier:
            said = _scatter(said, class_indices(estimator, clone.classes_), len(estimator.classes_))
        if out is None:
            out = np.empty((n, *said.shape[1:]), dtype=np.float32)
        out[test] = said
        times[test] += 1
    if out is None or (times != 1).any():
        raise ParameterError(
            f"cv={cv!r} tests {int((times == 0).sum())} rows never and {int((times > 1).sum())} more than "
            "once; expected each row in exactly one test fold, as with KFold"
        )
    return out


def _take(X, rows):
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _scatter(logits: np.ndarray, columns: np.ndarray, n_classes: int) -> np.ndarray:
    if len(columns) == n_classes:
        return logits
    floor = logsumexp(logits, axis=1, keepdims=True) + np.log(FLOOR)
    out = np.repeat(floor.astype(np.float32), n_classes, axis=1)
    out[:, columns] = logits
    return out
