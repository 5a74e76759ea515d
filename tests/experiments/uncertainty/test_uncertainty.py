"""The tables of sets and intervals, on a few made-up rows."""

import numpy as np
import pytest

import residua as rs
from experiments import uncertainty
from experiments.uncertainty import classes, intervals, rivals


def rows(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.tile(np.arange(4), n // 4))
    keys = np.stack([np.cos(labels * 2.1), np.sin(labels * 2.1)], axis=1) * 2 + rng.normal(size=(n, 2))
    return rs.Encoded(keys, 2 * np.cos(np.arange(4) * 2.1) * keys[:, :1], labels)


@pytest.fixture
def made(monkeypatch):
    """A memory and test rows in place of the network's."""
    memory, test = rs.Memory(rows(400, 0)), rows(800, 1)
    test = test[np.random.default_rng(2).permutation(800)]
    monkeypatch.setattr(classes, "searched", lambda *_: (memory, test))
    monkeypatch.setattr(rivals, "installed", lambda name: False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:200 calibrating rows vouch for no answer")
def test_every_table_and_the_picture_are_made(made):
    found = {name: classes.sets("", "", "cpu", name) for name in ("base", "interpolation")}
    for one in found.values():
        assert abs(one["lac"]["coverage"] - 0.9) < 0.05 and one["rivals"]["mapie"] is None
        assert all(wrong <= float(risk) for risk, (_, wrong) in one["withheld"].items())
    assert found["interpolation"]["aurc"] < found["base"]["aurc"]
    assert found["interpolation"]["lac"]["size"] < found["base"]["lac"]["size"]
    split = intervals.of_split("diabetes", 0)
    assert split["mapie"] is None and split["distance"][0] > 0
    results = {"sets": found, "intervals": {"diabetes": uncertainty.over_seeds([split])}}
    tables = uncertainty.tables(results)
    assert set(tables) == {"sets", "within", "withheld", "intervals", "libraries"}
    assert "not installed" in str(tables["libraries"]) and "MAPIE, one width" not in str(tables["intervals"])
    assert len(uncertainty.draw(results).axes) == 2


def test_splits_are_averaged_and_a_missing_library_stays_missing():
    splits = [{"base": [1.0, 2.0], "mapie": None}, {"base": [3.0, 4.0], "mapie": None}]
    assert uncertainty.over_seeds(splits) == {"base": [2.0, 3.0], "mapie": None}


def test_two_parts_have_one_curve():
    one = {"confidence": np.array([0.9, 0.1]), "wrong": np.array([False, True])}
    other = {"confidence": np.array([0.5]), "wrong": np.array([True])}
    np.testing.assert_allclose(classes.curve_of(one, other), [0, 1 / 2, 2 / 3])
    assert classes.withheld(np.array([[True, True, False], [True, False, True]])) == [2 / 3, 0.5]
