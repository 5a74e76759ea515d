"""A mixture of many groups with Zipf-distributed shares: who needs a memory are the rare ones (Feldman 2020, arXiv
1906.05271)."""

from itertools import pairwise

import numpy as np

import residua as rs
from experiments.heads import perceptron

DIM, LABELS = 16, 10
APART = 1.5  # the spread of the groups' means, in standard deviations within a group
EDGES = (-1, 0, 1, 3, 10, 30, 10**9)  # training rows of a group: bins of 0, 1, 2 to 3, ...
TEST = 4  # test rows for each training row


class Mixture:
    """Groups of Gaussian rows: group r has a share proportional to 1 / r, a mean, and one of ten labels, at random."""

    def __init__(self, groups: int, rng: np.random.Generator):
        self.rng, self.means = rng, APART * rng.normal(size=(groups, DIM))
        self.labels = rng.integers(0, LABELS, groups)
        self.share = 1 / np.arange(1, groups + 1)

    def rows(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows float32 (n, d), and the group of each (n,)."""
        groups = self.rng.choice(len(self.share), n, p=self.share / self.share.sum())
        return (self.means[groups] + self.rng.normal(size=(n, DIM))).astype(np.float32), groups


def draw_of(n: int, groups: int, seed: int) -> list[dict]:
    """One draw: by how many training rows a group has, ``label``, ``n`` (test rows), accuracies in % of ``base`` (a
    small perceptron) and ``resmem`` (tuned on n other rows), and, of ``rs.audit``, the means over remembered rows of
    ``memorised`` and ``influence``."""
    mixture = Mixture(groups, np.random.default_rng([seed, 7]))
    (x, group), (other, other_group), (test, test_group) = (mixture.rows(size) for size in (n, n, TEST * n))
    net = perceptron(x, mixture.labels[group])

    def spoken(x: np.ndarray, groups: np.ndarray) -> rs.Encoded:
        logits = np.full((len(x), LABELS), -30.0)  # of a label without rows
        logits[:, net.classes_] = net.predict_log_proba(x)
        return rs.Encoded(x, logits, mixture.labels[groups], output="logits")

    memory, asked = rs.Memory(spoken(x, group)), spoken(test, test_group)
    best = rs.tune(rs.ResMem(memory), spoken(other, other_group), objective="accuracy", evidence=None, progress=False)
    right = {"base": asked.logits.argmax().numpy() == asked.labels, "resmem": best.predict(asked) == asked.labels}
    worth = rs.audit(best, asked, progress=False) if best.k else None
    count, out = np.bincount(group, minlength=groups), []
    for low, high in pairwise(EDGES):
        queries, rows = ((count[of] > low) & (count[of] <= high) for of in (test_group, group))
        if not queries.any():
            continue
        called = f"over {low}" if high == EDGES[-1] else str(high) if high == low + 1 else f"{low + 1} to {high}"
        one = {"label": called, "n": int(queries.sum())}
        one |= {name: 100 * float(own[queries].mean()) for name, own in right.items()}
        for name, values in (("memorised", worth and worth.memorisation), ("influence", worth and worth.influence)):
            one[name] = None if values is None or not rows.any() else float(values[rows].mean())
        out.append(one)
    return out
