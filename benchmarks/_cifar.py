"""CIFAR-100 through the trained ResNet-8: what the other benchmarks measure on."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import residua as rs
from experiments.cifar100.data import Cifar100, read
from experiments.cifar100.resnet import CifarResNet, load

SHARED = Path(os.environ.get("RESIDUA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
CACHE = Path(__file__).resolve().parents[1] / "out" / "cifar100-resnet8"


def model() -> CifarResNet:
    """The trained network, in evaluation mode."""
    return load(SHARED / "models" / "cifar100-resnet8").eval()


def loader(split: str, *, flip: bool = False, batch_size: int = 1000, rows: int | None = None) -> DataLoader:
    """Images of a split in order; `rows` keeps the first ones."""
    images, labels = read(SHARED / "data" / "cifar100", split)
    return DataLoader(Cifar100(images[:rows], labels[:rows], flip=flip), batch_size=batch_size)


def encoded(split: str, *, flip: bool = False) -> rs.Encoded:
    """The split's keys and logits; computed once, then read from the ``out`` folder."""
    file = CACHE / f"{split}{'-flipped' if flip else ''}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        rs.encode(model(), loader(split, flip=flip)).save(file)
    return rs.Encoded.load(file)


def halves(data: rs.Encoded) -> tuple[rs.Encoded, rs.Encoded]:
    """Even and odd rows: the test set comes class by class, so both halves hold 50 images of each class."""
    return data[0::2], data[1::2]


def threads() -> int:
    """How many threads torch and FAISS may use."""
    return torch.get_num_threads()
