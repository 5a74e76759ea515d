"""What labels say: one class of each row, several labels, or numbers."""

from __future__ import annotations

import logging

import numpy as np

from residua.errors import LabelError

log: logging.Logger = logging.getLogger(__name__)


def one_per_row(labels: np.ndarray, outputs: int, task: str | None) -> np.ndarray:
    """Class labels as (n,): one-hot rows (n, L) as the class they name, a column (n, 1) of whole numbers without its
    second dimension. Targets of a regression, labels that do not exclude each other (multi-hot rows, some of which name
    several or none), and what is already flat, as they are.

    ``LabelError`` for shares of classes, and for several labels of a row where there is one class each.

    Examples
    --------
    >>> one_per_row(np.eye(3)[[2, 0]], 3, None), one_per_row(np.array([[1], [0]]), 2, None)
    (array([2, 0]), array([1, 0]))
    """
    if task in ("regression", "multi-label") or labels.ndim != 2:
        return labels
    if labels.shape[1] == 1:
        return labels[:, 0] if labels.dtype.kind in "iub" or task == "classification" else labels
    if labels.shape[1] != outputs or not len(labels) or labels.dtype.kind not in "fiub":
        return labels
    binary = bool(np.isin(labels, (0, 1)).all()) and not (labels == labels.flat[0]).all()
    if binary and (labels.sum(axis=1) == 1).all():
        log.info("labels of shape %s are one-hot: the class of each row is its column that holds 1", labels.shape)
        return labels.argmax(axis=1)
    if binary and task is None:
        log.info("labels of shape %s name several of a row's labels, or none: the task is multi-label", labels.shape)
        return labels
    if binary:
        several = int((labels.sum(axis=1) != 1).sum())
        raise LabelError(
            f"{several} of {len(labels)} rows of labels name several classes or none, and task='classification' has "
            "one class each; pass task='multi-label'"
        )
    if labels.dtype.kind == "f" and labels.min() >= 0 and np.allclose(labels.sum(axis=1), 1, atol=1e-3):
        raise LabelError(
            "labels are shares of classes (each row adds up to 1); expected one class index per row: pass "
            "labels.argmax(axis=1), or task='regression' if the shares themselves are predicted"
        )
    return labels
