"""scikit-learn's own tests of the two estimators, and their life inside its tools."""

import importlib
import pickle
import sys

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from residua.errors import MissingDependencyError
from residua.sklearn import ResMemClassifier, ResMemRegressor

X, Y = load_digits(return_X_y=True)
X, Y = X[:400] / 16, Y[:400]


# Its toy blobs are learned by heart, which is worth a warning, and no part of what is checked.
@pytest.mark.filterwarnings("ignore:.*of the residuals are nearly zero")
@parametrize_with_checks(
    [
        ResMemClassifier(LogisticRegression()),
        ResMemClassifier(DecisionTreeClassifier(max_depth=4, random_state=0), space="logits", kernel="gaussian"),
        ResMemRegressor(Ridge()),
    ]
)
def test_estimator_check(estimator, check):
    check(estimator)


def test_inside_a_pipeline_and_a_grid_search():
    pipe = Pipeline([("scale", StandardScaler()), ("resmem", ResMemClassifier(LogisticRegression(C=1e-3), k=3))])
    grid = {"resmem__k": [0, 3], "resmem__estimator__C": [1e-4, 1e-2]}
    search = GridSearchCV(pipe, grid, cv=2).fit(X, Y)
    assert len(search.cv_results_["params"]) == 4
    scores = {
        (p["resmem__k"], p["resmem__estimator__C"]): s
        for p, s in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"])
    }
    assert scores[3, 1e-4] > scores[0, 1e-4]
    assert search.best_params_["resmem__k"] == 3
    assert search.best_params_["resmem__estimator__C"] == search.best_estimator_["resmem"].estimator_.C
    assert search.predict(X[:5]).shape == (5,)


def test_a_search_or_a_network_as_the_base():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1e-4, 1e-3]}, cv=2
    )
    model = ResMemClassifier(search, k=5).fit(X[:300], Y[:300])
    assert model.memory_.source.key == "LogisticRegression:input"
    assert model.score(X[300:], Y[300:]) > model.estimator_.score(X[300:], Y[300:])
    network = MLPClassifier((8,), solver="lbfgs", max_iter=200, tol=0.05, alpha=10.0, random_state=0)
    model = ResMemClassifier(network, k=5).fit(X[:300], Y[:300])
    assert (model.memory_.source.key, model.memory_.dim) == ("MLPClassifier:penultimate", 8)


def test_clone_and_params():
    module = nn.Linear(64, 10)
    model = ResMemClassifier(LogisticRegression(C=3), k=4, sigma=0.5, cv=5)
    again = clone(model)
    assert again.get_params()["estimator__C"] == 3
    assert {name: value for name, value in again.get_params(deep=False).items() if name != "estimator"} == {
        name: value for name, value in model.get_params(deep=False).items() if name != "estimator"
    }
    assert not hasattr(clone(model.set_params(cv=None).fit(X, Y)), "memory_")
    copied = clone(ResMemClassifier(module)).estimator
    assert copied is not module
    assert (copied.weight == module.weight).all()


@pytest.mark.parametrize("index", ["exact", "IVF4,Flat"])
def test_saved_and_loaded_as_scikit_learn_users_do(index, tmp_path):
    if index != "exact":
        pytest.importorskip("faiss")
    model = ResMemClassifier(LogisticRegression(C=1e-3), k=5, index=index).fit(X[:300], Y[:300])
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.predict_proba(X[300:]), model.predict_proba(X[300:]))
        again.forget(again.add(X[300:], Y[300:]))
        np.testing.assert_array_equal(again.predict(X[300:]), model.predict(X[300:]))
        assert len(model.memory_) == 300


def test_scores_and_probabilities_with_names():
    names = np.array([f"digit {i}" for i in range(10)])[Y]
    model = ResMemClassifier(LogisticRegression(C=1e-3), k=5)
    assert (cross_val_score(model, X, names, cv=2, scoring="neg_log_loss") < 0).all()
    model.fit(X[:300], names[:300])
    p = model.predict_proba(X[300:])
    assert log_loss(names[300:], p, labels=model.classes_) < 1.0
    assert roc_auc_score(names[300:], p / p.sum(1, keepdims=True, dtype=np.float64), multi_class="ovr") > 0.95
    assert (model.classes_[p.argmax(1)] == model.predict(X[300:])).all()


def test_frames_names_and_mixed_columns():
    pandas = pytest.importorskip("pandas")
    data, targets = load_diabetes(return_X_y=True, as_frame=True)
    model = ResMemRegressor(Ridge(), k=10).fit(data, targets)
    assert model.feature_names_in_.tolist() == list(data.columns)
    assert model.n_features_in_ == 10
    plain = ResMemRegressor(Ridge(), k=10).fit(data.to_numpy(), targets.to_numpy())
    np.testing.assert_allclose(model.predict(data), plain.predict(data.to_numpy()), rtol=1e-6)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(data.rename(columns={"bmi": "weight"}))
    with pytest.raises(ValueError, match="9 features"):
        plain.predict(data.to_numpy()[:, :9])

    frame = pandas.DataFrame({"colour": ["red", "blue"] * 20, "size": np.arange(40.0)})
    columns = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    mixed = ResMemClassifier(make_pipeline(columns, LogisticRegression()), k=3, cv=4)
    labels = pandas.Series(np.where((frame["size"] > 20) == (frame["colour"] == "red"), "a", "b"))
    mixed.fit(frame, labels)
    assert mixed.score(frame, labels) > mixed.estimator_.score(frame, labels)


def test_texts():
    texts = ["good film", "very good", "bad film", "really bad", "good", "bad"]
    model = ResMemClassifier(make_pipeline(TfidfVectorizer(), LogisticRegression()), k=2)
    model.fit(texts, [1, 1, 0, 0, 1, 0])
    assert model.predict(["a good one", "a bad one"]).tolist() == [1, 0]


def test_missing_values_where_the_base_imputes_them():
    holes = X.copy()
    holes[::7, 20] = np.nan
    pipe = make_pipeline(SimpleImputer(), LogisticRegression(C=1e-3))
    assert ResMemClassifier(pipe, k=3).fit(holes, Y).score(holes, Y) > 0.9
    boosted = HistGradientBoostingClassifier(max_iter=2)
    assert not get_tags(ResMemClassifier(boosted)).input_tags.allow_nan
    key = FunctionTransformer(np.nan_to_num).fit(X).transform
    assert get_tags(ResMemClassifier(boosted, key=key)).input_tags.allow_nan
    with pytest.raises(ValueError, match="NaN"):
        ResMemClassifier(boosted).fit(holes[:60], Y[:60] > 4)
    assert ResMemClassifier(boosted, key=key).fit(holes[:60], Y[:60] > 4).predict(holes).shape == (400,)


def test_kinds_are_known():
    assert get_tags(ResMemClassifier(LogisticRegression())).estimator_type == "classifier"
    assert get_tags(ResMemRegressor(Ridge())).estimator_type == "regressor"
    assert get_tags(ResMemClassifier(nn.Linear(2, 2))).estimator_type == "classifier"


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in ("residua.sklearn", "residua.hooks.estimator"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r'pip install "residua\[sklearn\]"'):
        importlib.import_module("residua.sklearn")
