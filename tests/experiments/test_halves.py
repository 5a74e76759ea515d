"""No row is answered by settings that saw it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from experiments.halves import crossed, paired, percent


def noisy(n: int, seed: int) -> rs.Encoded:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    keys = np.eye(3)[labels] + rng.standard_normal((n, 3)) * 0.6
    return rs.Encoded(keys, rng.standard_normal((n, 3)), labels)


def test_each_half_is_answered_with_the_settings_best_on_the_other():
    memory, test = rs.Memory(noisy(60, 0)), noisy(41, 1)
    grid = {"k": [1, 5, 20], "sigma": [0.2, 1.0], "temperature": [1.0, 3.0]}
    predicted, settings = crossed(rs.ResMem(memory, k=1), test, grid)
    for half in (0, 1):
        best = rs.tune(rs.ResMem(memory, k=1), test[1 - half :: 2], grid)
        assert settings[half] == best.best_params_
        assert predicted[half::2].tolist() == best.predict(test[half::2]).tolist()


def test_labels_of_a_half_do_not_move_its_own_answers():
    memory, test = rs.Memory(noisy(60, 0)), noisy(40, 1)
    grid = {"k": [1, 5, 20], "sigma": [0.2, 1.0], "temperature": [1.0]}
    labels = test.labels.copy()
    labels[0::2] = (labels[0::2] + 1) % 3
    other = rs.Encoded(test.keys, np.asarray(test.logits), labels)
    one, two = (crossed(rs.ResMem(memory, k=1), data, grid)[0] for data in (test, other))
    assert one[0::2].tolist() == two[0::2].tolist()


def test_no_memory_wins_only_where_it_may():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    perfect = rs.Encoded(rng.standard_normal((40, 2)), np.eye(2)[labels] * 9, labels)
    memory = rs.Memory(rs.Encoded(rng.standard_normal((30, 2)), np.zeros((30, 2)), rng.integers(0, 2, 30)))
    votes = rs.KNNLM(memory, k=1, lmbda=1.0)
    grid = {"k": [3, 5], "sigma": [1.0], "lmbda": [1.0], "temperature": [1.0]}
    predicted, settings = crossed(votes, perfect, grid)
    assert [half["k"] for half in settings] == [0, 0]
    assert percent(predicted == labels) == 100
    predicted, settings = crossed(votes, perfect, grid, refusable=False)
    assert all(half["k"] in (3, 5) and half["lmbda"] == 1 for half in settings)
    for half in (0, 1):
        other, own = perfect[1 - half :: 2], perfect[half::2]
        scores = {k: (votes.with_params(k=k).predict(other) == other.labels).mean() for k in (3, 5)}
        assert scores[settings[half]["k"]] == max(scores.values())
        expected = votes.with_params(k=settings[half]["k"], sigma=1.0).predict(own)
        assert predicted[half::2].tolist() == expected.tolist()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_difference_lies_in_its_interval_and_turns_with_its_sides(points):
    one, other = (np.array(side) for side in zip(*points))
    difference, low, high, p = paired(one, other, np.random.default_rng(0))
    assert difference == pytest.approx(percent(one) - percent(other))
    assert low - 1e-9 <= difference <= high + 1e-9 or len(points) < 10
    assert 0 < p <= 1
    assert paired(other, one, np.random.default_rng(0))[0] == pytest.approx(-difference)
    assert paired(other, one, np.random.default_rng(0))[3] == pytest.approx(p)
