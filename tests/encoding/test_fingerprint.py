"""Fingerprints: the same model again is accepted, another is not."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from residua.core import Source
from residua.encoding.fingerprint import source_of_estimator, source_of_module


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))


def test_norms_and_shapes_by_hand():
    model = nn.Linear(2, 1)
    model.weight.data, model.bias.data = torch.tensor([[3.0, 4.0]]), torch.tensor([-2.0])
    source = source_of_module(model, "k")
    assert source == Source("Linear", "k", "float32", {"weight": ([1, 2], 5.0), "bias": ([1], 2.0)})


def test_another_seed_is_refused_and_the_same_one_accepted():
    ours = source_of_module(net(0), "k")
    assert ours.difference(source_of_module(net(0), "k")) is None
    assert "norm" in ours.difference(source_of_module(net(1), "k"))


def test_a_16_bit_copy_is_accepted_and_the_training_flag_is_nothing():
    model = net(0)
    ours = source_of_module(model, "k")
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        theirs = source_of_module(copy.deepcopy(model).to(dtype).eval(), "k")
        assert ours.difference(theirs) is None
        assert theirs.difference(ours) is None
    assert source_of_module(net(0).bfloat16(), "k").dtype == "bfloat16"


def test_batch_norm_statistics_count_and_its_counter_does_not():
    model = net(0)
    ours = source_of_module(model, "k")
    model[1].num_batches_tracked += 5
    assert ours.difference(source_of_module(model, "k")) is None
    model[1].running_var *= 1.01
    assert "running_var" in ours.difference(source_of_module(model, "k"))


def test_saving_and_loading_changes_nothing():
    model, again = net(0), net(1)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file))
    ours = source_of_module(model, "k")
    assert ours.difference(source_of_module(again, "k")) is None
    assert Source.from_json(ours.to_json()).difference(ours) is None


def test_a_model_without_parameters():
    assert source_of_module(nn.Flatten(), "k").parameters == {}


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_digits(return_X_y=True)
    return X[:300] / 16, y[:300]


def estimators():
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=400)),
        "svc": SVC(),
        "tree": DecisionTreeClassifier(random_state=0, max_depth=3),
        "forest": RandomForestClassifier(5, random_state=0, max_depth=3),
        "boosting": GradientBoostingClassifier(n_estimators=3, random_state=0),
        "histogram": HistGradientBoostingClassifier(max_iter=3, random_state=0, early_stopping=False),
        "mlp": MLPClassifier((8,), solver="lbfgs", max_iter=400, random_state=0),
        "neighbours": KNeighborsClassifier(),
        "search": GridSearchCV(LogisticRegression(max_iter=400), {"C": [1.0]}, cv=2),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(estimators()))
def test_estimators_are_told_apart_by_what_they_learned(digits, name):
    from threadpoolctl import threadpool_limits

    X, y = digits
    with threadpool_limits(1):  # scikit-learn's threads and torch's would wait for each other
        model, other = estimators()[name].fit(X, y), estimators()[name].fit(X[:200] ** 2, y[:200])
    ours = source_of_estimator(model, "k", {})
    assert ours.parameters
    model.predict(X[:5])
    assert ours.difference(source_of_estimator(copy.deepcopy(model), "k", {})) is None
    assert ours.difference(source_of_estimator(other, "k", {})) is not None
    assert len(ours.parameters) < 150  # an ensemble's members share their entries


def test_a_scalar_intercept_counts():
    from sklearn.linear_model import LinearRegression

    X = np.arange(4.0)[:, None]
    ours = source_of_estimator(LinearRegression().fit(X, X[:, 0]), "k", {})
    theirs = source_of_estimator(LinearRegression().fit(X, X[:, 0] + 1), "k", {})
    assert "intercept_" in ours.difference(theirs)


def test_classes_and_statistics_count(digits):
    from sklearn.linear_model import RidgeClassifier

    X, y = digits
    names = np.array([f"digit {i}" for i in range(10)])
    ours, theirs = (source_of_estimator(RidgeClassifier().fit(X, labels), "k", {}) for labels in (y, names[y]))
    assert "classes" in ours.difference(theirs)
    scaled = source_of_estimator(RidgeClassifier().fit(X, y), "k", {"mean": [0.0], "scale": [1.0]})
    assert "like=" in ours.difference(scaled)
