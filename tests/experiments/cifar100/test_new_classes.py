"""New classes by memory alone: scores by hand, and a small run from network to picture."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import residua as rs
from experiments import new_classes
from experiments.new_classes import draw, encoded, harmonic_mean, measure, over, scorer, tables
from experiments.runner import rounded
from experiments.work import Work
from residua.errors import ParameterError

KNOWN = 3


@pytest.fixture
def where(small_cifar, small_weights, monkeypatch):
    monkeypatch.setattr(new_classes, "K", (5, 20))
    monkeypatch.setattr(new_classes, "SIGMA", np.array([0.25, 1.0]))
    monkeypatch.setattr(new_classes, "TEMPERATURE", (1.0,))
    monkeypatch.setattr(new_classes, "LMBDA", (0.5,))
    return small_weights, "here", KNOWN, "cpu"


class Said(BaseEstimator):
    """Says the same of each row every time."""

    def __init__(self, said):
        self.said = np.array(said)

    def predict(self, X):
        return self.said[X]


def test_a_score_pays_for_what_the_known_classes_lose():
    labels = np.array([0, 0, 1, 1, 2, 3])
    rows = rs.Encoded(np.eye(6), 5 * np.eye(2)[[0, 0, 1, 0, 0, 0]], labels, new_classes=True)  # right on 3 of 4
    estimator, X = Said([0, 1, 1, 0, 2, 3]), np.arange(6)  # on 2 of 4, and on both new ones
    plain = 2 * 50 * 100 / 150
    assert scorer(rows, 2)(estimator, X, labels) == pytest.approx(plain)
    assert scorer(rows, 2, 25)(estimator, X, labels) == pytest.approx(plain)
    assert scorer(rows, 2, 20)(estimator, X, labels) == pytest.approx(plain - 5 * new_classes.PRICE)
    some = np.array([0, 2, 4])  # rows are asked for by their numbers
    assert scorer(rows, 2)(estimator, some, labels[some]) == 100
    assert harmonic_mean(np.zeros(6, bool), labels < 2) == 0


def test_harmonic_means_differ_with_an_interval():
    rng = np.random.default_rng(0)
    queries = np.arange(400) < 300
    one = rng.random(400) < 0.7
    other = one & (rng.random(400) < 0.7)
    difference, low, high = over(one, other, queries, rng)
    assert difference == pytest.approx(harmonic_mean(one, queries) - harmonic_mean(other, queries))
    assert 0 < low < difference < high
    assert over(one, one, queries, rng) == (0, 0, 0)


def test_the_head_is_cut_to_the_first_classes(where):
    _, test = encoded(*where)
    assert (test.labels.max(), test.n_outputs) == (4, 5)
    whole = rs.encode(new_classes.load(where[0]), new_classes.normalise(new_classes.networks.split("", "test")[0]))
    np.testing.assert_allclose(test.logits.dense()[:, :KNOWN], whole.logits.dense()[:, :KNOWN], atol=1e-4)


@pytest.mark.slow
def test_a_run_says_all_classes_tabulates_and_draws(where):
    found = rounded(measure(Work(), weights=where[0], data="here", known=KNOWN))
    assert (found["classes"], found["memory"], found["n"]) == (5, 120, 60)
    readers = found["readers"]
    assert list(readers) == list(new_classes.NAMES)
    for reader in readers.values():
        old, new = reader["old"], reader["new"]
        assert reader["harmonic"] == pytest.approx(2 * old * new / (old + new), rel=1e-4)
        assert reader["among_known"] >= old  # fewer wrong answers can be given
        assert reader["gain"][0] == pytest.approx(reader["among_known"] - found["base"], abs=1e-3)
    assert readers["default_accuracy"]["new"] > 50  # of classes that the head never says
    assert readers["label_knn"]["over"] == [0, 0, 0]
    assert [row[0] for row in tables(found)["accuracies"].rows][1:] == list(new_classes.NAMES.values())
    assert len(tables(found)["settings"].rows) == len(readers) - 1  # a class mean has none
    assert draw(found).axes


@pytest.mark.parametrize("wrong", [{"weights": ""}, {"known": 1}, {"known": 100}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ParameterError, match="expected"):
        measure(Work(), **{"weights": "some", **wrong})
