"""What fit is given beside X and y reaches the base, its clones, the splitter and the memory."""

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import AdaBoostClassifier
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter
from torch import nn

import residua as rs
from residua.errors import ParameterError, ShapeError
from residua.sklearn import ResMemClassifier, ResMemRegressor

X, Y = load_digits(n_class=3, return_X_y=True)
X, Y = X[:240] / 16, Y[:240]
WEIGHT = np.random.default_rng(0).uniform(0.1, 2, size=240)
SCALED = make_pipeline(StandardScaler(), GaussianNB(var_smoothing=0.1))


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (GaussianNB(var_smoothing=0.1), "sample_weight"),
        (SCALED, "gaussiannb__sample_weight"),
        (GridSearchCV(SCALED, {"gaussiannb__var_smoothing": [0.1]}, cv=2), "gaussiannb__sample_weight"),
    ],
)
@pytest.mark.parametrize("own_name", [False, True])
def test_weights_reach_the_step_that_predicts_and_the_memory(base, name, own_name):
    given = {name if own_name else "sample_weight": WEIGHT}
    model = ResMemClassifier(base, k=5).fit(X, Y, **given)
    expected = clone(base).fit(X, Y, **{name: WEIGHT})
    np.testing.assert_array_equal(model.estimator_.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_allclose(model.memory_.column("weight").numpy(), WEIGHT, rtol=1e-6)


def test_clones_of_cv_get_the_weights_of_their_rows():
    folds = KFold(3)
    model = ResMemClassifier(SCALED, k=5, cv=folds).fit(X, Y, sample_weight=WEIGHT)
    for train, test in folds.split(X):
        one = clone(SCALED).fit(X[train], Y[train], gaussiannb__sample_weight=WEIGHT[train])
        said = model.memory_.logits.dense().softmax(dim=1).numpy()[test]
        np.testing.assert_allclose(said, one.predict_proba(X[test]), atol=1e-6)


def test_a_base_that_takes_none_says_so_and_the_memory_is_weighed():
    with pytest.warns(UserWarning, match="KNeighborsClassifier takes no sample_weight"):
        model = ResMemClassifier(KNeighborsClassifier(20), k=5).fit(X, Y, sample_weight=WEIGHT)
    assert model.memory_.has_column("weight")
    frozen = ResMemClassifier(FrozenEstimator(GaussianNB().fit(X, Y)), k=5).fit(X, Y, sample_weight=WEIGHT)
    network = ResMemClassifier(nn.Linear(64, 3), k=5).fit(X, Y, sample_weight=WEIGHT)
    for one in (frozen, network):
        np.testing.assert_allclose(one.memory_.column("weight").numpy(), WEIGHT, rtol=1e-6)
    with pytest.raises(ParameterError, match=r"'epochs'.*torch module is not fitted again"):
        ResMemClassifier(nn.Linear(64, 3)).fit(X, Y, epochs=3)


def test_regressors_behind_a_transformed_target():
    base = TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)
    model = ResMemRegressor(base, k=5).fit(X, Y, sample_weight=WEIGHT)
    np.testing.assert_allclose(
        model.estimator_.predict(X), clone(base).fit(X, Y, sample_weight=WEIGHT).predict(X), rtol=1e-6
    )
    assert model.memory_.has_column("weight")


def test_meta_estimators_find_the_argument():
    model = ResMemClassifier(LogisticRegression(C=1e-3), k=5)
    assert has_fit_parameter(model, "sample_weight")
    boosted = AdaBoostClassifier(model, n_estimators=2).fit(X, Y)
    assert boosted.score(X, Y) > 0.9
    calibrated = CalibratedClassifierCV(model, cv=2).fit(X, Y, sample_weight=WEIGHT)
    assert all(one.estimator.memory_.has_column("weight") for one in calibrated.calibrated_classifiers_)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="one weight per row"):
        ResMemClassifier(GaussianNB()).fit(X, Y, sample_weight=WEIGHT[:5])
    with pytest.raises(ShapeError, match="groups have 5 entries for 240 rows"):
        ResMemClassifier(GaussianNB()).fit(X, Y, groups=np.arange(5))


class _Noted(ClassifierMixin, BaseEstimator):
    """Which rows clones are fitted on (their first column is their number) and asked of."""

    seen: list

    def fit(self, X, y):
        self.classes_, self.rows_ = np.unique(y), set(X[:, 0].astype(int).tolist())
        return self

    def predict_proba(self, X):
        _Noted.seen.append((self.rows_, set(X[:, 0].astype(int).tolist())))
        return np.full((len(X), 2), 0.5)

    def predict(self, X):
        return self.classes_[np.zeros(len(X), int)]


@pytest.mark.filterwarnings("ignore:.*no better than chance")
@pytest.mark.filterwarnings("ignore:.*fingerprint")
def test_rows_of_a_group_never_answer_for_each_other():
    rows = np.stack([np.arange(400.0), np.random.default_rng(0).normal(size=400)], axis=1)
    y, groups = np.arange(400) % 2, np.arange(400) // 20
    _Noted.seen = []
    model = ResMemClassifier(_Noted(), cv=GroupKFold(4), key=lambda X: X[:, 1:]).fit(rows, y, groups=groups)
    apart = [(fitted, asked) for fitted, asked in _Noted.seen if len(asked) > 20 and not (fitted & asked)]
    assert len(apart) >= 4 + 5  # of cv, and of the simulation
    for fitted, asked in apart:
        assert not {row // 20 for row in fitted} & {row // 20 for row in asked}
    assert model.evidence_.groups == 20
    with pytest.raises(ParameterError, match="pass groups= to fit"):
        ResMemClassifier(GaussianNB(), cv=GroupKFold(4)).fit(X, Y)


def test_copies_in_a_group_are_no_evidence_to_a_frozen_base():
    rng = np.random.default_rng(0)
    rows, classes = np.repeat(rng.normal(size=(100, 8)), 4, axis=0), np.repeat(rng.integers(0, 2, 100), 4)
    rows += 1e-3 * rng.normal(size=rows.shape)
    torch.manual_seed(0)
    base = FrozenEstimator(LogisticRegression().fit(rows, classes))
    alike = ResMemClassifier(base).fit(rows, classes)
    apart = ResMemClassifier(base).fit(rows, classes, groups=np.arange(400) // 4)
    assert alike.evidence_.used and not apart.evidence_.used
    assert apart.evidence_.groups == 100


def test_metadata_routing():
    with config_context(enable_metadata_routing=True):
        asking = GaussianNB(var_smoothing=0.1).set_fit_request(sample_weight=True)
        model = ResMemClassifier(asking, k=5).fit(X, Y, sample_weight=WEIGHT)
        np.testing.assert_allclose(model.estimator_.theta_, GaussianNB().fit(X, Y, sample_weight=WEIGHT).theta_)
        assert model.memory_.has_column("weight")
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            ResMemClassifier(GaussianNB(), k=5).fit(X, Y, sample_weight=WEIGHT)
        silent = ResMemClassifier(GaussianNB().set_fit_request(sample_weight=False), k=5)
        silent.fit(X, Y, sample_weight=WEIGHT)
        np.testing.assert_allclose(silent.estimator_.theta_, GaussianNB().fit(X, Y).theta_)
        assert silent.memory_.has_column("weight")
        inner = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asking)
        outer = make_pipeline(StandardScaler(), ResMemClassifier(inner, k=5).set_fit_request(sample_weight=True))
        outer[0].set_fit_request(sample_weight=False)
        outer.fit(X, Y, sample_weight=WEIGHT)
        assert outer[-1].memory_.has_column("weight")
        model = ResMemClassifier(LogisticRegression(C=0.01).set_fit_request(sample_weight=True), k=5)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        scores = cross_validate(
            model.set_fit_request(sample_weight=True).set_score_request(sample_weight=False),
            X,
            Y,
            cv=2,
            params={"sample_weight": WEIGHT},
        )
        assert scores["test_score"].mean() > 0.9


def hard(seed):
    return make_classification(
        3000, 10, n_informative=5, n_clusters_per_class=3, weights=[0.96], flip_y=0.01, random_state=seed
    )


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_balanced_base_keeps_its_recall_of_a_rare_class(wrapped):
    rows, y = hard(1)
    base = LogisticRegression(class_weight="balanced", max_iter=500)
    base = make_pipeline(StandardScaler(), base) if wrapped else base
    names = np.array(["usual", "rare"])[y]
    model = ResMemClassifier(base, k=50).fit(rows[:2000], names[:2000])

    def recall(one):
        return recall_score(names[2000:], one.predict(rows[2000:]), pos_label="rare")

    assert recall(model) > recall(model.estimator_) - 0.1
    assert recall(ResMemClassifier(base, k=50, class_weight={}).fit(rows[:2000], names[:2000])) < recall(model) - 0.2
    chosen = ResMemClassifier(base).fit(rows[:2000], names[:2000])
    assert recall(chosen) > recall(model.estimator_) - 0.05


def test_class_weights_by_name():
    names = np.array(["a", "b", "c"])[Y]
    model = ResMemClassifier(GaussianNB(), k=5, class_weight={"b": 3.0}).fit(X, names)
    assert model.reader_.class_weight == {1: 3.0}
    assert clone(model).class_weight == {"b": 3.0}
    reader = rs.ResMem(model.memory_, k=5, sigma=model.reader_.sigma, class_weight={1: 3.0})
    queries = rs.encode(model.estimator_, X, like=model.memory_)
    np.testing.assert_allclose(
        model.predict_proba(X), reader.with_params(**model.best_params_).predict_proba(queries), atol=1e-6
    )
    by_hand = GaussianNB().fit(X, names, sample_weight=np.where(names == "b", 3.0, 1.0))
    np.testing.assert_allclose(model.estimator_.class_prior_, by_hand.class_prior_)
    with pytest.raises(ParameterError, match=r"class_weight names \['d'\]; expected classes out of \['a', 'b', 'c'\]"):
        ResMemClassifier(GaussianNB(), class_weight={"d": 3.0}).fit(X, names)
