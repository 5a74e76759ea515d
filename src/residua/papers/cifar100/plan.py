"""Which networks there are, trained here or given, and what is measured on each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from residua.errors import ParameterError
from residua.papers.cifar100.compare import measure
from residua.papers.cifar100.family import KERNELS, family
from residua.papers.cifar100.networks import device_of, split
from residua.papers.cifar100.recipe import Recipe, subset
from residua.papers.cifar100.resnet import load
from residua.papers.cifar100.sweeps import sweeps
from residua.papers.cifar100.train import mark_name, train
from residua.papers.work import Work


def run(
    work: Work,
    *,
    depth: tuple[int, ...],
    epochs: int,
    fraction: tuple[float, ...],
    seeds: int,
    weights: tuple[str, ...],
    trained_epochs: int,
    data: str,
    download: str,
    checkpoints: str,
    precision: str,
    device: str,
) -> dict:
    """Train what is not given, and compare on every network; sweeps and the family's analysis on the first one.

    Returns
    -------
    dict
        ``networks`` (each with ``depth``, ``epoch``, ``fraction``, ``seed``, ``last``, and what ``measure`` gives),
        ``sweeps``, ``family``, ``trainings`` (``loss`` and ``seconds`` by epoch), ``given`` (bool), ``epochs`` and
        ``device``.

    Raises
    ------
    ParameterError
        When an option is out of its range, or given networks are to be trained as well.
    """
    weights = tuple(path for path in weights if path)
    if seeds < 1:
        raise ParameterError(f"seeds={seeds}; expected at least 1")
    split(data, "train", download == "yes")  # known before hours of training
    if weights:
        if len(fraction) > 1 or len(depth) > 1:
            raise ParameterError(
                f"weights are given, and depth={depth} and fraction={fraction} ask for trainings; give one fraction, "
                "the share of the training images that these networks saw and that is remembered"
            )
        networks = [
            {
                "file": path,
                "depth": 2 * len(load(path).blocks) + 2,
                "epoch": trained_epochs or None,
                "fraction": fraction[0],
                "seed": seed,
                "last": True,
            }
            for seed, path in enumerate(weights)
        ]
        trainings = []
    else:
        recipes = [
            Recipe(layers, epochs, share, seed, precision)
            for layers in depth
            for share in fraction
            for seed in range(seeds)
        ]
        cells = [
            (recipe.depth, epochs, recipe.fraction, recipe.seed, precision, data, checkpoints, device)
            for recipe in recipes
        ]
        trainings = work.map(trained, cells, desc="train")
        networks = [
            {
                "file": str(Path(checkpoints) / recipe.name / mark_name(mark)),
                "depth": recipe.depth,
                "epoch": mark,
                "fraction": recipe.fraction,
                "seed": recipe.seed,
                "last": mark == recipe.marks[-1],
            }
            for recipe in recipes
            for mark in recipe.marks
        ]
    first = next(network for network in networks if network["last"] and network["fraction"] == max(fraction))
    of_first = [(first["file"], data, first["fraction"], first["seed"], device)]
    swept = work.map(sweeps, of_first, desc="sweeps")[0]
    explained = work.map(family, [(*of_first[0], kernel) for kernel in KERNELS], desc="family")
    cells = [(network["file"], data, network["fraction"], network["seed"], device) for network in networks]
    measured = work.map(measure, cells, desc="compare")
    return {
        "given": bool(weights),
        "epochs": trained_epochs or None if weights else epochs,
        "precision": precision,
        "device": device_of(device),
        "networks": [
            {**{name: value for name, value in network.items() if name != "file"}, **found}
            for network, found in zip(networks, measured)
        ],
        "sweeps": swept,
        "family": explained,
        "trainings": trainings,
    }


def trained(
    depth: int,
    epochs: int,
    fraction: float,
    seed: int,
    precision: str,
    data: str,
    checkpoints: str,
    device: str,
) -> dict:
    """One training, from its newest checkpoint where there is one: its history."""
    recipe = Recipe(depth, epochs, fraction, seed, precision)
    images, labels = split(data, "train")
    rows = subset(labels, fraction, seed)
    folder = Path(checkpoints) / recipe.name
    history = train(recipe, images[rows], labels[rows], folder, device=device_of(device))
    about = {"depth": depth, "fraction": fraction, "seed": seed, "images": len(rows)}
    return {**about, **history, "median_seconds": float(np.median(history["seconds"]))}
