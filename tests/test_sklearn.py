"""The scikit-learn estimators: base and memory fitted together, changed and tuned apart; scikit-learn's own tests of
them, and their life inside its tools."""

import importlib
import pickle
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import get_scorer, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import residua as rs
from residua.errors import (
    IdError,
    LabelError,
    MissingDependencyError,
    NonFiniteError,
    ParameterError,
    SourceMismatchError,
    TaskError,
)
from residua.sklearn import ResMemClassifier, ResMemRegressor

X, Y = load_digits(return_X_y=True)
X, Y = X[:500], Y[:500]
TRAIN, TEST = slice(0, 350), slice(350, 500)
NAMES = np.array([f"digit {i}" for i in range(10)])
WEAK = LogisticRegression(C=1e-4)
SMALL_X, SMALL_Y = X[:400] / 16, Y[:400]


@pytest.mark.slow
# Its toy blobs are learned by heart, which is worth a warning, and no part of what is checked.
@pytest.mark.filterwarnings("ignore:.*of the residuals are nearly zero")
@parametrize_with_checks(
    [
        ResMemClassifier(LogisticRegression()),
        # One of its checks sets min_weight_fraction_leaf of a tree itself, without which none passes it.
        ResMemClassifier(
            DecisionTreeClassifier(max_depth=4, min_weight_fraction_leaf=0.01, random_state=0),
            space="exponent",
            kernel="gaussian",
        ),
        ResMemRegressor(Ridge()),
    ]
)
def test_estimator_check(estimator, check):
    check(estimator)


def test_inside_a_pipeline_and_a_grid_search():
    pipe = Pipeline([("scale", StandardScaler()), ("resmem", ResMemClassifier(LogisticRegression(C=1e-3), k=3))])
    grid = {"resmem__k": [0, 3], "resmem__estimator__C": [1e-4, 1e-2]}
    search = GridSearchCV(pipe, grid, cv=2).fit(SMALL_X, SMALL_Y)
    assert len(search.cv_results_["params"]) == 4
    scores = {
        (p["resmem__k"], p["resmem__estimator__C"]): s
        for p, s in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"])
    }
    assert scores[3, 1e-4] > scores[0, 1e-4]
    assert search.best_params_["resmem__k"] == 3
    assert search.best_params_["resmem__estimator__C"] == search.best_estimator_["resmem"].estimator_.C
    assert search.predict(SMALL_X[:5]).shape == (5,)


def test_a_search_or_a_network_as_the_base():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1e-4, 1e-3]}, cv=2
    )
    model = ResMemClassifier(search, k=5).fit(SMALL_X[:300], SMALL_Y[:300])
    assert model.memory_.source.key == "LogisticRegression:input"
    assert model.score(SMALL_X[300:], SMALL_Y[300:]) > model.estimator_.score(SMALL_X[300:], SMALL_Y[300:])
    network = MLPClassifier((8,), solver="lbfgs", max_iter=200, tol=0.05, alpha=10.0, random_state=0)
    model = ResMemClassifier(network, k=5).fit(SMALL_X[:300], SMALL_Y[:300])
    assert (model.memory_.source.key, model.memory_.dim) == ("MLPClassifier:penultimate", 8)


def test_clone_and_params():
    module = nn.Linear(64, 10)
    model = ResMemClassifier(LogisticRegression(C=3), k=4, sigma=0.5, cv=5)
    again = clone(model)
    assert again.get_params()["estimator__C"] == 3
    assert {name: value for name, value in again.get_params(deep=False).items() if name != "estimator"} == {
        name: value for name, value in model.get_params(deep=False).items() if name != "estimator"
    }
    assert not hasattr(clone(model.set_params(cv=None).fit(SMALL_X, SMALL_Y)), "memory_")
    copied = clone(ResMemClassifier(module)).estimator
    assert copied is not module
    assert (copied.weight == module.weight).all()


@pytest.mark.parametrize("index", ["exact", "IVF4,Flat"])
def test_saved_and_loaded_as_scikit_learn_users_do(index, tmp_path):
    if index != "exact":
        pytest.importorskip("faiss")
    model = ResMemClassifier(LogisticRegression(C=1e-3), k=5, index=index).fit(SMALL_X[:300], SMALL_Y[:300])
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.predict_proba(SMALL_X[300:]), model.predict_proba(SMALL_X[300:]))
        again.forget(again.add(SMALL_X[300:], SMALL_Y[300:]))
        np.testing.assert_array_equal(again.predict(SMALL_X[300:]), model.predict(SMALL_X[300:]))
        assert len(model.memory_) == 300


def test_scores_and_probabilities_with_names():
    names = np.array([f"digit {i}" for i in range(10)])[SMALL_Y]
    model = ResMemClassifier(LogisticRegression(C=1e-3), k=5)
    assert (cross_val_score(model, SMALL_X, names, cv=2, scoring="neg_log_loss") < 0).all()
    model.fit(SMALL_X[:300], names[:300])
    p = model.predict_proba(SMALL_X[300:])
    assert log_loss(names[300:], p, labels=model.classes_) < 1.0
    assert roc_auc_score(names[300:], p / p.sum(1, keepdims=True, dtype=np.float64), multi_class="ovr") > 0.95
    assert (model.classes_[p.argmax(1)] == model.predict(SMALL_X[300:])).all()


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
    holes = SMALL_X.copy()
    holes[::7, 20] = np.nan
    pipe = make_pipeline(SimpleImputer(), LogisticRegression(C=1e-3))
    assert ResMemClassifier(pipe, k=3).fit(holes, SMALL_Y).score(holes, SMALL_Y) > 0.9
    boosted = HistGradientBoostingClassifier(max_iter=2)
    key = FunctionTransformer(np.nan_to_num).fit(SMALL_X).transform
    for model in (ResMemClassifier(boosted, k=3), ResMemClassifier(boosted, k=3, key=key)):
        assert get_tags(model).input_tags.allow_nan
        assert model.fit(holes[:60], SMALL_Y[:60] > 4).predict(holes).shape == (400,)
    with pytest.raises(ValueError, match="NaN"):
        ResMemClassifier(LogisticRegression()).fit(holes[:60], SMALL_Y[:60] > 4)


def test_kinds_are_known():
    assert get_tags(ResMemClassifier(LogisticRegression())).estimator_type == "classifier"
    assert get_tags(ResMemRegressor(Ridge())).estimator_type == "regressor"
    assert get_tags(ResMemClassifier(nn.Linear(2, 2))).estimator_type == "classifier"


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "residua.sklearn")
    with pytest.raises(MissingDependencyError, match=r'pip install "residua\[sklearn\]"'):
        importlib.import_module("residua.sklearn")


# --- what they are made of


@pytest.fixture
def fitted():
    return ResMemClassifier(WEAK, k=5).fit(X[TRAIN], Y[TRAIN])


@pytest.mark.parametrize("cv", [None, KFold(2, shuffle=True, random_state=0)])
def test_fit_is_encode_memory_and_reader(cv):
    settings = {"sigma": 2.0, "temperature": 0.8, "kernel": "gaussian"}
    model = ResMemClassifier(WEAK, k=7, cv=cv, **settings).fit(X[TRAIN], NAMES[Y[TRAIN]])
    base = clone(WEAK).fit(X[TRAIN], NAMES[Y[TRAIN]])
    memory = rs.Memory(rs.encode(base, X[TRAIN], NAMES[Y[TRAIN]], cv=cv))
    reader = rs.ResMem(memory, k=7, **settings)
    queries = rs.encode(base, X[TEST], like=memory)
    np.testing.assert_allclose(model.predict_proba(X[TEST]), reader.predict_proba(queries), atol=1e-6)
    np.testing.assert_array_equal(model.predict(X[TEST]), base.classes_[reader.predict(queries)])
    assert model.memory_.source.difference(memory.source) is None


def test_regressor_is_encode_memory_and_reader():
    targets = np.stack([Y, X[:, 20] ** 2], axis=1).astype(float)
    for y in (targets, targets[:, 1]):
        model = ResMemRegressor(Ridge(), k=4, sigma=3.0).fit(X[TRAIN], y[TRAIN])
        base = Ridge().fit(X[TRAIN], y[TRAIN])
        memory = rs.Memory(rs.encode(base, X[TRAIN], y[TRAIN]))
        expected = rs.ResMem(memory, k=4, sigma=3.0).predict(rs.encode(base, X[TEST], like=memory))
        found = model.predict(X[TEST])
        assert found.dtype == np.float64
        assert found.shape == y[TEST].shape
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert model.score(X[TEST], y[TEST]) > base.score(X[TEST], y[TEST])


def test_the_memory_improves_a_weak_base(fitted):
    assert fitted.score(X[TEST], Y[TEST]) > fitted.estimator_.score(X[TEST], Y[TEST]) + 0.01


def test_k_zero_is_the_base():
    with pytest.raises(ParameterError, match="k=31, and the memory has 30 rows"):
        ResMemClassifier(WEAK, k=31).fit(X[:30], Y[:30])
    none = ResMemClassifier(WEAK, k=0).fit(X[TRAIN], Y[TRAIN])
    np.testing.assert_array_equal(none.predict_proba(X[TEST]), none.estimator_.predict_proba(X[TEST]))


def test_out_of_fold_residuals_for_a_base_that_memorises():
    tree = DecisionTreeClassifier(random_state=0)
    with pytest.warns(UserWarning, match="100.0 % of the residuals are nearly zero"):
        blind = ResMemClassifier(tree).fit(X[TRAIN], Y[TRAIN])
    np.testing.assert_array_equal(blind.predict(X[TEST]), blind.estimator_.predict(X[TEST]))
    # Out of fold nothing is memorised, so nothing warns; the temperature softens a tree's certainty.
    model = ResMemClassifier(tree, k=10, cv=5, temperature=20.0).fit(X[TRAIN], Y[TRAIN])
    assert (model.memory_.logits.argmax().cpu().numpy() != Y[TRAIN]).mean() > 0.2
    assert model.score(X[TEST], Y[TEST]) > model.estimator_.score(X[TEST], Y[TEST]) + 0.2


def test_a_frozen_estimator_is_not_fitted_again():
    base = LogisticRegression(C=1e-4).fit(X[:200], Y[:200])
    coefficients = base.coef_.copy()
    model = ResMemClassifier(FrozenEstimator(base), k=5).fit(X[200:350], Y[200:350])
    np.testing.assert_array_equal(base.coef_, coefficients)
    assert model.estimator_.estimator is base
    assert model.score(X[TEST], Y[TEST]) > base.score(X[TEST], Y[TEST])
    some = Y[TRAIN] < 9
    lesser = FrozenEstimator(LogisticRegression(C=1e-4).fit(X[TRAIN][some], Y[TRAIN][some]))
    with pytest.raises(LabelError, match=r"labels \[9\] are not among the 9 classes"):
        ResMemClassifier(lesser).fit(X[TRAIN], Y[TRAIN])


def network(outputs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, outputs))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    x, y = torch.tensor(X[TRAIN] / 16, dtype=torch.float32), torch.tensor(Y[TRAIN])
    for _ in range(20):
        optimiser.zero_grad()
        out = net(x)
        loss = nn.functional.cross_entropy(out, y) if outputs > 1 else ((out[:, 0] - y) ** 2).mean()
        loss.backward()
        optimiser.step()
    return net


def test_a_torch_module_is_not_fitted_again():
    net = network(10)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    model = ResMemClassifier(net, k=5).fit(X[TRAIN] / 16, Y[TRAIN])
    assert model.estimator_ is net
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert model.classes_.tolist() == list(range(10))
    reader = rs.ResMem(rs.Memory(rs.encode(net, X[TRAIN] / 16, Y[TRAIN])), k=5)
    expected = reader.predict_proba(rs.encode(net, X[TEST] / 16))
    np.testing.assert_allclose(model.predict_proba(X[TEST] / 16), expected, atol=1e-6)
    base = net(torch.tensor(X[TEST] / 16, dtype=torch.float32)).argmax(1).numpy()
    assert model.score(X[TEST] / 16, Y[TEST]) > (base == Y[TEST]).mean()
    images = torch.tensor(X / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    shaped = ResMemClassifier(conv, k=3, key="0", storage="full").fit(images[TRAIN], Y[TRAIN])
    assert shaped.memory_.dim == 4
    assert shaped.predict(images[TEST].numpy()).shape == (150,)
    assert not hasattr(shaped, "n_features_in_")
    with torch.no_grad():
        net[0].weight *= 1.1
    with pytest.raises(SourceMismatchError):
        model.predict(X[TEST] / 16)


def test_torch_modules_with_one_output():
    net = network(1)
    model = ResMemRegressor(net, k=3).fit(X[TRAIN] / 16, Y[TRAIN])
    base = net(torch.tensor(X[TEST] / 16, dtype=torch.float32))[:, 0].detach().numpy()
    assert model.predict(X[TEST] / 16).shape == (150,)
    assert ((model.predict(X[TEST] / 16) - Y[TEST]) ** 2).mean() < ((base - Y[TEST]) ** 2).mean()
    two = ResMemClassifier(net, k=3).fit(X[TRAIN] / 16, Y[TRAIN] > 4)
    assert two.predict_proba(X[TEST] / 16).shape == (150, 2)
    with pytest.raises(LabelError, match="map class names to indices"):
        ResMemClassifier(network(10)).fit(X[TRAIN] / 16, NAMES[Y[TRAIN]])


def test_add_and_forget_change_predictions_at_once():
    model = ResMemClassifier(WEAK, k=1, sigma=1.0).fit(X[TRAIN], NAMES[Y[TRAIN]])
    before = model.predict(X[TEST])
    assert (before != NAMES[Y[TEST]]).any()
    ids = model.add(X[TEST], NAMES[Y[TEST]])
    assert ids.tolist() == list(range(350, 500))
    np.testing.assert_array_equal(model.predict(X[TEST]), NAMES[Y[TEST]])
    assert model.forget(ids) == 150
    np.testing.assert_array_equal(model.predict(X[TEST]), before)
    with pytest.raises(IdError, match="not in the memory"):
        model.forget([999])
    with pytest.raises(LabelError, match="'digit 10'"):
        model.add(X[:1], ["digit 10"])
    model.forget(model.memory_.ids)
    np.testing.assert_array_equal(model.predict(X[TEST]), model.estimator_.predict(X[TEST]))


def test_add_to_a_regressor():
    model = ResMemRegressor(LinearRegression(), k=1).fit(X[TRAIN], Y[TRAIN])
    model.add(X[TEST], Y[TEST])
    np.testing.assert_allclose(model.predict(X[TEST]), Y[TEST], atol=1e-4)


class _EmptyClasses(LinearRegression):
    """As CatBoost's regressors have it."""

    classes_ = ()


def test_a_regressor_with_an_empty_classes_():
    X = np.arange(8.0)[:, None]
    model = ResMemRegressor(_EmptyClasses(), k=0).fit(X, X[:, 0] ** 2)
    assert np.allclose(model.predict(X), model.estimator_.predict(X), rtol=1e-5, atol=1e-5)


def test_tune_replaces_the_reader(fitted):
    model = clone(fitted).fit(X[:250], Y[:250])
    before = model.reader_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.tune(X[250:350], Y[250:350], {"k": [0, 1, 3, 10], "temperature": [0.5, 1.0]}) is model
    best = rs.tune(
        before,
        rs.encode(model.estimator_, X[250:350], Y[250:350], like=before.memory),
        {"k": [0, 1, 3, 10], "temperature": [0.5, 1.0]},
    )
    assert model.reader_.params == best.params
    assert model.reader_.best_params_["k"] in (0, 1, 3, 10)
    # What was chosen is the model's own now, and its clones'.
    assert {name: model.get_params()[name] for name in best.best_params_} == best.best_params_
    again = clone(model).fit(X[:250], Y[:250])
    assert again.best_params_ == model.best_params_
    np.testing.assert_array_equal(again.predict(X[350:]), model.predict(X[350:]))


def test_sample_weights_reach_base_and_memory():
    weight = np.where(Y[TRAIN] == 3, 0.0, 1.0)
    model = ResMemClassifier(GaussianNB(), k=3, sigma=1.0, temperature=50.0)
    model.fit(X[TRAIN], Y[TRAIN], sample_weight=weight + 1e-6)
    expected = GaussianNB().fit(X[TRAIN], Y[TRAIN], sample_weight=weight + 1e-6)
    np.testing.assert_allclose(model.estimator_.theta_, expected.theta_)
    plain = ResMemClassifier(FrozenEstimator(expected), k=3, sigma=1.0, temperature=50.0).fit(X[TRAIN], Y[TRAIN])
    assert model.memory_.has_column("weight") and not plain.memory_.has_column("weight")
    assert (model.predict(X[TEST]) == 3).sum() < (plain.predict(X[TEST]) == 3).sum()
    assert len(model.add(X[TEST], Y[TEST])) == 150
    assert len(model.add(X[:2], Y[:2], sample_weight=[1.0, 2.0])) == 2
    with pytest.raises(ParameterError, match="fitted without"):
        plain.add(X[:2], Y[:2], sample_weight=[1.0, 2.0])


def test_keys_index_and_storage_are_the_users():
    columns = ResMemClassifier(WEAK, k=3, key=lambda rows: rows[:, 20:44]).fit(X[TRAIN], Y[TRAIN])
    assert columns.memory_.dim == 24
    assert columns.score(X[TEST], Y[TEST]) > 0.7
    kept = ResMemClassifier(WEAK, k=3, storage="top-m", temperature=0.5).fit(X[TRAIN], Y[TRAIN])
    full = ResMemClassifier(WEAK, k=3, temperature=0.5).fit(X[TRAIN], Y[TRAIN])
    np.testing.assert_allclose(kept.predict_proba(X[TEST]), full.predict_proba(X[TEST]), atol=1e-5)
    pytest.importorskip("faiss")
    params = {"nprobe": 4}
    lists = ResMemClassifier(WEAK, k=3, index="IVF4,Flat", index_params=params, temperature=0.5).fit(X[TRAIN], Y[TRAIN])
    assert lists.memory_.index.name == "IVF4,Flat"
    np.testing.assert_allclose(lists.predict_proba(X[TEST]), full.predict_proba(X[TEST]), atol=1e-5)


def test_sparse_rows_of_any_format(fitted):
    plain = fitted.predict_proba(X[TEST])
    rows = sparse.coo_array(X)
    model = ResMemClassifier(WEAK, k=5, cv=None).fit(rows.tocsr()[TRAIN].tocoo(), Y[TRAIN])
    np.testing.assert_allclose(model.predict_proba(rows.tocsr()[TEST].tolil()), plain, atol=1e-3)


def test_bad_input():
    with pytest.raises(NotFittedError):
        ResMemClassifier(WEAK).predict(X)
    with pytest.raises(NotFittedError):
        ResMemClassifier(WEAK).forget([0])
    with pytest.raises(TaskError, match="Pipeline does regression"):
        ResMemClassifier(make_pipeline(Ridge())).fit(X, Y)
    with pytest.raises(LabelError, match="y holds 1 class"):
        ResMemClassifier(DecisionTreeClassifier()).fit(X[:5], np.zeros(5, int))
    with pytest.raises(ParameterError, match="sigma=0"):
        ResMemClassifier(WEAK, sigma=0).fit(X, Y)
    model = ResMemClassifier(FrozenEstimator(DecisionTreeClassifier(max_depth=3).fit(X, Y)), k=5).fit(X, Y)
    bad = X[:3].copy()
    bad[1, 1] = np.nan
    assert model.predict(bad).shape == (3,)  # as a tree does; a key of one's own may not
    model.key = lambda rows: rows
    with pytest.raises(NonFiniteError, match="1 NaN"):
        model.predict(bad)


# --- the methods beside predict


def test_decisions_and_log_probabilities_agree_with_predictions(fitted):
    p = fitted.predict_proba(X[TEST])
    np.testing.assert_allclose(fitted.predict_log_proba(X[TEST]), np.log(p))
    np.testing.assert_array_equal(fitted.classes_[fitted.decision_function(X[TEST]).argmax(1)], fitted.predict(X[TEST]))
    names = np.where(Y > 4, "high", "low")
    two = ResMemClassifier(WEAK, k=5).fit(X[TRAIN], names[TRAIN])
    decision = two.decision_function(X[TEST])
    assert decision.shape == (150,)
    np.testing.assert_array_equal(np.where(decision > 0, "low", "high"), two.predict(X[TEST]))
    auc = roc_auc_score(names[TEST] == "low", two.predict_proba(X[TEST])[:, 1])
    assert get_scorer("roc_auc")(two, X[TEST], names[TEST]) == pytest.approx(auc)
    alone = ResMemClassifier(LinearSVC(), k=0).fit(X[TRAIN], Y[TRAIN])
    np.testing.assert_array_equal(alone.decision_function(X[TEST]), alone.estimator_.decision_function(X[TEST]))


def test_kneighbors_as_scikit_learn_has_them(fitted):
    scaled = StandardScaler().fit(X[TRAIN])
    plain = NearestNeighbors(n_neighbors=5).fit(scaled.transform(X[TRAIN]))
    for given, queries in (((X[TEST],), (scaled.transform(X[TEST]),)), ((), ())):
        distances, ids = fitted.kneighbors(*given)
        expected, rows = plain.kneighbors(*queries)
        np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-4)
        assert (ids == rows).mean() > 0.99  # ties
    assert fitted.kneighbors(X[:3], 2, return_distance=False).shape == (3, 2)
    fitted.forget(ids[0])
    assert not np.isin(fitted.kneighbors(X[:50], 1)[1], ids[0]).any()
    with pytest.raises(ParameterError, match="n_neighbors=0; expected 1 to"):
        fitted.kneighbors(X[:3], 0)


def test_explanations_and_evaluations_are_residuas_own():
    model = ResMemClassifier(WEAK, k=5).fit(X[TRAIN], NAMES[Y[TRAIN]])
    whys = model.explain(X[TEST][:3], NAMES[Y[TEST]][:3])
    assert [model.classes_[why.prediction] for why in whys] == model.predict(X[TEST][:3]).tolist()
    assert whys[0].ids.tolist() == model.kneighbors(X[TEST][:1], 5)[1][0].tolist()
    assert [model.classes_[why.label] for why in whys] == NAMES[Y[TEST]][:3].tolist()
    result = model.evaluate(X[TEST], NAMES[Y[TEST]], confidence=0.9)
    assert result.accuracy == pytest.approx(model.score(X[TEST], NAMES[Y[TEST]]))
    assert result.base_accuracy == pytest.approx(model.estimator_.score(X[TEST], NAMES[Y[TEST]]))
    assert result.confidence == 0.9
    regressor = ResMemRegressor(Ridge(), k=4).fit(X[TRAIN], Y[TRAIN])
    assert regressor.evaluate(X[TEST], Y[TEST]).r2 == pytest.approx(regressor.score(X[TEST], Y[TEST]), rel=1e-4)
    assert regressor.explain(X[TEST][:1])[0].prediction == pytest.approx(regressor.predict(X[TEST][:1])[0], rel=1e-5)


def test_relabel_by_class_name():
    model = ResMemClassifier(WEAK, k=1, sigma=1.0).fit(X[TRAIN], NAMES[Y[TRAIN]])
    assert model.relabel([0], ["digit 7"]) == 1
    assert model.predict(X[:1]) == ["digit 7"]
    with pytest.raises(LabelError, match="'eleven'"):
        model.relabel([0], ["eleven"])
    regressor = ResMemRegressor(Ridge(), k=1).fit(X[TRAIN], Y[TRAIN])
    regressor.relabel([0, 1], [5.5, 6.5])
    np.testing.assert_allclose(regressor.predict(X[:2]), [5.5, 6.5], rtol=1e-5)


@pytest.mark.parametrize("k", [0, 3])
def test_new_classes_come_by_name_and_go_again(k):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) + np.repeat([[0, 0], [8, 0], [0, 8], [8, 8]], 15, axis=0)
    y = np.repeat(["b", "c", "z", "a"], 15)
    model = ResMemClassifier(LogisticRegression(), k=k).fit(X[:30], y[:30])
    base = model.estimator_.predict(X)
    with pytest.raises(LabelError, match="not among the 2 classes"):
        model.add(X[30:], y[30:])
    with pytest.raises(LabelError, match="names of the same kind"):
        model.add(X[30:], np.arange(30), new_classes=True)
    assert model.classes_.tolist() == ["b", "c"]
    ids = model.add(X[30:50], y[30:50], new_classes=True)
    assert model.classes_.tolist() == ["b", "c", "a", "z"]
    model.add(X[50:], y[50:])  # known by now
    proba = model.predict_proba(X)
    assert proba.shape == model.decision_function(X).shape == (60, 4)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    if k:
        assert model.score(X, y) == 1
        np.testing.assert_array_equal(model.classes_[proba.argmax(axis=1)], y)
    else:
        np.testing.assert_allclose(proba[:, 2:], 0.25, rtol=1e-5)
        np.testing.assert_array_equal(model.predict(X), base)
    model.forget([*ids, *range(50, 60)])
    np.testing.assert_array_equal(model.predict(X[:30]), base[:30])
    assert set(model.predict(X)) <= {"b", "c"}


def test_several_labels_of_a_row_are_refused_with_the_way_that_takes_them():
    several = np.stack([SMALL_Y < 5, SMALL_Y % 2 == 0], axis=1).astype(int)
    with pytest.raises(LabelError, match=r"y has shape \(400, 2\); expected a class per row.*rs.encode\(estimator"):
        ResMemClassifier(MLPClassifier()).fit(SMALL_X, several)
