"""At k = 0 the base is the estimator: a sweep over scikit-learn's own."""

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import all_estimators

from residua.encoding.sklearn import logits_of
from residua.errors import EncodeError
from residua.sklearn import ResMemClassifier, ResMemRegressor

# Labels alone, no scores: there is nothing of which a residual could be taken.
NO_SCORES = {"OutputCodeClassifier", "VotingClassifier"}
OTHER_TARGETS = {"ClassifierChain", "MultiOutputClassifier", "MultiOutputRegressor", "RegressorChain"}
DEPRECATED = {"PassiveAggressiveClassifier", "PassiveAggressiveRegressor"}  # of scikit-learn 1.8
# predict leaves the priors out, and predict_proba does not: the base is what predict_proba says.
DISAGREES_WITH_ITSELF = {"NearestCentroid"}
ONE_COMPONENT = {"CCA", "PLSCanonical"}  # as many as there are targets
BINARY = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}


def sweep(kind):
    every = all_estimators(type_filter=kind)
    left_out = OTHER_TARGETS | DEPRECATED
    ours = [(name, cls) for name, cls in every if name not in left_out and not name.startswith("MultiTask")]
    return [pytest.param(name, cls, id=name) for name, cls in ours]


def made(name, cls, inner):
    """The estimator as its defaults make it, with a simple one inside where it needs one."""
    if name.startswith(("Stacking", "Voting")):
        return cls([("a", inner)])
    if name == "SelfTrainingClassifier":
        return cls(inner)
    if name in ONE_COMPONENT:
        return cls(n_components=1)
    try:
        return cls()
    except TypeError:
        return cls(inner)


def fitted(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations on small data are not what is tested
        return estimator.fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cls"), sweep("classifier"))
def test_every_classifier(name, cls):
    classes = 2 if name in BINARY else 3
    X, y = make_classification(150, 6, n_informative=5, n_redundant=0, n_classes=classes, flip_y=0.2, random_state=0)
    X = MinMaxScaler().fit_transform(X)  # some take counts only
    estimator = fitted(made(name, cls, LogisticRegression()), X, y)
    if name in NO_SCORES:
        with pytest.raises(EncodeError, match="neither decision_function nor predict_proba"):
            logits_of(estimator, X)
        return
    logits = logits_of(estimator, X)
    if name not in DISAGREES_WITH_ITSELF:
        assert (estimator.classes_[logits.argmax(axis=1)] == estimator.predict(X)).all()
    if hasattr(estimator, "predict_proba") and name not in BINARY:  # a threshold moves the probabilities
        assert np.abs(softmax(logits, axis=1) - estimator.predict_proba(X)).max() < 2e-6
    model = fitted(ResMemClassifier(FrozenEstimator(estimator), k=0), X, y)
    for verb in ("predict", "predict_proba"):
        if hasattr(estimator, verb):
            np.testing.assert_array_equal(getattr(model, verb)(X), getattr(estimator, verb)(X))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cls"), sweep("regressor"))
def test_every_regressor(name, cls):
    X, y = make_regression(60, 5, random_state=0)
    X = MinMaxScaler().fit_transform(X[:, :1] if name == "IsotonicRegression" else X)
    y = np.abs(y) + 1  # some take positive targets only
    estimator = fitted(made(name, cls, Ridge()), X, y)
    predicted = np.asarray(estimator.predict(X))
    assert np.allclose(logits_of(estimator, X), predicted, rtol=1e-6, atol=1e-6)
    model = fitted(ResMemRegressor(FrozenEstimator(estimator), k=0), X, y)
    np.testing.assert_array_equal(model.predict(X), predicted)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("pos_label", [None, 0])
@pytest.mark.parametrize("base", [LogisticRegression(), RandomForestClassifier(10, random_state=0)])
def test_a_threshold_is_kept(base, pos_label, threshold):
    X, y = make_classification(200, 6, flip_y=0.3, random_state=0)
    inner = FixedThresholdClassifier(base, threshold=threshold, pos_label=pos_label)
    for estimator in (inner, make_pipeline(StandardScaler(), inner)):
        estimator = estimator.fit(X, y)
        assert (logits_of(estimator, X).argmax(axis=1) == estimator.predict(X)).all()


@pytest.mark.slow
def test_a_tuned_threshold_is_kept_and_one_on_another_scale_refused():
    X, y = make_classification(200, 6, weights=[0.8], flip_y=0.3, random_state=0)
    tuned = TunedThresholdClassifierCV(LogisticRegression(), cv=3).fit(X, y)
    assert (tuned.predict(X) != tuned.estimator_.predict(X)).any()
    assert (logits_of(tuned, X).argmax(axis=1) == tuned.predict(X)).all()
    other = FixedThresholdClassifier(LogisticRegression(), threshold=0.5, response_method="decision_function")
    with pytest.raises(EncodeError, match="response_method='predict_proba'"):
        logits_of(other.fit(X, y), X)


def test_a_rows_logits_do_not_depend_on_the_rows_beside_it():
    X, y = make_classification(100, 6, random_state=0)
    estimator = GradientBoostingClassifier(loss="exponential", random_state=0).fit(X, y)
    alone = np.concatenate([logits_of(estimator, X[i : i + 1]) for i in range(20)])
    assert np.array_equal(alone, logits_of(estimator, X[:20]))
    assert np.abs(softmax(alone, axis=1) - estimator.predict_proba(X[:20])).max() < 2e-6
