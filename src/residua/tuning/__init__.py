"""Choose k, sigma, T and lambda on validation data, from one search."""

from residua.tuning.tune import tune

__all__ = ["tune"]
