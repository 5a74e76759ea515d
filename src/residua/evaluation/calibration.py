"""Are probabilities honest: expected calibration error, and log-loss."""

from __future__ import annotations

import numpy as np

BINS = 15


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """How far confidence is from accuracy, averaged over bins of equal width (Guo et al. 2017, eq. 5).

    Parameters
    ----------
    confidence : float array of shape (n,)
        Probability of the predicted class.
    right : bool array of shape (n,)
        Whether that prediction is true.
    bins : int, default 15
        Bins of equal width over (0, 1]; each contains its upper edge.

    Returns
    -------
    float
        ``sum_b n_b / n * |accuracy_b - mean confidence_b|``, between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> expected_calibration_error(np.array([0.75, 0.75]), np.array([True, False]))
    0.25
    """
    bin_of = np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=np.asarray(right, np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(bin_of))


def log_loss(probability: np.ndarray) -> float:
    """Mean of -log(probability of the true class), in nats.

    Probabilities too small for float32 count as its smallest normal number, 1.2e-38: one saturated point must not turn
    the mean of all others into infinity.

    Examples
    --------
    >>> import numpy as np
    >>> round(log_loss(np.array([0.5, 0.25])), 4)
    1.0397
    """
    return float(-np.log(np.maximum(np.asarray(probability, np.float64), np.finfo(np.float32).tiny)).mean())
