"""EfficientNet-Lite0's features: the readers on toy keys, and features kept in files."""

import numpy as np
import pytest
import torch

from experiments import efficientnet


def task(n, seed):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2)).astype(np.float32)
    return keys, (keys[:, 0] > 0).astype(int) + (keys[:, 0] * keys[:, 1] > 0)


@pytest.mark.slow
def test_every_reader_answers_and_a_memory_helps():
    (X, y), (Q, asked) = task(450, 0), task(400, 1)
    said = efficientnet.answers(X, y, Q, asked, 1.0)
    assert list(said) == list(efficientnet.READERS)
    base = said["base"][0]
    for name in ("accuracy", "log_loss", "tune", "pooled"):
        np.testing.assert_allclose(said[name][0].sum(axis=1), 1, atol=1e-4)
        found = efficientnet.judged(said[name][0], asked, base)
        assert found["over"]["log_loss"][0] < 0 < found["over"]["accuracy"][0]
    for name in ("votes", "label_knn"):
        assert np.mean(said[name][0] == asked) > np.mean(base.argmax(axis=1) == asked)


def test_features_are_kept_by_the_thousand(tmp_path, monkeypatch):
    class Mean(torch.nn.Module):
        def forward(self, images):
            assert images.shape[2:] == (64, 64)
            return images.mean(dim=(2, 3))

    monkeypatch.setattr(efficientnet, "pretrained", Mean)
    monkeypatch.setattr(efficientnet, "BLOCK", 16)
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    images[0] = 255
    made = efficientnet.features(images, 64, tmp_path / "kept" / "train")
    assert made.shape == (40, 3) and made[0] == pytest.approx(1)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    monkeypatch.setattr(efficientnet, "pretrained", None)
    np.testing.assert_array_equal(efficientnet.features(images, 64, tmp_path / "kept" / "train"), made)
