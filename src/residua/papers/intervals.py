"""How sure the numbers are: slopes over seeds, and gains over random splits."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from residua.errors import ShapeError


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of log y against log x along the last axis of y.

    Examples
    --------
    >>> float(slope(np.array([1.0, 10.0, 100.0]), np.array([5.0, 0.5, 0.05])).round(6))
    -1.0
    """
    centred = np.log(x) - np.log(x).mean()
    return np.log(y) @ centred / (centred @ centred)


def slope_interval(
    x: np.ndarray, y: np.ndarray, *, confidence: float = 0.95, n_bootstrap: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Slope of the mean's log against log x, with a percentile bootstrap interval over repetitions.

    Parameters
    ----------
    x : float array of shape (p,)
    y : float array of shape (r, p)
        One positive curve per repetition; whole repetitions are resampled, so what is shared along a curve stays so.
    confidence : float, default 0.95
    n_bootstrap : int, default 1000
    seed : int, default 0

    Returns
    -------
    (slope, low, high)

    Raises
    ------
    ShapeError
        When the curves do not fit x, or x has fewer than two points.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if y.ndim != 2 or y.shape[1:] != x.shape or len(x) < 2:
        raise ShapeError(f"x has shape {x.shape} and y {y.shape}; expected (p,) and (r, p) with p >= 2")
    picked = np.random.default_rng(seed).integers(0, len(y), (n_bootstrap, len(y)))
    low, high = np.quantile(slope(x, y[picked].mean(axis=1)), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(slope(x, y.mean(axis=0))), float(low), float(high)


def mean_interval(
    differences: np.ndarray, overlap: float = 0.0, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of paired differences with Student's interval, widened where the repetitions share data.

    Random splits of one data set train on overlapping rows, so their differences are not independent and the plain
    interval is too short. The corrected variance ``(1/J + n_test/n_train) s²`` (Nadeau and Bengio, 2003) allows for it.

    Parameters
    ----------
    differences : float array of shape (J,)
    overlap : float, default 0
        ``n_test / n_train`` for splits of one data set; 0 for independent repetitions.
    confidence : float, default 0.95

    Returns
    -------
    (mean, low, high)
        One repetition says nothing about its spread: low and high are then infinite.

    Examples
    --------
    >>> [round(number, 3) for number in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.484, 4.484]
    """
    differences = np.asarray(differences, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return mean, -math.inf, math.inf
    reach = stdtrit(count - 1, (1 + confidence) / 2) * math.sqrt((1 / count + overlap) * differences.var(ddof=1))
    return mean, mean - float(reach), mean + float(reach)


def over_all(found: Sequence[Sequence[float]]) -> Sequence[float]:
    """One interval for a difference measured on several networks: over them; on a single one its own, over test points.

    Parameters
    ----------
    found : sequence of [mean, low, high, ...]

    Returns
    -------
    (mean, low, high)

    Examples
    --------
    >>> over_all([[1.0, 0.5, 1.5, 0.01]])
    [1.0, 0.5, 1.5]
    >>> [round(number, 3) for number in over_all([[1.0, 0.9, 1.1], [2.0, 1.9, 2.1], [3.0, 2.9, 3.1]])]
    [2.0, -0.484, 4.484]
    """
    return found[0][:3] if len(found) == 1 else mean_interval([one[0] for one in found])
