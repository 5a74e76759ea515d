"""The classifier."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags, column_or_1d, compute_sample_weight, get_tags
from sklearn.utils.validation import check_is_fitted

from residua.core import ArrayLike, Encoded
from residua.core.probabilities import TINY
from residua.encoding.sklearn import class_indices
from residua.errors import LabelError, ParameterError
from residua.memory.storage import StorageName
from residua.readers import Kernel
from residua.readers.evidence import LIKELY
from residua.readers.neighbour import KernelName
from residua.readers.resmem import Space
from residua.sklearn.base import ResMemEstimator


class ResMemClassifier(ClassifierMixin, ResMemEstimator):
    """A classifier corrected by its nearest training rows: by ``Pooled``, or as ResMem is (arXiv 2302.01576, eq. 7-8).

    ``fit`` finds how much the memory is to say, and uses it only where that is better than the base; elsewhere
    predictions are the base's own. It needs no held-out rows: each of five folds is answered by a clone of the base
    that was fitted on the other four, and remembers these; the six fits are most of the cost. A base that is not fitted
    (frozen, or a torch module) answers each row without that row in its memory. Under 200 rows, or under 50 of a class,
    nothing is found and the base is used. Give k, sigma, temperature or space, and the reader is ``ResMem``, whose
    other settings are chosen in the same way.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module
        The base. Cloned and fitted, unless it is a ``FrozenEstimator`` or a (trained) torch module.
    k : int, optional
        Neighbours; 0 is the base alone. None: 200 of ``Pooled``, chosen for ``ResMem``, 0 without evidence. A k or
        sigma that is given is used, whatever the evidence.
    sigma : float, optional
        Kernel width, a distance between keys (squared for ``kernel="gaussian"``). None: chosen by ``fit``; where it
        has too few rows, the median distance from a row to its nearest other one.
    temperature : float, optional
        The base softmax's T. None: chosen by ``fit``; 1 without a memory, or with too few rows.
    kernel : {"exponential", "gaussian"}, default "exponential"
    space : {"probabilities", "exponent"}, optional
        Where ``ResMem`` adds residuals.
    cv : int or splitter, optional
        Residuals of each row from a clone fitted on the other folds, ``cv=5`` for instance: for a base that
        memorises its training rows, such as a tree, whose own residuals are zero.
    key : callable or str, optional
        ``key(X)`` gives the vectors (n, d) between which distances are measured; by default the last hidden layer of
        an ``MLP*``, else the standardised input of the last step. For a torch module, a module's name.
    index : str, default "exact"
        ``"exact"``, ``"auto"`` or a FAISS factory string.
    index_params : dict, optional
        FAISS's search parameters, such as ``{"nprobe": 64}``.
    storage : {"full", "head", "top-m"}, default "full"
        What is kept of the base's logits (see ``residua.Memory``).
    device : str, default "cpu"
    normalise : bool, default False
        Compare keys by their cosine (see ``residua.Memory``).
    evidence : float or None, default 1.0
        How sure the gain in log-loss must be, in standard errors of its paired differences: of rows that were not
        fitted on, under what was found on others, over the base at its own best temperature. It is significant from
        1.96 on. None: what was found is used, whatever chance had to do with it.
    class_weight : "balanced", dict of class name to float, or None
        How much rows of each class weigh to the base, if it is fitted and takes a ``sample_weight``, and to the memory.
        None: the base is as it is, and remembered rows weigh by its own ``class_weight``, if any: weighed alike they
        would take back what that does for rare classes. ``{}``: remembered rows weigh alike.

    Attributes
    ----------
    estimator_ : the fitted base
    memory_ : residua.Memory
    reader_ : residua.Pooled or residua.ResMem
    best_params_ : dict
        The k, sigma and temperature that are used; k = 0 is the base alone.
    evidence_ : residua.readers.evidence.Evidence or None
        The numbers of that evidence, of a k that was given too; None where there was nothing to ask: too few rows,
        ``k=0``, or every setting given and ``evidence=None``.
    classes_ : array of shape (n_classes,)
        Class names; the indices of the outputs for a torch module. New ones that ``add`` took in stand at the end.
    n_features_in_, feature_names_in_
        As scikit-learn's own estimators have them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = np.arange(8.0)[:, None]
    >>> y = np.array(["low", "high", "high", "low"] * 2)
    >>> model = ResMemClassifier(LogisticRegression(), k=1).fit(X, y)
    >>> model.score(X, y), model.predict([[5.2]]).tolist()
    (1.0, ['high'])
    >>> model.add([[5.2]], ["low"]).tolist(), model.predict([[5.2]]).tolist()
    ([8], ['low'])
    """

    _task = "classification"
    _memory_params = ("index", "index_params", "storage", "device", "normalise")
    _reader_params = ("k", "sigma", "temperature", "kernel", "space")

    def __init__(
        self,
        estimator: Any,
        *,
        k: int | None = None,
        sigma: float | None = None,
        temperature: float | None = None,
        kernel: KernelName | Kernel = "exponential",
        space: Space | None = None,
        cv: Any = None,
        key: Any = None,
        index: str = "exact",
        index_params: dict[str, Any] | None = None,
        storage: StorageName = "full",
        device: str = "cpu",
        normalise: bool = False,
        evidence: float | None = LIKELY,
        class_weight: Mapping[Any, float] | str | None = None,
    ):
        self.estimator, self.cv, self.key = estimator, cv, key
        self.k, self.sigma, self.temperature, self.kernel, self.space = k, sigma, temperature, kernel, space
        self.index, self.index_params, self.storage, self.device = index, index_params, storage, device
        self.normalise, self.evidence, self.class_weight = normalise, evidence, class_weight

    def add(self, X: Any, y: Any, *, sample_weight: ArrayLike | None = None, new_classes: bool = False) -> np.ndarray:
        """Remember more rows, at once; the base is not fitted again.

        Parameters
        ----------
        X, y
            As in ``fit``; classes out of ``classes_``.
        sample_weight : array-like of shape (n_samples,), optional
            Only where ``fit`` was given one, too; each row weighs 1 otherwise.
        new_classes : bool, default False
            Take in classes that the base never heard of: their names follow the others in ``classes_``, sorted, and
            ``predict_proba`` has a column for each. There the base says 1/L of L classes, whichever row it is; only
            remembered rows tell new classes apart, and once these are forgotten the base's answers are back.

        Returns
        -------
        int64 array of shape (n_samples,)
            Ids of the new rows, for ``forget``. The rows of ``fit`` have the ids 0 ... n_samples - 1.

        Raises
        ------
        LabelError
            Where `y` has names that are not among ``classes_``, without `new_classes`, or names of another kind
            (numbers for text).
        StorageError
            Where new classes come to a ``storage`` that is not "full".

        Warns
        -----
        UserWarning
            Where ``fit`` found no evidence for a memory: more rows then change no prediction.

        Examples
        --------
        >>> from sklearn.linear_model import LogisticRegression
        >>> model = ResMemClassifier(LogisticRegression(), k=1).fit([[0.0], [1.0], [2.0], [3.0]], list("aabb"))
        >>> ids = model.add([[9.0]], ["new"], new_classes=True)
        >>> model.classes_.tolist(), model.predict([[8.5]]).tolist(), model.predict_proba([[8.5]]).shape
        (['a', 'b', 'new'], ['new'], (1, 3))
        """
        check_is_fitted(self)
        known = self.classes_
        if new_classes:
            self.classes_ = _with_new(known, self._targets(y))
        try:
            return super().add(X, y, sample_weight=sample_weight)
        except BaseException:
            self.classes_ = known
            raise

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row's best score, a name out of ``classes_``, (n_samples,); the base's own without a
        memory."""
        alone = self._model_alone("predict", X)
        return self.classes_[self.reader_.predict(self._encode(X))] if alone is None else alone

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, in the order of ``classes_``, (n_samples, n_classes).

        The base's own without a memory; else float32, the scores where they are positive (see
        ``residua.ResMem.predict_proba``), with the same argmax.
        """
        alone = self._model_alone("predict_proba", X)
        return self.reader_.predict_proba(self._encode(X)) if alone is None else alone

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of ``predict_proba``, -inf of zeros, (n_samples, n_classes)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """What is greatest for the class predicted, (n_samples, n_classes): log-probabilities; of two classes the
        second one's log-odds, (n_samples,), float64 and finite. Without a memory the base's own, where it has one.
        """
        alone = self._model_alone("decision_function", X)
        if alone is not None:
            return alone
        logs = np.log(np.maximum(self.predict_proba(X).astype(np.float64), TINY))
        return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        if hasattr(self.estimator, "__sklearn_tags__"):
            base = get_tags(self.estimator).classifier_tags or tags.classifier_tags
            tags.classifier_tags = replace(base, multi_label=False)
        return tags

    def _encode(self, X: Any) -> Encoded:
        enc = super()._encode(X)
        return enc if enc.n_outputs >= len(self.classes_) else enc.grown(len(self.classes_))

    def _model_alone(self, method: str, X: Any) -> np.ndarray | None:
        check_is_fitted(self)
        grown = len(self.classes_) > len(getattr(self.estimator_, "classes_", self.classes_))
        # The base has columns for its own classes alone.
        return None if grown and method != "predict" else super()._model_alone(method, X)

    def _reader_settings(self) -> dict[str, Any]:
        weights = self.class_weight
        if isinstance(weights, Mapping):
            names = {name: at for at, name in enumerate(self.classes_.tolist())}
            weights = {names[name]: weight for name, weight in weights.items() if name in names}
        return super()._reader_settings() | {"class_weight": weights}

    def _by_class(self, y: np.ndarray) -> np.ndarray | None:
        weights = self.class_weight
        if not weights:
            return None
        if isinstance(weights, Mapping):
            names = np.unique(y).tolist()
            if unknown := [name for name in weights if name not in names]:
                raise ParameterError(f"class_weight names {unknown[:5]}; expected classes out of {names[:10]}")
        elif weights != "balanced":
            raise ParameterError(f'class_weight={weights!r}; expected None, "balanced", or weights by class name')
        return compute_sample_weight(weights, y)

    def _targets(self, y: Any) -> np.ndarray:
        shape = np.asarray(y).shape
        if len(shape) == 2 and shape[1] > 1:
            raise LabelError(
                f"y has shape {shape}; expected a class per row. For several labels of a row fit the base, then "
                "remember with rs.Memory(rs.encode(estimator, X, y))"
            )
        return column_or_1d(y, warn=True)

    def _encoded_targets(self, y: Any) -> np.ndarray:
        return class_indices(self, self._targets(y))


def _with_new(classes: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`classes`, and after them, sorted, what else is in `y`."""
    if (classes.dtype.kind == "U") != (y.dtype.kind == "U") and "O" not in (classes.dtype.kind, y.dtype.kind):
        kinds = f"labels are of {y.dtype}, the classes {classes.tolist()[:5]} of {classes.dtype}"
        raise LabelError(f"{kinds}; give new classes names of the same kind")
    return np.concatenate([classes, np.setdiff1d(y, classes)])
