"""ResMem as scikit-learn estimators: fit a base, remember its training rows, predict with both.

>>> from sklearn.datasets import load_iris
>>> from sklearn.linear_model import LogisticRegression
>>> X, y = load_iris(return_X_y=True)
>>> model = ResMemClassifier(LogisticRegression(C=0.01), k=10).fit(X[::2], y[::2])
>>> model.score(X[1::2], y[1::2]) > model.estimator_.score(X[1::2], y[1::2])
True
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from residua.hooks.estimator import ResMemEstimator  # says which extra to install where scikit-learn is absent

# isort: split
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d, get_tags

from residua.encoding.sklearn import class_indices

__all__ = ["ResMemClassifier", "ResMemRegressor"]


class ResMemClassifier(ClassifierMixin, ResMemEstimator):
    """A classifier corrected by the residuals of its nearest training rows (ResMem, arXiv 2302.01576, eq. 7-8).

    Parameters
    ----------
    estimator : estimator or torch.nn.Module
        The base. Cloned and fitted, unless it is a ``FrozenEstimator`` or a (trained) torch module.
    k : int, optional
        Neighbours; None is 50, or as many as there are rows, and 0 is the base alone.
    sigma : float, optional
        Kernel width, a distance between keys (squared for ``kernel="gaussian"``); None is the median distance from
        a row to its nearest other one.
    temperature : float, default 1.0
        The base softmax's T.
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
        Where the memory lives.

    Attributes
    ----------
    estimator_ : the fitted base
    memory_ : residua.Memory
    reader_ : residua.ResMem
    classes_ : array of shape (n_classes,)
        Class names; the indices of the outputs for a torch module.
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in_,)
        Where X has names that are strings.

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
    _memory_params = ("index", "index_params", "storage", "temperature", "device")
    _reader_params = ("sigma", "temperature", "kernel", "space")

    def __init__(
        self,
        estimator,
        *,
        k=None,
        sigma=None,
        temperature=1.0,
        kernel="exponential",
        space="probabilities",
        cv=None,
        key=None,
        index="exact",
        index_params=None,
        storage="full",
        device="cpu",
    ):
        self.estimator = estimator
        self.k = k
        self.sigma = sigma
        self.temperature = temperature
        self.kernel = kernel
        self.space = space
        self.cv = cv
        self.key = key
        self.index = index
        self.index_params = index_params
        self.storage = storage
        self.device = device

    def predict(self, X) -> np.ndarray:
        """The class of each row's best score.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,)
            Names out of ``classes_``.
        """
        enc = self._encode(X)
        return self.classes_[self.reader_.predict(enc)]

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of the classes, in the order of ``classes_``.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        float32 array of shape (n_samples, n_classes)
            The scores where they are positive (see ``residua.ResMem.predict_proba``), with the same argmax.
        """
        enc = self._encode(X)
        return self.reader_.predict_proba(enc)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        if hasattr(self.estimator, "__sklearn_tags__"):
            base = get_tags(self.estimator).classifier_tags or tags.classifier_tags
            tags.classifier_tags = replace(base, multi_label=False)
        return tags

    def _targets(self, y) -> np.ndarray:
        return column_or_1d(y, warn=True)

    def _encoded_targets(self, y) -> np.ndarray:
        return class_indices(self, self._targets(y))


class ResMemRegressor(RegressorMixin, ResMemEstimator):
    """A regressor corrected by the residuals of its nearest training rows (ResMem, arXiv 2302.01576, eq. 3-4).

    Parameters
    ----------
    estimator : estimator or torch.nn.Module
        The base. Cloned and fitted, unless it is a ``FrozenEstimator`` or a (trained) torch module.
    k, sigma, kernel, cv, key, index, index_params, device
        As for ``ResMemClassifier``.

    Attributes
    ----------
    estimator_ : the fitted base
    memory_ : residua.Memory
    reader_ : residua.ResMem
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in_,)
        Where X has names that are strings.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> X = np.arange(8.0)[:, None]
    >>> model = ResMemRegressor(LinearRegression(), k=1).fit(X, X[:, 0] ** 2)
    >>> model.predict([[3.1], [6.0]]).round(1).tolist()  # the line's 14.7 and 35, corrected
    [9.7, 36.0]
    """

    _task = "regression"

    def __init__(
        self,
        estimator,
        *,
        k=None,
        sigma=None,
        kernel="exponential",
        cv=None,
        key=None,
        index="exact",
        index_params=None,
        device="cpu",
    ):
        self.estimator = estimator
        self.k = k
        self.sigma = sigma
        self.kernel = kernel
        self.cv = cv
        self.key = key
        self.index = index
        self.index_params = index_params
        self.device = device

    def predict(self, X) -> np.ndarray:
        """The base's predictions plus the neighbours' weighted residuals.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        float64 array of shape (n_samples,) or (n_samples, n_outputs)
            Of float32 precision.
        """
        enc = self._encode(X)
        return self.reader_.predict(enc).astype(np.float64)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            tags.regressor_tags = get_tags(self.estimator).regressor_tags or tags.regressor_tags
        return tags
