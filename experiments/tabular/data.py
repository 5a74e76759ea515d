"""The tables: scikit-learn's bundled ones, cut anew for each split, and synthetic ones, drawn anew for each split."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

Rows: TypeAlias = tuple[np.ndarray, np.ndarray]  # X (n, d) and y (n,)

TRAIN, REST = 0.6, 0.5  # 60 % to train on, and half of what is left to tune on, half to test on


class Data(NamedTuple):
    """A task: what it is, ``rows(seed)`` for X (n, d) and y (n,), and whether each seed is an independent draw."""

    task: str
    about: str
    rows: Callable[[int], Rows]
    drawn: bool


class Split(NamedTuple):
    """Three pairs (X, y) without common rows; regression targets are standardised as the training ones are."""

    train: Rows
    validation: Rows
    test: Rows


def split(name: str, seed: int) -> Split:
    """The rows of task `name`, one of ``TASKS``, in three parts, drawn by `seed`; classes keep their shares."""
    by_class = TASKS[name].task == "classification"

    def parted(X, y, share: float):
        return train_test_split(X, y, train_size=share, random_state=seed, stratify=y if by_class else None)

    X, X_rest, y, y_rest = parted(*TASKS[name].rows(seed), TRAIN)
    X_val, X_test, y_val, y_test = parted(X_rest, y_rest, REST)
    if not by_class:
        mean, scale = y.mean(), y.std()
        y, y_val, y_test = ((part - mean) / scale for part in (y, y_val, y_test))
    return Split((X, y), (X_val, y_val), (X_test, y_test))


def long_tail(seed: int, n: int = 900, clusters: int = 90, classes: int = 4, d: int = 6) -> Rows:
    """Clusters of Zipf frequencies, each of one class that its neighbours say nothing about: X (n, d), y (n,).

    What a model must learn one rare group at a time, a memory has seen once.

    >>> X, y = long_tail(0)
    >>> X.shape, np.unique(y).tolist()
    ((900, 6), [0, 1, 2, 3])
    """
    rng = np.random.default_rng([seed, n])
    centres = rng.standard_normal((clusters, d)) * 2
    # Classes in turn over the frequencies, so that none is rare as a whole.
    of_cluster = np.arange(clusters) % classes
    frequency = 1 / np.arange(1, clusters + 1)
    member = rng.choice(clusters, n, p=frequency / frequency.sum())
    return centres[member] + 0.6 * rng.standard_normal((n, d)), of_cluster[member]


def random_labels(seed: int, n: int = 600, classes: int = 3, d: int = 8) -> Rows:
    """Labels that have nothing to do with X, (n, d): what any gain here would be, is chance."""
    rng = np.random.default_rng([seed, n, 1])
    return rng.standard_normal((n, d)), rng.integers(0, classes, n)


def _bundled(name: str):
    return lambda seed: getattr(datasets, f"load_{name}")(return_X_y=True)


def _some_digits(seed: int) -> Rows:
    X, y = datasets.load_digits(return_X_y=True)
    rows = np.random.default_rng([seed, 2]).permutation(len(y))[:600]
    return X[rows], y[rows]


def _made(name: str, *sizes: int, **options):
    return lambda seed: getattr(datasets, f"make_{name}")(*sizes, **options, random_state=seed)


_blobs = _made(
    "classification", 600, 12, n_informative=6, n_redundant=2, n_classes=3, n_clusters_per_class=3, flip_y=0.05
)
_linear = _made("regression", 600, 10, n_informative=10, noise=60.0)
_friedman = _made("friedman1", 600, 10, noise=1.0)

TASKS = {
    "digits": Data("classification", "600 of the 8 × 8 handwritten digits, 10 classes", _some_digits, False),
    "breast_cancer": Data("classification", "tumours, 2 classes", _bundled("breast_cancer"), False),
    "wine": Data("classification", "chemical analyses, 3 classes", _bundled("wine"), False),
    "clusters": Data("classification", "make_classification: 9 clusters, 3 classes, 5 % random labels", _blobs, True),
    "long_tail": Data("classification", "90 clusters of Zipf frequencies, 4 classes", long_tail, True),
    "random_labels": Data("classification", "labels independent of X: nothing to learn", random_labels, True),
    "diabetes": Data("regression", "disease progression", _bundled("diabetes"), False),
    "friedman1": Data("regression", "a smooth nonlinear function and noise", _friedman, True),
    "linear": Data("regression", "a linear function and noise", _linear, True),
}
