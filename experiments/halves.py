"""Settings tuned on one half of the test rows answer the other, and the reverse: every row is answered, none by
settings that saw it; and paired differences of such answers."""

import numpy as np
from scipy.stats import binomtest

import residua as rs
from residua.core import Encoded
from residua.evaluation.significance import bootstrap_interval, mcnemar
from residua.readers import Reader

RESAMPLES = 2000


def crossed(
    reader: Reader, test: Encoded, grid: dict, *, refusable: bool = True, **options
) -> tuple[np.ndarray, list[dict]]:
    """Every row's prediction (n,) with the settings best on the other half, and the two halves' settings.

    Even and odd rows are the halves: where rows come class by class, both hold every class. `grid` and `options` are
    those of ``rs.tune``; where not `refusable`, k = 0, the base itself, may not win.

    >>> keys = np.arange(8.0)[:, None]
    >>> data = rs.Encoded(keys, np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 1, 1])
    >>> predicted, settings = crossed(rs.ResMem(rs.Memory(data), k=1), data, {"k": [1], "sigma": [1.0]})
    >>> predicted.tolist(), [half["k"] for half in settings]
    ([0, 0, 0, 0, 1, 1, 1, 1], [1, 1])
    """
    predicted = np.empty(len(test), np.int64)
    settings = []
    for half in (0, 1):
        best = rs.tune(
            reader,
            test[1 - half :: 2],
            grid,
            **{"objective": "accuracy", "evidence": None, "progress": False} | options,
        )
        found, chosen = best.results_, best.best_params_
        if not refusable and best.k == 0:
            used = np.flatnonzero(found["k"] > 0)
            first = used[found["score"][used].argmax()]
            chosen = {name: found[name][first].item() for name in chosen}
        predicted[half::2] = reader.with_params(**chosen).predict(test[half::2])
        settings.append(chosen)
    return predicted, settings


def paired(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """By how many points more often `one` is right than `other`, bool (n,): (difference, low, high, p-value).

    The interval is a paired 95 % bootstrap, the p-value McNemar's exact test.

    >>> paired(np.array([True] * 4), np.array([True, True, False, False]), np.random.default_rng(0))[0::3]
    (50.0, 0.5)
    """
    low, high = bootstrap_interval(one.astype(float) - other, 0.95, RESAMPLES, rng)
    p = mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))
    return percent(one) - percent(other), 100 * low, 100 * high, p


def percent(right: np.ndarray) -> float:
    """Share of true values in %."""
    return 100 * float(np.mean(right))


def wilson(right: int, asked: int) -> list[float]:
    """[%, low, high] of so many right ones, with Wilson's 95 % interval."""
    ends = binomtest(right, asked).proportion_ci(method="wilson")
    return [100 * right / asked, 100 * float(ends.low), 100 * float(ends.high)]
