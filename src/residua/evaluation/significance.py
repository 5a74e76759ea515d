"""Is a paired difference more than chance, and how large may it be.

Base and memory answer the same test points, so only the points where they differ carry evidence. Both tests here ask
the same question: were the two interchangeable, each difference could as well have had the other sign. For right and
wrong answers that is McNemar's test, counted exactly; for squared errors signs are drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest

from residua.errors import ParameterError

BLOCK = 4_000_000  # resampled entries held at a time


def mcnemar(corrected: int, broken: int) -> float:
    """Two-sided p-value of McNemar's exact test.

    Parameters
    ----------
    corrected : int
        Points the base got wrong and the memory right.
    broken : int
        Points the base got right and the memory wrong.

    Returns
    -------
    float
        Probability, were each of these points a fair coin, of a split at least this uneven; 1 without any.

    Examples
    --------
    >>> mcnemar(5, 0) == 2 / 2**5
    True
    """
    if corrected + broken == 0:
        return 1.0
    return float(binomtest(corrected, corrected + broken, 0.5).pvalue)


def sign_test_of_mean(differences: np.ndarray, n_resamples: int, rng: np.random.Generator) -> float:
    """Two-sided p-value of the mean of paired differences (Fisher and Pitman's randomisation test).

    Unlike a test of ranks it is about the mean itself, so it can never call an increase of the mean squared error an
    improvement.

    Parameters
    ----------
    differences : float array of shape (n,)
    n_resamples : int
        Random sign patterns; the smallest p-value there is, is 1 / (n_resamples + 1).
    rng : numpy.random.Generator

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> bool(sign_test_of_mean(np.ones(20), 999, rng) == 1 / 1000)
    True
    >>> sign_test_of_mean(np.array([1.0, -1.0]), 999, rng)
    1.0
    """
    seen = abs(differences.sum()) * (1 - 1e-9)  # sums of the same terms in another order still count as equal
    reached = 0
    for count in blocks(n_resamples, len(differences)):
        signs = rng.integers(0, 2, size=(count, len(differences)), dtype=np.int8) * 2.0 - 1.0
        reached += int((np.abs(signs @ differences) >= seen).sum())
    return (1 + reached) / (1 + n_resamples)


def bootstrap_interval(
    differences: np.ndarray, confidence: float, n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences: points are resampled, pairs stay together.

    Parameters
    ----------
    differences : float array of shape (n,)
    confidence : float in (0, 1)
    n_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    (float, float)

    Examples
    --------
    >>> import numpy as np
    >>> bootstrap_interval(np.ones(5), 0.95, 100, np.random.default_rng(0))
    (1.0, 1.0)
    """
    # How often each value is drawn is multinomial. Right and wrong answers have three values, -1, 0 and 1: drawing the
    # counts is then n times cheaper than drawing the points, and exactly as random.
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    means = [rng.multinomial(n, counts / n, size=count) @ values / n for count in blocks(n_bootstrap, len(values))]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def check_resampling(confidence: float, n_bootstrap: int) -> None:
    """Raise ``ParameterError`` when an interval cannot be made of these."""
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence={confidence!r}; expected a number between 0 and 1, such as 0.95")
    if isinstance(n_bootstrap, bool) or int(n_bootstrap) != n_bootstrap or n_bootstrap < 1:
        raise ParameterError(f"n_bootstrap={n_bootstrap!r}; expected a whole number >= 1")


def blocks(total: int, width: int) -> Iterator[int]:
    """Counts that sum to `total`, each at most what BLOCK entries of `width` hold."""
    step = max(1, BLOCK // max(width, 1))
    for start in range(0, total, step):
        yield min(step, total - start)
