"""What is reported of a reader is what the verbs report."""

import numpy as np
import pytest

import residua as rs
from experiments.cifar100.data import Cifar100
from experiments.cifar100.headline import NAMES, PAIRS, PAPER, accuracy_table, compare, pairs_table, rates_table
from experiments.cifar100.networks import encoded
from experiments.cifar100.recipe import subset
from experiments.cifar100.resnet import load


@pytest.fixture
def where(small_cifar, small_weights):
    return small_weights, "here", 1.0, 0, "cpu"


def test_paper_settings_are_what_evaluate_says(where):
    found = compare(*where)
    remembered, test = encoded(*where)
    memory = rs.Memory(remembered)
    result = rs.evaluate(rs.ResMem(memory, **PAPER), test)
    ours = found["readers"]["resmem_paper"]
    assert ours["accuracy"] == pytest.approx(100 * result.accuracy)
    assert (ours["tpr"], ours["fpr"]) == pytest.approx((100 * result.tpr, 100 * result.fpr))
    assert ours["gain"][0] == pytest.approx(100 * result.gain)
    assert ours["p_value"] == pytest.approx(result.p_value)
    assert found["readers"]["label_knn_paper"]["accuracy"] == pytest.approx(100 * result.label_knn)
    assert found["base"] == pytest.approx(100 * result.base_accuracy)
    assert found["train_resmem"] == pytest.approx(
        100 * (rs.ResMem(memory, **PAPER).predict(remembered) == remembered.labels).mean()
    )
    assert list(found["readers"]) == list(NAMES)


def test_pairs_and_groups_add_up_and_label_knn_always_uses_neighbours(where):
    found = compare(*where)
    accuracy = {name: reader["accuracy"] for name, reader in found["readers"].items()}
    assert [tuple(pair[:2]) for pair in found["pairs"]] == list(PAIRS)
    for one, other, difference, low, high, p in found["pairs"]:
        assert difference == pytest.approx(accuracy[one] - accuracy[other])
        assert low <= high and 0 < p <= 1
    for by in {group["by"] for group in found["groups"]}:
        parts = [group for group in found["groups"] if group["by"] == by]
        assert sum(group["share"] for group in parts) == pytest.approx(100)
        whole = sum(group["share"] * group["resmem"] for group in parts) / 100
        assert whole == pytest.approx(accuracy["resmem_tuned"])
    assert all(half["k"] > 0 and half["lmbda"] == 1 for half in found["readers"]["label_knn_tuned"]["settings"])


def test_tables_tell_one_network_with_its_settings_and_several_with_their_spread(where):
    one = compare(*where)
    other = {**one, "base": one["base"] + 2.0}
    assert "56.46 (5 seeds: 56.5 ± 0.8)" in str(accuracy_table([one]))
    assert "k 53, σ 0.7, T 1.4" in str(accuracy_table([one]))
    assert f"{one['base'] + 1:.2f} ± 1.41" in str(accuracy_table([one, other]))
    assert "5.89" in str(rates_table([one]))
    assert [row[2] == "" for row in pairs_table([one, other]).rows] == [True] * len(PAIRS)


def test_encoding_is_what_the_dataset_gives(small_cifar, small_weights):
    remembered, test = encoded(small_weights, "here", 0.5, 3, "cpu")
    rows = subset(small_cifar["train"][1], 0.5, 3)
    assert remembered.labels.tolist() == small_cifar["train"][1][rows].tolist()
    images, labels = small_cifar["test"]
    peer = rs.encode(load(small_weights), Cifar100(images, labels), batch_size=7)
    np.testing.assert_allclose(test.keys, peer.keys, atol=1e-4)
    np.testing.assert_allclose(np.asarray(test.logits), np.asarray(peer.logits), atol=1e-4)
    assert test.labels.tolist() == peer.labels.tolist()
