"""ResMem as scikit-learn estimators: fit a base, remember its training rows, predict with both."""

from residua.errors import MissingDependencyError

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        'residua.sklearn needs scikit-learn; install it with: pip install "residua[sklearn]"'
    ) from error

from residua.sklearn.classifier import ResMemClassifier
from residua.sklearn.regressor import ResMemRegressor

__all__ = ["ResMemClassifier", "ResMemRegressor"]
