"""What an estimator was told of its classes is found, and travels with its memory."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import residua as rs

X = np.random.default_rng(0).normal(size=(80, 3))
Y = np.where(X[:, 0] > 0.8, "rare", "usual")
BALANCED = LogisticRegression(class_weight="balanced")


def carried(estimator, y=Y):
    return rs.encode(estimator.fit(X, y), X, y).source.class_weight


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (LogisticRegression(), None),
        (GaussianNB(), None),
        (BALANCED, "balanced"),
        (RidgeClassifier(class_weight={"rare": 3}), {0: 3.0}),
        (LogisticRegression(class_weight={"rare": 1, "usual": 1}), None),
        (make_pipeline(StandardScaler(), BALANCED), "balanced"),
        (GridSearchCV(BALANCED, {"C": [1.0]}, cv=2), "balanced"),
        (FixedThresholdClassifier(BALANCED, threshold=0.4, pos_label="rare"), "balanced"),
        (CalibratedClassifierCV(BALANCED, cv=2), None),  # calibrated by rows that weigh alike
    ],
)
def test_the_step_that_predicts_says_it(estimator, expected):
    assert carried(estimator) == expected


@pytest.mark.filterwarnings("ignore:.*of the residuals are nearly zero")
def test_forests_and_frozen_estimators():
    assert carried(RandomForestClassifier(5, class_weight="balanced_subsample", random_state=0)) == "balanced"
    frozen = FrozenEstimator(make_pipeline(StandardScaler(), LogisticRegression(class_weight={"rare": 2})).fit(X, Y))
    assert rs.encode(frozen, X, Y).source.class_weight == {0: 2.0}


@pytest.mark.parametrize(
    ("module", "name", "params", "expected"),
    [
        ("xgboost", "XGBClassifier", {"scale_pos_weight": 4, "n_estimators": 2}, {1: 4.0}),
        ("lightgbm", "LGBMClassifier", {"class_weight": "balanced", "n_estimators": 2, "verbose": -1}, "balanced"),
        ("lightgbm", "LGBMClassifier", {"is_unbalance": True, "n_estimators": 2, "verbose": -1}, "balanced"),
        ("catboost", "CatBoostClassifier", {"auto_class_weights": "Balanced", "iterations": 2}, "balanced"),
        ("catboost", "CatBoostClassifier", {"class_weights": [1, 3], "iterations": 2}, {1: 3.0}),
    ],
)
def test_boosters(module, name, params, expected):
    estimator = getattr(pytest.importorskip(module), name)(**params)
    if module == "catboost":
        estimator.set_params(verbose=False, allow_writing_files=False)
    assert carried(estimator, (Y == "rare").astype(int)) == expected


@pytest.mark.parametrize("sampler", ["over_sampling.RandomOverSampler", "under_sampling.TomekLinks"])
def test_a_sampler_before_the_classifier_evens_out_the_classes(sampler):
    where, name = sampler.split(".")
    pipeline = pytest.importorskip("imblearn.pipeline").make_pipeline
    step = getattr(pytest.importorskip(f"imblearn.{where}"), name)()
    expected = "balanced" if name == "RandomOverSampler" else None
    assert carried(pipeline(StandardScaler(), step, LogisticRegression())) == expected


def test_it_is_saved_with_the_rows_and_the_memory(tmp_path):
    weighted = RidgeClassifier(class_weight={"rare": 3}).fit(X, Y)
    enc = rs.encode(weighted, X, Y)
    enc.save(tmp_path / "rows.npz")
    rs.Memory(rs.Encoded.load(tmp_path / "rows.npz")).save(tmp_path / "memory")
    assert rs.Memory.load(tmp_path / "memory").source.class_weight == {0: 3.0}
