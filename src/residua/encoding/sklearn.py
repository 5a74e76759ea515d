"""What a fitted scikit-learn estimator sees and says of rows: keys and logits."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit, logit, softmax

from residua.core.source import CALLABLE
from residua.encoding.table_keys import Statistics, columns_of, standardised
from residua.errors import EncodeError, LabelError, MissingDependencyError, NonFiniteError, ParameterError, ShapeError

FLOOR = 1e-7  # the least probability that becomes a logit
_AGREE = 1e-6  # between a softmax and the probabilities that are it
_DENSE = 1 << 28  # numbers; a sparse input larger than this is not made dense
_ACTIVATIONS = {"identity": lambda x: x, "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "logistic": expit}


class Keys(NamedTuple):
    """Keys of some rows, where in the estimator they are from, and what standardised them (empty: nothing)."""

    keys: np.ndarray
    name: str
    statistics: Statistics


def require_fitted(estimator: Any) -> bool:
    """Whether the fitted `estimator` is a classifier (else it is a regressor)."""
    sk = import_sklearn()
    kind = type(estimator).__name__
    classifier = sk.base.is_classifier(estimator)
    if not classifier and not sk.base.is_regressor(estimator):
        raise EncodeError(f"{kind} is neither a classifier nor a regressor; pass the estimator that predicts")
    try:
        sk.utils.validation.check_is_fitted(estimator)
    except sk.exceptions.NotFittedError as error:
        raise EncodeError(f"this {kind} is not fitted; call .fit(X, y) on all its training rows first") from error
    classes = getattr(estimator, "classes_", None)
    if (
        classifier
        and isinstance(classes, list)
        and not all(set(np.asarray(some).tolist()) <= {0, 1} for some in classes)
    ):
        raise LabelError(
            f"{kind} predicts several targets, each of several classes; encode each target's classifier on its own"
        )
    return classifier


def gives_several(estimator: Any) -> bool:
    """Whether a fitted classifier may give one row several labels, each 0 or 1."""
    for step in nested(estimator):
        if isinstance(getattr(step, "classes_", None), list) or getattr(step, "multilabel_", False):
            return True
        # A network and a ridge say it nowhere else.
        if getattr(getattr(step, "_label_binarizer", None), "y_type_", "").startswith("multilabel"):
            return True
    return False


def keys_of(
    estimator: Any,
    X: Any,
    *,
    key: Callable[[Any], Any] | None = None,
    statistics: Statistics | None = None,
) -> Keys:
    """Keys of the rows of X, float (n, d): the last hidden layer's activations of an ``MLP*``, else the input of
    the last step (X itself without a pipeline), standardised by `statistics`, by default X's own: missing numbers are
    the mean, categories are one-hot.

    ``key(X)`` gives others, used as they are; ``statistics = {"mean": (d,), "scale": (d,)}``, and
    ``"categories"`` of columns that are no numbers.
    """
    if key is not None:
        if not callable(key):
            raise ParameterError(f"key={key!r}; for an estimator, expected a callable: key(X) gives keys (n, d)")
        return Keys(_numbers(key(X), "key(X)"), f"{CALLABLE}{getattr(key, '__qualname__', type(key).__name__)}", {})
    last, inputs = input_of_last_step(estimator, X)
    kind = type(last).__name__
    sk, names = import_sklearn(), {}
    columns = list(getattr(inputs, "columns", range(np.shape(inputs)[1]) if np.ndim(inputs) == 2 else ()))
    if (mixed := columns_of(inputs)) is not None:
        inputs, names = mixed
        columns = [column for place, column in enumerate(columns) if place not in names]
    inputs = _numbers(inputs, f"the input of {kind}", columns, missing=True)
    if isinstance(last, (sk.neural_network.MLPClassifier, sk.neural_network.MLPRegressor)) and len(last.coefs_) > 1:
        activation = _ACTIVATIONS[last.activation]
        for weight, bias in zip(last.coefs_[:-1], last.intercepts_[:-1]):
            inputs = activation(inputs @ weight + bias)
        return Keys(inputs, f"{kind}:penultimate", {})
    keys, statistics = standardised(inputs, names, f"the input of {kind}", statistics)
    return Keys(keys, f"{kind}:input", statistics)


def logits_of(estimator: Any, X: Any) -> np.ndarray:
    """Logits float32 (n, L), or a regressor's predictions (n,) or (n, m) in its own dtype.

    ``decision_function`` (a lone s is the columns [0, s]) where its softmax is the row's ``predict_proba``, or there
    is no ``predict_proba``; else ``log(max(predict_proba, 1e-7))``. The threshold of a ``FixedThresholdClassifier``
    or ``TunedThresholdClassifierCV`` is subtracted, so that the greatest logit is the class predicted.
    """
    sk = import_sklearn()
    if not sk.base.is_classifier(estimator):
        return np.asarray(estimator.predict(X))
    kind = type(estimator).__name__
    if gives_several(estimator):
        return _label_logits(estimator, X)
    decision = _decision_of(estimator, X)
    if hasattr(estimator, "predict_proba"):
        probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
        logits = np.log(np.maximum(probabilities, FLOOR))
        if decision is not None and decision.shape == probabilities.shape:
            # Row by row, so that a row's logits do not depend on the rows beside it.
            agree = np.abs(softmax(decision, axis=1) - probabilities).max(axis=1, keepdims=True) < _AGREE
            logits = np.where(agree, decision, logits)
    elif decision is not None:
        logits = decision
    else:
        expected = "a classifier with scores: set probability=True or wrap it in CalibratedClassifierCV"
        raise EncodeError(f"{kind} has neither decision_function nor predict_proba; expected {expected}")
    if logits.shape[1] != len(estimator.classes_):
        raise EncodeError(f"{kind} gives {logits.shape[1]} columns for {len(estimator.classes_)} classes")
    for step in nested(estimator):
        if type(step).__name__ in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
            logits = _with_threshold(logits, step, estimator.predict(X))
    return logits.astype(np.float32)


def _label_logits(estimator: Any, X: Any) -> np.ndarray:
    """The log-odds of each label that a row may have, float32 (n, L)."""
    if hasattr(estimator, "predict_proba"):
        said = estimator.predict_proba(X)
        if isinstance(said, list):  # of each label, the probabilities of the classes that it was seen with
            has = [
                table[:, np.asarray(some) == 1].sum(axis=1) for table, some in zip(said, _classes_of_labels(estimator))
            ]
            said = np.stack(has, axis=1)
        return logit(np.clip(said, FLOOR, 1 - FLOOR)).astype(np.float32)
    if not hasattr(estimator, "decision_function"):
        what = "gives labels and no scores of them"
        raise EncodeError(
            f"{type(estimator).__name__} {what}; use a classifier with predict_proba or decision_function"
        )
    return np.asarray(estimator.decision_function(X), dtype=np.float32)


def _classes_of_labels(estimator: Any) -> list[Any]:
    classes = [step.classes_ for step in nested(estimator) if isinstance(getattr(step, "classes_", None), list)]
    return classes[0]


def _decision_of(estimator: Any, X: Any) -> np.ndarray | None:
    """The ``decision_function`` with a column per class, float64 (n, L); None where there is none."""
    if not hasattr(estimator, "decision_function"):
        return None
    *_, last = nested(estimator)
    if getattr(last, "decision_function_shape", None) == "ovo" and len(estimator.classes_) > 2:
        what = "decides one-versus-one; set decision_function_shape='ovr' for logits per class"
        raise EncodeError(f"{type(estimator).__name__} {what}")
    decision = np.asarray(estimator.decision_function(X), dtype=np.float64)
    return np.stack([np.zeros_like(decision), decision], axis=1) if decision.ndim == 1 else decision


def _with_threshold(logits: np.ndarray, step: Any, predicted: np.ndarray) -> np.ndarray:
    """Two columns [0, s], s the log-odds less those of the threshold of `step`: positive where it predicts class 1."""
    threshold: Any = getattr(step, "best_threshold_", getattr(step, "threshold", "auto"))
    by_decision = step.response_method == "decision_function" or not hasattr(step.estimator_, "predict_proba")
    if by_decision and hasattr(step.estimator_, "predict_proba"):
        what = "sets a threshold on decision_function, and the estimator in it has predict_proba"
        raise EncodeError(f"{type(step).__name__} {what}; pass response_method='predict_proba'")
    if threshold == "auto":
        threshold = 0.0 if by_decision else 0.5
    shift: float = threshold if by_decision else float(logit(np.clip(threshold, FLOOR, 1 - FLOOR)))
    # A tuned one's class is its scorer's, which scikit-learn shows nowhere else.
    positive = step._curve_scorer._get_pos_label() if hasattr(step, "_curve_scorer") else step.pos_label
    first = positive is not None and positive == step.classes_[0]
    margin = logits[:, 1] - logits[:, 0] + (shift if first else -shift)
    # On the threshold itself rounding could decide otherwise than the estimator.
    margin = np.where(predicted == step.classes_[1], np.maximum(margin, FLOOR), np.minimum(margin, -FLOOR))
    return np.stack([np.zeros_like(margin), margin], axis=1)


def input_of_last_step(estimator: Any, X: Any) -> tuple[Any, Any]:
    """The estimator that predicts, inside pipelines, searches and ``FrozenEstimator``, and what reaches it."""
    last = estimator
    for last in nested(estimator):
        for _, step in getattr(last, "steps", ())[:-1]:
            if step not in (None, "passthrough") and not hasattr(step, "fit_resample"):  # which only fitting does
                X = step.transform(X)
    return last, X


def class_indices(estimator: Any, y: Any) -> np.ndarray:
    """Labels as indices into ``estimator.classes_``, int64 (n,). An unseen one raises ``LabelError``."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise LabelError(f"labels have shape {y.shape}; expected one per row: multi-label targets are not supported")
    index = {name: i for i, name in enumerate(np.asarray(estimator.classes_).tolist())}
    names, inverse = np.unique(y, return_inverse=True)
    if unseen := [name for name in names.tolist() if name not in index]:
        raise LabelError(
            f"labels {unseen[:5]} are not among the {len(index)} classes {list(index)[:10]} this "
            f"{type(estimator).__name__} was fitted on; drop those rows or fit it on data that hold them"
        )
    return np.array([index[name] for name in names.tolist()], dtype=np.int64)[inverse]


def import_sklearn() -> ModuleType:
    """scikit-learn with the modules that are used here, only once an estimator is encoded."""
    try:
        for name in ("base", "exceptions", "model_selection", "neural_network", "preprocessing", "utils.validation"):
            import_module(f"sklearn.{name}")
    except ImportError as error:
        what = 'encoding an estimator needs scikit-learn; install it with: pip install "residua[sklearn]"'
        raise MissingDependencyError(what) from error
    return import_module("sklearn")


def nested(estimator: Any) -> Iterator[Any]:
    """The estimator, and inward what predicts in it: a pipeline's last step, a search's winner, a frozen estimator."""
    while estimator is not None:
        yield estimator
        if hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            estimator = estimator.estimator if type(estimator).__name__ == "FrozenEstimator" else None


def _numbers(values: Any, name: str, columns: Sequence[Any] | None = None, missing: bool = False) -> np.ndarray:
    if sparse.issparse(values):
        if values.shape[0] * values.shape[1] > _DENSE:
            what = f"{name} is sparse, {values.shape}, and too large to be made dense"
            raise EncodeError(f"{what}; pass key= (a callable), such as a fitted TruncatedSVD's transform")
        values = values.toarray()
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EncodeError(f"{name} is not numbers ({error}); pass key=, a callable that gives keys (n, d)") from error
    if values.ndim != 2:
        raise ShapeError(f"{name} has shape {values.shape}; expected (n, d)")
    bad = np.isinf(values) if missing else ~np.isfinite(values)
    if bad.any():
        cure = "impute them in a pipeline step, or pass key=, a callable that gives finite keys (n, d)"
        first = int(bad.any(axis=0).argmax())
        where = repr(columns[first]) if columns else first
        what = "infinite" if missing else "NaN or infinite"
        raise NonFiniteError(f"{name} holds {int(bad.sum())} {what} values, such as in column {where}; {cure}")
    return values
