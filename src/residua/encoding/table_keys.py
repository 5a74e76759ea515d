"""Keys of a table's rows: its numbers standardised, its categories one-hot."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua.errors import ShapeError

Statistics = dict[str, list[Any]]  # "mean" and "scale", a number per key dimension; "categories" where there are any


def columns_of(X: Any) -> tuple[np.ndarray, dict[int, np.ndarray]] | None:
    """The numbers of a table (n, m), and by place its columns of categories, as text (n,); None where all is numbers.

    Categories are what a data frame does not hold as numbers, and what no number can be made of.
    """
    if hasattr(X, "iloc"):
        columns = [X.iloc[:, place] for place in range(X.shape[1])]
    elif getattr(X, "dtype", None) == np.dtype(object) and X.ndim == 2:
        columns = list(X.T)
    else:
        return None
    numbers, names = [], {}
    for place, column in enumerate(columns):
        try:
            if str(getattr(column, "dtype", "")) == "category":  # of numbers, too: no distance is meant between these
                raise ValueError
            numbers.append(np.asarray(column, dtype=np.float64))
        except (TypeError, ValueError):
            names[place] = np.asarray(column, dtype=object).astype(str)
    return (np.stack(numbers, axis=1) if numbers else np.empty((len(X), 0)), names) if names else None


def standardised(
    numbers: np.ndarray, names: dict[int, np.ndarray], what: str, statistics: Statistics | None
) -> tuple[np.ndarray, Statistics]:
    """Keys float32 (n, d) and the statistics that made them, by default those of these rows.

    A missing number is the column's mean. Rows of different categories are 1 apart, of one that was not there before
    1/sqrt(2); a missing one is a category.
    """
    from sklearn.preprocessing import StandardScaler

    if statistics is None:
        statistics = {"mean": [], "scale": []}
        if numbers.shape[1]:
            scaler: Any = StandardScaler().fit(numbers)
            statistics = {"mean": np.nan_to_num(scaler.mean_).tolist(), "scale": scaler.scale_.tolist()}
        if names:
            statistics["categories"] = [[place, np.unique(values).tolist()] for place, values in names.items()]
    mean, scale = np.asarray(statistics["mean"]), np.asarray(statistics["scale"])
    known = dict(statistics.get("categories", ()))
    if mean.shape != (numbers.shape[1],) or known.keys() != names.keys():
        raise ShapeError(
            f"the statistics are of {len(mean)} dimensions and {len(known)} columns of categories, and {what} has "
            f"{numbers.shape[1]} and {len(names)}"
        )
    parts = [np.nan_to_num((numbers - mean) / scale, nan=0.0, posinf=np.inf, neginf=-np.inf)]
    parts += [(names[place][:, None] == np.asarray(values)) / np.sqrt(2) for place, values in known.items()]
    return np.concatenate(parts, axis=1).astype(np.float32), statistics
