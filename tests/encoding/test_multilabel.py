"""Estimators that give a row several labels: their log-odds are the base, whatever form their probabilities come in."""

import numpy as np
import pytest
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import residua as rs
from residua.errors import EncodeError, LabelError

X, Y = make_multilabel_classification(600, 8, n_classes=4, random_state=0)
SEEN, NEW = slice(0, 300), slice(300, None)
WITH_PROBABILITIES = [
    OneVsRestClassifier(LogisticRegression()),
    MultiOutputClassifier(LogisticRegression()),
    ClassifierChain(LogisticRegression()),
    make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=300, tol=1e-2, random_state=0)),
    make_pipeline(StandardScaler(), MultiOutputClassifier(LogisticRegression())),
    RandomForestClassifier(20, random_state=0),
    DecisionTreeClassifier(max_depth=3, random_state=0),
    KNeighborsClassifier(9),
]


def name_of(estimator):
    return type(estimator[-1] if hasattr(estimator, "steps") else estimator).__name__


@pytest.mark.parametrize("estimator", WITH_PROBABILITIES, ids=name_of)
def test_at_k_0_it_is_the_estimator(estimator):
    model = estimator.fit(X[SEEN], Y[SEEN])
    enc = rs.encode(model, X[SEEN], Y[SEEN], progress=False)
    assert enc.task == "multi-label" and enc.labels.tolist() == Y[SEEN].tolist()
    queries = rs.encode(model, X[NEW], like=rs.Memory(enc), progress=False)
    said = model.predict_proba(X[NEW])
    said = np.stack([table[:, 1] for table in said], axis=1) if isinstance(said, list) else said
    alone = rs.ResMem(rs.Memory(enc), k=0)
    np.testing.assert_allclose(alone.predict_proba(queries), said, atol=2e-6)
    sure = np.abs(said - 0.5) > 1e-6
    assert (alone.predict(queries) == model.predict(X[NEW]))[sure].all()


def test_decisions_alone_are_log_odds():
    model = OneVsRestClassifier(LinearSVC()).fit(X[SEEN], Y[SEEN])
    enc = rs.encode(model, X[SEEN], Y[SEEN], progress=False)
    np.testing.assert_allclose(enc.logits, model.decision_function(X[SEEN]), rtol=1e-5, atol=1e-6)
    ridge = RidgeClassifier().fit(X[SEEN], Y[SEEN])
    assert rs.encode(ridge, X[SEEN], Y[SEEN], progress=False).task == "multi-label"


def test_a_label_that_was_never_seen_has_no_probability():
    labels = Y[SEEN].copy()
    labels[:, 2] = 0
    model = RandomForestClassifier(5, random_state=0).fit(X[SEEN], labels)
    enc = rs.encode(model, X[SEEN], labels, progress=False)
    assert rs.ResMem(rs.Memory(enc), k=0).predict_proba(enc)[:, 2].max() < 1e-6


def test_what_is_refused():
    colours = np.random.default_rng(0).integers(0, 3, (300, 2))
    with pytest.raises(LabelError, match="each target's classifier on its own"):
        rs.encode(DecisionTreeClassifier().fit(X[SEEN], colours), X[SEEN], colours)
    model = MultiOutputClassifier(RidgeClassifier()).fit(X[SEEN], Y[SEEN])
    with pytest.raises(EncodeError, match="labels and no scores"):
        rs.encode(model, X[SEEN], Y[SEEN])


def test_out_of_fold_and_a_memory_that_helps():
    model = OneVsRestClassifier(LogisticRegression()).fit(X[SEEN, :3], Y[SEEN])  # which sees three of eight columns
    memory = rs.Memory(rs.encode(model, X[SEEN, :3], Y[SEEN], cv=5, progress=False))
    queries = rs.encode(model, X[NEW, :3], Y[NEW], like=memory, progress=False)
    best = rs.tune(rs.ResMem(memory), queries[:150])
    result = rs.evaluate(best, queries[150:])
    assert result.log_loss <= result.base_log_loss + 0.01
