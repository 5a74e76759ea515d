"""Classes that arrive in steps: exemplars, class means, RanPAC and memories, by accuracy at equal bytes."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.data import CLASS_NAMES
from experiments.cifar100.recipe import Recipe
from experiments.cifar100.resnet import load
from experiments.cifar100.train import mark_name, train
from experiments.figures import BASE, DARK, KNN, LIGHT, MIXED, RESMEM, legend_below, panels
from experiments.halves import RESAMPLES, crossed
from experiments.machine import device_of
from experiments.new_classes import encoded
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import ParameterError
from residua.evaluation.significance import bootstrap_interval

K, SIGMA, LMBDA = (5, 10, 20, 50, 100, 200), 2.0 ** np.arange(-3, 1), (0.4, 0.6, 0.8, 1.0)
TEMPERATURE = (1.0, 1.4, 2.0)
NUMBER = 4  # bytes of what is kept: keys, means, logits and sums as float32
FEW, MANY = 20, 160  # exemplars of a class
SMALL, MEDIUM, LARGE = 400, 1250, 2400  # random features, in about the bytes of FEW, of MANY, and of all rows

# Of each method: what it is called, and the method of about as many bytes that it is compared with.
NAMES = {
    "head": ("the head alone", None),
    "ncm": ("nearest class mean", None),
    "lda": ("class means and one covariance", "ncm"),
    "random_few": (f"{FEW} random exemplars a class, label k-NN", None),
    "herding_few": (f"{FEW} by herding, label k-NN", "random_few"),
    "ranpac_small": (f"RanPAC, {SMALL} features", "random_few"),
    "random_many": (f"{MANY} random exemplars a class, label k-NN", None),
    "herding_many": (f"{MANY} by herding, label k-NN", "random_many"),
    "ranpac_medium": (f"RanPAC, {MEDIUM} features", "random_many"),
    "label_knn": ("all rows, label k-NN", None),
    "knnlm": ("all rows, k-NN interpolation", "label_knn"),
    "ranpac_large": (f"RanPAC, {LARGE} features", "label_knn"),
    "resmem": ("all rows and logits, ResMem", "label_knn"),
    "pooled": ("all rows and logits, pooled", "resmem"),
    "ranpac_fitted": (f"all rows, RanPAC of {MEDIUM} beside the head, `fit`", "resmem"),
    "resmem_over": (f"all rows, ResMem over RanPAC of {MEDIUM}", "resmem"),
}


def measure(
    work: Work,
    *,
    weights: str = "",
    data: str = "data",
    download: bool = False,
    known: int = 50,
    step: int = 10,
    epochs: int = 20,
    checkpoints: str = "out/streams",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Train a network on the first classes alone, then let the others arrive; nothing of the network changes.

    Parameters
    ----------
    weights : str
        A CIFAR-ResNet that was trained on the first classes alone; without it, one is trained.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    known : int
        Classes that the network is trained on, the first in the order of their names.
    step : int
        Classes that arrive at a time.
    epochs : int
        Of the training, by the paper's recipe.
    checkpoints : str
        Folder for it.
    device : str
        Where network and memories live.
    """
    if not 2 <= known < len(CLASS_NAMES) or step < 1 or (len(CLASS_NAMES) - known) % step:
        raise ParameterError(f"known={known}, step={step}; expected steps that end at {len(CLASS_NAMES)} classes")
    networks.split(data, "train", download)
    if not weights:
        weights = work.map(trained, [(data, known, epochs, checkpoints, device)], desc="training")[0]
    return work.map(stream, [(weights, data, known, step, device)], desc="streams")[0]


def trained(data: str, known: int, epochs: int, checkpoints: str, device: str) -> str:
    """The file of a ResNet-8 that saw the first classes alone."""
    images, labels = networks.split(data, "train")
    recipe, folder = Recipe(epochs=epochs), Path(checkpoints) / f"first{known}-{epochs}epochs"
    train(recipe, images[labels < known], labels[labels < known], folder, device_of(device))
    return str(folder / mark_name(epochs))


def stream(weights: str, data: str, known: int, step: int, device: str) -> dict:
    """``model`` (bytes), ``steps`` (classes), and of each method ``accuracy`` after each step, ``bytes``, ``new`` (%,
    after the last), ``average`` [mean over steps, low, high], and ``over``, its paired difference to the rival's."""
    remembered, test = encoded(weights, data, known, device)
    model = load(weights)
    count = sum(p.numel() for p in model.parameters()) - (len(CLASS_NAMES) - known) * (model.fc.in_features + 1)
    steps = list(range(known, len(CLASS_NAMES) + 1, step))
    memory = rs.Memory(cut(remembered, 0, known, known), device=device_of(device))
    ranpac = {
        name: rs.RanPAC(memory, features, coefficients=(0, 1))
        for name, features in (("small", SMALL), ("medium", MEDIUM), ("large", LARGE))
    }
    right: dict[str, np.ndarray] = {}
    for at, classes in enumerate(steps):
        if at:
            memory.add(cut(remembered, steps[at - 1], classes, known), new_classes=True)
        asked = cut(test, 0, classes, known)
        for name, said in answers(memory, ranpac, asked, known).items():
            of_all = right.setdefault(name, np.zeros((len(steps), len(test)), bool))
            of_all[at, np.flatnonzero(test.labels < classes)] = said == asked.labels
    sizes, rng = bytes_of(memory.dim, len(CLASS_NAMES), known, len(remembered)), np.random.default_rng(0)
    seen = test.labels < np.asarray(steps)[:, None]
    shares = {name: (found / seen.sum(axis=1)[:, None]).mean(axis=0) * len(test) for name, found in right.items()}
    return {
        "known": known,
        "steps": steps,
        "n": len(test),
        "model": NUMBER * count,
        "methods": {
            name: {
                "bytes": sizes[name],
                "accuracy": [100 * float(row.sum() / asked.sum()) for row, asked in zip(found, seen)],
                "new": 100 * float(found[-1, test.labels >= known].mean()),
                "average": mean_of(shares[name], rng),
                "over": None if (other := NAMES[name][1]) is None else mean_of(shares[name] - shares[other], rng),
            }
            for name, found in ((name, right[name]) for name in NAMES)
        },
    }


def mean_of(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    """The mean over test images in %, and its 95 % bootstrap interval."""
    low, high = bootstrap_interval(values, 0.95, RESAMPLES, rng)
    return [100 * float(values.mean()), 100 * low, 100 * high]


def cut(rows: Encoded, first: int, last: int, known: int) -> Encoded:
    """The rows of classes `first` to `last` - 1, by a model that says the `known` ones and 1/L of each other."""
    kept = rows[(rows.labels >= first) & (rows.labels < last)]
    logits = kept.logits.dense()[:, :known]
    return Encoded(kept.keys, logits, kept.labels, source=rows.source, output="logits", new_classes=True)


def answers(memory: rs.Memory, ranpac: dict[str, rs.RanPAC], test: Encoded, known: int) -> dict[str, np.ndarray]:
    """What every method says of the test rows, int (n,); settings from the other half of them."""
    keys, labels = memory.keys.astype(np.float32), memory.labels
    said = {
        "head": test.logits.dense().numpy()[:, :known].argmax(axis=1),
        "ncm": by_means(keys, labels, test.keys, shared=False),
        "lda": by_means(keys, labels, test.keys, shared=True),
    }
    for size, count in (("few", FEW), ("many", MANY)):
        for way, choose in (("random", chosen_at_random), ("herding", herded)):
            rows = np.concatenate([own[choose(keys[own], count)] for own in by_class(labels)])
            few = rs.Memory(
                Encoded(keys[rows], memory.logits.rows(torch.from_numpy(rows)), labels[rows]), storage="none"
            )
            said[f"{way}_{size}"] = voted(few, test, (1.0,))
    said |= {f"ranpac_{size}": reader.predict(test) for size, reader in ranpac.items()}
    said |= {"label_knn": voted(memory, test, (1.0,)), "knnlm": voted(memory, test, LMBDA)}
    said["resmem"] = crossed(rs.ResMem(memory), test, grid(memory))[0]
    said["pooled"] = fitted(lambda: rs.Pooled(memory), test)
    said["ranpac_fitted"] = fitted(lambda: ranpac["medium"].with_params(coefficients=None), test)
    sharp = ranpac["medium"].with_params(coefficients=(0, 10))  # as sure as it is right, about
    over = rs.Memory(Encoded(keys, sharp.scores(Encoded(keys, memory.logits)), labels, output="logits"))
    heads = Encoded(test.keys, sharp.scores(test), test.labels, output="logits")
    said["resmem_over"] = crossed(rs.ResMem(over), heads, grid(over))[0]
    return said


def grid(memory: rs.Memory) -> dict:
    """The settings of k, sigma and T that compete."""
    ks = [k for k in K if k <= len(memory)]
    return {"k": ks, "sigma": memory.median_nn_distance() * SIGMA, "temperature": TEMPERATURE}


def voted(memory: rs.Memory, test: Encoded, shares: tuple[float, ...]) -> np.ndarray:
    """k-NN interpolation whose share is one of `shares`."""
    alone = {"temperature": [1.0]} if shares == (1.0,) else {}
    reader = rs.KNNLM(memory, kernel="exponential")
    return crossed(reader, test, grid(memory) | alone | {"lmbda": shares}, refusable=False)[0]


def fitted(make, test: Encoded) -> np.ndarray:
    """A reader fitted to one half of the test rows answers the other, and the reverse."""
    said = np.empty(len(test), np.int64)
    for half in (0, 1):
        said[half::2] = make().fit(test[1 - half :: 2], evidence=None).predict(test[half::2])
    return said


def by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each class."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def chosen_at_random(keys: np.ndarray, count: int) -> np.ndarray:
    """So many of a class's rows."""
    return np.random.default_rng(0).permutation(len(keys))[:count]


def herded(keys: np.ndarray, count: int) -> np.ndarray:
    """One after another those rows whose mean comes nearest to the class's (iCaRL, arXiv 1611.07725, algorithm 4).

    >>> herded(np.array([[0.0], [4.0], [5.0], [11.0]]), 2).tolist()
    [2, 1]
    """
    left, total, picked = np.ones(len(keys), bool), np.zeros(keys.shape[1]), []
    for place in range(1, min(count, len(keys)) + 1):
        away = np.square(keys.mean(axis=0) - (total + keys) / place).sum(axis=1)
        picked.append(int(np.where(left, away, np.inf).argmin()))
        left[picked[-1]], total = False, total + keys[picked[-1]]
    return np.array(picked)


def by_means(keys: np.ndarray, labels: np.ndarray, queries: np.ndarray, shared: bool) -> np.ndarray:
    """The class of the nearest mean; by Mahalanobis's distance where one covariance is `shared`.

    >>> by_means(np.array([[0.0], [2.0], [9.0], [11.0]]), np.array([0, 0, 1, 1]), np.array([[4.0], [6.0]]), True)
    array([0, 1])
    """
    rows = by_class(labels)
    means = np.stack([keys[own].mean(axis=0) for own in rows]).astype(float)
    precision = np.eye(keys.shape[1])
    if shared:
        within = sum(np.cov(keys[own].T, bias=True) * len(own) for own in rows).reshape(precision.shape) / len(keys)
        precision = np.linalg.inv(within + 0.01 * np.trace(within) / len(within) * precision)
    near = queries @ precision @ means.T - 0.5 * ((means @ precision) * means).sum(axis=1)
    return np.unique(labels)[near.argmax(axis=1)]


def bytes_of(dim: int, classes: int, known: int, rows: int) -> dict[str, int]:
    """What each method keeps beside the model, in bytes; a label is one. The model says nothing of new classes, so a
    row's logits are `known` numbers; a symmetric matrix is kept by half; random features follow from a seed."""
    row, means = NUMBER * dim + 1, NUMBER * dim * classes
    sums = {m: NUMBER * (m * (m + 1) // 2 + m * classes) for m in (SMALL, MEDIUM, LARGE)}
    logits = rows * (row + NUMBER * known)
    return {
        "head": 0,
        "ncm": means,
        "lda": means + NUMBER * dim * (dim + 1) // 2,
        **{f"{way}_few": FEW * classes * row for way in ("random", "herding")},
        "ranpac_small": sums[SMALL],
        **{f"{way}_many": MANY * classes * row for way in ("random", "herding")},
        "ranpac_medium": sums[MEDIUM],
        "label_knn": rows * row,
        "knnlm": rows * row,
        "ranpac_large": sums[LARGE],
        "resmem": logits,
        "pooled": logits,
        "ranpac_fitted": rows * row + sums[MEDIUM],
        "resmem_over": rows * row + sums[MEDIUM],
    }


def tables(results: dict) -> dict[str, Table]:
    """Of every method its bytes, accuracy by step, their mean, and that beside a rival of about as many bytes."""
    methods, rows = results["methods"], []
    for name, (label, other) in NAMES.items():
        one = methods[name]
        first, last = one["accuracy"][0], one["accuracy"][-1]
        beside = "" if other is None else f"{interval(one['over'])} over {NAMES[other][0]}"
        size = f"{(one['bytes'] + results['model']) / 1e6:.2f}"
        rows.append([label, size, f"{first:.2f}", f"{last:.2f}", f"{one['new']:.2f}", average(one["average"]), beside])
    first, last = results["steps"][0], results["steps"][-1]
    columns = ["accuracy, %", "MB, the model too", f"{first} classes", f"{last}", "of which new"]
    return {"accuracies": Table([*columns, "average over steps", "paired, points"], rows)}


def average(found: list[float]) -> str:
    """A mean with its interval, not signed."""
    return f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


COLOURS = {"ncm": BASE, "random_many": KNN, "label_knn": DARK, "ranpac_medium": MIXED, "resmem": RESMEM}


def draw(results: dict):
    """Average accuracy over bytes, and accuracy by step."""
    methods = results["methods"]
    figure, ((left, right),) = panels(1, 2, (13, 5))
    for name, one in methods.items():
        size, colour = (one["bytes"] + results["model"]) / 1e6, MIXED if "ranpac" in name else COLOURS.get(name, LIGHT)
        left.plot(size, one["average"][0], "o", color=colour)
        left.annotate(name.replace("_", " "), (size, one["average"][0]), (5, 3), textcoords="offset points", fontsize=8)
    left.set(xscale="log", xlabel="MB, model and memory", ylabel="accuracy over seen classes, %, mean over steps")
    for name, colour in COLOURS.items():
        right.plot(results["steps"], methods[name]["accuracy"], "o-", color=colour, label=NAMES[name][0])
    right.plot(results["steps"], methods["head"]["accuracy"], "o--", color="0.6", label="the head alone")
    right.set(xlabel="classes seen", ylabel="accuracy over them, %")
    legend_below(figure, right, columns=3)
    return figure
