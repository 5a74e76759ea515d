"""How sure the numbers are: 95 % intervals of slopes over draws, and of gains over random splits or networks."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of log y against log x along the last axis of y.

    >>> float(slope(np.array([1.0, 10.0, 100.0]), np.array([5.0, 0.5, 0.05])).round(6))
    -1.0
    """
    return np.polyfit(np.log(x), np.log(y).T, 1)[0]


def slope_interval(x: np.ndarray, y: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(slope, low, high) of the mean of positive curves y (r, p) over x (p,), with a percentile bootstrap interval.

    Whole curves are resampled, so what is shared along a curve stays so.
    """
    picked = np.random.default_rng(seed).integers(0, len(y), (1000, len(y)))
    low, high = np.quantile(slope(x, y[picked].mean(axis=1)), [0.025, 0.975])
    return float(slope(x, y.mean(axis=0))), float(low), float(high)


def mean_interval(differences: Sequence[float], overlap: float = 0.0) -> tuple[float, float, float]:
    """(mean, low, high) of paired differences, Student's interval, widened where the repetitions share data.

    Random splits of one data set train on overlapping rows, so their differences are not independent and the plain
    interval is too short. The corrected variance ``(1/J + n_test/n_train) s²`` (Nadeau and Bengio, 2003) allows for it:
    `overlap` is ``n_test / n_train``, or 0 for independent repetitions. One repetition says nothing about its spread:
    low and high are then infinite.

    >>> [round(number, 3) for number in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    mean, count = float(np.mean(differences)), len(differences)
    if count < 2:
        return mean, -math.inf, math.inf
    reach = float(stdtrit(count - 1, 0.975) * math.sqrt((1 / count + overlap) * np.var(differences, ddof=1)))
    return mean, mean - reach, mean + reach


def over_all(found: Sequence[Sequence[float]]) -> Sequence[float]:
    """One [mean, low, high] for a difference measured on several networks, over them; of a single one its own, over
    test points.

    >>> over_all([[1.0, 0.5, 1.5, 0.01]])
    [1.0, 0.5, 1.5]
    """
    return found[0][:3] if len(found) == 1 else mean_interval([one[0] for one in found])


def sign(interval: Sequence[float | None]) -> int:
    """1 or -1 where an interval [middle, low, high] excludes 0, and 0 elsewhere (None is an unbounded end).

    >>> sign([0.5, 0.04, 0.95]), sign([-1.0, -2.0, -0.1]), sign([0.1, -0.3, 0.5]), sign([0.2, None, None])
    (1, -1, 0, 0)
    """
    _, low, high = interval
    return 0 if low is None or high is None else int(low > 0) - int(high < 0)
