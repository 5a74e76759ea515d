"""Out-of-fold logits equal scikit-learn's, and a fold without some class still has its column."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import KFold, RepeatedKFold, ShuffleSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from residua.encoding.estimator import out_of_fold
from residua.errors import LabelError, ParameterError

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]


@pytest.mark.parametrize("cv", [3, KFold(3, shuffle=True, random_state=0)])
def test_equal_to_cross_val_predict(cv):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    theirs = cross_val_predict(model, X, Y, cv=cv, method="decision_function")
    np.testing.assert_allclose(out_of_fold(model, X, Y, cv), theirs, rtol=1e-5, atol=1e-5)
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    theirs = cross_val_predict(forest, X, Y, cv=cv, method="predict_proba")
    np.testing.assert_allclose(np.exp(out_of_fold(forest, X, Y, cv)), np.maximum(theirs, 1e-7), rtol=1e-4)


def test_regression_and_frames():
    pandas = pytest.importorskip("pandas")
    data, targets = load_diabetes(return_X_y=True)
    frame = pandas.DataFrame(data, columns=[f"f{i}" for i in range(data.shape[1])])
    model = Ridge().fit(frame, targets)
    theirs = cross_val_predict(model, frame, targets, cv=4)
    np.testing.assert_allclose(out_of_fold(model, frame, targets, 4), theirs, rtol=1e-5)


def test_two_classes_are_two_columns():
    two = Y < 2
    model = SVC().fit(X[two], Y[two])
    said = out_of_fold(model, X[two], Y[two], 3)
    theirs = cross_val_predict(model, X[two], Y[two], cv=3, method="decision_function")
    np.testing.assert_allclose(said, np.stack([0 * theirs, theirs], 1), rtol=1e-5)


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(5, random_state=0)])
def test_a_class_missing_from_a_fold_has_a_probability_near_zero_there(model):
    rows = np.argsort(Y[Y < 3], kind="stable")  # KFold(3) then leaves each class out whole
    data, labels = X[Y < 3][rows], np.array(["ant", "bee", "cat"])[Y[Y < 3][rows]]
    model.fit(data, labels)
    folds = KFold(3)
    said = out_of_fold(model, data, labels, folds)
    p = np.exp(said - np.logaddexp.reduce(said, axis=1, keepdims=True))
    for train, test in folds.split(data):
        for i, name in enumerate(model.classes_):
            if name not in labels[train]:
                assert (p[test, i] < 2e-7).all()
                assert (p[test, i] > 1e-8).all()
    assert np.isfinite(said).all()


def test_folds_that_do_not_test_every_row_once():
    model = RidgeClassifier().fit(X, Y)
    with pytest.raises(ParameterError, match="exactly one test fold"):
        out_of_fold(model, X, Y, ShuffleSplit(2, random_state=0))
    with pytest.raises(ParameterError, match="more than once"):
        out_of_fold(model, X, Y, RepeatedKFold(n_splits=2, n_repeats=2))
    with pytest.raises(ParameterError, match="expected an int >= 2"):
        out_of_fold(model, X, Y, "five")
    with pytest.raises(ParameterError, match="cv=1"):
        out_of_fold(model, X, Y, 1)


def test_what_cannot_be_refitted():
    model = LogisticRegression().fit(X, Y)
    with pytest.raises(ParameterError, match="pass the estimator inside"):
        out_of_fold(FrozenEstimator(model), X, Y, 2)
    two = np.sort(Y[Y < 2])
    small = LogisticRegression().fit(X[: len(two)], two)
    with pytest.raises(LabelError, match="one class alone"):
        out_of_fold(small, X[: len(two)], two, KFold(2))
    with pytest.raises(LabelError, match="not among"):
        out_of_fold(model, X, Y + 1, 2)
