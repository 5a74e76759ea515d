"""The pooled reader and the exponent beside the papers' readers: accuracy, log-loss and calibration on CIFAR-100."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import softmax

import residua as rs
from experiments.cifar100 import networks
from experiments.figures import BASE, DARK, LIGHT, legend_below, panels
from experiments.halves import RESAMPLES, paired
from experiments.machine import device_of
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import ParameterError
from residua.evaluation import expected_calibration_error
from residua.evaluation.significance import bootstrap_interval
from residua.readers.weights import LogitFeatures

# One grid for all readers; sigma in multiples of the typical distance between neighbours.
GRID: dict[str, list] = {"k": [10, 20, 53, 130, 260], "temperature": [0.7, 1.0, 1.2, 1.4, 2.0]}
SIGMA = 2.0 ** np.arange(-4, 0)
LMBDA = [0.2, 0.3, 0.4, 0.5, 0.6]
FEW = 500  # rows that the temperature alone is fitted to, where coefficients are not

READERS = {
    "base": "base, T tuned",
    "accuracy": "ResMem, tuned for accuracy",
    "log_loss": "ResMem, tuned for log-loss",
    "interpolation": "k-NN interpolation, tuned for log-loss",
    "exponent": "ResMem in the exponent, tuned",
    "pooled": "**pooled**",
    "own": "**pooled, fitted on its own rows**, no validation row",
    "calibrated": f"the same, its temperature from {FEW} rows",
}


def measure(
    work: Work,
    *,
    weights: tuple[str, ...] = (),
    data: str = "data",
    download: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Fit and tune on the even test rows and score the odd ones, and the reverse.

    Parameters
    ----------
    weights : tuple of str
        Trained CIFAR-ResNets (.safetensors, or their folders).
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    device : str
        Where networks and memories live.
    """
    if not weights:
        raise ParameterError("weights is empty; expected trained networks' files, such as cifar100 leaves")
    networks.split(data, "train", download)
    return {"networks": work.map(compare, [(file, data, device) for file in weights], desc="pooled")}


def compare(weights: str, data: str, device: str) -> dict:
    """``network`` (a name), ``memory`` and ``n`` (rows), and ``readers``: name -> see ``judged``; ``pairs``: names of
    two readers -> their difference in accuracy and in log-loss, [difference, low, high] each."""
    remembered, test = networks.encoded(weights, data, 1.0, 0, device)
    memory = rs.Memory(remembered, device=device_of(device))
    said = answers(memory, test)
    readers = {name: judged(table, test.labels, said["base"]) for name, table in said.items()}
    wanted = [("pooled", "accuracy"), ("pooled", "interpolation"), ("pooled", "exponent"), ("exponent", "accuracy")]
    wanted += [("own", "accuracy"), ("own", "log_loss"), ("own", "interpolation"), ("pooled", "own")]
    pairs = {f"{one}, {other}": differences(said[one], said[other], test.labels) for one, other in wanted}
    path = Path(weights)
    about = {"network": path.stem if path.suffix == ".safetensors" else path.name, "memory": len(memory)}
    return about | {"n": len(test), "readers": readers, "pairs": pairs}


def answers(memory: rs.Memory, test: Encoded) -> dict[str, np.ndarray]:
    """Of each reader its probabilities of all test rows (n, L), each row's by settings that did not see it."""
    said = {name: np.empty((len(test), memory.n_outputs), np.float32) for name in READERS}
    logits, own = test.logits.dense().numpy(), rs.Pooled(memory).fit(progress=False).scores(test)
    said["own"] = softmax(own, axis=1)
    for half in (0, 1):
        seen, asked = slice(1 - half, None, 2), slice(half, None, 2)
        few = slice(1 - half, 2 * FEW, 2)
        said["base"][asked] = softmax(logits[asked] * factor(logits[seen], test.labels[seen]), axis=1)
        said["calibrated"][asked] = softmax(own[asked] * factor(own[few], test.labels[few]), axis=1)
        for name, reader in tuned(memory, test[seen]).items():
            said[name][asked] = reader.predict_proba(test[asked])
    return said


def factor(logits: np.ndarray, labels: np.ndarray) -> float:
    """1 / T of the temperature with the least log-loss."""
    return float(LogitFeatures(torch.from_numpy(logits)[None], torch.from_numpy(labels)).fitted(0)[0])


def tuned(memory: rs.Memory, seen: Encoded) -> dict[str, rs.ResMem | rs.KNNLM | rs.Pooled]:
    """The readers that need labelled rows, tuned or fitted on these; the memory is used whatever the evidence."""
    grid = GRID | {"sigma": SIGMA * memory.median_nn_distance()}
    grid["k"] = [k for k in GRID["k"] if k <= len(memory)]
    places = {name: grid[name] for name in ("k", "sigma")}
    always: dict[str, Any] = {"evidence": None, "progress": False}
    by_loss = rs.tune(rs.ResMem(memory), seen, grid, **always)
    found = by_loss.results_
    best = int(found["accuracy"].argmax())
    mixed = rs.KNNLM(memory, kernel="exponential")
    return {
        "accuracy": rs.ResMem(memory, **{name: found[name][best].item() for name in by_loss.best_params_}),
        "log_loss": by_loss,
        "interpolation": rs.tune(mixed, seen, grid | {"lmbda": LMBDA}, **always),
        "exponent": rs.tune(rs.ResMem(memory, space="exponent"), seen, places, **always),
        "pooled": rs.Pooled(memory).fit(seen, **always),
    }


def losses(said: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log of the probability of each row's true class (n,)."""
    return -np.log(np.maximum(said[np.arange(len(labels)), labels].astype(float), 1e-30))


def judged(said: np.ndarray, labels: np.ndarray, base: np.ndarray) -> dict:
    """``accuracy`` and ``ece`` in %, ``log_loss``, and ``over``: `differences` to the base."""
    right = said.argmax(axis=1) == labels
    return {
        "accuracy": 100 * float(right.mean()),
        "log_loss": float(losses(said, labels).mean()),
        "ece": 100 * expected_calibration_error(said.max(axis=1), right),
        "over": differences(said, base, labels),
    }


def differences(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> dict:
    """``accuracy`` in points and ``log_loss``: how far `one` is above `other`, [difference, low, high], paired."""
    rng, lost = np.random.default_rng(0), losses(one, labels) - losses(other, labels)
    right = (table.argmax(axis=1) == labels for table in (one, other))
    between = bootstrap_interval(lost, 0.95, RESAMPLES, rng)
    return {"accuracy": list(paired(*right, rng)[:3]), "log_loss": [float(lost.mean()), *between]}


def tables(results: dict) -> dict[str, Table]:
    """Of each network every reader; and pairs of readers."""
    out = {}
    for place, network in enumerate(results["networks"]):
        rows = []
        for name, found in network["readers"].items():
            gain = "" if name == "base" else interval(found["over"]["accuracy"])
            lost = "" if name == "base" else small(found["over"]["log_loss"])
            numbers = (f"{found['accuracy']:.2f}", gain, f"{found['log_loss']:.3f}", lost, f"{found['ece']:.1f}")
            rows.append([READERS[name], *numbers])
        columns = (network["network"], "accuracy, %", "over the base, points", "log-loss", "over the base", "ECE, %")
        out[f"network {place + 1}"] = Table(columns, rows)
    pairs = results["networks"][0]["pairs"]
    rows = []
    for pair in pairs:
        one, other = (READERS[name].replace("*", "") for name in pair.split(", "))
        each = [network["pairs"][pair] for network in results["networks"]]
        rows.append([f"{one} - {other}", *(interval(found["accuracy"], bold=True) for found in each)])
        rows.append(["log-loss", *(small(found["log_loss"]) for found in each)])
    out["pairs"] = Table(("difference", *(network["network"] for network in results["networks"])), rows)
    return out


def small(found: list[float]) -> str:
    """A difference in log-loss with its interval.

    >>> small([-0.11834, -0.1253, -0.1112])
    '-0.118 [-0.125, -0.111]'
    """
    middle, low, high = (f"{value:+.3f}" for value in found)
    return f"{middle} [{low}, {high}]"


def draw(results: dict) -> Figure:
    """Of each network the readers by log-loss and accuracy: better is up and left."""
    networks_ = results["networks"]
    figure, (row,) = panels(1, len(networks_), (4.6 * len(networks_), 4.2))
    for axes, network in zip(row, networks_):
        for name, marker in zip(READERS, "sovDX^P*"):
            found = network["readers"][name]
            colour = BASE if name == "base" else DARK if name in ("pooled", "own", "calibrated") else LIGHT
            label = READERS[name].replace("*", "")
            axes.plot(found["log_loss"], found["accuracy"], marker, color=colour, label=label, ms=8, alpha=0.85)
        axes.set(xlabel="log-loss", ylabel="accuracy, %", title=network["network"])
        axes.title.set_fontsize(10)
        axes.margins(0.08)
    legend_below(figure, row)
    return figure
