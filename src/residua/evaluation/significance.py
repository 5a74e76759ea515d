"""Is a paired difference more than chance, how large may it be, and which rows belong together.

Base and memory answer the same test points, so only the points where they differ carry evidence. Both tests here ask
the same question: were the two interchangeable, each difference could as well have had the other sign. For right and
wrong answers that is McNemar's test, counted exactly; for squared errors signs are drawn at random. Rows of a group
(tokens of one document, views of one image) are not independent, and are drawn together.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.stats import binomtest

from residua.core import Ids
from residua.errors import IdError, ParameterError, ShapeError

Groups: TypeAlias = Literal["ids", "rows"] | Ids | None

BLOCK = 4_000_000  # resampled entries held at a time


def mcnemar(corrected: int, broken: int) -> float:
    """Two-sided p-value of McNemar's exact test of so many wrong points made right, and right ones made wrong.

    The probability, were each of them a fair coin, of a split at least this uneven; 1 without any.

    >>> mcnemar(5, 0) == 2 / 2**5
    True
    """
    n = corrected + broken
    return float(binomtest(corrected, n, 0.5).pvalue) if n else 1.0


def sign_test_of_mean(differences: np.ndarray, n_resamples: int, rng: np.random.Generator) -> float:
    """Two-sided p-value of the mean of paired differences (n,): Fisher and Pitman's randomisation test.

    Unlike a test of ranks it is about the mean itself, so it can never call an increase of the mean squared error an
    improvement. The smallest p-value there is, is 1 / (n_resamples + 1).

    >>> sign_test_of_mean(np.array([1.0, -1.0]), 999, np.random.default_rng(0))
    1.0
    """
    seen = abs(differences.sum()) * (1 - 1e-9)  # sums of the same terms in another order still count as equal
    reached = 0
    for count in blocks(n_resamples, len(differences)):
        signs = rng.integers(0, 2, size=(count, len(differences)), dtype=np.int8) * 2.0 - 1.0
        reached += int((np.abs(signs @ differences) >= seen).sum())
    return (1 + reached) / (1 + n_resamples)


def bootstrap_interval(
    differences: np.ndarray,
    confidence: float,
    n_bootstrap: int,
    rng: np.random.Generator,
    sizes: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences (n,): points are resampled, pairs stay together.

    With `sizes` (n,) these are sums over groups of so many points: whole groups are resampled, the mean is over points.

    >>> bootstrap_interval(np.array([1.0, 4.0]), 0.95, 100, np.random.default_rng(0), sizes=np.array([1, 4]))
    (1.0, 1.0)
    """
    # How often each value is drawn is multinomial. Right and wrong answers have three values, -1, 0 and 1: drawing the
    # counts is then n times cheaper than drawing the points, and exactly as random.
    if sizes is None:
        sums, counts = np.unique(differences, return_counts=True)
        points = np.ones(len(sums))
    else:
        (sums, points), counts = np.unique(np.stack([differences, sizes]), axis=1, return_counts=True)
    n = len(differences)
    draws = (rng.multinomial(n, counts / n, size=count) for count in blocks(n_bootstrap, len(sums)))
    means = np.concatenate([(drawn @ sums) / (drawn @ points) for drawn in draws])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired(
    gains: np.ndarray,
    losses: np.ndarray | None,
    groups: np.ndarray | None,
    answers: bool,
    confidence: float,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """``p_value``, ``gain_interval`` and ``perplexity_ratio_interval`` of an ``Evaluation``.

    Of each row (n,): by how much it is better with the memory, `gains`; by how much -log(probability) falls, `losses`,
    where perplexity matters; and its group, None where every row stands alone. `answers`: gains are -1, 0 or 1.
    """
    sizes = None
    if groups is not None:
        _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        gains, losses = np.bincount(groups, gains), None if losses is None else np.bincount(groups, losses)
    if answers and sizes is None:
        p_value = mcnemar(int((gains > 0).sum()), int((gains < 0).sum()))
    else:
        p_value = sign_test_of_mean(gains, n_bootstrap, rng)
    interval = ratio = None
    if len(gains) > 1:  # one says nothing about others
        interval = bootstrap_interval(gains, confidence, n_bootstrap, rng, sizes)
        if losses is not None:
            low, high = bootstrap_interval(losses, confidence, n_bootstrap, rng, sizes)
            ratio = math.exp(-high), math.exp(-low)
    return {"p_value": p_value, "gain_interval": interval, "perplexity_ratio_interval": ratio}


def check_resampling(confidence: float, n_bootstrap: int) -> None:
    """Raise ``ParameterError`` when an interval cannot be made of these."""
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence={confidence!r}; expected a number between 0 and 1, such as 0.95")
    if isinstance(n_bootstrap, bool) or int(n_bootstrap) != n_bootstrap or n_bootstrap < 1:
        raise ParameterError(f"n_bootstrap={n_bootstrap!r}; expected a whole number >= 1")


def checked_groups(groups: Groups) -> Literal["ids", "rows"] | np.ndarray | None:
    """`groups` as ``evaluate`` takes it, or ``ParameterError``."""
    if groups is None:
        return None
    if isinstance(groups, str) and groups in ("ids", "rows"):
        return groups
    array = np.asarray(groups)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        given = repr(groups) if isinstance(groups, str) else f"{array.dtype} of shape {array.shape}"
        raise ParameterError(f'groups={given}; expected None, "ids", "rows", or one whole number per row')
    return array


def group_numbers(
    groups: Literal["ids", "rows"] | np.ndarray | None, ids: np.ndarray | None, n: int
) -> np.ndarray | None:
    """Each row's group, counted from 0: int64 (n,), or None where every row stands alone. `ids`: if all have one."""
    if isinstance(groups, np.ndarray):
        if len(groups) != n:
            raise ShapeError(f"groups have {len(groups)} entries for {n} rows; expected one per row")
        names = groups
    elif groups != "rows" and ids is not None:
        names = ids
    elif groups == "ids":
        raise IdError('groups="ids", and some rows came without ids; give each row\'s group as an array of ids')
    else:
        return None
    found, numbers = np.unique(names, return_inverse=True)
    return None if len(found) == n else numbers


def blocks(total: int, width: int) -> Iterator[int]:
    """Counts that sum to `total`, each at most what BLOCK entries of `width` hold."""
    step = max(1, BLOCK // max(width, 1))
    for start in range(0, total, step):
        yield min(step, total - start)
