"""Figure 5: accuracy as k, σ and T move, one at a time, around the paper's settings."""

import numpy as np
from matplotlib.axes import Axes

import residua as rs
from experiments.cifar100.headline import LMBDA, PAPER, fitting
from experiments.cifar100.networks import encoded
from experiments.figures import BASE, INK, KNN, MIXED, RESMEM
from experiments.machine import device_of
from experiments.published import CIFAR100_SWEEPS
from experiments.shown import SYMBOLS
from experiments.table import Table

VALUES = {
    "k": (1, 3, 7, 14, 27, 38, 53, 75, 106, 150, 212, 300, 400, 500),
    "sigma": (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0),
    "temperature": (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 1.8, 2.4, 3.2, 4.0, 5.0),
}


def sweeps(weights: str, data: str, fraction: float, seed: int, device: str) -> dict:
    """Accuracies in % on the test set, as the paper's figure has them.

    Name -> ``values``, and lists as long: ``resmem``, ``interpolation`` (at each point the λ best on these very images,
    which flatters it), and ``label_knn`` (but for T, which it has not).
    """
    remembered, test = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered, device=device_of(device))
    resmem, mixed = rs.ResMem(memory, k=1), rs.KNNLM(memory, k=1, kernel="exponential")
    out = {}
    for name, values in VALUES.items():
        values = [value for value in values if name != "k" or value <= len(memory)]
        around = {**{key: [value] for key, value in fitting(memory).items()}, name: values}
        out[name] = {"values": values, "resmem": _swept(resmem, test, around, name)}
        out[name]["interpolation"] = _swept(mixed, test, {**around, "lmbda": LMBDA}, name)
        if name != "temperature":
            out[name]["label_knn"] = _swept(mixed, test, {**around, "lmbda": [1.0], "temperature": [1.0]}, name)
    return out


def _swept(reader, test, grid: dict, name: str) -> list[float]:
    """The best accuracy at each value of `name`, ascending."""
    found = rs.tune(reader, test, grid, objective="accuracy", evidence=None, progress=False).results_
    used = found["k"] > 0
    return [100 * found["accuracy"][used & (found[name] == value)].max() for value in np.unique(found[name][used])]


def spread(name: str, curve: dict) -> float:
    """Highest minus lowest accuracy of ResMem over the range that the paper shows, in points."""
    low, high = CIFAR100_SWEEPS[name][:2]
    inside = [y for x, y in zip(curve["values"], curve["resmem"]) if low <= x <= high]
    return max(inside) - min(inside)


def dip(values: list[float]) -> float:
    """How far a curve is from rising to one peak and falling after it: the largest step against that, 0 for none."""
    peak = int(np.argmax(values))
    sides = values[: peak + 1], values[peak:][::-1]  # both towards the peak
    return float(max(np.max(np.maximum.accumulate(side) - side) for side in sides))


def table(swept: dict) -> Table:
    """How far the accuracy moves, where it is best, and whether it has one peak."""
    rows = []
    for name, curve in swept.items():
        low, high, says = CIFAR100_SWEEPS[name]
        best = int(np.argmax(curve["resmem"]))
        at = f"{curve['resmem'][best]:.2f} at {curve['values'][best]:g}"
        moved, against = f"{spread(name, curve):.2f}", f"{dip(curve['resmem']):.2f}"
        rows.append([f"{SYMBOLS[name]} in {low:g}-{high:g}", says, moved, at, against])
    columns = ("", "paper says", "ours: highest - lowest, points", "best", "largest step against one peak, points")
    return Table(columns, rows)


def panel(axes: Axes, name: str, curve: dict, base: float) -> None:
    """One setting's curves, with the paper's choice of it."""
    axes.axhline(base, color=BASE, lw=1.2, label="base")
    axes.plot(curve["values"], curve["resmem"], "D-", ms=4, color=RESMEM, label="ResMem")
    axes.plot(curve["values"], curve["interpolation"], "o-", ms=3.5, color=MIXED, label="interpolation, best λ")
    if "label_knn" in curve:
        axes.plot(curve["values"], curve["label_knn"], "s-", ms=3.5, color=KNN, label="label k-NN")
    axes.axvline(PAPER[name], color=INK, lw=0.9, ls=":")
    if name != "sigma":
        axes.set_xscale("log")
        ticks = {"k": (1, 3, 10, 27, 100, 500), "temperature": (0.1, 0.3, 1, 2, 5)}[name]
        axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    words = {"k": "k, neighbours", "sigma": "σ, kernel width", "temperature": "T, temperature"}[name]
    title = f"Figure 5: {SYMBOLS[name]} (dotted: the paper's {PAPER[name]:g})"
    axes.set(xlabel=words, ylabel="test accuracy, %", title=title)
