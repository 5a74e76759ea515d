"""Estimators that choose their own settings, and use a memory only where it is better beyond doubt."""

import logging
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits, make_friedman1
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import residua as rs
from residua.errors import ParameterError
from residua.sklearn import ResMemClassifier, ResMemRegressor

X, Y = load_digits(return_X_y=True)
TRAIN, TEST = slice(0, 700), slice(700, None)
WEAK = LogisticRegression(C=1e-4, max_iter=300)


def null(n, seed):
    """Two classes, of which a linear model knows all there is to know."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 5))
    return rows, (rows[:, 0] + rng.logistic(size=n) > 0).astype(int)


def test_a_memory_that_helps_is_used():
    model = ResMemClassifier(WEAK).fit(X[TRAIN], Y[TRAIN])
    assert model.evidence_.used and model.evidence_.z > 1.96 and model.evidence_.rows == 700
    assert model.best_params_ == {name: getattr(model.reader_, name) for name in ("k", "widths", "temperature")}
    assert model.best_params_["k"] == 200 and isinstance(model.reader_, rs.Pooled)
    assert model.score(X[TEST], Y[TEST]) > model.estimator_.score(X[TEST], Y[TEST]) + 0.02
    # Another fit of the same rows is the same model, and clones know nothing of it.
    again = clone(model).fit(X[TRAIN], Y[TRAIN])
    assert again.best_params_ == model.best_params_ and again.get_params()["k"] is None

    rows, targets = make_friedman1(600, 5, noise=1.0, random_state=0)
    regressor = ResMemRegressor(Ridge()).fit(rows[:400], targets[:400])
    assert regressor.evidence_.used and set(regressor.best_params_) == {"k", "widths"}
    assert regressor.score(rows[400:], targets[400:]) > regressor.estimator_.score(rows[400:], targets[400:]) + 0.02


@pytest.mark.parametrize("names", [False, True])
def test_without_evidence_the_answers_are_the_bases_bit_for_bit(names):
    rows, classes = null(400, 0)
    classes = np.array(["no", "yes"])[classes] if names else classes
    model = ResMemClassifier(LogisticRegression()).fit(rows[:300], classes[:300])
    base = LogisticRegression().fit(rows[:300], classes[:300])
    assert model.best_params_["k"] == 0 and not model.evidence_.used
    np.testing.assert_array_equal(model.predict_proba(rows[300:]), base.predict_proba(rows[300:]))
    np.testing.assert_array_equal(model.predict(rows[300:]), base.predict(rows[300:]))
    noisy = rows[:, 0] + np.random.default_rng(1).normal(size=400)
    regressor = ResMemRegressor(Ridge()).fit(rows[:300], noisy[:300])
    assert regressor.best_params_["k"] == 0
    np.testing.assert_array_equal(
        regressor.predict(rows[300:]), Ridge().fit(rows[:300], noisy[:300]).predict(rows[300:])
    )
    with pytest.warns(UserWarning, match="more rows change no prediction"):
        model.add(rows[300:], classes[300:])


def test_a_setting_of_resmem_asks_for_it():
    rows, classes = null(300, 0)
    for given in ({"sigma": 0.5}, {"space": "exponent"}, {"temperature": 1.0}):
        model = ResMemClassifier(LogisticRegression(), **given).fit(rows, classes)
        assert isinstance(model.reader_, rs.ResMem) and all(getattr(model.reader_, n) == v for n, v in given.items())
        # Who gives a width wants a memory, whatever the evidence.
        assert (model.reader_.k > 0) == ("sigma" in given or model.evidence_.used)
    few = ResMemClassifier(LogisticRegression(), sigma=0.5).fit(rows[:50], classes[:50])
    assert few.reader_.k == 50 and few.evidence_ is None


def test_a_pooled_estimator_is_tuned_explained_and_learns_a_class():
    nine = Y < 9
    model = ResMemClassifier(WEAK).fit(X[nine][:700], Y[nine][:700])
    assert isinstance(model.reader_, rs.Pooled)
    why = model.explain(X[TEST][:1])[0]
    np.testing.assert_allclose(why.scale * why.base + why.contributions.sum(axis=0), why.scores, atol=1e-4)
    model.add(X[~nine][:60], Y[~nine][:60], new_classes=True)
    assert (model.predict(X[~nine][60:]) == 9).mean() > 0.5
    tuned = model.tune(X[TEST][:300], Y[TEST][:300], {"k": [5, 20]})
    assert isinstance(tuned.reader_, rs.ResMem) and tuned.k == tuned.reader_.k


@pytest.mark.slow
def test_chance_is_rarely_taken_for_a_memory():
    used = [ResMemClassifier(LogisticRegression()).fit(*null(600, seed)).evidence_.used for seed in range(20)]
    assert sum(used) <= 3  # the best of all settings on the rows it is chosen on passes 5


def hidden_in(rows, rare):
    """Two classes, of which class 1 has `rare` rows, that a memory finds and a linear model does not."""
    x, classes = np.random.default_rng(0).normal(size=(rows, 2)), (np.arange(rows) < rare).astype(int)
    x[:, 0] += 9 * (classes == (x[:, 1] > 0))
    return x, classes


@pytest.mark.parametrize(("rows", "rare", "why"), [(199, 60, "199 rows"), (400, 49, "class 1 has 49 rows")])
def test_too_few_rows_choose_nothing(rows, rare, why, caplog):
    x, classes = hidden_in(rows, rare)
    with caplog.at_level(logging.INFO, logger="residua"):
        model = ResMemClassifier(LogisticRegression()).fit(x, classes)
    assert why in caplog.text
    assert model.best_params_["k"] == 0 and model.evidence_ is None
    np.testing.assert_array_equal(model.predict_proba(x), model.estimator_.predict_proba(x))
    given = ResMemClassifier(LogisticRegression(), k=3).fit(x, classes)
    assert given.best_params_ == {"k": 3, "sigma": given.memory_.median_nn_distance(), "temperature": 1.0}
    assert ResMemClassifier(LogisticRegression()).fit(*hidden_in(max(rows, 200), 60)).evidence_.used


def test_rows_that_are_all_alike_are_no_memory():
    model = ResMemClassifier(LogisticRegression()).fit(np.ones((300, 2)), np.arange(300) % 2)
    assert model.best_params_["k"] == 0 and model.evidence_ is None
    model = ResMemRegressor(Ridge()).fit(np.ones((300, 2)), np.arange(300.0))
    np.testing.assert_array_equal(model.predict(np.zeros((2, 2))), model.estimator_.predict(np.zeros((2, 2))))


def test_what_is_given_is_used_and_its_evidence_told():
    rows, classes = null(300, 1)
    model = ResMemClassifier(LogisticRegression(), k=9, sigma=0.5, temperature=2.0).fit(rows, classes)
    assert model.best_params_ == {"k": 9, "sigma": 0.5, "temperature": 2.0}
    assert not model.evidence_.used and model.evidence_.z < 1.96
    silent = ResMemClassifier(LogisticRegression(), k=9, sigma=0.5, temperature=2.0, evidence=None).fit(rows, classes)
    assert silent.evidence_ is None and silent.best_params_ == model.best_params_
    chosen = ResMemClassifier(LogisticRegression(), sigma=0.5, evidence=None).fit(rows, classes)
    assert chosen.evidence_.needed is None and chosen.best_params_["sigma"] == 0.5
    with pytest.raises(ParameterError, match="expected standard errors"):
        ResMemClassifier(LogisticRegression(), evidence="much").fit(rows, classes)


class Spy(ClassifierMixin, BaseEstimator):
    """A classifier that knows the rows of its fit by heart, and nothing of others."""

    fits: ClassVar[list] = []

    def fit(self, X, y, sample_weight=None):
        self.fits.append((len(X), None if sample_weight is None else len(sample_weight)))
        self.classes_, self.known_ = np.unique(y), {row.tobytes(): label for row, label in zip(X, y)}
        return self

    def predict_proba(self, X):
        known = np.array([self.known_.get(row.tobytes(), -1) for row in X])
        table = np.where(known[:, None] == np.arange(len(self.classes_)), 0.9, 0.1)
        return table / table.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.mark.filterwarnings("error:the base is no better than chance")
def test_clones_that_know_nothing_of_new_rows_are_nobodys_mistake():
    rows = np.random.default_rng(0).normal(size=(300, 2))
    tree = DecisionTreeClassifier(min_samples_leaf=20, random_state=0)
    model = ResMemClassifier(tree).fit(rows, np.random.default_rng(1).integers(0, 2, 300))  # learned by heart
    assert model.best_params_["k"] == 0


def test_every_row_is_answered_by_a_clone_that_never_saw_it(monkeypatch):
    rows, classes = null(300, 2)
    monkeypatch.setattr(Spy, "fits", [])
    model = ResMemClassifier(Spy(), k=5, sigma=1.0).fit(rows, classes, sample_weight=np.ones(300))
    assert Spy.fits == [(300, 300), *[(240, 240)] * 5]
    results = model.reader_.results_
    assert results["log_loss"][results["k"] == 0] == pytest.approx(np.log(2))
    monkeypatch.setattr(Spy, "fits", [])
    ResMemClassifier(Spy(), k=20, cv=KFold(3)).fit(rows, classes)
    assert [size for size, _ in Spy.fits] == [300, 200, 200, 200, *[240, 160, 160, 160] * 5]


def test_the_keys_are_those_of_each_clone():
    network = MLPClassifier((8,), max_iter=60, learning_rate_init=0.02, random_state=0)
    model = ResMemClassifier(make_pipeline(StandardScaler(), network))
    with pytest.warns(UserWarning):  # it stops early
        model.fit(X[TRAIN], Y[TRAIN])
    assert model.memory_.dim == 8 and model.evidence_.rows == 700


@pytest.mark.parametrize("kind", ["frozen", "inside", "torch"])
def test_what_is_not_fitted_again_leaves_each_row_out(kind):
    scaled = X / 16
    base = LogisticRegression(C=1e-3, max_iter=300).fit(scaled[:500], Y[:500])
    new, old = slice(500, 1200), slice(1200, None)
    estimator = FrozenEstimator(base)
    if kind == "inside":
        estimator = make_pipeline(estimator)
    elif kind == "torch":
        estimator = nn.Linear(64, 10)
        with torch.no_grad():
            estimator.weight.copy_(torch.from_numpy(base.coef_))
            estimator.bias.copy_(torch.from_numpy(base.intercept_))
    model = ResMemClassifier(estimator).fit(scaled[new], Y[new])
    assert model.evidence_.used and model.evidence_.rows == 700 and model.evidence_.matches == 0
    assert model.score(scaled[old], Y[old]) > base.score(scaled[old], Y[old]) + 0.02
    assert model.best_params_["temperature"] >= 1


def test_a_frozen_model_that_knows_its_rows_by_heart_gets_no_memory():
    rows, classes = null(400, 3)
    base = KNeighborsClassifier(1).fit(rows, classes)
    with pytest.warns(UserWarning, match="of the residuals are nearly zero"):
        model = ResMemClassifier(FrozenEstimator(base)).fit(rows, classes)
    assert model.best_params_["k"] == 0
    np.testing.assert_array_equal(model.predict_proba(rows), base.predict_proba(rows))


def test_top_m_storage_has_one_temperature():
    model = ResMemClassifier(WEAK, storage="top-m").fit(X[TRAIN], Y[TRAIN])
    assert model.best_params_["temperature"] == 1
    given = ResMemClassifier(WEAK, storage="top-m", temperature=0.2).fit(X[TRAIN], Y[TRAIN])
    assert given.best_params_["temperature"] == 0.2 and given.best_params_["k"] > 0
