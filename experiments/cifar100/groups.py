"""Where readers gain and where they differ: test points by what can be known of them without their label.

One partition asks whether the image itself is in the memory: CIFAR-100 holds test images whose near-duplicates are in
its training set (Barz and Denzler 2020, arXiv 1902.00423), and a memory must not be praised for those alone.
"""

import itertools

import numpy as np
import torch
from torch import Tensor

from experiments.halves import paired, percent
from experiments.shown import interval
from experiments.table import Table
from residua.core import Encoded
from residua.readers import ResMem
from residua.readers.neighbour import weigh

LIKENESS = (-1.0, 0.6, 0.8, 0.9, 0.95, 1.0)  # from 0.95 on, nearly all are the same picture
BLOCK = 200  # test images at a time


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

    Each is ``by``, ``group``, ``share`` (% of the points), ``base``, ``resmem``, ``interpolation`` (accuracy, %),
    ``gain`` ([ResMem - base, low, high, p_value]) and ``difference`` (likewise, ResMem - interpolation).
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
    fifths = np.linspace(0, 1, 6)
    parts = [("the neighbours' vote", "agrees", agree), ("the neighbours' vote", "differs", ~agree)]
    parts += _between("the base's confidence", sure, np.quantile(sure, fifths))
    parts += _between("the base's error on the neighbours", wrong, np.quantile(wrong, fifths))
    parts += _between("likeness to a neighbour", alike, np.array(LIKENESS))
    rng, out = np.random.default_rng(0), []
    answered = {"base": base, "resmem": resmem, "interpolation": interpolation}
    for by, name, inside in parts:
        if inside.any():
            own = {reader: right[inside] for reader, right in answered.items()}
            out.append({"by": by, "group": name, "share": percent(inside)})
            out[-1] |= {reader: percent(right) for reader, right in own.items()}
            out[-1]["gain"] = list(paired(own["resmem"], own["base"], rng))
            out[-1]["difference"] = list(paired(own["resmem"], own["interpolation"], rng))
    return out


def _between(by: str, values: np.ndarray, edges: np.ndarray) -> list[tuple]:
    """One group for each pair of neighbouring edges; the last one holds its upper edge too."""
    number = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = [f"{max(low, 0):.2f}-{high:.2f}" for low, high in itertools.pairwise(edges)]
    return [(by, name, number == i) for i, name in enumerate(names)]


def likeness(images: np.ndarray, remembered: np.ndarray, rows: Tensor) -> np.ndarray:
    """How alike each image is to the most alike of its neighbours, mirrored or not: float32 (n,).

    It is the largest correlation of their grey levels, each 2 × 2 pixels averaged so that small shifts count little.
    Images are uint8 (n, 32, 32, 3) and (m, 32, 32, 3); `rows` (n, k) are rows of `remembered`, -1 is none.
    """
    grey = _standardised(remembered, flip=False)
    best = []
    for first in range(0, len(images), BLOCK):
        near = rows[first : first + BLOCK]
        found = grey[near.clamp_min(0).numpy()]  # (b, k, 256)
        views = [_standardised(images[first : first + BLOCK], flip) for flip in (False, True)]
        alike = torch.stack([torch.einsum("bkp,bp->bk", found, view) for view in views]).amax(dim=0)
        best.append(alike.masked_fill(near < 0, -1).amax(dim=1))
    return torch.cat(best).numpy()


def _standardised(images: np.ndarray, flip: bool) -> Tensor:
    """Grey levels of mean 0 and length 1, float32 (n, 256)."""
    grey = torch.from_numpy(np.ascontiguousarray(images)).float().mean(dim=3)
    grey = torch.nn.functional.avg_pool2d(grey[:, None], 2)[:, 0]
    grey = (grey.flip(2) if flip else grey).flatten(1)
    grey = grey - grey.mean(dim=1, keepdim=True)
    return grey / grey.norm(dim=1, keepdim=True).clamp_min(1e-6)


def table(found: list[dict]) -> Table:
    """One row for each group."""
    rows = []
    for group in found:
        accuracies = [f"{group[name]:.1f}" for name in ("base", "resmem", "interpolation")]
        differences = [interval(group[name][:3]) for name in ("gain", "difference")]
        rows.append([f"{group['by']}: {group['group']}", f"{group['share']:.1f}", *accuracies, *differences])
    heads = ("test images by", "share, %", "base", "ResMem", "interpolation", "ResMem - base, points")
    return Table((*heads, "- interpolation"), rows)
