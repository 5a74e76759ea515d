"""Figure 5: accuracy as k, σ and T move, one at a time, around the paper's settings."""

import numpy as np

import residua as rs
from residua.papers.cifar100.compare import LMBDA, PAPER
from residua.papers.cifar100.networks import device_of, encoded
from residua.papers.published import CIFAR100_SWEEPS

VALUES = {
    "k": (1, 3, 7, 14, 27, 38, 53, 75, 106, 150, 212, 300, 400, 500),
    "sigma": (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0),
    "temperature": (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 1.8, 2.4, 3.2, 4.0, 5.0),
}


def sweeps(weights: str, data: str, fraction: float, seed: int, device: str) -> dict:
    """Accuracies in % on the test set, as the paper's figure has them.

    Returns
    -------
    dict
        Name -> ``values``, and lists as long: ``resmem``, ``interpolation`` (at each point the λ best on these very
        images, which flatters it), and ``label_knn`` (but for T, which it has not).
    """
    remembered, test = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered, device=device_of(device))
    out = {}
    for name, values in VALUES.items():
        values = [value for value in values if name != "k" or value <= len(memory)]
        around = {**{key: [value] for key, value in PAPER.items()}, name: values}
        around["k"] = sorted({min(k, len(memory)) for k in around["k"]})
        out[name] = {"values": values, "resmem": _swept(rs.ResMem(memory, k=1), test, around, name)}
        mixed = rs.KNNLM(memory, k=1, kernel="exponential")
        out[name]["interpolation"] = _swept(mixed, test, {**around, "lmbda": LMBDA}, name)
        if name != "temperature":
            labels = rs.KNNLM(memory, k=1, lmbda=1.0, kernel="exponential")
            out[name]["label_knn"] = _swept(labels, test, {**around, "lmbda": [1.0], "temperature": [1.0]}, name)
    return out


def _swept(reader, test, grid: dict, name: str) -> list[float]:
    """The best accuracy at each value of `name`, ascending."""
    found = rs.tune(reader, test, grid, progress=False).results_
    used = found["k"] > 0
    return [100 * found["accuracy"][used & (found[name] == value)].max() for value in np.unique(found[name][used])]


def spread(name: str, curve: dict) -> float:
    """Highest minus lowest accuracy of ResMem over the range that the paper shows, in points."""
    low, high = CIFAR100_SWEEPS[name][:2]
    inside = [y for x, y in zip(curve["values"], curve["resmem"]) if low <= x <= high]
    return max(inside) - min(inside)


def dip(values: list[float]) -> float:
    """How far a curve is from rising to one peak and falling after it: the largest step against that, 0 for none.

    Examples
    --------
    >>> dip([1.0, 3.0, 2.0]), dip([1.0, 3.0, 2.5, 2.75, 1.0])
    (0.0, 0.25)
    """
    peak = max(range(len(values)), key=values.__getitem__)
    worst = 0.0
    for side in (values[: peak + 1], values[: peak - 1 if peak else None : -1]):  # both towards the peak
        highest = side[0]
        for value in side:
            worst = max(worst, highest - value)
            highest = max(highest, value)
    return worst
