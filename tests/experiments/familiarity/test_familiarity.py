"""The tables of familiarity, on a few made-up rows."""

import numpy as np
import pytest

import residua as rs
from experiments import familiarity
from experiments.familiarity import detectors, pictures, texts


def rows(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.tile(np.arange(4), n // 4))
    keys = 4 * np.eye(4)[labels] + rng.normal(size=(n, 4))
    return rs.Encoded(keys.astype(np.float32), keys * 0.5, labels)


def test_mahalanobis_is_the_distance_to_the_nearest_mean():
    remembered, asked = rows(400, 0), rows(12, 1)
    keys = remembered.keys.astype(np.float64)
    means = np.stack([keys[remembered.labels == label].mean(axis=0) for label in range(4)])
    within = keys - means[remembered.labels]
    inverse = np.linalg.inv(within.T @ within / len(keys))
    apart = asked.keys[:, None] - means
    expected = np.einsum("qcd,de,qce->qc", apart, inverse, apart).min(axis=1)
    np.testing.assert_allclose(detectors.mahalanobis(remembered)(asked), expected, rtol=1e-5)


def test_pictures_from_elsewhere_are_pictures():
    rng = np.random.default_rng(0)
    made = pictures.elsewhere(rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8), rng)
    assert set(made) == set(pictures.OTHERS) - {"classes"}
    assert {(images.dtype.name, images.shape[1:]) for images in made.values()} == {("uint8", (32, 32, 3))}
    assert len(made["digits"]) == 1797 and len(made["jpeg"]) == 5


@pytest.mark.slow
def test_held_out_classes_are_told_apart(monkeypatch):
    monkeypatch.setattr(pictures.networks, "encoded", lambda *_: (rows(800, 0), rows(400, 1)))
    monkeypatch.setattr(pictures.networks, "split", lambda *_: (np.zeros((400, 32, 32, 3), np.uint8), None))
    found = pictures.among_pictures("", "", "cpu", 3)
    assert 130 < found["n"] < 170
    assert found["auroc"]["unfamiliar"]["classes"] > 0.8
    assert all(0 <= share <= 0.3 for shares in found["fresh"].values() for share in shares[:1])


def test_tables_and_picture():
    auroc = {name: dict.fromkeys(pictures.OTHERS, 0.75) for name in familiarity.NAMES}
    told = {name: dict.fromkeys(texts.CORPORA, 0.5) for name in familiarity.TEXTS}
    spoken = {"tokens": told, "documents": told}
    results = {"auroc": auroc, "fresh": {"unsure": [0.01, 0.05, 0.1]}, "n": 3, "known": 60, "texts": {"auroc": spoken}}
    made = familiarity.tables(results)
    assert set(made) == {"pictures", "fresh", "texts"} and "not installed" in str(made["pictures"])
    assert set(familiarity.tables({**results, "texts": None})) == {"pictures", "fresh"}
    assert len(familiarity.draw(results).axes) == 1
