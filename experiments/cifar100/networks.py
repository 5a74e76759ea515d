"""Which networks there are, trained here or given, and their keys and logits, which every measurement reads."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

import residua as rs
from experiments.cifar100.data import normalise, read
from experiments.cifar100.recipe import PAPER_EPOCHS, Recipe, subset
from experiments.cifar100.resnet import load
from experiments.cifar100.train import mark_name, train
from experiments.machine import device_of
from residua.core import Encoded
from residua.errors import ParameterError

BATCH = 1000


@lru_cache(maxsize=2)
def split(data: str, name: str, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split, read once."""
    return read(data, name, download=download)


def remembered_images(data: str, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The training images and labels that a network saw, which its memory holds, in the memory's order."""
    images, labels = split(data, "train")
    rows = slice(None) if fraction == 1 else subset(labels, fraction, seed)
    return images[rows], labels[rows]


@lru_cache(maxsize=2)
def encoded(weights: str, data: str, fraction: float, seed: int, device: str) -> tuple[Encoded, Encoded]:
    """(remembered, test): the training rows the network saw, and the test set, through the network in a file."""
    model = load(weights).to(device_of(device), memory_format=torch.channels_last)
    remembered, test = (
        rs.encode(model, normalise(images), labels, batch_size=BATCH, progress=False)
        for images, labels in (remembered_images(data, fraction, seed), split(data, "test"))
    )
    return remembered, test


def equal_steps(share: float, epochs: int = PAPER_EPOCHS) -> int:
    """Epochs over a share of the images that take as many steps as `epochs` over all."""
    return round(epochs / share)


def planned(
    depth: tuple[int, ...],
    fraction: tuple[float, ...],
    seeds: int,
    others: int,
    crossed: int,
    epochs: int,
    steps: bool = False,
) -> list[Recipe]:
    """The trainings: first the headline's, `seeds` of them; then, `others` of each, the other depths on all the data
    there is, and the smaller shares on the first `crossed` depths (0: on all). With `steps` a smaller share takes as
    many steps, not epochs.

    Examples
    --------
    >>> recipes = planned((8, 14), (0.5, 1.0), seeds=2, others=1, crossed=1, epochs=256)
    >>> [(recipe.depth, recipe.fraction, recipe.seed) for recipe in recipes]
    [(8, 1.0, 0), (8, 1.0, 1), (14, 1.0, 0), (8, 0.5, 0)]
    """
    if seeds < 1 or others < 1 or not 0 <= crossed <= len(depth):
        raise ParameterError(
            f"seeds={seeds}, others={others}, crossed={crossed}; expected at least one training of each, and 0 to "
            f"{len(depth)} depths crossed"
        )
    most, *smaller = sorted(set(fraction), reverse=True)
    shares = [(layers, share) for layers in depth[: crossed or None] for share in smaller]
    cells = [((depth[0], most), seeds), *((cell, others) for cell in [*((d, most) for d in depth[1:]), *shares])]
    long = {share: equal_steps(share / most, epochs) if steps else epochs for share in fraction}
    return [Recipe(layers, long[share], share, seed) for (layers, share), count in cells for seed in range(count)]


def trained(depth: int, epochs: int, fraction: float, seed: int, data: str, checkpoints: str, device: str) -> dict:
    """One training, from its newest checkpoint where there is one: its history."""
    recipe = Recipe(depth, epochs, fraction, seed)
    images, labels = remembered_images(data, fraction, seed)
    history = train(recipe, images, labels, Path(checkpoints) / recipe.name, device_of(device))
    about = {"depth": depth, "fraction": fraction, "seed": seed, "images": len(images)}
    return {**about, **history, "median_seconds": float(np.median(history["seconds"]))}


def marks(recipes: list[Recipe], checkpoints: str) -> list[dict]:
    """The networks that trainings keep: every mark of the headline's, for Table 1; of the others the last."""
    head, out = (recipes[0].depth, recipes[0].fraction), []
    for recipe in recipes:
        for mark in recipe.marks if (recipe.depth, recipe.fraction) == head else (recipe.epochs,):
            path = Path(checkpoints) / recipe.name / mark_name(mark)
            out.append({"file": str(path), **where_of(recipe), "epoch": mark, "last": mark == recipe.epochs})
    return out


def given(weights: tuple[str, ...], depth: tuple[int, ...], fraction: tuple[float, ...], epochs: int) -> list[dict]:
    """Networks in files that were trained elsewhere. Where each file's name tells its recipe, as trainings here are
    called, that is what it was trained by; else all were trained for `epochs` epochs (0: not known) on the same share
    of the images."""
    if len(fraction) > 1 or len(depth) > 1:
        raise ParameterError(
            f"weights are given, and depth={depth} and fraction={fraction} ask for trainings; give one fraction, the "
            "share of the training images that these networks saw and that is remembered"
        )
    told = [Recipe.named(Path(path).name.removesuffix(".safetensors")) for path in weights]
    if all(told):
        return [
            {"file": path, **where_of(recipe), "epoch": epoch, "last": epoch == recipe.epochs}
            for path, (recipe, epoch) in zip(weights, told)
        ]
    about = {"epoch": epochs or None, "fraction": fraction[0], "last": True}
    return [{"file": path, "depth": load(path).depth, "seed": seed, **about} for seed, path in enumerate(weights)]


def where_of(recipe: Recipe) -> dict:
    """The depth, share and seed that a point stands for."""
    return {"depth": recipe.depth, "fraction": recipe.fraction, "seed": recipe.seed}
