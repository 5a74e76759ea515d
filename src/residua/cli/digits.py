"""The demo's data and base: scikit-learn's handwritten digits, and a network that is too small for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from residua.errors import MissingDependencyError

HIDDEN = 8  # units between 64 pixels and 10 classes: too few on purpose
EPOCHS = 40
SHARES = {"train": 0.45, "validation": 0.2, "test": 0.35}


@dataclass(frozen=True)
class Digits:
    """Images float32 (n, 1, 8, 8) in [0, 1] and what they show, int64 (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def load_digits(seed: int) -> dict[str, Digits]:
    """The 1 797 digits in three parts, drawn by `seed`, each with every class in its share.

    Raises
    ------
    MissingDependencyError
        Without scikit-learn, which brings the digits.
    """
    try:
        from sklearn.datasets import load_digits as bundled
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingDependencyError(
            'the demo needs scikit-learn for its digits: pip install "residua[sklearn,plot]"'
        ) from error
    found = bundled()
    images = torch.from_numpy((found.images / 16).astype(np.float32))[:, None]
    labels = torch.from_numpy(found.target.astype(np.int64))
    rest, parts = np.arange(len(labels)), {}
    for name in ("test", "validation"):
        size = round(SHARES[name] * len(labels))
        rest, part = train_test_split(rest, test_size=size, random_state=seed, stratify=found.target[rest])
        parts[name] = part
    return {name: Digits(images[parts[name]], labels[parts[name]]) for name in ("validation", "test")} | {
        "train": Digits(images[rest], labels[rest])
    }


def train_base(train: Digits, seed: int) -> nn.Module:
    """A network 64 -> 8 -> 10, trained on `train` with Adam and left alone from then on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(train.images[rows]), train.labels[rows]).backward()
                optimizer.step()
    return model.requires_grad_(False).eval()
