"""Objectives by scikit-learn's scorers: the same numbers as the scorer gives of the reader's own answers."""

import numpy as np
import pytest
from sklearn import metrics

import residua as rs
from residua.errors import ParameterError

GRID = {"k": [1, 5, 20], "sigma": [0.3, 1.0], "temperature": [1.0]}


def made(n, seed):
    """Rows of which the model knows the first class, one in ten of the last two."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2)).astype(np.float32)
    labels = np.zeros(n, int)
    labels[np.hypot(keys[:, 0] - 1.2, keys[:, 1] - 1.2) < 0.6] = 1
    labels[np.hypot(keys[:, 0] + 1.2, keys[:, 1] + 1.2) < 0.6] = 2
    logits = np.zeros((n, 3), np.float32)
    logits[:, 0] = 2 + 0.1 * keys[:, 0]
    logits[:, 1] = 0.5 * keys[:, 0]
    return rs.Encoded(keys, logits, labels)


@pytest.fixture(scope="module")
def reader():
    return rs.ResMem(rs.Memory(made(1500, 0)))


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro", "neg_log_loss", "roc_auc_ovr", "matthews_corrcoef"])
def test_every_setting_has_the_scorers_number(reader, name):
    validation = made(500, 1)
    best = rs.tune(reader, validation, GRID, objective=name)
    results = best.results_
    assert len(results["score"]) == 1 + 3 * 2

    def number(one):
        p, said = one.predict_proba(validation).astype(float), one.predict(validation)
        p /= p.sum(axis=1, keepdims=True)
        by_hand = {
            "balanced_accuracy": lambda: metrics.balanced_accuracy_score(validation.labels, said),
            "f1_macro": lambda: metrics.f1_score(validation.labels, said, average="macro", zero_division=0),
            "neg_log_loss": lambda: -metrics.log_loss(validation.labels, p),
            "roc_auc_ovr": lambda: metrics.roc_auc_score(validation.labels, p, multi_class="ovr"),
            "matthews_corrcoef": lambda: metrics.matthews_corrcoef(validation.labels, said),
        }
        return by_hand[name]()

    for at in range(len(results["score"])):
        one = reader.with_params(k=int(results["k"][at]), sigma=float(results["sigma"][at]))
        assert results["score"][at] == pytest.approx(number(one), abs=1e-6)
    assert best.k > 0 and best.evidence_.used and best.evidence_.score_z > 1.96
    assert best.best_score_ == pytest.approx(number(best), abs=1e-6) and best.best_score_ == results["score"].max()
    assert "score +" in str(best.evidence_)


def test_a_function_is_a_scorer_too(reader):
    def recall_of_the_rare(estimator, X, y):
        return metrics.recall_score(y, estimator.predict(X), labels=[1, 2], average="macro", zero_division=0)

    best = rs.tune(reader, made(500, 1), GRID, objective=recall_of_the_rare)
    assert best.best_score_ > 0.3 and best.evidence_.used
    assert best.results_["score"][best.results_["k"] == 0].item() == 0


def test_a_gain_within_the_noise_is_none():
    rng = np.random.default_rng(0)
    keys, labels = rng.normal(size=(600, 2)), rng.integers(0, 2, 600)
    logits = np.stack([-keys[:, 0], keys[:, 0]], axis=1)
    labels = (keys[:, 0] + rng.normal(size=600) > 0).astype(int)
    rows = rs.Encoded(keys, logits, labels)
    best = rs.tune(rs.ResMem(rs.Memory(rows[:300])), rows[300:], objective="balanced_accuracy")
    assert best.k == 0 and not best.evidence_.used
    assert rs.tune(rs.ResMem(rs.Memory(rows[:300])), rows[300:], objective="balanced_accuracy", evidence=None).k > 0


def test_a_leak_is_no_evidence(reader):
    rows = made(1500, 0)[:300]
    best = rs.tune(reader, rows, GRID, objective="balanced_accuracy")
    assert best.k == 0 and best.evidence_.matches == 300


def test_rows_of_one_document_are_drawn_together(reader):
    rows = made(400, 1)
    grouped = rs.Encoded(rows.keys, rows.logits, rows.labels, ids=5000 + np.arange(400) // 10)
    alone, together = (rs.tune(reader, some, GRID, objective="f1_macro").evidence_ for some in (rows, grouped))
    assert together.groups == 40 and together.score_gain == pytest.approx(alone.score_gain)
    assert together.score_z != alone.score_z


def test_numbers_and_several_labels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)).astype(np.float32)
    y = x[:, 0] + np.sin(3 * x[:, 1])
    rows = rs.Encoded(x, x[:, 0], y)
    best = rs.tune(rs.ResMem(rs.Memory(rows[:400])), rows[400:], objective="neg_mean_absolute_error")
    found = -np.abs(best.predict(rows[400:]) - y[400:]).mean()
    assert best.k > 0 and best.best_score_ == pytest.approx(found, rel=1e-5)
    several = rs.Encoded(
        x, np.stack([x[:, 0], 0 * x[:, 1]], axis=1), np.stack([x[:, 0] > 0, y > 0.5], axis=1).astype(int)
    )
    best = rs.tune(rs.ResMem(rs.Memory(several[:400])), several[400:], objective="f1_macro")
    said = best.predict(several[400:])
    assert best.best_score_ == pytest.approx(metrics.f1_score(several.labels[400:], said, average="macro"))


def test_unknown_names_and_things(reader):
    with pytest.raises(ParameterError, match=r"'balanced_acuracy'.*near names: 'balanced_accuracy'"):
        rs.tune(reader, made(50, 1), objective="balanced_acuracy")
    with pytest.raises(ParameterError, match="a function"):
        rs.tune(reader, made(50, 1), objective=3)
    with pytest.raises(ParameterError, match="judged by log_loss"):
        rs.tune(rs.KNNLM(reader.memory), made(50, 1), objective="f1_macro", skip=0.01)
