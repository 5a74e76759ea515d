"""Controls of ResMem: heads fitted again on its keys, other layers, superclasses, a long tail; the paper's Figure 1."""

from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from experiments import heads
from experiments.cifar100.networks import split
from experiments.controls import figure1, long_tail, networks
from experiments.figures import BASE, INK, RESMEM, dot_rows, legend_below, quiet
from experiments.intervals import mean_interval
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.errors import ParameterError

READERS = {"resmem": "ResMem, tuned", **heads.NAMES}


def measure(
    work: Work,
    *,
    weights: tuple[str, ...] = (),
    data: str = "data",
    download: bool = False,
    layer_images: int = 10_000,
    rows: int = 2_000,
    groups: int = 400,
    seeds: int = 5,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Measure every control.

    Parameters
    ----------
    weights : tuple of str
        Trained CIFAR-ResNets (.safetensors, or their folders); layers are compared on the first.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    layer_images : int
        Images remembered with keys of each layer.
    rows, groups, seeds : int
        Of the long tail: training rows, groups, and draws.
    device : str
        Where networks and memories live.
    """
    if not weights:
        raise ParameterError("weights is empty; expected trained networks' files, such as cifar100 leaves")
    split(data, "train", download)
    found = work.map(networks.compare, [(path, data, device) for path in weights], "networks")
    layers = [(weights[0], data, key, layer_images, device) for key in networks.LAYERS.values()]
    draws = work.map(long_tail.draw_of, [(rows, groups, seed) for seed in range(seeds)], "long tail")
    return {
        "networks": [{"name": name_of(path), **one} for path, one in zip(weights, found)],
        "layers": dict(zip(networks.LAYERS, work.map(networks.layer, layers, "layers"))),
        "long_tail": {"rows": rows, "groups": groups, "draws": draws},
        "figure1": work.map(figure1.fitted, [(60, 3)], "Figure 1")[0],
    }


def name_of(path: str) -> str:
    """What a network's file, or its folder, is called."""
    return path.rstrip("/").rpartition("/")[2].removesuffix(".safetensors")


def over_draws(draws: list[list[dict]]) -> list[dict]:
    """Bins in order, of each the means over draws, and the ``gain`` [mean, low, high] in points."""
    labels = list(dict.fromkeys(one["label"] for draw in draws for one in draw))
    labels.sort(key=lambda label: float(label.removeprefix("over ").partition(" ")[0]) + label.startswith("over"))
    out = []
    for label in labels:
        of = [one for draw in draws for one in draw if one["label"] == label]
        means = {}
        for name in ("n", "base", "resmem", "memorised", "influence"):
            known = [one[name] for one in of if one[name] is not None]
            means[name] = float(np.mean(known)) if known else None
        out.append({"label": label, **means, "gain": mean_interval([one["resmem"] - one["base"] for one in of])})
    return out


def tables(results: dict) -> dict[str, Table]:
    """The controls, layers, agreement, superclasses, the long tail, and Figure 1's errors."""
    found = results["networks"]
    rows = []
    for one in found:
        rows.append([one["name"], "base", f"{one['base']:.2f}", ""])
        for name, reader in one["readers"].items():
            rows.append(["", READERS[name], f"{reader['accuracy']:.2f}", interval(reader["gain"])])
    controls = Table(("network", "", "accuracy, %", "over the base, points"), rows)
    rows = [
        [name, f"{one['dim']}", f"{one['resmem']:.2f}", interval(one["gain"]), f"{one['label_knn']:.2f}"]
        for name, one in results["layers"].items()
    ]
    layers = Table(("key", "dimensions", "ResMem, %", "over the base, points", "label k-NN, %"), rows)
    rows = []
    for one in found:
        for name, part in one["agreement"].items():
            cells = [f"{100 * part[who]:.1f}" for who in ("share", "base", "label_knn", "reader")]
            rows.append([one["name"] if name == "agree" else "", f"they {name}", *cells])
    who = ("network", "memory and base", "rows, %", "base right, %", "neighbours right, %", "ResMem right, %")
    agreement = Table(who, rows)
    names = ("base_superclass_accuracy", "superclass_accuracy", "base_errors_within", "corrected_within")
    rows = [[one["name"], *(f"{100 * one['superclasses'][name]:.1f}" for name in names)] for one in found]
    words = ("superclass right, base", "with ResMem", "base's errors within the superclass", "corrected ones within")
    superclasses = Table(("%", *words), rows)
    rows = []
    for one in over_draws(results["long_tail"]["draws"]):
        accuracies = [f"{one[name]:.1f}" for name in ("base", "resmem")]
        worth = ["" if one[name] is None else f"{one[name]:{kind}}" for name, kind in WORTH.items()]
        rows.append([one["label"], f"{one['n']:,.0f}", *accuracies, interval(one["gain"]), *worth])
    columns = ("training rows of the group", "test rows", "base, %", "ResMem, %", "gain, points")
    tail = Table((*columns, "memorisation", "influence"), rows)
    errors = results["figure1"]
    rows = [["the base, a line", f"{errors['base_mse']:.4f}"], [f"ResMem, k {errors['k']}", f"{errors['mse']:.4f}"]]
    return {
        "controls": controls,
        "layers": layers,
        "agreement": agreement,
        "superclasses": superclasses,
        "long tail": tail,
        "figure 1": Table(("mean squared error", "to the truth"), rows),
    }


WORTH = {"memorised": ".3f", "influence": ".1e"}


def draw(results: dict) -> Figure:
    """Figure 1; controls and layers; accuracy by how often a class was seen."""
    figure = Figure(figsize=(13, 8), layout="constrained", facecolor="white")
    above, below = figure.subfigures(2, 1)
    first = above.subplots(1, 3)
    figure1.panels(tuple(first), results["figure1"])
    legend_below(above, first[0])
    controls, layers, tail = below.subplots(1, 3)
    one = results["networks"][0]
    words = {"resmem": "ResMem", "linear": "linear head again", "perceptron": "perceptron"}
    words["resmem_over_linear"] = "ResMem over\nthe linear head"
    rows = []
    for name, reader in one["readers"].items():
        colour = RESMEM if name.startswith("resmem") else INK
        rows.append((words[name], reader["gain"], colour, f"{reader['accuracy']:.1f} %", None))
    dot_rows(controls, rows)
    controls.set(title=f"{one['name']}: over the base, points")
    rows = []
    for name, layer in results["layers"].items():
        rows.append((name.partition(" (")[0], layer["gain"], RESMEM, f"{layer['dim']}-d", None))
    dot_rows(layers, rows)
    layers.set(title="ResMem by its key's layer, points")
    bins = over_draws(results["long_tail"]["draws"])
    for name, colour, off in (("base", BASE, -0.2), ("resmem", RESMEM, 0.2)):
        tail.bar(np.arange(len(bins)) + off, [bin[name] for bin in bins], 0.4, color=colour, label=name)
    tail.set_xticks(range(len(bins)), labels=[bin["label"] for bin in bins], fontsize=8)
    tail.set(title="Accuracy, %, by a group's training rows")
    tail.legend(frameon=False)
    for axes in (*first, controls, layers, tail):
        quiet(axes)
        axes.title.set_fontsize(10)
    return figure
