"""What the scikit-learn estimators share: fit a base and remember its rows, predict, add, forget, tune."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import sparse

from residua.core import Encoded
from residua.encoding import encode
from residua.encoding.sklearn import keys_of, logits_of
from residua.errors import LabelError, MissingDependencyError, ParameterError
from residua.memory import Memory
from residua.readers import ResMem
from residua.tuning import tune

try:
    from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
    from sklearn.utils import check_array, get_tags
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingDependencyError(
        'residua.sklearn needs scikit-learn; install it with: pip install "residua[sklearn]"'
    ) from error

NEIGHBOURS = 50  # what k=None means, where there are as many rows


class ResMemEstimator(MetaEstimatorMixin, BaseEstimator):
    """The memory of a classifier or a regressor; ``residua.sklearn`` has the two."""

    _task: str
    _memory_params = ("index", "index_params", "device")
    _reader_params = ("sigma", "kernel")

    def fit(self, X, y, **fit_params):
        """Fit the base, unless it is frozen or a torch module, and remember these rows.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Whatever the base takes; an array or tensor for a torch module.
        y : array-like of shape (n_samples,), or (n_samples, n_outputs) for a regressor
            Class names, or targets. A torch module's classes are indices.
        **fit_params : dict
            Passed to the base's ``fit``. A ``sample_weight`` weighs the remembered rows too.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            When `k` exceeds the rows, a parameter is out of its range, or `fit_params` cannot be passed on.
        EncodeError, LabelError, NonFiniteError
            When base, labels or rows cannot be encoded (see ``residua.encode``).
        """
        X, y = self._rows(X, y, reset=True), self._targets(y)
        is_module = isinstance(self.estimator, torch.nn.Module)
        if fit_params and (is_module or self.cv is not None):
            why = "a torch module is not fitted again" if is_module else f"cv={self.cv!r} fits its clones without them"
            raise ParameterError(f"fit got {sorted(fit_params)}, and {why}; leave them out")
        self.estimator_ = self.estimator if is_module else clone(self.estimator).fit(X, y, **fit_params)
        classes = getattr(self.estimator_, "classes_", None)
        if classes is not None and len(classes) < 2:
            raise LabelError(f"y holds 1 class, {classes[0]!r}; a classifier needs at least two")
        enc = encode(self.estimator_, X, y, key=self.key, cv=self.cv, task=self._task, progress=False)
        if self._task == "classification":
            self.classes_ = np.arange(enc.n_outputs) if is_module else classes
        enc = _labelled(enc, enc.labels, fit_params.get("sample_weight"))
        self.memory_ = Memory(enc, **{name: getattr(self, name) for name in self._memory_params})
        k = min(NEIGHBOURS, len(enc)) if self.k is None else self.k
        self.reader_ = ResMem(self.memory_, k, **{name: getattr(self, name) for name in self._reader_params})
        return self

    def add(self, X, y, *, sample_weight=None) -> np.ndarray:
        """Remember more rows, at once; the base is not fitted again.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes the base knows, or targets.
        sample_weight : array-like of shape (n_samples,), optional
            Only where ``fit`` was given one, too; each row weighs 1 otherwise.

        Returns
        -------
        int64 array of shape (n_samples,)
            Ids of the new rows, for ``forget``. The rows of ``fit`` have the ids 0 ... n_samples - 1.
        """
        enc = self._encode(X)
        weighted = "weight" in self.memory_.columns
        if sample_weight is not None and not weighted:
            raise ParameterError("sample_weight for a model that was fitted without; fit it with sample_weight as well")
        if weighted and sample_weight is None:
            sample_weight = np.ones(len(enc))
        return self.memory_.add(_labelled(enc, self._encoded_targets(y), sample_weight))

    def forget(self, ids) -> int:
        """Forget remembered rows by their ids, at once; returns how many went. An unknown id raises ``IdError``."""
        check_is_fitted(self)
        return self.memory_.forget(ids)

    def tune(self, X, y, grid=None, *, objective=None):
        """Choose k, sigma and temperature on held-out rows (see ``residua.tune``); replaces ``reader_`` alone.

        Parameters
        ----------
        X, y
            Rows that are not remembered: those that are would make every setting look too good.
        grid : dict of str to sequence, optional
        objective : str, optional

        Returns
        -------
        self
            ``reader_.best_params_`` says what was chosen.
        """
        val = _labelled(self._encode(X), self._encoded_targets(y))
        self.reader_ = tune(self.reader_, val, grid, objective=objective)
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            base = get_tags(self.estimator)
            # A base that takes NaN makes no distance of it.
            allow_nan = base.input_tags.allow_nan and self.key is not None
            tags.input_tags = replace(base.input_tags, allow_nan=allow_nan, pairwise=False)
            tags.target_tags = replace(base.target_tags, required=True)
        return tags

    # --- inside -----------------------------------------------------------------------------------------------

    def _encode(self, X) -> Encoded:
        check_is_fitted(self)
        X = self._rows(X)
        if isinstance(self.estimator_, torch.nn.Module):
            return encode(self.estimator_, X, key=self.key, like=self.memory_, progress=False)
        # The base is this object's own: a fingerprint at each prediction would cost a forest more than its trees do.
        source = self.memory_.source
        keys = keys_of(self.estimator_, X, key=self.key, statistics=source.statistics or None).keys
        return Encoded(keys, logits_of(self.estimator_, X), source=source, task=self._task)

    def _rows(self, X, y="no_validation", reset: bool = False):
        """X as ``encode`` takes it, its feature names and count learned (`reset`) or checked."""
        rows = X if hasattr(X, "iloc") or sparse.issparse(X) or isinstance(X, torch.Tensor) else np.asarray(X)
        if not reset and rows.ndim == 1 and hasattr(self, "n_features_in_"):
            check_array(rows)  # raises what scikit-learn's users know: reshape your data
        # Images (n, c, h, w) for a torch module have no number of features.
        validate_data(self, X, y, reset=reset, skip_check_array=True, ensure_2d=rows.ndim <= 2)
        return rows.tocsr() if sparse.issparse(rows) else rows

    def _targets(self, y) -> np.ndarray:
        return np.asarray(y)

    def _encoded_targets(self, y) -> np.ndarray:
        return np.asarray(self._targets(y), dtype=np.float32)


def _labelled(enc: Encoded, labels, weight=None) -> Encoded:
    """The same rows with labels, and with weights where there are any."""
    columns = None if weight is None else {"weight": np.asarray(weight)}
    return Encoded(enc.keys, enc.logits, labels, columns=columns, source=enc.source, task=enc.task, head=enc.head)
