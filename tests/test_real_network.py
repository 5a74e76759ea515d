"""The product on a real network: a trained ResNet-8 and all of CIFAR-100, against figures of a plain NumPy version."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import residua as rs
from experiments.cifar100.data import Cifar100, read
from experiments.cifar100.resnet import load

# One worker encodes the 60 000 images once for all of them.
pytestmark = pytest.mark.xdist_group("real network")
PAPER = {"k": 53, "sigma": 0.7, "temperature": 1.4}


@pytest.fixture(scope="module")
def network(shared):
    return load(shared / "models" / "cifar100-resnet8").eval()


@pytest.fixture(scope="module")
def encoded(shared, network):
    def of(split):
        return rs.encode(
            network, DataLoader(Cifar100(*read(shared / "data" / "cifar100", split)), 1000), progress=False
        )

    return of("train"), of("test")


@pytest.fixture(scope="module")
def memory(encoded):
    return rs.Memory(encoded[0])


def test_the_papers_settings_give_the_reference_figures(memory, encoded):
    result = rs.evaluate(rs.ResMem(memory, **PAPER), encoded[1])
    assert 100 * result.base_accuracy == pytest.approx(59.64, abs=0.05)
    assert 100 * result.accuracy == pytest.approx(62.15, abs=0.15)
    assert 100 * result.tpr == pytest.approx(4.13, abs=0.15)
    assert 100 * result.fpr == pytest.approx(1.62, abs=0.15)
    assert 100 * result.label_knn == pytest.approx(57.4, abs=0.2)
    assert result.significant


def test_tuned_on_one_half_it_gains_on_the_other(memory, encoded):
    test = encoded[1]
    grid = {"k": [53, 70, 100, 150], "temperature": [1.0, 1.4, 1.7, 2.0]}  # and sigma's default grid
    gains = []
    for val, rest in ((test[0::2], test[1::2]), (test[1::2], test[0::2])):  # rows come class by class
        gains.append(rs.evaluate(rs.tune(rs.ResMem(memory), val, grid, objective="accuracy", evidence=None), rest).gain)
    assert np.mean(gains) >= 0.028


def test_every_storage_and_a_good_index_read_alike(memory, encoded):
    train, test = encoded[0], encoded[1][::10]
    expected = rs.ResMem(memory, **PAPER).scores(test)
    head = rs.ResMem(rs.Memory(train, storage="head"), **PAPER).scores(test)
    np.testing.assert_allclose(head, expected, atol=1e-4)
    approximate = rs.Memory(train, index="PQ32x4fs", overfetch=10)
    assert approximate.recall.value >= 0.99
    agree = rs.ResMem(approximate, **PAPER).predict(test) == expected.argmax(axis=1)
    assert agree.mean() >= 0.995


def test_the_network_itself_answers_with_its_memory(memory, network, shared, encoded):
    images, _ = read(shared / "data" / "cifar100", "test")
    images = torch.stack([Cifar100(images[:64], np.zeros(64, int))[i][0] for i in range(64)])
    reader = rs.ResMem(memory, **PAPER)
    with rs.attach(network, reader), torch.inference_mode():
        p = network(images).softmax(dim=1).numpy()
    np.testing.assert_allclose(p, reader.predict_proba(encoded[1][:64]), atol=1e-4)


def test_wrong_labels_are_found_and_what_rows_are_worth_adds_up(encoded):
    train, test = encoded[0][::10], encoded[1][::20]
    truth, rng = train.labels.copy(), np.random.default_rng(0)
    wrong = rng.random(len(train)) < 0.1
    given = np.where(wrong, rng.integers(0, 100, len(train)), truth)
    memory = rs.Memory(rs.Encoded(train.keys, train.logits, given))
    found = rs.audit(memory, test)
    doubted = found.order[: wrong.sum()]
    assert (given != truth)[doubted].mean() > 0.5  # of which chance would find a tenth
    assert found.shapley[given != truth].mean() < found.shapley[given == truth].mean()
    np.testing.assert_allclose(found.shapley.sum(), found.utility, rtol=0, atol=1e-9)


def test_the_exponent_and_the_pooled_reader_are_better_and_calibrated(memory, encoded):
    seen, rest = encoded[1][0::2], encoded[1][1::2]
    grid = {"k": [100], "sigma": [memory.median_nn_distance() / 8]}

    def scored(reader):
        found = rs.evaluate(reader, rest, n_bootstrap=10)
        return 100 * found.accuracy, found.log_loss, 100 * found.ece

    accuracy, loss, ece = scored(rs.tune(rs.ResMem(memory, space="exponent"), seen, grid))
    assert accuracy >= 62.7 and loss <= 1.345 and ece <= 2.5
    accuracy, loss, ece = scored(rs.Pooled(memory).fit(seen))
    assert accuracy >= 63.1 and loss <= 1.330 and ece <= 2.5
    accuracy, loss, ece = scored(rs.Pooled(memory).fit())  # without a validation row
    assert accuracy >= 62.7 and loss <= 1.38 and ece <= 4
