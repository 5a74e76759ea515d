"""Arrays as a pandas data frame, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from residua.errors import MissingDependencyError

if TYPE_CHECKING:
    import pandas


def data_frame(table: Mapping[str, object], columns: Mapping[str, np.ndarray]) -> pandas.DataFrame:
    """A data frame of `table`, then of those `columns` that have one value each: ``column.<name>`` where taken.

    ``MissingDependencyError`` without pandas.
    """
    try:
        import pandas
    except ImportError as error:
        hint = 'pip install "residua[sklearn]"; the same numbers are attributes'
        raise MissingDependencyError(f"to_frame needs pandas: {hint}") from error
    table = dict(table)
    for name, column in columns.items():
        if column.ndim == 1:
            table[f"column.{name}" if name in table else name] = column
    try:
        return pandas.DataFrame(table)
    except UnicodeEncodeError:  # beside pyarrow, pandas keeps strings as UTF-8; a file's name may hold stray bytes
        words = {name: pandas.Series(v, dtype=object) for name, v in table.items() if isinstance(v, list)}
        return pandas.DataFrame(table | words)
