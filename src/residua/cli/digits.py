"""The demo's data and base: scikit-learn's handwritten digits, and a network that is too small for them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from residua.errors import MissingDependencyError

FILTERS = 4  # averaged to 2 x 2 each: 16 numbers per digit, too few on purpose
EPOCHS = 40
SHARES = {"test": 0.35, "validation": 0.2}  # the rest is for training


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
    for name, share in SHARES.items():
        size = round(share * len(labels))
        rest, parts[name] = train_test_split(rest, test_size=size, random_state=seed, stratify=found.target[rest])
    parts["train"] = rest
    return {name: Digits(images[rows], labels[rows]) for name, rows in parts.items()}


@contextmanager
def _one_thread():
    """A network this small trains several times faster on one thread than on many that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_base(train: Digits, seed: int) -> nn.Module:
    """One convolution, averaged to 16 numbers, and a linear layer; trained with Adam and left alone from then on."""
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, FILTERS, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4 * FILTERS, 10)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(train.images[rows]), train.labels[rows]).backward()
                optimizer.step()
    return model.requires_grad_(False).eval()
