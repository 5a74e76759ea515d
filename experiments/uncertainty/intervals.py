"""Intervals for numbers under a ridge regression, of one width and of a width that follows the neighbours."""

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.linear_model import Ridge

import residua as rs
from experiments.uncertainty.rivals import widths
from residua.core import Encoded
from residua.uncertainty import Coverage

CONFIDENCE = 0.9
KINDS = {
    "base": "ridge alone",
    "absolute": 'ResMem, `score="absolute"`',
    "normalised": "ResMem, by the neighbours' residuals",
    "distance": 'the same, `by="distance"`',
    "mapie": "ResMem in MAPIE, one width",
    "crepes_ours": "ResMem in crepes, residua's difficulty",
    "crepes_own": "ResMem in crepes, its own difficulty (25 nearest)",
}


def friedman1(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """4000 rows of Friedman's first function with unit noise; where the parts of the split end."""
    X, y = make_friedman1(4000, noise=1.0, random_state=seed)
    return X, y, (1000, 1500, 2000)


def diabetes(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """442 patients in another order."""
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    return X[order], y[order], (180, 240, 340)


TASKS = {"friedman1": friedman1, "diabetes": diabetes}


def of_split(task: str, seed: int) -> dict:
    """Of each kind [mean width, coverage, coverage in each fifth of the test rows by distance], or None: not installed.

    The rows are remembered (and fitted on), tuned on, calibrated on and judged by, in this order.
    """
    X, y, ends = TASKS[task](seed)
    base = Ridge().fit(X[: ends[0]], y[: ends[0]])
    parts = np.split(np.arange(len(y)), ends)
    remembered = rs.encode(base, X[parts[0]], y[parts[0]], progress=False)
    tuned_on, calibration, test = (rs.encode(base, X[i], y[i], like=remembered, progress=False) for i in parts[1:])
    reader = rs.tune(rs.ResMem(rs.Memory(remembered)), tuned_on, progress=False)
    kinds = {"absolute": {"score": "absolute"}, "normalised": {}, "distance": {"by": "distance"}}
    made = {kind: rs.conformal(reader, calibration, **options) for kind, options in kinds.items()}
    found = {kind: sure.evaluate(test, CONFIDENCE) for kind, sure in made.items()}
    out: dict = {"base": of_base(found["absolute"])}
    out |= {kind: of(one.rows["size"], one.rows["in"], one.rows["distance"]) for kind, one in found.items()}
    distance = found["absolute"].rows["distance"]
    for name, ends in widths(made["normalised"], calibration, test, CONFIDENCE, remembered).items():
        out[name] = None if ends is None else of_ends(np.asarray(ends), test, distance)
    return out


def of_base(found: Coverage) -> list[float]:
    """The numbers of the model alone."""
    return of(found.rows["base_size"], found.rows["base_in"], found.rows["distance"])


def of_ends(ends: np.ndarray, test: Encoded, distance: np.ndarray) -> list[float]:
    """The numbers of intervals (n, 2)."""
    inside = (ends[:, 0] <= test.labels) & (test.labels <= ends[:, 1])
    return of(ends[:, 1] - ends[:, 0], inside, distance)


def of(size: np.ndarray, inside: np.ndarray, distance: np.ndarray) -> list[float]:
    """[mean width, coverage, coverage in each fifth by distance].

    >>> of(np.ones(10), np.arange(10) > 1, np.arange(10))
    [1.0, 0.8, 0.0, 1.0, 1.0, 1.0, 1.0]
    """
    fifths = np.array_split(np.argsort(distance, kind="stable"), 5)
    return [float(size.mean()), float(inside.mean()), *(float(inside[part].mean()) for part in fifths)]
