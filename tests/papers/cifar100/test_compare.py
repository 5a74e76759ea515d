"""What is reported of a reader is what the verbs report."""

import numpy as np
import pytest

import residua as rs
from residua.papers.cifar100 import Cifar100, load
from residua.papers.cifar100.compare import PAIRS, PAPER, READERS, measure
from residua.papers.cifar100.networks import Batches, encoded
from residua.papers.cifar100.recipe import subset


@pytest.fixture
def where(small_cifar, small_weights):
    return small_weights, "here", 1.0, 0, "cpu"


def test_paper_settings_are_what_evaluate_says(where):
    found = measure(*where)
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
    assert set(found["readers"]) == set(READERS)


def test_pairs_and_groups_add_up(where):
    found = measure(*where)
    assert [tuple(pair[:2]) for pair in found["pairs"]] == list(PAIRS)
    for one, other, difference, low, high, p in found["pairs"]:
        accuracy = {name: reader["accuracy"] for name, reader in found["readers"].items()}
        assert difference == pytest.approx(accuracy[one] - accuracy[other])
        assert low <= high and 0 < p <= 1
    for by in {group["by"] for group in found["groups"]}:
        parts = [group for group in found["groups"] if group["by"] == by]
        assert sum(group["share"] for group in parts) == pytest.approx(100)
        whole = sum(group["share"] * group["resmem"] for group in parts) / 100
        assert whole == pytest.approx(found["readers"]["resmem_tuned"]["accuracy"])


def test_label_knn_always_uses_neighbours(where):
    readers = measure(*where)["readers"]
    assert all(half["k"] > 0 for half in readers["label_knn_tuned"]["settings"])
    assert all(half["lmbda"] == 1 for half in readers["label_knn_tuned"]["settings"])


def test_encoding_in_whole_batches_is_encoding(small_cifar, small_weights):
    remembered, test = encoded(small_weights, "here", 0.5, 3, "cpu")
    rows = subset(small_cifar["train"][1], 0.5, 3)
    assert remembered.labels.tolist() == small_cifar["train"][1][rows].tolist()
    images, labels = small_cifar["test"]
    peer = rs.encode(load(small_weights), Cifar100(images, labels), batch_size=7)
    np.testing.assert_allclose(test.keys, peer.keys, atol=1e-4)
    np.testing.assert_allclose(np.asarray(test.logits), np.asarray(peer.logits), atol=1e-4)
    assert test.labels.tolist() == peer.labels.tolist()


def test_batches_cover_everything_once():
    images, labels = np.zeros((11, 32, 32, 3), np.uint8), np.arange(11)
    batches = Batches(images, labels, size=4)
    assert [len(batches[i][1]) for i in range(len(batches))] == [4, 4, 3]
    assert np.concatenate([batches[i][1] for i in range(len(batches))]).tolist() == list(range(11))
