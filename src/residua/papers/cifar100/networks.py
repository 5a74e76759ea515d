"""Trained networks, from files or from a training, as the keys and logits that a comparison reads."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import residua as rs
from residua.core import Encoded
from residua.papers.cifar100.data import normalise, read
from residua.papers.cifar100.recipe import subset
from residua.papers.cifar100.resnet import load

BATCH = 1000


class Batches(Dataset):
    """Normalised images in whole batches, in order: the arithmetic is done once a batch, not once an image.

    Examples
    --------
    >>> batches = Batches(np.zeros((3, 32, 32, 3), np.uint8), np.array([5, 6, 7]), size=2)
    >>> [tuple(x.shape) for x, _ in (batches[i] for i in range(len(batches)))], batches[1][1].tolist()
    ([(2, 3, 32, 32), (1, 3, 32, 32)], [7])
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, size: int = BATCH):
        self.images, self.labels, self.size = images, labels, size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        rows = slice(i * self.size, (i + 1) * self.size)
        return normalise(self.images[rows]), torch.from_numpy(self.labels[rows])


@lru_cache(maxsize=2)
def split(data: str, name: str, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split, read once; see ``read``."""
    return read(data, name, download=download)


def device_of(name: str) -> str:
    """The device called `name`; ``"auto"`` is a GPU where there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def training_images(data: str, fraction: float, seed: int) -> np.ndarray:
    """Those that are trained on and remembered, in the memory's order."""
    images, labels = split(data, "train")
    return images if fraction == 1 else images[subset(labels, fraction, seed)]


@lru_cache(maxsize=2)
def encoded(weights: str, data: str, fraction: float, seed: int, device: str) -> tuple[Encoded, Encoded]:
    """(remembered, test): the training rows the network saw, and the test set, through it.

    Parameters
    ----------
    weights : str
        A file of ``state_dict``, or its folder.
    data : str
        The images' folder.
    fraction, seed : float, int
        Which training rows; see ``recipe.subset``.
    device : str
        Where the network runs, or "auto".
    """
    model = load(Path(weights)).to(device_of(device), memory_format=torch.channels_last)
    labels = split(data, "train")[1]
    parts = (
        (training_images(data, fraction, seed), labels[subset(labels, fraction, seed)]),
        split(data, "test"),
    )
    remembered, test = (rs.encode(model, DataLoader(Batches(*part), batch_size=None), progress=False) for part in parts)
    return remembered, test
