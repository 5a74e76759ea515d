"""Where readers gain and where they differ: test points by what can be known of them without their label."""

import itertools

import numpy as np
import torch

from experiments.cifar100.near_duplicates import likeness
from experiments.halves import paired, percent
from experiments.shown import interval
from experiments.table import Table
from residua.core import Encoded
from residua.readers import ResMem
from residua.readers.neighbour import weigh

VOTE, SURE, WRONG, ALIKE = (
    "the neighbours' vote",
    "the base's confidence",
    "the base's error on the neighbours",
    "likeness to a neighbour",
)
LIKENESS = (-1.0, 0.6, 0.8, 0.9, 0.95, 1.0)  # from 0.95 on, nearly all are the same picture


def groups(
    reader: ResMem,
    test: Encoded,
    images: tuple[np.ndarray, np.ndarray],
    base: np.ndarray,
    resmem: np.ndarray,
    interpolation: np.ndarray,
) -> list[dict]:
    """Accuracies by group, in four partitions of the test points.

    By whether the neighbours' label vote is the base's answer; by how sure the base is (fifths of its largest
    probability at T = 1); by how wrong it was about the neighbours (fifths of the weighted mean of
    ``1 - p_T(y_i | x_i)``); and by how alike the image is to the most alike neighbour (see ``likeness``). Neighbours,
    weights and T are `reader`'s; `images` are the remembered ones and the test set's; the last three arguments say
    whether each answers each test point rightly.

    Returns
    -------
    list of dict
        ``by``, ``group``, ``share`` (% of the points), ``base``, ``resmem``, ``interpolation`` (accuracy, %), ``gain``
        ([ResMem - base, low, high, p_value]) and ``difference`` (likewise, ResMem - interpolation).
    """
    memory = reader.memory
    neighbours = memory.search(test.keys, reader.k)
    weights = weigh(neighbours, reader.sigma, reader.kernel).cpu()
    rows = neighbours.rows.cpu()
    labels = memory.column("label").long()
    own = memory.stored_logits.probabilities(None, reader.temperature).gather(1, labels[:, None])[:, 0].cpu()
    wrong = (weights * (1 - own[rows])).sum(dim=1).numpy()
    votes = torch.zeros(len(test), memory.n_outputs).scatter_add_(1, labels.cpu()[rows], weights)
    agree = votes.argmax(dim=1).numpy() == test.logits.argmax().numpy()
    sure = test.logits.probabilities(None, 1.0).amax(dim=1).numpy()
    alike = likeness(images[1], images[0], rows)
    parts = [(VOTE, "agrees", agree), (VOTE, "differs", ~agree)]
    parts += _between(SURE, sure, np.quantile(sure, np.linspace(0, 1, 6)))
    parts += _between(WRONG, wrong, np.quantile(wrong, np.linspace(0, 1, 6)))
    parts += _between(ALIKE, alike, np.array(LIKENESS))
    rng = np.random.default_rng(0)
    return [
        {
            "by": by,
            "group": name,
            "share": percent(inside),
            "base": percent(base[inside]),
            "resmem": percent(resmem[inside]),
            "interpolation": percent(interpolation[inside]),
            "gain": list(paired(resmem[inside], base[inside], rng)),
            "difference": list(paired(resmem[inside], interpolation[inside], rng)),
        }
        for by, name, inside in parts
        if inside.any()
    ]


def _between(by: str, values: np.ndarray, edges: np.ndarray) -> list[tuple]:
    """One group for each pair of neighbouring edges; the last one holds its upper edge too."""
    number = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = [f"{max(low, 0):.2f}-{high:.2f}" for low, high in itertools.pairwise(edges)]
    return [(by, name, number == i) for i, name in enumerate(names)]


def table(found: list[dict]) -> Table:
    """One row for each group."""
    rows = []
    for group in found:
        accuracies = [f"{group[name]:.1f}" for name in ("base", "resmem", "interpolation")]
        differences = [interval(group[name][:3]) for name in ("gain", "difference")]
        rows.append([f"{group['by']}: {group['group']}", f"{group['share']:.1f}", *accuracies, *differences])
    heads = ("test images by", "share, %", "base", "ResMem", "interpolation", "ResMem - base, points")
    return Table((*heads, "- interpolation"), rows)
