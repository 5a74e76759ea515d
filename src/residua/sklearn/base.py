"""What the two estimators share: fit a base and remember its rows, add, forget, tune."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import Tags, check_array, get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

from residua.core import ArrayLike, Encoded, Ids, Task
from residua.encoding import encode
from residua.encoding.sklearn import keys_of, logits_of
from residua.errors import LabelError, ParameterError
from residua.fitted import fitted_reader
from residua.memory import Memory
from residua.memory.schema import Objective
from residua.readers import ResMem
from residua.readers.evidence import Evidence
from residua.tuning import tune


class ResMemEstimator(MetaEstimatorMixin, BaseEstimator):
    """A base and the memory of its rows."""

    estimator: Any
    k: int | None
    cv: Any
    key: Any
    evidence: float | None
    estimator_: Any
    memory_: Memory
    reader_: ResMem
    classes_: np.ndarray

    _task: Task
    _memory_params: tuple[str, ...] = ("index", "index_params", "device")
    _reader_params: tuple[str, ...] = ("k", "sigma", "kernel")

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit the base, unless it is frozen or a torch module, and remember these rows.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Whatever the base takes; an array or tensor for a torch module.
        y : array-like of shape (n_samples,), or (n_samples, n_outputs) for a regressor
            Class names, or targets. A torch module's classes are indices.
        **fit_params : dict
            Passed to the base's ``fit``. A ``sample_weight`` weighs the remembered rows too.

        Raises
        ------
        ParameterError, EncodeError, LabelError, NonFiniteError
        """
        X, y = self._rows(X, y, reset=True), self._targets(y)
        is_module = isinstance(self.estimator, torch.nn.Module)
        if fit_params and (is_module or self.cv is not None):
            why = "a torch module is not fitted again" if is_module else f"cv={self.cv!r} fits its clones without them"
            raise ParameterError(f"fit got {sorted(fit_params)}, and {why}; leave them out")
        base: Any = self.estimator if is_module else clone(self.estimator)
        self.estimator_ = base if is_module else base.fit(X, y, **fit_params)
        classes = getattr(self.estimator_, "classes_", None)
        # CatBoost's regressors have an empty classes_.
        if self._task == "classification" and classes is not None and len(classes) < 2:
            raise LabelError(f"y holds 1 class, {classes[0]!r}; a classifier needs at least two")
        enc = encode(self.estimator_, X, y, key=self.key, cv=self.cv, task=self._task, progress=False)
        if self._task == "classification":
            self.classes_ = np.arange(enc.n_outputs) if is_module else self.estimator_.classes_
        enc = labelled(enc, enc.labels, fit_params.get("sample_weight"))
        kept = {"temperature": getattr(self, "temperature", None) or 1.0}  # for storage="top-m"
        self.memory_ = Memory(enc, **kept, **{name: getattr(self, name) for name in self._memory_params})
        self.reader_ = fitted_reader(
            self.estimator_,
            self.memory_,
            enc,
            X,
            y,
            params={name: getattr(self, name) for name in self._reader_params},
            evidence=self.evidence,
            key=self.key,
            cv=self.cv,
            fit_params=fit_params,
        )
        return self

    def add(self, X: Any, y: Any, *, sample_weight: ArrayLike | None = None) -> np.ndarray:
        """Remember more rows, at once; the base is not fitted again.

        Parameters
        ----------
        X, y
            As in ``fit``; classes the base knows.
        sample_weight : array-like of shape (n_samples,), optional
            Only where ``fit`` was given one, too; each row weighs 1 otherwise.

        Returns
        -------
        int64 array of shape (n_samples,)
            Ids of the new rows, for ``forget``. The rows of ``fit`` have the ids 0 ... n_samples - 1.

        Warns
        -----
        UserWarning
            Where ``fit`` found no evidence for a memory: more rows then change no prediction.
        """
        enc = self._encode(X)
        if self.reader_.k == 0 and self.k != 0:
            warnings.warn(
                "fit found no evidence for a memory, so that more rows change no prediction; give k= to use it all the "
                "same, or choose settings on held-out rows with tune",
                stacklevel=2,
            )
        weighted = self.memory_.has_column("weight")
        if sample_weight is not None and not weighted:
            raise ParameterError("sample_weight for a model that was fitted without; fit it with sample_weight as well")
        if weighted and sample_weight is None:
            sample_weight = np.ones(len(enc))
        return self.memory_.add(labelled(enc, self._encoded_targets(y), sample_weight))

    def forget(self, ids: Ids) -> int:
        """Forget remembered rows by their ids, at once; returns how many went. An unknown id raises ``IdError``."""
        check_is_fitted(self)
        return self.memory_.forget(ids)

    def tune(
        self,
        X: Any,
        y: Any,
        grid: Mapping[str, Iterable[Any] | float] | None = None,
        *,
        objective: Objective | None = None,
    ) -> Self:
        """Choose k, sigma and temperature on held-out rows, with `grid` and `objective` as in ``residua.tune``.

        Rows of `X` that are remembered would make every setting look too good. Replaces ``reader_`` alone, whose
        ``best_params_`` say what was chosen; returns self.
        """
        val = labelled(self._encode(X), self._encoded_targets(y))
        self.reader_ = tune(self.reader_, val, grid, objective=objective)
        return self

    @property
    def best_params_(self) -> dict[str, Any]:
        """The settings that are used, given or chosen: ``k``, ``sigma`` and, for classes, ``temperature``."""
        check_is_fitted(self)
        return {name: getattr(self.reader_, name) for name in ("k", "sigma", "temperature") if hasattr(self, name)}

    @property
    def evidence_(self) -> Evidence | None:
        """How surely the memory is better than the base alone, and whether it is used; None where nothing was asked:
        ``k=0``, too few rows, or all settings given and ``evidence=None``."""
        check_is_fitted(self)
        return getattr(self.reader_, "evidence_", None)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            base = get_tags(self.estimator)
            allow_nan = base.input_tags.allow_nan and self.key is not None  # between keys with NaN there is none
            tags.input_tags = replace(base.input_tags, allow_nan=allow_nan, pairwise=False)
            tags.target_tags = replace(base.target_tags, required=True)
        return tags

    def _encode(self, X: Any) -> Encoded:
        check_is_fitted(self)
        X = self._rows(X)
        if isinstance(self.estimator_, torch.nn.Module):
            return encode(self.estimator_, X, key=self.key, like=self.memory_, progress=False)
        # The base is this object's own: a fingerprint at each prediction would cost a forest more than its trees do.
        return Encoded(self._keys(X), logits_of(self.estimator_, X), source=self.memory_.source, task=self._task)

    def _keys(self, rows: Any) -> np.ndarray:
        """The keys of rows, by an estimator."""
        source = self.memory_.source
        statistics = None if source is None else source.statistics or None
        return keys_of(self.estimator_, rows, key=self.key, statistics=statistics).keys

    def _model_alone(self, method: str, X: Any) -> np.ndarray | None:
        """What the base itself says, where the memory has no say; None where it has, or the base has no such method."""
        check_is_fitted(self)
        if not self.reader_.is_base or not hasattr(self.estimator_, method):
            return None
        rows = self._rows(X)
        self._keys(rows)  # what a memory refuses is refused without one, too
        return getattr(self.estimator_, method)(rows)

    def _rows(self, X: Any, y: Any = "no_validation", reset: bool = False) -> Any:
        """X as ``encode`` takes it, its feature names and count learned (`reset`) or checked."""
        rows: Any = X if _is_table(X) else np.asarray(X)
        if not reset and rows.ndim == 1 and hasattr(self, "n_features_in_"):
            check_array(rows)  # raises what scikit-learn's users know: reshape your data
        # Images (n, c, h, w) for a torch module have no number of features.
        validate_data(self, X, y, reset=reset, skip_check_array=True, ensure_2d=rows.ndim <= 2)
        return rows.tocsr() if sparse.issparse(rows) else rows

    def _targets(self, y: Any) -> np.ndarray:
        return np.asarray(y)

    def _encoded_targets(self, y: Any) -> np.ndarray:
        return np.asarray(self._targets(y), dtype=np.float64)


def _is_table(X: Any) -> bool:
    return hasattr(X, "iloc") or sparse.issparse(X) or isinstance(X, torch.Tensor)


def labelled(enc: Encoded, labels: ArrayLike | None, weight: ArrayLike | None = None) -> Encoded:
    """The same rows with labels, and with weights where there are any."""
    columns = None if weight is None else {"weight": np.asarray(weight)}
    return Encoded(enc.keys, enc.logits, labels, columns=columns, source=enc.source, task=enc.task, head=enc.head)
