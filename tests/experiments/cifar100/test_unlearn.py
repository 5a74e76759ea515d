"""Forgetting twice: what is measured by hand, and a small run of each part from model to tables and picture."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments import canaries, unlearn
from experiments.dampening import dampened, importance
from experiments.runner import run
from experiments.work import Work
from residua.errors import ParameterError


def test_a_weight_of_the_forgotten_alone_is_dampened():
    model = nn.Linear(2, 2, bias=False)
    nn.init.ones_(model.weight)
    forgotten = importance(model, [(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))])
    retained = importance(model, [(torch.tensor([[0.1, 1.0]]), torch.tensor([1]))])
    # Both classes are as likely, so the gradient of one row is half its input.
    assert forgotten["weight"].tolist() == [[0.25, 0.0], [0.25, 0.0]]
    after, share = dampened(model, forgotten, retained, alpha=10, lmbda=2.0)
    np.testing.assert_allclose(after.weight.detach(), [[0.02, 1.0], [0.02, 1.0]], rtol=1e-4)
    assert share == 0.5 and (model.weight == 1).all()
    assert dampened(model, forgotten, retained, alpha=101)[1] == 0
    large, _ = dampened(model, forgotten, retained, alpha=10, lmbda=1000.0)
    assert (large.weight == 1).all()  # never more than it was


def test_an_attack_finds_what_is_unlikelier_than_if_never_seen():
    rng = np.random.default_rng(0)
    members, others = rng.normal(-3, 1, (200, 3)), rng.normal(0, 1, (300, 3))
    assert unlearn.area(members[:, 0], others[:, 0])[0] < 0.1
    middle, low, high = unlearn.attacked(members, others)
    assert 0.95 < low <= middle <= high <= 1
    assert abs(unlearn.attacked(rng.normal(size=(200, 3)), others)[0] - 0.5) < 0.1


def test_equal_scores_have_the_middle_rank():
    assert canaries.exposure(np.zeros(8)) == np.log2(8) - np.log2(4.5)
    assert canaries.exposure(np.array([0.0, 1.0, -1.0, -1.0])) == 1.0


def test_tokens_are_found_in_files_as_labels_are_stored(tmp_path):
    (tmp_path / "rows").write_bytes(b"x" + np.array([5, 700, 3], np.int16).tobytes())
    (tmp_path / "more").write_bytes(np.array([9, 70_000], np.int32).tobytes())
    assert canaries.in_files(str(tmp_path), [[5, 700], [9, 70_000 % 2**15], [700, 5]]) == 1
    assert canaries.in_files(str(tmp_path), [[700, 3], [700, 3, 1]]) == 1


@pytest.mark.slow
def test_images(small_cifar, small_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(unlearn, "BATCH", 4)
    monkeypatch.setattr(unlearn, "ALPHAS", (1e-9, 1e9))
    options = {"remembered": 60, "tests": 30, "forgotten": 20, "category": "bear", "model": "", "device": "cpu"}
    found = run("unlearn", tmp_path, weights=(str(small_weights),), data="here", **options)["results"]
    ((name, one), (_, random)) = found["images"][0]["sets"].items()
    assert name == "one class" and one["n"] == 24 and random["n"] == 20  # of 120 every fifth; as asked for
    assert one["exact"] and random["exact"]
    assert random["sweep"][0]["dampened"] > random["sweep"][1]["dampened"]
    assert one["alpha"] is not None
    assert set(one["ways"]) == set(unlearn.WAYS)


@pytest.mark.parametrize("wrong", [{"category": "zebra"}, {"category": ""}])
def test_the_class_is_one_of_the_data(wrong):
    with pytest.raises(ParameterError, match="expected a class of CIFAR-100"):
        unlearn.measure(Work(), model="", **wrong)
