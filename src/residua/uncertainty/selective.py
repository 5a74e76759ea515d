"""Answer only where one is sure: the risk at each coverage, and the confidence that keeps a risk."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

STEPS = 20  # coverages that are tried; all at once, for each only a part of the doubt is left


def risk_coverage(confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of wrong answers among the i most confident, i = 1 … n, of confidences and bool `wrong` (n,).

    Its mean is the area under the risk-coverage curve.

    >>> risk_coverage(np.array([0.9, 0.5]), np.array([False, True])).tolist()
    [0.0, 0.5]
    """
    order = np.argsort(-confidence, kind="stable")
    return np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)


def sure_enough(confidence: np.ndarray, wrong: np.ndarray, risk: float, certainty: float) -> float:
    """The least confidence beyond which answers are wrong at most at the rate `risk`, with a probability of at least
    `certainty` over the draw of these rows; inf where none can be vouched for.

    Coverages of 5 %, 10 % … are tried by exact binomial tests, which share the doubt (Geifman and El-Yaniv 2017 search
    them one after another). Rows beyond the i-th largest confidence are as if drawn from those beyond it.
    """
    order = np.sort(confidence)
    edges = np.append(-math.inf, order[len(order) * np.arange(1, STEPS) // STEPS])  # from all rows to the surest 5 %
    beyond, order = len(order) - np.searchsorted(order, edges, side="right"), np.argsort(-confidence, kind="stable")
    errors = np.append(0, np.cumsum(wrong[order]))[beyond]
    kept = (beyond > 0) & (binom.cdf(errors, beyond, risk) <= (1 - certainty) / STEPS)
    return float(edges[kept.argmax()]) if kept.any() else math.inf
