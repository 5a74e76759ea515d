"""What a sweep found, one parameter at a time and two as a map."""

import numpy as np
import pytest

import residua as rs
from residua.reporting.measure import Measure
from residua.reporting.surface import surface_of, surfaces

ACCURACY = Measure("accuracy", True, 0.5, 0.6)


def swept(rows, **params):
    reader = rs.ResMem(rs.Memory(rows(1, 30)), **{"k": 3, "sigma": 1.0} | params)
    results = {
        "k": np.array([0, 1, 1, 3, 3]),
        "sigma": np.array([1.0, 0.5, 1.0, 0.5, 1.0]),
        "accuracy": np.array([0.5, 0.4, 0.6, 0.7, 0.9]),
    }
    return reader, results | {"score": results["accuracy"]}


def test_a_profile_is_the_best_at_each_value(rows):
    found = surface_of(*swept(rows), ACCURACY)
    by_k, by_sigma = found.profiles
    assert by_k.table == [("k", "accuracy"), ("1", "60.00 %"), ("3", "90.00 %")]
    assert by_sigma.table == [("sigma", "accuracy"), ("0.5", "70.00 %"), ("1", "90.00 %")]
    assert "the best is 90.00 % at 3" in by_k.alt and "without a memory it is 50.00 %" in by_k.alt
    assert found.settings == 5 and found.measure == "accuracy" and found.map is not None and found.edges == []


def test_a_map_needs_two_values_of_each_and_marks_the_readers_own(rows):
    reader, results = swept(rows)
    k, sigma = (axis.ravel() for axis in np.meshgrid([1, 3, 9], [0.5, 1.0, 2.0]))
    loss = (k - 3.0) ** 2 + (sigma - 2.0) ** 2
    results = {"k": np.r_[0, k], "sigma": np.r_[1.0, sigma], "log_loss": np.r_[5.0, loss], "score": -np.r_[5.0, loss]}
    found = surface_of(reader, results | {"perplexity": np.exp(np.r_[5.0, loss])}, ACCURACY)
    assert found.measure == "log-loss" and found.edges == ["sigma"]
    (chosen,) = [cell for cell in found.map.cells if cell.chosen]
    assert chosen.title == "sigma=1, k=3: 1"
    best = max(found.map.cells, key=lambda cell: (cell.role == "memory", cell.opacity))
    assert best.title == "sigma=2, k=3: 0" and "4 of 9 are better" in found.map.alt
    assert [cell for cell in surface_of(reader.with_params(k=2), results, ACCURACY).map.cells if cell.chosen] == []


@pytest.mark.parametrize("end", [1, 9])
def test_a_best_value_at_the_end_of_its_grid_is_said_where_more_may_lie_beyond(rows, end):
    reader, _ = swept(rows)
    score = np.array([0.0, *(-abs(k - end) for k in (1, 3, 9))])
    results = {"k": np.array([0, 1, 3, 9]), "score": score - 1, "accuracy": score - 1}
    assert surface_of(reader, results, ACCURACY).edges == (["k"] if end == 9 else [])


def test_one_that_was_not_tuned_has_none_and_a_cache_has_that_of_both(rows):
    reader, results = swept(rows)
    assert surfaces(reader, ACCURACY) == []
    reader.results_ = results
    cache = rs.ContinuousCache(reader)
    assert [one.reader for one in surfaces(cache, ACCURACY)] == ["ResMem"]
    shares = {"window": np.array([8, 8, 16]), "theta": np.array([1.0, 1, 1]), "lmbda": np.array([0, 0.1, 0.1])}
    cache.results_ = shares | {"log_loss": np.array([2.0, 1, 3]), "score": -np.array([2.0, 1, 3])}
    over, under = surfaces(cache, ACCURACY)
    assert (over.reader, under.reader) == ("ContinuousCache", "ResMem")
    assert over.profiles[0].table == [("window", "log-loss"), ("8", "1"), ("16", "3")]
