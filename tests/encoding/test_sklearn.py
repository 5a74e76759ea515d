"""What a fitted estimator sees and says: keys and logits against scikit-learn's own numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from residua.encoding.sklearn import class_indices, input_of_last_step, keys_of, logits_of, require_fitted
from residua.errors import EncodeError, LabelError, NonFiniteError, ParameterError, ShapeError

X, Y = load_digits(return_X_y=True)
X, Y = X[:400] / 16, Y[:400]


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "logistic"])
def test_mlp_keys_are_the_last_hidden_layer(activation):
    model = MLPClassifier((12, 9), activation=activation, solver="lbfgs", max_iter=400, random_state=0).fit(X, Y)
    made = keys_of(model, X)
    assert (made.name, made.statistics, made.keys.dtype) == ("MLPClassifier:penultimate", {}, np.float64)
    logits = made.keys @ model.coefs_[-1] + model.intercepts_[-1]  # the network's own last layer
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(1, keepdims=True), model.predict_proba(X), atol=1e-4)


def test_mlp_regressor_inside_a_pipeline():
    model = make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(7,), solver="lbfgs", max_iter=50, tol=1.0, random_state=0)
    )
    model.fit(X, Y / 3)
    keys = keys_of(model, X).keys
    last = model[-1]
    np.testing.assert_allclose((keys @ last.coefs_[-1] + last.intercepts_[-1])[:, 0], model.predict(X), atol=1e-3)


def test_other_keys_are_the_last_steps_input_standardised():
    pca = PCA(5, random_state=0)
    model = make_pipeline(pca, LogisticRegression()).fit(X, Y)
    made = keys_of(model, X)
    inner = pca.transform(X)
    assert made.name == "LogisticRegression:input"
    np.testing.assert_allclose(made.keys, (inner - inner.mean(0)) / inner.std(0), atol=1e-4)
    np.testing.assert_allclose(made.statistics["scale"], inner.std(0))
    again = keys_of(model, X[:3], statistics=made.statistics)
    np.testing.assert_array_equal(again.keys, made.keys[:3])
    assert again.statistics == made.statistics


def test_a_constant_column_becomes_zero_and_wrong_statistics_are_refused():
    model = LinearRegression().fit(X, Y)
    assert (X[:, 0] == 0).all()
    made = keys_of(model, X)
    assert (made.keys[:, 0] == 0).all()
    with pytest.raises(ShapeError, match="2 dimensions"):
        keys_of(model, X, statistics={"mean": [0, 0], "scale": [1, 1]})


def test_wrappers_are_looked_into():
    inner = LogisticRegression().fit(X, Y)
    nested = make_pipeline(StandardScaler(), make_pipeline(PCA(4), FrozenEstimator(inner)))
    search = GridSearchCV(make_pipeline(PCA(4), LogisticRegression()), {"pca__n_components": [3]}, cv=2).fit(
        X[:90], Y[:90]
    )
    last, inputs = input_of_last_step(search, X)
    assert inputs.shape == (len(X), 3)
    assert last is search.best_estimator_[-1]
    assert input_of_last_step(FrozenEstimator(inner), X)[0] is inner
    inner.fit(X[:, :4], Y)
    nested.fit(X, Y)
    assert input_of_last_step(nested, X)[1].shape == (len(X), 4)
    assert input_of_last_step(make_pipeline(inner), X[:, :4])[0] is inner


def test_keys_by_callable_frame_and_sparse():
    pandas = pytest.importorskip("pandas")
    model = Ridge().fit(X, Y)
    made = keys_of(model, X, key=lambda rows: rows[:, :2])
    np.testing.assert_allclose(made.keys, X[:, :2], rtol=1e-6)
    assert made.statistics == {}
    plain = keys_of(model, X).keys
    np.testing.assert_array_equal(keys_of(model, sparse.csr_array(X)).keys, plain)
    frame = pandas.DataFrame(X, columns=[f"p{i}" for i in range(64)])
    np.testing.assert_array_equal(keys_of(Ridge().fit(frame, Y), frame).keys, plain)
    with pytest.raises(ParameterError, match="expected a callable"):
        keys_of(model, X, key="pca")


def test_inputs_that_are_no_keys():
    model = Ridge().fit(X, Y)
    with pytest.raises(EncodeError, match="too large to be made dense"):
        keys_of(model, sparse.csr_array((100_000, 10_000)))
    names = np.array([["a"], ["b"], ["a"]])
    piped = make_pipeline(OneHotEncoder(), Ridge()).fit(names, [0.0, 1.0, 0.0])
    assert keys_of(piped, names).keys.shape == (3, 2)
    with pytest.raises(EncodeError, match="is not numbers"):
        keys_of(model, names)
    bad = X.copy()
    bad[0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="1 infinite values, such as in column 0"):
        keys_of(model, bad)
    frame = pd.DataFrame({"kind": list("abcabc"), "age": [1.0, 2, 3, 4, 5, np.inf]})
    with pytest.raises(NonFiniteError, match="1 infinite values, such as in column 'age'"):
        keys_of(model, frame)
    bad[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="1 NaN"):
        keys_of(model, X, key=lambda _: bad)


def test_logits_of_classifiers():
    logistic = LogisticRegression().fit(X, Y)
    np.testing.assert_allclose(logits_of(logistic, X), logistic.decision_function(X), rtol=1e-5)
    svc = SVC().fit(X, Y)
    np.testing.assert_allclose(logits_of(svc, X), svc.decision_function(X), rtol=1e-5)
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    np.testing.assert_allclose(np.exp(logits_of(forest, X)), np.maximum(forest.predict_proba(X), 1e-7), rtol=1e-4)
    two = Y < 2
    boosting = GradientBoostingClassifier(n_estimators=3).fit(X[two], Y[two])
    said = logits_of(boosting, X[two])
    assert (said[:, 0] == 0).all()
    np.testing.assert_allclose(1 / (1 + np.exp(-said[:, 1])), boosting.predict_proba(X[two])[:, 1], rtol=1e-5)


def test_predictions_of_regressors():
    data, targets = load_diabetes(return_X_y=True)
    model = Ridge().fit(data, targets)
    np.testing.assert_allclose(logits_of(model, data), model.predict(data), rtol=1e-6)
    both = Ridge().fit(data, np.stack([targets, -targets], 1))
    assert logits_of(both, data).shape == (len(data), 2)


def test_classifiers_without_scores_per_class():
    three = Y < 3
    with pytest.raises(EncodeError, match="decision_function_shape='ovr'"):
        logits_of(make_pipeline(StandardScaler(), SVC(decision_function_shape="ovo")).fit(X[three], Y[three]), X)

    class Mute(LogisticRegression):
        decision_function = property()
        predict_proba = property()

    with pytest.raises(EncodeError, match="neither decision_function nor predict_proba"):
        logits_of(Mute().fit(X, Y), X)


def test_class_names_become_indices():
    names = np.array(["ant", "bee", "cat"])
    model = LogisticRegression().fit(X[Y < 3], names[Y[Y < 3]])
    assert class_indices(model, ["cat", "ant", "bee", "cat"]).tolist() == [2, 0, 1, 2]
    assert class_indices(model, np.array([["bee"]])).tolist() == [1]
    with pytest.raises(LabelError, match=r"\['dog'\] are not among the 3 classes \['ant', 'bee', 'cat'\]"):
        class_indices(model, ["cat", "dog"])
    with pytest.raises(LabelError, match="multi-label"):
        class_indices(model, np.zeros((4, 3)))


def test_estimators_that_are_not_ready():
    assert require_fitted(LogisticRegression().fit(X, Y))
    assert not require_fitted(Ridge().fit(X, Y))
    with pytest.raises(EncodeError, match=r"not fitted; call \.fit"):
        require_fitted(LogisticRegression())
    with pytest.raises(EncodeError, match="not fitted"):
        require_fitted(make_pipeline(StandardScaler(), Ridge()))
    with pytest.raises(EncodeError, match="neither a classifier nor a regressor"):
        require_fitted(PCA().fit(X))
    with pytest.raises(LabelError, match="several targets"):
        require_fitted(RandomForestClassifier(2).fit(X, np.stack([Y, Y], 1)))
