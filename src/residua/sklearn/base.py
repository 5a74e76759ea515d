"""What the two estimators share: fit a base and remember its rows, add, forget, tune."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import Tags, check_array, get_tags
from sklearn.utils.metadata_routing import MetadataRouter
from sklearn.utils.validation import check_is_fitted, validate_data

from residua.caution import warn
from residua.core import ArrayLike, Encoded, Ids, Task
from residua.encoding import encode
from residua.encoding.estimator import encode_estimator
from residua.encoding.sklearn import keys_of, logits_of
from residua.errors import LabelError, ParameterError, StorageError
from residua.evaluation import Evaluation, evaluate
from residua.explanation import Explanation, explain
from residua.fitted import fitted_reader
from residua.memory import Memory
from residua.memory.schema import Objective, Scorer
from residua.readers import NeighbourReader, ResMem
from residua.readers.evidence import Evidence
from residua.sklearn.routing import routed, router
from residua.tuning import tune


class ResMemEstimator(MetaEstimatorMixin, BaseEstimator):
    """A base and the memory of its rows."""

    estimator: Any
    k: int | None
    sigma: float | None
    index: str
    index_params: dict[str, Any] | None
    device: str
    normalise: bool
    cv: Any
    key: Any
    evidence: float | None
    estimator_: Any
    memory_: Memory
    reader_: NeighbourReader
    classes_: np.ndarray

    _task: Task
    _memory_params: tuple[str, ...] = ("index", "index_params", "device", "normalise")
    _reader_params: tuple[str, ...] = ("k", "sigma", "kernel")

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Fit the base, unless it is frozen or a torch module, and remember these rows.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Whatever the base takes; an array or tensor for a torch module.
        y : array-like of shape (n_samples,), or (n_samples, n_outputs) for a regressor
            Class names, or targets. A torch module's classes are indices.
        sample_weight : array-like of shape (n_samples,), optional
            Weighs the rows of the base (the step that predicts, in pipelines and searches) and of the memory, and the
            losses that settings are chosen by. Also as the base calls it, ``logisticregression__sample_weight``.
        groups : array-like of shape (n_samples,), optional
            For `cv`, and whatever else ``fit`` splits: rows of a group (a patient, a day) never answer for each other.
        **fit_params : dict
            For the base's ``fit``; what has a value per row is cut where clones are fitted on parts. Where
            scikit-learn's metadata routing is enabled the base gets what it requests.

        Raises
        ------
        ParameterError, EncodeError, LabelError, NonFiniteError, ShapeError

        Warns
        -----
        UserWarning
            Where the base takes no ``sample_weight``.
        """
        X, y = self._rows(X, y, reset=True), self._targets(y)
        share = routed(self, self.estimator, len(y), sample_weight, groups, fit_params, self._by_class(y))
        is_module = isinstance(self.estimator, torch.nn.Module)
        base: Any = self.estimator if is_module else clone(self.estimator)
        self.estimator_ = base if is_module else base.fit(X, y, **share.base)
        classes = getattr(self.estimator_, "classes_", None)
        # CatBoost's regressors have an empty classes_.
        if self._task == "classification" and classes is not None and len(classes) < 2:
            raise LabelError(f"y holds 1 class, {classes[0]!r}; a classifier needs at least two")
        if is_module:
            enc = encode(self.estimator_, X, y, key=self.key, cv=self.cv, task=self._task, progress=False)
        else:
            how: dict[str, Any] = {"key": self.key, "ids": None, "cv": self.cv, "task": self._task, "like": None}
            enc = encode_estimator(self.estimator_, X, y, **how, fit_params=share.base, groups=groups)
        if self._task == "classification":
            self.classes_ = np.arange(enc.n_outputs) if is_module else self.estimator_.classes_
        enc = labelled(enc, enc.labels, share.weight)
        kept = {"temperature": getattr(self, "temperature", None) or 1.0}  # for storage="top-m"
        self.memory_ = Memory(enc, **kept, **{name: getattr(self, name) for name in self._memory_params})
        self.reader_ = fitted_reader(
            self.estimator_,
            self.memory_,
            enc,
            X,
            y,
            params=self._reader_settings(),
            evidence=self.evidence,
            key=self.key,
            cv=self.cv,
            fit_params=share.base,
            groups=groups,
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
            warn(
                "fit found no evidence for a memory, so that more rows change no prediction; give k= to use it all the "
                "same, or choose settings on held-out rows with tune"
            )
        weighted = self.memory_.has_column("weight")
        if sample_weight is not None and not weighted:
            raise ParameterError("sample_weight for a model that was fitted without; fit it with sample_weight as well")
        if weighted and sample_weight is None:
            sample_weight = np.ones(len(enc))
        return self.memory_.add(labelled(enc, self._encoded_targets(y), sample_weight), new_classes=enc.new_classes)

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
        objective: Objective | str | Scorer | None = None,
    ) -> Self:
        """Choose k, sigma and temperature on held-out rows, with `grid` and `objective` as in ``residua.tune``.

        Rows of `X` that are remembered would make every setting look too good. ``reader_`` is replaced, and what was
        chosen becomes this object's own parameters, so that ``get_params`` and clones have it (k = 0: no memory).
        Returns self.
        """
        val = labelled(self._encode(X), self._encoded_targets(y))
        reader = self.reader_
        if not isinstance(reader, ResMem):
            reader = ResMem(self.memory_, **{name: v for name, v in self._reader_settings().items() if v is not None})
        self.reader_ = tune(reader, val, grid, objective=objective)
        tuned = {name: value for name, value in self.reader_.best_params_.items() if name in self._reader_params}
        return self.set_params(**tuned)

    def evaluate(self, X: Any, y: Any, **options: Any) -> Evaluation:
        """Compare this model with its base alone on rows that neither has seen, with the options of
        ``residua.evaluate``."""
        return evaluate(self.reader_, labelled(self._encode(X), self._encoded_targets(y)), **options)

    def explain(self, X: Any, y: Any = None) -> list[Explanation]:
        """Of each row of `X`, which remembered rows moved its prediction, and by how much (``residua.explain``).

        Ids are those that ``fit`` (row numbers) and ``add`` gave; ``why.to_frame(model.classes_)`` names classes.
        """
        enc = self._encode(X)
        rows = enc if y is None else labelled(enc, self._encoded_targets(y))
        return [explain(self.reader_, rows[row]) for row in range(len(rows))]

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """The nearest remembered rows of each row, as scikit-learn's neighbours give them.

        Parameters
        ----------
        X : as for ``predict``, optional
            None: every remembered row, whose neighbours then are others.
        n_neighbors : int, optional
            None: as many as predictions read, or 5 where these read none.
        return_distance : bool, default True

        Returns
        -------
        distances, ids
            float32 and int64 (n_samples, n_neighbors), nearest first: distances between keys, and the ids that ``fit``
            (row numbers) and ``add`` gave. The ids alone without `return_distance`.
        """
        check_is_fitted(self)
        memory, own = self.memory_, None
        keys = self._encode(X).keys if X is not None else memory.keys
        if keys is None:
            raise StorageError("this memory's keys were discarded; pass X")
        if X is None:
            own = memory.ids
        most = len(memory) - (X is None)
        count = min(self.reader_.k or 5, most) if n_neighbors is None else n_neighbors
        if not 1 <= count <= most:
            raise ParameterError(f"n_neighbors={count}; expected 1 to {most}, as many as there are to find")
        found = memory.search(keys, count, exclude=own)
        ids = memory.column("id")[found.rows].cpu().numpy()
        return (found.distances.cpu().numpy(), ids) if return_distance else ids

    def relabel(self, ids: Ids, y: Any) -> int:
        """Give remembered rows, by ids, other classes (names out of ``classes_``) or targets, at once; returns how
        many changed."""
        check_is_fitted(self)
        return self.memory_.relabel(ids, self._encoded_targets(y))

    @property
    def best_params_(self) -> dict[str, Any]:
        """The settings that are used, given or found: ``k``, ``sigma`` (of ``Pooled`` ``widths``) and, for classes,
        ``temperature``."""
        check_is_fitted(self)
        known = set(self.reader_.parameter_names()) & {"widths", *self._reader_params}
        return {name: getattr(self.reader_, name) for name in ("k", "sigma", "widths", "temperature") if name in known}

    @property
    def evidence_(self) -> Evidence | None:
        """How surely the memory is better than the base alone, and whether it is used; None where nothing was asked:
        ``k=0``, too few rows, or all settings given and ``evidence=None``."""
        check_is_fitted(self)
        return getattr(self.reader_, "evidence_", None)

    def get_metadata_routing(self) -> MetadataRouter:
        """Who asks for what, where scikit-learn's metadata routing is enabled: the base's ``fit``."""
        return router(self)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            base = get_tags(self.estimator)
            tags.input_tags = replace(base.input_tags, pairwise=False)
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

    def _reader_settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._reader_params}

    def _by_class(self, y: np.ndarray) -> np.ndarray | None:
        """What rows weigh by their class, if this model is told (n,)."""
        return None

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
