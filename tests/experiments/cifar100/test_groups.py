"""Copies are alike, mirrored and recoloured ones too; noise is not."""

import numpy as np
import pytest
import torch

from experiments.cifar100.groups import likeness


def test_copies_flips_and_brightness():
    rng = np.random.default_rng(0)
    remembered = rng.integers(0, 200, (5, 32, 32, 3), dtype=np.uint8)
    images = np.stack(
        [remembered[1], remembered[2][:, ::-1], remembered[3] // 2 + 20, rng.integers(0, 256, (32, 32, 3))]
    )
    found = likeness(images.astype(np.uint8), remembered, torch.tensor([[0, 1], [4, 2], [3, -1], [0, 4]]))
    assert found[:3] == pytest.approx([1, 1, 1], abs=0.01)
    assert found[3] < 0.5
    assert likeness(remembered[:1], remembered, torch.tensor([[-1, -1]]))[0] == -1  # only neighbours count


def test_is_numpys_correlation():
    rng = np.random.default_rng(1)
    images, remembered = (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (250, 9))
    rows = torch.from_numpy(rng.integers(0, 9, (250, 4)))

    def grey(image):
        return image.mean(axis=2).reshape(16, 2, 16, 2).mean(axis=(1, 3)).ravel()

    found = likeness(images, remembered, rows)
    for i in (0, 199, 200, 249):
        views = (images[i], images[i][:, ::-1])
        peer = max(np.corrcoef(grey(view), grey(remembered[j]))[0, 1] for view in views for j in rows[i])
        assert found[i] == pytest.approx(peer, abs=1e-4)


def test_flat_images_are_alike_to_nothing():
    flat = np.full((2, 32, 32, 3), 7, np.uint8)
    assert likeness(flat, flat, torch.tensor([[0], [1]])).tolist() == [0, 0]
