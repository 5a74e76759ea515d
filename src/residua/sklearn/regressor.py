"""The regressor."""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import Tags, get_tags

from residua.readers import Kernel
from residua.readers.evidence import LIKELY
from residua.readers.neighbour import KernelName
from residua.sklearn.base import ResMemEstimator


class ResMemRegressor(RegressorMixin, ResMemEstimator):
    """A regressor corrected by the residuals of its nearest training rows: by ``Pooled``, or as ResMem is (arXiv
    2302.01576, eq. 3-4).

    ``fit`` finds by squared error what ``ResMemClassifier`` finds by log-loss.

    Parameters
    ----------
    estimator, k, sigma, kernel, cv, key, index, index_params, device, normalise, evidence
        As for ``ResMemClassifier``.

    Attributes
    ----------
    estimator_, memory_, reader_, best_params_, evidence_, n_features_in_, feature_names_in_
        As for ``ResMemClassifier``.

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
        estimator: Any,
        *,
        k: int | None = None,
        sigma: float | None = None,
        kernel: KernelName | Kernel = "exponential",
        cv: Any = None,
        key: Any = None,
        index: str = "exact",
        index_params: dict[str, Any] | None = None,
        device: str = "cpu",
        normalise: bool = False,
        evidence: float | None = LIKELY,
    ):
        self.estimator, self.cv, self.key = estimator, cv, key
        self.k, self.sigma, self.kernel = k, sigma, kernel
        self.index, self.index_params, self.device, self.normalise = index, index_params, device, normalise
        self.evidence = evidence

    def predict(self, X: Any) -> np.ndarray:
        """The base's predictions plus the neighbours' weighted residuals, (n_samples,) or (n_samples, n_outputs); the
        base's own without a memory."""
        alone = self._model_alone("predict", X)
        return self.reader_.predict(self._encode(X)) if alone is None else alone

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            tags.regressor_tags = get_tags(self.estimator).regressor_tags or tags.regressor_tags
        return tags
