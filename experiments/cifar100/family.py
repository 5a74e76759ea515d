"""Why ResMem and k-NN interpolation come so close, and what separates them: both are members of one family.

With v(x) the neighbours' weighted label vote and q(x) the weighted mean of what the base says at the neighbours,

    scores = p_T(x) + a v(x) - b q(x):

ResMem is a = b = 1, since its residuals are labels minus predictions; interpolation is b = 0, with a = λ / (1 - λ), up
to a factor that no argmax sees. So all that ResMem adds is the term -q: what the base says here counts only where it
differs from what it says at the neighbours. How much each coefficient is worth is measured, with k, σ and T tuned for
each choice alike.
"""

import itertools

import numpy as np
import torch
from matplotlib.axes import Axes

import residua as rs
from experiments.cifar100.headline import SIGMA, grid_of
from experiments.cifar100.networks import encoded
from experiments.figures import INK, MIXED, RESMEM, dot
from experiments.halves import paired, percent
from experiments.machine import device_of
from experiments.shown import interval
from experiments.table import Table
from residua.core import LabelValues, TableValues
from residua.readers.neighbour import weigh
from residua.tuning.objective import argmax

K = (10, 20, 35, 53, 100, 200)
TEMPERATURE = (0.7, 1.0, 1.4, 2.0, 2.8)
KERNELS = tuple(SIGMA)
A = (0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
B = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
MEMBERS = {
    "resmem": lambda a, b: (a == 1) & (b == 1),
    "interpolation": lambda a, b: b == 0,
    "scaled_resmem": lambda a, b: a == b,
    "full_cancelling": lambda a, b: b == 1,
    "free": lambda a, b: np.full(a.shape, True),
}
NAMES = {
    "interpolation": "interpolation: b = 0",
    "resmem": "ResMem: a = b = 1",
    "scaled_resmem": "scaled residuals: a = b",
    "full_cancelling": "b = 1, a free",
    "free": "a and b free",
}


def family(weights: str, data: str, fraction: float, seed: int, device: str, kernel: str) -> dict:
    """Accuracy over the family with one kernel, crossed over the halves of the test set.

    ``kernel``, ``members`` (name -> ``accuracy`` in %, with k, σ, T and the free coefficients tuned on the other half,
    ``over_interpolation`` [points, low, high, p_value] and ``chosen``: per half, [k, sigma, T, a, b]) and ``by_b``
    ([b, accuracy]: a, k, σ, T tuned on the other half).
    """
    remembered, test = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered, device=device_of(device))
    settings, right = answers(memory, test, kernel)
    a, b = settings[:, 3], settings[:, 4]
    found = {name: crossfit(right, allowed(a, b)) for name, allowed in MEMBERS.items()}
    rng = np.random.default_rng(0)
    members = {
        name: {
            "accuracy": percent(answer),
            "over_interpolation": list(paired(answer, found["interpolation"][0], rng)),
            "chosen": settings[list(chosen)].tolist(),
        }
        for name, (answer, chosen) in found.items()
    }
    by_b = [[value, percent(crossfit(right, b == value)[0])] for value in B]
    return {"kernel": kernel, "members": members, "by_b": by_b}


def answers(memory: rs.Memory, test: rs.Encoded, kernel: str) -> tuple[np.ndarray, np.ndarray]:
    """Settings float (s, 5) as (k, sigma, T, a, b), and whether each answers each test row rightly, bool (s, n)."""
    ks = [k for k in K if k <= len(memory)] or [len(memory)]
    sigmas = grid_of(memory, kernel)["sigma"]
    near = memory.search(test.keys, ks[-1])
    rows = near.rows.clamp_min(0)
    truth = torch.from_numpy(test.labels).to(memory.device)
    votes = LabelValues(memory.column("label"))
    grid = itertools.product(TEMPERATURE, ks, sigmas, B, A)
    settings = np.array([(k, sigma, temperature, a, b) for temperature, k, sigma, b, a in grid])
    right = torch.empty(len(settings), len(test), dtype=torch.bool)
    answer = iter(right)
    for temperature in TEMPERATURE:
        base = test.logits.probabilities(None, temperature).to(memory.device)
        predictions = TableValues(memory.stored_logits.probabilities(None, temperature))
        for k, sigma in itertools.product(ks, sigmas):
            weights = weigh(near.first(k), sigma, kernel)
            v, q = torch.zeros_like(base), torch.zeros_like(base)
            votes.add_to(v, rows[:, :k], weights)
            predictions.add_to(q, rows[:, :k], weights)
            for b in B:
                rest = base - b * q
                for a in A:
                    next(answer).copy_(argmax(torch.add(rest, v, alpha=a)) == truth)
    return settings, right.numpy()


def crossfit(right: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Each half of the rows answered by the allowed setting that is best on the other half, and the two settings."""
    numbers = np.flatnonzero(allowed)
    out = np.empty(right.shape[1], bool)
    chosen = []
    for half in (0, 1):
        best = numbers[right[numbers, 1 - half :: 2].sum(axis=1).argmax()]
        out[half::2] = right[best, half::2]
        chosen.append(int(best))
    return out, tuple(chosen)


def table(found: list[dict]) -> Table:
    """One row for each kernel and member."""
    rows = []
    for one in found:
        for name, label in NAMES.items():
            member = one["members"][name]
            over = "" if name == "interpolation" else interval(member["over_interpolation"][:3])
            chosen = "; ".join(f"k {k:g}, σ {s:.2f}, T {t:g}, a {a:g}, b {b:g}" for k, s, t, a, b in member["chosen"])
            rows.append([f"{one['kernel']}, {label}", f"{member['accuracy']:.2f}", over, chosen])
    return Table(("kernel", "accuracy, %", "over interpolation, points", "chosen (even rows; odd rows)"), rows)


def panel(axes: Axes, found: list[dict]) -> None:
    """Accuracy against b, for each kernel, and where the two readers are."""
    for one, style in zip(found, ("-", "--")):
        filled = one is found[0]
        b, accuracy = zip(*one["by_b"])
        axes.plot(b, accuracy, f"o{style}", ms=4, color=INK, label=f"a free, {one['kernel']} kernel")
        for name, at, colour in (("interpolation", 0, MIXED), ("resmem", 1, RESMEM)):
            label = NAMES[name] if filled else None
            accuracy = one["members"][name]["accuracy"]
            dot(axes, at, accuracy, colour=colour, marker="s", filled=filled, label=label)
    # Differences of half a point are within the noise: two points in all keep them small.
    middle = np.mean(axes.get_ylim())
    axes.set_ylim(middle - 1, middle + 1)
    title = "What b is worth in p + a v - b q"
    axes.set(xlabel="b (hollow: gaussian kernel)", ylabel="test accuracy, %", title=title)
