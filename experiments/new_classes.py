"""Classes that a network never learned to say: 40 of CIFAR-100's are added to a head of 60 by memory alone."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from sklearn.neighbors import NearestCentroid

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.data import CLASS_NAMES, normalise
from experiments.cifar100.resnet import load
from experiments.figures import BASE, DARK, INK, LIGHT, dot, legend_below, panels
from experiments.halves import RESAMPLES, paired, percent
from experiments.machine import device_of
from experiments.shown import interval, settings
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import ParameterError

# Finer than tune's own grid where the best settings are. Sigma in multiples of the typical distance between neighbours.
K = (10, 20, 35, 53, 85, 130, 200, 350)
SIGMA = 2.0 ** np.arange(-4.5, -1, 0.5)
TEMPERATURE = (0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4)
LMBDA = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SPARED = 2.0  # points that the known classes may lose on the rows tuned on; a loss of 2.5 on others is aimed at
PRICE = 3.0  # of each point more, in points of the harmonic mean, which it can never be worth
PAIRS = np.array([[True, True], [True, False], [False, True], [False, False]])[:, :, None]  # who of two is right

NAMES = {
    "default": "ResMem, `tune` as it is (log-loss)",
    "default_accuracy": 'ResMem, `tune(objective="accuracy")`',
    "accuracy": "ResMem, accuracy, finer grid",
    "conservative": 'ResMem, `objective="conservative"`, finer grid',
    "harmonic": "ResMem, harmonic mean, finer grid",
    "spared": f"ResMem, harmonic mean, known classes spared ({SPARED:g} points), finer grid",
    "interpolation": "k-NN interpolation, accuracy, finer grid",
    "label_knn": "label k-NN, accuracy, finer grid",
    "class_mean": "nearest class mean",
}

COLUMNS = (("old", "old classes", DARK), ("new", "new classes", LIGHT), ("harmonic", "harmonic mean", INK))


def measure(
    work: Work,
    *,
    weights: str = "",
    data: str = "data",
    download: bool = False,
    known: int = 60,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Keep the head of the first classes, remember the training images of all, and answer the test set.

    Parameters
    ----------
    weights : str
        A trained CIFAR-ResNet (.safetensors, or its folder), such as the experiment cifar100 leaves.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    known : int
        Classes that the head keeps, the first in the order of their names.
    device : str
        Where network and memory live.
    """
    if not weights:
        raise ParameterError("weights is empty; expected a trained network's file, such as cifar100 leaves")
    if not 2 <= known < len(CLASS_NAMES):
        raise ParameterError(f"known={known}; expected 2 to {len(CLASS_NAMES) - 1} of the {len(CLASS_NAMES)} classes")
    networks.split(data, "train", download)
    return work.map(compare, [(weights, data, known, device)], desc="new classes")[0]


def compare(weights: str, data: str, known: int, device: str) -> dict:
    """``known``, ``classes``, ``memory`` and ``n`` (rows), ``base`` (accuracy of the head among the known classes), and
    ``readers``: name -> see ``judged``, ``settings`` of the two halves, and ``over``: harmonic mean over that of label
    k-NN [difference, low, high]."""
    remembered, test = encoded(weights, data, known, device)
    old = remembered.labels < known
    memory = rs.Memory(remembered[old], device=device_of(device))
    memory.add(remembered[~old], new_classes=True)
    found = answers(memory, test, known) | {"class_mean": (class_mean(remembered, test, known), None)}
    right = {name: answered == test.labels for name, (answered, _) in found.items()}
    queries, rng = test.labels < known, np.random.default_rng(0)
    base = test.logits.dense().numpy()[:, :known].argmax(axis=1) == test.labels
    return {
        "known": known,
        "classes": memory.n_outputs,
        "memory": len(memory),
        "n": len(test),
        "base": percent(base[queries]),
        "readers": {
            name: judged(right[name], base, queries, rng)
            | {"over": list(over(right[name][0], right["label_knn"][0], queries, rng)), "settings": chosen}
            for name, (_, chosen) in found.items()
        },
    }


def encoded(weights: str, data: str, known: int, device: str) -> tuple[Encoded, Encoded]:
    """(remembered, test) of all classes, through a network whose head says the `known` first ones alone."""
    model = load(weights)
    head = torch.nn.Linear(model.fc.in_features, known)
    head.load_state_dict({name: values[:known] for name, values in model.fc.state_dict().items()})
    model.fc = head
    model = model.to(device_of(device), memory_format=torch.channels_last).eval()
    remembered, test = (
        rs.encode(model, normalise(images), labels, batch_size=networks.BATCH, progress=False, new_classes=True)
        for images, labels in (networks.split(data, part) for part in ("train", "test"))
    )
    return remembered, test


def harmonic(old, new):
    """The harmonic mean of accuracies, in their unit: it is low where either is. 0 where both are 0.

    >>> float(harmonic(60.0, 30.0))
    40.0
    """
    return 2 * old * new / np.maximum(old + new, 1e-9)


def harmonic_mean(right: np.ndarray, known: np.ndarray) -> float:
    """Of the accuracies on queries of `known` classes and on the others, in %."""
    return float(harmonic(percent(right[known]), percent(right[~known])))


def scorer(tuned_on: Encoded, known: int, spared: float = np.inf) -> Callable:
    """A score for ``tune``: the harmonic mean, less `PRICE` for each point beyond `spared` that the known classes lose
    to the head alone."""
    queries = tuned_on.labels < known
    head = percent((tuned_on.logits.argmax().numpy() == tuned_on.labels)[queries])

    def score(estimator, X: np.ndarray, y: np.ndarray) -> float:
        right, own = estimator.predict(X) == y, queries[X]
        lost = head - percent(right[own])
        return harmonic_mean(right, own) - PRICE * max(0.0, lost - spared)

    return score


def answers(memory: rs.Memory, test: Encoded, known: int) -> dict:
    """Of each reader the classes it says among all and among the known ones, int (2, n), and the halves' settings.

    Even rows are answered with the settings best on the odd ones, and the reverse.
    """
    resmem, mixed = rs.ResMem(memory), rs.KNNLM(memory, kernel="exponential")
    sigma = memory.median_nn_distance() * SIGMA
    grid = {"k": [k for k in K if k <= len(memory)], "sigma": sigma, "temperature": TEMPERATURE}
    rules: dict[str, tuple[rs.ResMem | rs.KNNLM, dict | None, object]] = {
        "default": (resmem, None, "log_loss"),
        "default_accuracy": (resmem, None, "accuracy"),
        "accuracy": (resmem, grid, "accuracy"),
        "conservative": (resmem, grid, "conservative"),
        "harmonic": (resmem, grid, np.inf),
        "spared": (resmem, grid, SPARED),
        "interpolation": (mixed, grid | {"lmbda": LMBDA}, "accuracy"),
        "label_knn": (mixed, grid | {"temperature": [1.0], "lmbda": [1.0]}, "accuracy"),
    }
    return {name: crossed(*rule, test, known) for name, rule in rules.items()}


def crossed(reader, grid: dict | None, rule, test: Encoded, known: int) -> tuple[np.ndarray, list[dict]]:
    """What one reader says, tuned by an objective's name, or by the harmonic mean with so many points to spare."""
    said, chosen = np.empty((2, len(test)), np.int64), []
    for half in (0, 1):
        tuned_on = test[1 - half :: 2]
        objective = rule if isinstance(rule, str) else scorer(tuned_on, known, rule)
        best = rs.tune(reader, tuned_on, grid, objective=objective, progress=False)
        scores = best.scores(test[half::2])
        said[:, half::2] = scores.argmax(axis=1), scores[:, :known].argmax(axis=1)
        chosen.append(best.best_params_)
    return said, chosen


def class_mean(remembered: Encoded, test: Encoded, known: int) -> np.ndarray:
    """The nearest mean of a class's keys, among all classes and among the known ones: int (2, n)."""
    old = remembered.labels < known
    fits = (NearestCentroid().fit(remembered.keys[rows], remembered.labels[rows]) for rows in (slice(None), old))
    return np.stack([fit.predict(test.keys) for fit in fits])


def judged(right: np.ndarray, base: np.ndarray, queries: np.ndarray, rng: np.random.Generator) -> dict:
    """Accuracies in %: ``among_known`` of the queries of known classes, where only those can be said; where all can be,
    ``old``, ``new`` and ``harmonic``; and paired with the `base`, [difference, low, high]: ``gain`` and ``kept``."""
    return {
        "among_known": percent(right[1][queries]),
        "old": percent(right[0][queries]),
        "new": percent(right[0][~queries]),
        "harmonic": harmonic_mean(right[0], queries),
        "gain": list(paired(right[1][queries], base[queries], rng)[:3]),
        "kept": list(paired(right[0][queries], base[queries], rng)[:3]),
    }


def over(one: np.ndarray, other: np.ndarray, queries: np.ndarray, rng: np.random.Generator) -> tuple:
    """By how much the harmonic mean of `one` is above that of `other`, with a paired 95 % bootstrap interval."""
    both = np.stack([one, other])

    def difference(accuracies: np.ndarray) -> np.ndarray:
        of_one, of_other = harmonic(*accuracies)
        return of_one - of_other

    # Resampled rows of a group are draws of (one, other) right or wrong: their counts are all that matters.
    drawn = []
    for group in (queries, ~queries):
        shares = [np.mean((both[:, group] == pair).all(axis=0)) for pair in PAIRS]
        counts = rng.multinomial(group.sum(), shares, RESAMPLES)
        drawn.append(100 * counts @ PAIRS[:, :, 0] / group.sum())
    found = difference(np.stack([accuracies.T for accuracies in drawn]))
    middle = difference(100 * np.stack([both[:, queries].mean(axis=1), both[:, ~queries].mean(axis=1)]))
    return float(middle), *np.quantile(found, [0.025, 0.975]).tolist()


def tables(results: dict) -> dict[str, Table]:
    """Accuracies of every reader; and its settings."""
    known, classes, readers = results["known"], results["classes"], results["readers"]
    rows = [[f"the head of {known}", f"{results['base']:.2f}", "", "", "", "", "", ""]]
    for name, reader in readers.items():
        numbers = (f"{reader[column]:.2f}" for column in ("old", "new", "harmonic"))
        gain, kept = interval(reader["gain"]), interval(reader["kept"])
        beside_knn = "" if name == "label_knn" else interval(reader["over"])
        rows.append([NAMES[name], f"{reader['among_known']:.2f}", gain, *numbers, kept, beside_knn])
    among = f"old among {known}"
    columns = ["accuracy, %", among, "over the head, points", f"old among {classes}", "new", "harmonic mean"]
    columns += [f"old, less the head's among {known}", "harmonic mean over label k-NN's"]
    chosen = [[NAMES[name], settings(reader["settings"])] for name, reader in readers.items() if reader["settings"]]
    return {"accuracies": Table(columns, rows), "settings": Table(("", "settings (even rows; odd rows)"), chosen)}


def draw(results: dict):
    """Of every reader the accuracies on old and new classes and their harmonic mean, a row each."""
    readers = results["readers"]
    figure, ((axes,),) = panels(1, 1, (10, 0.45 * len(readers) + 1.8))
    axes.axvline(results["base"], color=BASE, label=f"the head of {results['known']}, asked for these alone")
    for at, reader in enumerate(readers.values()):
        axes.plot([reader["old"], reader["new"]], [at, at], color="0.75", lw=2, zorder=1)
        for name, label, colour in COLUMNS:
            dot(axes, reader[name], at, colour=colour, label=label)
    axes.set_yticks(range(len(readers)), labels=[NAMES[name].replace("`", "") for name in readers], fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel=f"accuracy, %, where all {results['classes']} classes can be said")
    legend_below(figure, axes)
    return figure
