"""Which networks there are, trained here or given, and what is measured on each."""

from pathlib import Path

import numpy as np

from residua.errors import ParameterError
from residua.papers.cifar100.compare import measure
from residua.papers.cifar100.curves import point
from residua.papers.cifar100.family import KERNELS, family
from residua.papers.cifar100.latency import latency
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
    others: int,
    crossed: int,
    weights: tuple[str, ...],
    trained_epochs: int,
    data: str,
    download: str,
    checkpoints: str,
    precision: str,
    device: str,
) -> dict:
    """Train what is not given; compare on the headline's networks, with sweeps and the family's analysis on the first
    of them; and measure one point for each epoch mark, depth and share.

    Returns
    -------
    dict
        ``networks`` (the headline's, each with ``depth``, ``epoch``, ``fraction``, ``seed``, and what ``measure``
        gives), ``points`` (of every mark and cell, where there are more than the headline's: the same, ``last``, and
        what ``point`` gives), ``sweeps``, ``family``, ``latency``, ``trainings`` (``loss`` and ``seconds`` by epoch),
        ``given`` (bool), ``epochs``, ``precision`` and ``device``.

    Raises
    ------
    ParameterError
        When an option is out of its range, or given networks are to be trained as well.
    """
    weights = tuple(path for path in weights if path)
    split(data, "train", download == "yes")  # known before hours of training
    if weights:
        networks, trainings = _given(weights, depth, fraction, trained_epochs), []
    else:
        recipes = planned(depth, fraction, seeds, others, crossed, epochs, precision)
        trainings = work.map(trained, [(*_training(recipe), data, checkpoints, device) for recipe in recipes], "train")
        networks = _marks(recipes, checkpoints)
    main = [network for network in networks if network["last"] and _cell(network) == _cell(networks[0])]
    first = (*_where(main[0], data), device)
    swept = work.map(sweeps, [first], desc="sweeps")[0]
    explained = work.map(family, [(*first, kernel) for kernel in KERNELS], desc="family")
    measured = work.map(measure, [(*_where(network, data), device) for network in main], desc="compare")
    curved = networks if len(networks) > len(main) else []
    points = work.map(point, [(*_where(network, data), device) for network in curved], desc="points")
    return {
        "given": bool(weights),
        "epochs": trained_epochs or None if weights else epochs,
        "precision": precision,
        "device": device_of(device),
        "networks": [_about(network) | found for network, found in zip(main, measured)],
        "points": [_about(network) | found for network, found in zip(curved, points)],
        "sweeps": swept,
        "family": explained,
        "latency": work.map(latency, [first], desc="latency")[0],
        "trainings": trainings,
    }


def planned(
    depth: tuple[int, ...],
    fraction: tuple[float, ...],
    seeds: int,
    others: int,
    crossed: int,
    epochs: int,
    precision: str,
) -> list[Recipe]:
    """The trainings: first the headline's, `seeds` of them; then, `others` of each, the other depths on all the data
    there is, and the smaller shares on the first `crossed` depths (0: on all).

    Raises
    ------
    ParameterError
        When a number is out of its range.

    Examples
    --------
    >>> recipes = planned((8, 14), (0.5, 1.0), seeds=2, others=1, crossed=1, epochs=256, precision="float32")
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
    return [Recipe(cell[0], epochs, cell[1], seed, precision) for cell, count in cells for seed in range(count)]


def _given(weights: tuple[str, ...], depth: tuple[int, ...], fraction: tuple[float, ...], epochs: int) -> list[dict]:
    if len(fraction) > 1 or len(depth) > 1:
        raise ParameterError(
            f"weights are given, and depth={depth} and fraction={fraction} ask for trainings; give one fraction, the "
            "share of the training images that these networks saw and that is remembered"
        )
    about = {"epoch": epochs or None, "fraction": fraction[0], "last": True}
    return [
        {"file": path, "depth": 2 * len(load(path).blocks) + 2, "seed": seed, **about}
        for seed, path in enumerate(weights)
    ]


def _marks(recipes: list[Recipe], checkpoints: str) -> list[dict]:
    """Every mark of the headline's trainings, for Table 1; of the others the last."""
    head = (recipes[0].depth, recipes[0].fraction)
    out = []
    for recipe in recipes:
        about = {"depth": recipe.depth, "fraction": recipe.fraction, "seed": recipe.seed}
        last = recipe.marks[-1]
        for mark in recipe.marks if (recipe.depth, recipe.fraction) == head else (last,):
            path = Path(checkpoints) / recipe.name / mark_name(mark)
            out.append({"file": str(path), **about, "epoch": mark, "last": mark == last})
    return out


def _training(recipe: Recipe) -> tuple:
    return recipe.depth, recipe.epochs, recipe.fraction, recipe.seed, recipe.precision


def _cell(network: dict) -> tuple[int, float]:
    return network["depth"], network["fraction"]


def _where(network: dict, data: str) -> tuple:
    return network["file"], data, network["fraction"], network["seed"]


def _about(network: dict) -> dict:
    return {name: value for name, value in network.items() if name != "file"}


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
