"""Rows weigh as the model's classes did when it was fitted, or as they are told to."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score

import residua as rs
from residua.errors import ParameterError

KEYS = np.zeros((4, 1))  # all are equally near
ROWS = rs.Encoded(KEYS, np.zeros((4, 2)), [0, 0, 0, 1])
QUERY = rs.Encoded([[0.0]], np.zeros((1, 2)))
ARGS = {"k": 4, "sigma": 1.0}


@pytest.mark.parametrize(
    ("class_weight", "expected"),
    [
        (None, [0.75, 0.25]),
        ({}, [0.75, 0.25]),
        ("balanced", [0.5, 0.5]),
        ({1: 2}, [0.6, 0.4]),
        ({0: 0}, [0.0, 1.0]),
        ({0: 2, 1: 2}, [0.75, 0.25]),
    ],
)
def test_votes_and_residuals_are_weighed_by_class(class_weight, expected):
    memory = rs.Memory(ROWS)
    for reader in (
        rs.ResMem(memory, **ARGS, class_weight=class_weight),
        rs.KNNLM(memory, lmbda=1.0, **ARGS, class_weight=class_weight),
    ):
        np.testing.assert_allclose(reader.scores(QUERY), [expected], atol=1e-6)
    weights = reader.class_weights
    if weights is not None:  # 1 in the mean over the rows
        assert float(weights[memory.column("label").long()].mean()) == pytest.approx(1)


def test_own_weights_multiply_and_counts_follow_edits():
    columns = {"weight": np.array([1.0, 1.0, 1.0, 2.0])}
    memory = rs.Memory(rs.Encoded(KEYS, np.zeros((4, 2)), [0, 0, 0, 1], columns=columns))
    reader = rs.ResMem(memory, **ARGS, class_weight="balanced")
    np.testing.assert_allclose(reader.scores(QUERY), [[1 / 3, 2 / 3]], atol=1e-6)
    memory.forget([0, 1])
    np.testing.assert_allclose(reader.scores(QUERY), [[1 / 3, 2 / 3]], atol=1e-6)
    assert reader.class_weights.tolist() == [1, 1]


def test_they_are_kept_by_folders_and_other_settings(tmp_path):
    memory = rs.Memory(ROWS)
    for given in ("balanced", {1: 2.5}):
        reader = rs.ResMem(memory, **ARGS, class_weight=given)
        reader.save(tmp_path)
        assert rs.load(tmp_path).params["class_weight"] == reader.with_params(k=1).class_weight == given


@pytest.mark.parametrize("given", ["even", {2: 1.0}, {"one": 1.0}, {0: -1.0}, {0: float("nan")}, [1, 2], {0: "1"}])
def test_nonsense_is_refused(given):
    with pytest.raises(ParameterError, match="class_weight"):
        rs.ResMem(rs.Memory(ROWS), **ARGS, class_weight=given)


def test_no_weight_at_all_and_no_classes():
    with pytest.raises(ParameterError, match="leaves no remembered row any weight"):
        rs.ResMem(rs.Memory(ROWS), **ARGS, class_weight={0: 0, 1: 0}).scores(QUERY)
    numbers = rs.Memory(rs.Encoded(KEYS, np.zeros(4), np.ones(4)))
    with pytest.raises(ParameterError, match="not one class"):
        rs.ResMem(numbers, **ARGS, class_weight="balanced")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_balanced_model_keeps_its_recall_of_a_rare_class(seed):
    X, y = make_classification(
        6000, 10, n_informative=5, n_clusters_per_class=3, weights=[0.97], flip_y=0.01, random_state=seed
    )
    train, held_out, test = slice(0, 3000), slice(3000, 4500), slice(4500, None)
    base = LogisticRegression(class_weight="balanced", max_iter=1000).fit(X[train], y[train])
    memory = rs.Memory(rs.encode(base, X[train], y[train]))
    queries = rs.encode(base, X[test], like=memory)

    def recall(reader):
        return recall_score(y[test], reader.predict(queries))

    alone, carried = recall(rs.ResMem(memory, k=0)), recall(rs.ResMem(memory, k=50))
    assert recall(rs.ResMem(memory, k=50, class_weight={})) < alone - 0.3  # what weighing alike takes back
    assert carried > alone - 0.15
    tuned = rs.tune(rs.ResMem(memory), rs.encode(base, X[held_out], y[held_out], like=memory))
    assert recall(tuned) > alone - 0.05
