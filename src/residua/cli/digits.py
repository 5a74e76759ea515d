"""What the demo is made of: scikit-learn's handwritten digits, and a network too small for them."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

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
    """The 1 797 digits in three parts, drawn by `seed`, each with every class in its share."""
    pixels, shown = map(np.asarray, datasets.load_digits(return_X_y=True))
    images = torch.from_numpy((pixels / 16).astype(np.float32)).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(shown.astype(np.int64))
    rest, parts = np.arange(len(labels)), {}
    for name, share in SHARES.items():
        size = round(share * len(labels))
        rest, parts[name] = train_test_split(rest, test_size=size, random_state=seed, stratify=shown[rest])
    parts["train"] = rest
    return {name: Digits(images[rows], labels[rows]) for name, rows in parts.items()}


def train_base(train: Digits, seed: int) -> nn.Module:
    """One convolution, averaged to 16 numbers, and a linear layer; trained with Adam and left alone from then on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a network this small trains several times faster on one than on many that wait
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            features = nn.Conv2d(1, FILTERS, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()
            model = nn.Sequential(*features, nn.Linear(4 * FILTERS, 10))
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            for _ in range(EPOCHS):
                for rows in torch.randperm(len(train)).split(64):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(train.images[rows]), train.labels[rows]).backward()
                    optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return model.requires_grad_(False).eval()
