"""The controls on a few rows of one's own; no network, no picture."""

import numpy as np
import pytest

import residua as rs
from experiments import controls, heads
from experiments.cifar100.superclasses import SUPERCLASS
from experiments.controls import figure1, long_tail


def test_a_head_that_was_fitted_badly_is_mended_by_fitting_it_again():
    rng = np.random.default_rng(0)
    keys, labels = rng.normal(size=(600, 3)), rng.integers(0, 3, 600)
    keys += 3 * np.eye(3)[labels]
    rows = rs.Encoded(keys, rng.normal(size=(600, 3)), labels)
    grid = {"k": [5], "sigma": [1.0], "temperature": [1.0]}
    base = rows.logits.argmax().numpy()[300:] == labels[300:]
    found = heads.compared(rows[:300], rows[300:], grid, base, np.random.default_rng(0))
    assert set(found) == set(heads.NAMES)
    assert all(one["accuracy"] > 85 and one["gain"][1] > 30 for one in found.values())


@pytest.mark.slow
def test_the_rare_gain_by_a_memory():
    draws = [long_tail.draw_of(600, 100, seed) for seed in range(2)]
    bins = {one["label"]: one for one in controls.over_draws(draws)}
    assert list(bins) == ["0", "1", "2 to 3", "4 to 10", "11 to 30", "over 30"]
    assert bins["0"]["memorised"] is None and bins["2 to 3"]["memorised"] > bins["over 30"]["memorised"]
    assert bins["4 to 10"]["gain"][0] > 5 > bins["0"]["gain"][0]


def test_figure_1_and_the_tables():
    found = figure1.fitted(60, 3)
    assert found["mse"] < found["base_mse"] / 10
    gain, reader = [1.0, 0.5, 1.5], {"accuracy": 60.0, "gain": [1.0, 0.5, 1.5]}
    part = {"share": 0.5, "base": 0.6, "label_knn": 0.6, "reader": 0.7}
    names = ("base_superclass_accuracy", "superclass_accuracy", "base_errors_within", "corrected_within")
    one = {"name": "net", "base": 59.0, "readers": dict.fromkeys(controls.READERS, reader)}
    one |= {"agreement": {"agree": part, "disagree": part}, "superclasses": dict.fromkeys(names, 0.5)}
    layer = {"dim": 64, "memory": 10, "base": 59.0, "resmem": 60.0, "gain": gain, "label_knn": 55.0}
    tail = {"label": "1", "n": 9, "base": 0.0, "resmem": 30.0, "memorised": None, "influence": None}
    results = {"networks": [one], "layers": {"last": layer}, "figure1": found, "long_tail": {"draws": [[tail]] * 2}}
    assert len(controls.tables(results)) == 6 and controls.draw(results).axes
    assert controls.name_of("a/b/") == "b" and controls.name_of("a/b.safetensors") == "b"
    assert np.bincount(SUPERCLASS).tolist() == [5] * 20
