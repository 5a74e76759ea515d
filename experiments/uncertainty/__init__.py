"""Sets, intervals and withheld answers of a network and of a ridge regression, with a memory and without."""

from typing import Literal

import numpy as np

from experiments.cifar100 import networks
from experiments.figures import BASE, DARK, KNN, LIGHT, MIXED, RESMEM, legend_below, panels
from experiments.table import Table
from experiments.uncertainty.classes import NAMES, sets
from experiments.uncertainty.intervals import KINDS, TASKS, of_split
from experiments.uncertainty.rivals import LIBRARIES
from experiments.work import Work
from residua.errors import ParameterError

COLOURS = {
    "base": BASE,
    "temperature": KNN,
    "resmem": LIGHT,
    "interpolation": MIXED,
    "exponent": RESMEM,
    "pooled": DARK,
}


def measure(
    work: Work,
    *,
    weights: str = "",
    data: str = "data",
    download: bool = False,
    seeds: int = 20,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Calibrate on a quarter of the test images what was tuned on half of them, and judge it by the last quarter; and
    the intervals of a ridge regression on tables.

    Parameters
    ----------
    weights : str
        A trained CIFAR-ResNet (.safetensors, or its folder), such as the experiment cifar100 leaves.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    seeds : int
        Splits of each table.
    device : str
        Where network and memory live.
    """
    if not weights:
        raise ParameterError("weights is empty; expected a trained network's file, such as cifar100 leaves")
    networks.split(data, "train", download)
    found = work.map(sets, [(weights, data, device, name) for name in NAMES], desc="sets")
    cells = [(task, seed) for task in TASKS for seed in range(seeds)]
    split = work.map(of_split, cells, desc="intervals")
    numbers = {task: [one for (name, _), one in zip(cells, split) if name == task] for task in TASKS}
    return {"sets": dict(zip(NAMES, found)), "intervals": {task: over_seeds(numbers[task]) for task in TASKS}}


def over_seeds(splits: list[dict]) -> dict:
    """The mean over splits of each number of each kind of interval; None where a library is not installed."""
    return {
        kind: None if splits[0][kind] is None else np.mean([split[kind] for split in splits], axis=0).tolist()
        for kind in splits[0]
    }


def tables(results: dict) -> dict[str, Table]:
    """Sets; sets within each class and fifth; withheld answers; intervals; and what other libraries make of them."""
    rows, within, withheld, beside = [], [], [], []
    for name, found in results["sets"].items():
        one = found["lac"]
        area = f"{1000 * found['aurc']:.1f}"
        rows.append([NAMES[name], f"{one['size']:.2f}", share(one["coverage"]), f"{found['aps']['size']:.2f}", area])
        for how in ("lac", "distance", "class"):
            kept = found[how]
            cells = (f"{kept['size']:.2f}", share(kept["coverage"]), share(kept["far"]), share(kept["worst"]))
            within.append([f"{NAMES[name]}{BY[how]}", *cells])
        for risk, (answered, wrong) in found["withheld"].items():
            withheld.append([f"{NAMES[name]}, risk {100 * float(risk):g} %", share(answered), share(wrong)])
        if (rival := found["rivals"]) is not None:
            cells = [f"{one['size']:.3f}"] + [known(rival[key], "{:.3f}") for key in ("mapie", "crepes", "mapie_aps")]
            beside.append([NAMES[name], *cells])
    widths = [
        [f"{task}: {KINDS[kind]}", f"{numbers[0]:.3g}", *(f"{one:.3f}" for one in numbers[1:])]
        for task, kinds in results["intervals"].items()
        for kind, numbers in kinds.items()
        if numbers is not None
    ]
    fifths = ["nearest fifth", "second", "middle", "fourth", "farthest"]
    return {
        "sets": Table(("", "classes in a 90 % set", "truth inside, %", "APS: classes", "area × 1000"), rows),
        "within": Table(("", "classes", "truth inside, %", "farthest fifth", "worst class"), within),
        "withheld": Table(("", "answered, %", "of these wrong, %"), withheld),
        "intervals": Table(("", "mean width", "inside", *fifths), widths),
        "libraries": Table(("classes in a 90 % set", "residua", *LIBRARIES), beside),
    }


BY = {"lac": "", "distance": ", by distance", "class": ", by class"}


def share(value: float) -> str:
    """A share in %, one decimal."""
    return f"{100 * value:.1f}"


def known(value: float | None, form: str) -> str:
    """A number, or that the library for it is not installed."""
    return "not installed" if value is None else form.format(value)


def draw(results: dict):
    """The risk at each coverage, and coverage in each fifth of the first table by its distance to the memory."""
    figure, ((left, right),) = panels(1, 2, (11, 4.2))
    for name, found in results["sets"].items():
        curve = found["curve"]
        across = 100 * np.arange(1, len(curve) + 1) / len(curve)
        left.plot(across, 100 * np.array(curve), color=COLOURS[name], label=NAMES[name])
    left.set(xlabel="answered, % of the test images, the surest first", ylabel="of these wrong, %")
    task = next(iter(results["intervals"]))
    for kind, colour in (("base", BASE), ("absolute", LIGHT), ("normalised", RESMEM), ("distance", DARK)):
        inside = results["intervals"][task][kind]
        right.plot(range(5), 100 * np.array(inside[2:]), "o-", color=colour, label=KINDS[kind].replace("`", ""))
    right.axhline(90, color="0.6", lw=1)
    right.set(xlabel=f"{task}: fifths by distance to the memory", ylabel="truth inside the interval, %")
    right.set_xticks(range(5), labels=["nearest", "", "middle", "", "farthest"])
    legend_below(figure, (left, right), columns=3)
    return figure
