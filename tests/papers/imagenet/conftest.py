"""A generated folder in ImageNet's layout, and a small network with random weights."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from residua.papers.imagenet.folder import Preprocessing

CLASSES = ("n01440764", "n01443537", "n02102040")


@pytest.fixture(scope="session")
def small_imagenet(tmp_path_factory):
    """12 training and 6 validation images of each of three classes, of several sizes, formats and colour modes."""
    folder = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                size = (24 + 5 * (i % 3), 30 - 4 * (i % 2), 3)
                colours = np.full(size, 40) + rng.integers(0, 60, size)
                colours[..., label] += 120
                picture = Image.fromarray(colours.astype(np.uint8))
                suffix = "JPEG" if i % 3 else "png"
                picture = picture.convert("RGBA") if suffix == "png" and i else picture
                picture.save(folder / split / name / f"{name}_{i}.{suffix}")
    return folder


class Small(torch.nn.Module):
    """A convolution, a mean over the map, and a last layer: what a classifier is to an encoding."""

    preprocessing = Preprocessing(resize=18, crop=16)

    def __init__(self, classes: int = 3):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 12, 3)
        self.fc = torch.nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean(dim=(2, 3)))


@pytest.fixture
def small_model(monkeypatch) -> str:
    """The name of a factory that gives the same random weights every time."""

    def make():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Small()

    module = types.ModuleType("small_models")
    module.make, module.seven = make, lambda: 7
    monkeypatch.setitem(sys.modules, "small_models", module)
    return "small_models:make"
