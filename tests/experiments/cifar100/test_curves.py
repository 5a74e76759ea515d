"""A point of a curve against the same numbers made by hand from the network's own keys and logits."""

import numpy as np
import pytest
from scipy.special import softmax

from experiments.cifar100.curves import curves, point, tables
from experiments.cifar100.networks import encoded


def test_point_is_what_the_equations_give(small_cifar, small_weights):
    found = point(small_weights, "here", 1.0, 0, "cpu")
    remembered, test = encoded(small_weights, "here", 1.0, 0, "cpu")
    keys, logits = (part.astype(np.float64) for part in (remembered.keys, remembered.logits.dense().numpy()))
    queries, said = (part.astype(np.float64) for part in (test.keys, test.logits.dense().numpy()))
    residuals = np.eye(logits.shape[1])[remembered.labels] - softmax(logits / 1.4, axis=1)
    distances = np.linalg.norm(queries[:, None] - keys, axis=2)
    near = np.argsort(distances, axis=1)[:, :53]
    weights = softmax(-np.take_along_axis(distances, near, axis=1) / 0.7, axis=1)
    scores = softmax(said / 1.4, axis=1) + np.einsum("qk,qkl->ql", weights, residuals[near])
    expected = 100 * np.mean(scores.argmax(axis=1) == test.labels)
    base = 100 * np.mean(said.argmax(axis=1) == test.labels)
    reader = found["readers"]["resmem_paper"]
    assert reader["accuracy"] == pytest.approx(expected)
    assert found["base"] == pytest.approx(base)
    assert reader["gain"][0] == pytest.approx(expected - base)
    assert reader["gain"][1] <= reader["gain"][0] <= reader["gain"][2]
    tuned = [found["readers"][name]["accuracy"] for name in ("resmem_tuned", "interpolation_tuned")]
    assert found["difference"][0] == pytest.approx(tuned[0] - tuned[1])


def test_smaller_share_is_all_that_is_remembered(small_cifar, small_weights):
    found = point(small_weights, "here", 0.5, 0, "cpu")
    assert (found["memory"], found["n"]) == (60, 60)


def made(depth, epoch, fraction, base, gain, seed=0, last=True):
    reader = {"accuracy": base + gain, "gain": [gain, gain - 0.5, gain + 0.5]}
    about = {"depth": depth, "epoch": epoch, "fraction": fraction, "seed": seed, "last": last}
    readers = {name: reader for name in ("resmem_paper", "resmem_tuned", "interpolation_tuned")}
    measured = {"base": base, "train_base": 70.0, "train_resmem": 99.5, "difference": [0.1, -0.2, 0.4]}
    return {**about, **measured, "readers": readers}


def test_tables_have_the_paper_beside_ours_and_say_what_was_not_trained():
    points = [
        made(8, 8, 1.0, 34.0, 15.0, last=False),
        made(8, 16, 1.0, 56.0, 3.0),
        made(14, 16, 1.0, 62.0, 2.0),
        made(8, 16, 0.1, 30.0, 0.5),
    ]
    found = {name: str(table) for name, table in tables(points, 16).items()}
    assert list(found) == ["epochs", "depths", "fractions", "crossed"]
    assert "| 8 (128)" in found["epochs"] and "34.0 |" in found["epochs"] and "49.3 |" in found["epochs"]
    assert "+15.00 [+14.50, +15.50]" in found["epochs"]
    assert "not trained" in found["crossed"] and "56.00 → 59.00 (+3.00)" in found["crossed"]


def test_seeds_are_averaged_with_their_spread():
    seeds = ((0, 50.0), (1, 52.0))
    points = [made(8, epoch, 1.0, base, 2.0, seed, epoch == 16) for epoch in (8, 16) for seed, base in seeds]
    assert {epoch: len(own) for epoch, own in curves(points)["epoch"].items()} == {8: 2, 16: 2}
    assert "51.00 ± 1.41" in str(tables(points, 16)["epochs"])
    assert "+2.00 [+2.00, +2.00]" in str(tables(points, 16)["epochs"])


@pytest.mark.parametrize("points", [[], [made(8, 1, 1.0, 50.0, 1.0)]])
def test_one_network_is_no_curve(points):
    assert curves(points) == tables(points, 1) == {}
