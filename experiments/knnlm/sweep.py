"""Every setting of kNN-LM on the documents tuned on, and on the ones scored: the first choose, the second tell."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

import residua as rs
from experiments.knnlm.language import K
from residua.core import Encoded

SIGMA = 2.0 ** np.arange(-3, 6)  # multiples of the typical distance squared; the paper's 1 competes too
LMBDA = (0.01, 0.02, *(round(0.05 * i, 2) for i in range(1, 20)))
TEMPERATURE = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
SETTINGS = ("k", "sigma", "temperature", "lmbda")


@dataclass(frozen=True)
class Swept:
    """``k``, ``sigma``, ``temperature``, ``lmbda`` and ``perplexity``, arrays of shape (s,), of the same settings on
    two sets of documents; ``k = 0`` is the base.
    """

    tuned: dict[str, np.ndarray]
    scored: dict[str, np.ndarray]

    def best(self, **fixed) -> dict:
        """The setting that is best on the documents tuned on, among those that have the `fixed` values; without a fixed
        k, only those with neighbours compete. It, ``tuned`` and ``perplexity`` (on the two sets).
        """
        fits = self.tuned["k"] > 0 if "k" not in fixed else np.ones(len(self.tuned["k"]), bool)
        for name, value in fixed.items():
            fits &= np.isclose(self.tuned[name], value, rtol=1e-9)
        at = int(np.flatnonzero(fits)[self.tuned["perplexity"][fits].argmin()])
        settings = {name: self.tuned[name][at].item() for name in SETTINGS}
        scores = {"tuned": self.tuned["perplexity"][at], "perplexity": self.scored["perplexity"][at]}
        return settings | {name: float(value) for name, value in scores.items()}

    def values(self, name: str) -> list:
        """The values of one setting that competed, ascending; those of k without 0."""
        return np.unique(self.tuned[name][self.tuned["k"] > 0]).tolist()


def sweep(memory: rs.Memory, tune: Iterable[Encoded], score: Iterable[Encoded], *, temperature=(1.0,), k=None) -> Swept:
    """Every setting on both sets of documents, from one search of each.

    Nothing is chosen by the second: its scores are only looked up.
    """
    grid = grid_of(memory, temperature, k)
    reader = rs.KNNLM(memory, k=1)
    return Swept(*(rs.tune(reader, batches, grid, evidence=None, progress=False).results_ for batches in (tune, score)))


def grid_of(memory: rs.Memory, temperature=(1.0,), k=None) -> dict:
    """The values that compete: k doubling up to 1024, widths around the typical distance squared, and 1."""
    ks = np.unique(np.minimum(2 ** np.arange(11), min(K, len(memory)))) if k is None else np.array(k)
    sigma = np.unique([*(SIGMA * memory.median_nn_distance() ** 2), 1.0])
    return {"k": ks, "sigma": sigma, "temperature": np.array(temperature), "lmbda": np.array(LMBDA)}
