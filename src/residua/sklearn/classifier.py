"""The classifier."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags, column_or_1d, compute_sample_weight, get_tags

from residua.core.probabilities import TINY
from residua.encoding.sklearn import class_indices
from residua.errors import ParameterError
from residua.memory.storage import StorageName
from residua.readers import Kernel
from residua.readers.neighbour import KernelName
from residua.readers.resmem import Space
from residua.sklearn.base import ResMemEstimator
from residua.tuning.evidence import USUAL


class ResMemClassifier(ClassifierMixin, ResMemEstimator):
    """A classifier corrected by the residuals of its nearest training rows (ResMem, arXiv 2302.01576, eq. 7-8).

    ``fit`` chooses the settings that are None, and uses the memory only where it is better than the base beyond doubt;
    elsewhere predictions are the base's own. It needs no held-out rows: each of five folds is answered by a clone of
    the base that was fitted on the other four, and remembers these; the six fits are most of the cost. A base that is
    not fitted (frozen, or a torch module) answers each row without that row in its memory. Under 200 rows, or under 50
    of a class, nothing is chosen and the base is used.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module
        The base. Cloned and fitted, unless it is a ``FrozenEstimator`` or a (trained) torch module.
    k : int, optional
        Neighbours; 0 is the base alone. None: chosen by ``fit``, 0 without evidence. A k that is given is used,
        whatever the evidence.
    sigma : float, optional
        Kernel width, a distance between keys (squared for ``kernel="gaussian"``). None: chosen by ``fit``; where it
        has too few rows, the median distance from a row to its nearest other one.
    temperature : float, optional
        The base softmax's T. None: chosen by ``fit``; 1 without a memory, or with too few rows.
    kernel : {"exponential", "gaussian"}, default "exponential"
    space : {"probabilities", "logits"}, default "probabilities"
        What residuals are taken of (see ``residua.ResMem``).
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
    evidence : float or None, default 1.96
        How sure the gain in log-loss must be, in standard errors of its paired differences: of rows that were not
        fitted on, under settings that were chosen on others, over the base at its own best temperature. None: the best
        settings are used, whatever chance had to do with it.
    class_weight : "balanced", dict of class name to float, or None
        How much rows of each class weigh to the base, if it is fitted and takes a ``sample_weight``, and to the memory.
        None: the base is as it is, and remembered rows weigh by its own ``class_weight``, if any: weighed alike they
        would take back what that does for rare classes. ``{}``: remembered rows weigh alike.

    Attributes
    ----------
    estimator_ : the fitted base
    memory_ : residua.Memory
    reader_ : residua.ResMem
    best_params_ : dict
        The k, sigma and temperature that are used; k = 0 is the base alone.
    evidence_ : residua.readers.evidence.Evidence or None
        The numbers of that evidence, of a k that was given too; None where there was nothing to ask: too few rows,
        ``k=0``, or every setting given and ``evidence=None``.
    classes_ : array of shape (n_classes,)
        Class names; the indices of the outputs for a torch module.
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
        space: Space = "probabilities",
        cv: Any = None,
        key: Any = None,
        index: str = "exact",
        index_params: dict[str, Any] | None = None,
        storage: StorageName = "full",
        device: str = "cpu",
        normalise: bool = False,
        evidence: float | None = USUAL,
        class_weight: Mapping[Any, float] | str | None = None,
    ):
        self.estimator, self.cv, self.key = estimator, cv, key
        self.k, self.sigma, self.temperature, self.kernel, self.space = k, sigma, temperature, kernel, space
        self.index, self.index_params, self.storage, self.device = index, index_params, storage, device
        self.normalise, self.evidence, self.class_weight = normalise, evidence, class_weight

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
        return column_or_1d(y, warn=True)

    def _encoded_targets(self, y: Any) -> np.ndarray:
        return class_indices(self, self._targets(y))
