"""A fitted scikit-learn estimator and rows become ``Encoded``; with ``cv``, by clones that never saw the row."""

from __future__ import annotations

import numpy as np

from residua.core import Encoded, Source
from residua.encoding.fingerprint import source_of_estimator
from residua.encoding.folds import out_of_fold
from residua.encoding.residual import warn_if_memorised
from residua.encoding.sklearn import class_indices, keys_of, logits_of, require_fitted, rows_of
from residua.errors import LabelError, ParameterError, TaskError


def encode_estimator(
    estimator, data, labels=None, *, key=None, ids=None, cv=None, task=None, like: Source | None = None
) -> Encoded:
    """Keys and logits of every row of X. See ``residua.encode``."""
    if isinstance(data, tuple) and len(data) == 2:
        if labels is not None:
            raise ParameterError("labels= was given, and the data are a pair (X, y); pass one of the two")
        data, labels = data
    X = rows_of(data)
    classifier = require_fitted(estimator)
    found = "classification" if classifier else "regression"
    if task is not None and task != found:
        raise TaskError(f"task={task!r}, and {type(estimator).__name__} does {found}")
    statistics = None if like is None else like.statistics or None
    keys = keys_of(estimator, X, key=key, statistics=statistics)
    source = source_of_estimator(estimator, keys.name, keys.statistics)
    if like is not None:
        like.require(source)
    if cv is None:
        logits = logits_of(estimator, X)
    else:
        if labels is None:
            raise LabelError(f"cv={cv!r} refits on parts of the data, and there are no labels; pass (X, y)")
        logits = out_of_fold(estimator, X, labels, cv)
    if labels is not None:
        labels = class_indices(estimator, labels) if classifier else np.asarray(labels, dtype=np.float32)
    enc = Encoded(keys.keys, logits, labels, ids, source=source, task=found)
    warn_if_memorised(enc, "encode held-out rows instead, or pass cv=5 for out-of-fold logits", stacklevel=4)
    return enc
