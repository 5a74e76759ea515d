"""A CIFAR-100 in miniature: five of the classes, told apart by their colour, through an untrained network."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from experiments import cifar100
from experiments.cifar100 import curves, family, headline, latency, networks
from experiments.cifar100.resnet import CifarResNet

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [160, 160, 40], [120, 60, 160]])


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n images, class by class in turn; every seventh has another class's colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 5
    shown = np.where(np.arange(n) % 7 == 3, (labels + 1) % 5, labels)
    images = COLOURS[shown][:, None, None] + rng.integers(-40, 55, (n, 32, 32, 3))
    return images.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> str:
    """A file of a ResNet-8 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CifarResNet(8)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(model.state_dict(), path)
    return str(path)


@pytest.fixture
def small_cifar(monkeypatch):
    """Every reader of the data gets the miniature: 120 training and 60 test images; small grids."""
    images = {"train": drawn(120, 0), "test": drawn(60, 1)}

    def split(data, name, download=False):
        return images[name]

    networks.encoded.cache_clear()
    for module in (cifar100, networks, headline, latency):
        monkeypatch.setattr(module, "split", split)
    # Fewer settings compete, so that a test takes seconds.
    for module, name, values in (
        (family, "A", (0.5, 1.0)),
        (family, "B", (0.0, 1.0)),
        (family, "K", (5, 20)),
        (family, "TEMPERATURE", (1.0, 1.4)),
        (headline, "K", (3, 10, 53)),
        (headline, "COARSE", (0.2, 0.5, 1.0)),
        (headline, "SIGMA", {kernel: widths[::4] for kernel, widths in headline.SIGMA.items()}),
        (curves, "SIGMA", curves.SIGMA[::2]),
        (curves, "TEMPERATURE", (1.0, 1.4)),
        (curves, "LMBDA", (0.2, 0.6)),
        (latency, "REPEAT", 3),
        (latency, "WARM_UP", 1),
    ):
        monkeypatch.setattr(module, name, values)
    yield images
    networks.encoded.cache_clear()
