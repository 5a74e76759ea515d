"""The paper's recipe (§4.1 of arXiv 2302.01576): learning rate by epoch, random crops and flips, and which rows."""

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.cifar100.data import SIDE, normalise
from residua.errors import ParameterError

PAPER_EPOCHS = 256
WARM_UP = 15  # epochs of linear growth
DROPS = (96, 192, 224)  # epochs after which the rate is a tenth
MARKS = (128, 160, 192, 224, 256)  # Table 1's
NAME = re.compile(r"resnet(\d+)-([\d.]+)percent-(\d+)epochs-seed(\d+)(?:-epoch(\d+))?")
PAD = 4  # pixels of black around an image before a crop


@dataclass(frozen=True)
class Recipe:
    """What a training depends on; the paper's own numbers are the defaults, but weight decay and augmentation, which it
    does not give. With other than 256 epochs every epoch mark is scaled.
    """

    depth: int = 8
    epochs: int = PAPER_EPOCHS
    fraction: float = 1.0
    seed: int = 0
    batch: int = 128
    peak: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self):
        if self.epochs < 1 or self.batch < 1 or not 0 < self.fraction <= 1:
            raise ParameterError(
                f"epochs={self.epochs}, batch={self.batch}, fraction={self.fraction}; expected at least one epoch and "
                "image, and a fraction in (0, 1]"
            )

    @property
    def name(self) -> str:
        """Of its folder of checkpoints: another recipe has another name."""
        return f"resnet{self.depth}-{100 * self.fraction:g}percent-{self.epochs}epochs-seed{self.seed}"

    @staticmethod
    def named(name: str) -> "tuple[Recipe, int] | None":
        """The recipe that a network's name tells, and after how many epochs it was kept; None of any other name.

        >>> recipe, epoch = Recipe.named("resnet8-50percent-512epochs-seed1-epoch256")
        >>> recipe == Recipe(8, 512, 0.5, 1), epoch, Recipe.named("mine")
        (True, 256, None)
        """
        found = NAME.fullmatch(name)
        if found is None:
            return None
        depth, percent, epochs, seed, epoch = found.groups()
        recipe = Recipe(int(depth), int(epochs), float(percent) / 100, int(seed))
        return recipe, int(epoch or epochs)

    @property
    def marks(self) -> tuple[int, ...]:
        """Finished epochs whose networks are kept: Table 1's, scaled."""
        return tuple(sorted({max(1, round(mark * self.epochs / PAPER_EPOCHS)) for mark in MARKS}))

    def rate(self, epoch: float) -> float:
        """Learning rate after `epoch` epochs, which may be a fraction."""
        paper = epoch * PAPER_EPOCHS / self.epochs
        tenths = sum(paper >= drop for drop in DROPS)
        return self.peak * min(1.0, paper / WARM_UP) * 0.1**tenths


def subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Ascending rows with the same share of every class; a larger fraction of the same seed contains a smaller one."""
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    kept = []
    for label in np.unique(labels):
        own = order[labels[order] == label]
        kept.append(own[: max(1, math.floor(fraction * len(own) + 0.5))])
    return np.sort(np.concatenate(kept))


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image at a random place within a black border of 4 pixels, and mirrored at random; normalised.

    Images are uint8 (b, 32, 32, 3) on any device. The result is float32 (b, 3, 32, 32), channels last in memory.
    """
    return moved(images, *(part.to(images.device) for part in moves(len(images), generator)))


def moves(b: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Where `b` crops begin, int64 (b, 1) from the top and from the left, and which are mirrored, bool (b, 1): drawn on
    the CPU, so that every device draws the same.
    """
    top, left = torch.randint(0, 2 * PAD + 1, (2, b, 1), generator=generator)
    return top, left, torch.randint(0, 2, (b, 1), generator=generator).bool()


def moved(images: Tensor, top: Tensor, left: Tensor, flipped: Tensor) -> Tensor:
    """The crops of images on their device; see ``crop_and_flip``."""
    along = torch.arange(SIDE, device=images.device)
    rows, columns = top + along, left + torch.where(flipped, along.flip(0), along)
    padded = torch.nn.functional.pad(images, (0, 0, PAD, PAD, PAD, PAD))
    every = torch.arange(len(images), device=images.device)
    return normalise(padded[every[:, None, None], rows[:, :, None], columns[:, None, :]])
