"""ResMem on CIFAR-ResNets (arXiv 2302.01576): headline, Table 1, Figures 2, 4 and 5, what separates it from k-NN."""

from collections.abc import Callable
from typing import Literal

from matplotlib.figure import Figure

from experiments.cifar100 import curves, family, groups, headline, latency, sweeps
from experiments.cifar100.networks import given, marks, planned, split, trained
from experiments.cifar100.recipe import PAPER_EPOCHS
from experiments.figures import legend_below, quiet
from experiments.machine import device_of
from experiments.table import Table
from experiments.work import Work


def measure(
    work: Work,
    *,
    depth: tuple[int, ...] = (8,),
    epochs: int = PAPER_EPOCHS,
    fraction: tuple[float, ...] = (1.0,),
    seeds: int = 5,
    others: int = 1,
    crossed: int = 0,
    equal_steps: bool = False,
    weights: tuple[str, ...] = (),
    trained_epochs: int = 0,
    data: str = "data",
    download: bool = False,
    checkpoints: str = "out/cifar100",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Train what is not given; compare on the headline's networks, with sweeps and the family's analysis on the first
    of them; and measure one point for each epoch mark, depth and share.

    Parameters
    ----------
    depth : tuple of int
        Depths 6n + 2; the first, on the largest share, is the headline's.
    epochs : int
        Epochs to train; with others than the paper's, its epoch marks are scaled.
    fraction : tuple of float
        Shares of the training images to train on and to remember.
    seeds : int
        Trainings of the headline's network.
    others : int
        Trainings of each other depth and share.
    crossed : int
        How many of the depths, the first ones, are trained on every share; 0 is all.
    equal_steps : bool
        Smaller shares take as many steps as all the images do, in more epochs.
    weights : tuple of str
        Trained networks (.safetensors) to measure instead of training any; the first is the headline's. Where all are
        called as trainings here, such as resnet8-50percent-512epochs-seed0, each is measured as what it is called.
    trained_epochs : int
        For how many epochs those were trained, to be told beside the result.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    checkpoints : str
        Folder for trainings; one that was stopped goes on from there.
    device : str
        Where networks and memories live.
    """
    split(data, "train", download)  # known before hours of training
    if weights:
        networks, trainings = given(weights, depth, fraction, trained_epochs), []
    else:
        recipes = planned(depth, fraction, seeds, others, crossed, epochs, equal_steps)
        cells = [(r.depth, r.epochs, r.fraction, r.seed, data, checkpoints, device) for r in recipes]
        trainings = work.map(trained, cells, "train")
        networks = marks(recipes, checkpoints)
    cell = networks[0]["depth"], networks[0]["fraction"]
    main = [one for one in networks if one["last"] and (one["depth"], one["fraction"]) == cell]

    def where(network: dict) -> tuple:
        return network["file"], data, network["fraction"], network["seed"], device

    def each(compute: Callable, chosen: list[dict]) -> list[dict]:
        found = work.map(compute, map(where, chosen), compute.__name__)
        about = [{name: value for name, value in network.items() if name != "file"} for network in chosen]
        return [one | measured for one, measured in zip(about, found)]

    first = where(main[0])
    return {
        "given": bool(weights),
        "epochs": networks[0]["epoch"] if weights else epochs,
        "device": device_of(device),
        "networks": each(headline.compare, main),
        "points": each(curves.point, networks) if len(networks) > len(main) else [],
        "sweeps": work.map(sweeps.sweeps, [first], "sweeps")[0],
        "family": work.map(family.family, [(*first, kernel) for kernel in family.KERNELS], "family"),
        "latency": work.map(latency.latency, [first], "latency")[0],
        "trainings": trainings,
    }


def tables(results: dict) -> dict[str, Table]:
    """Those of each part, by name; the curves' only where networks were trained."""
    main = results["networks"]
    return {
        "headline": headline.accuracy_table(main),
        "rates": headline.rates_table(main),
        "pairs": headline.pairs_table(main),
        **curves.tables(results["points"], results["epochs"]),
        **curves.times(results["points"], results["trainings"], results["latency"]["milliseconds"]["base"]),
        "sweeps": sweeps.table(results["sweeps"]),
        "groups": groups.table(main[0]["groups"]),
        "family": family.table(results["family"]),
        "latency": latency.table(main[0]["depth"], results["latency"]),
    }


def draw(results: dict) -> Figure:
    """The headline and the family, Figure 5, and, where networks were trained, Table 1 and Figure 2."""
    main, found = results["networks"], curves.curves(results["points"])
    figure = Figure(figsize=(13, 4.6 * (2 + bool(found))), layout="constrained", facecolor="white")
    rows = figure.subfigures(2 + bool(found), 1, height_ratios=[1.15, 1, 1][: 2 + bool(found)])
    left, right = rows[0].subplots(1, 2, width_ratios=[1.8, 1])
    headline.panel(left, main)
    family.panel(right, results["family"])
    for axes, (name, curve) in zip(rows[1].subplots(1, 3), results["sweeps"].items()):
        sweeps.panel(axes, name, curve, main[0]["base"])
    if found:
        for axes, (name, curve) in zip(rows[2].subplots(1, len(found), squeeze=False)[0], found.items()):
            curves.panel(axes, name, curve, results["epochs"])
    for row in rows:
        legend_below(row, row.axes, columns=5)
    for axes in figure.axes:
        quiet(axes)
        axes.title.set_fontsize(11)
    title = f"CIFAR-100, ResNet-{main[0]['depth']}: a memory of {main[0]['memory']:,} training images"
    figure.suptitle(title, fontsize=13)
    return figure
