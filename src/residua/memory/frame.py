"""A memory's rows as a table for other tools: a pandas data frame, or an Arrow table, as polars and datasets read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from residua.core.frame import data_frame
from residua.errors import MissingDependencyError, StorageError

if TYPE_CHECKING:
    import pandas

    from residua.memory.memory import Memory


def to_frame(memory: Memory, keys: bool) -> pandas.DataFrame:
    """See ``Memory.to_frame``."""
    table = _table(memory.now, keys)
    return data_frame({name: list(values) if np.ndim(values) > 1 else values for name, values in table.items()}, {})


def to_arrow(memory: Memory, keys: bool) -> Any:
    """See ``Memory.to_arrow``."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        hint = 'pip install "residua[datasets]"; memory.to_frame() needs pandas alone'
        raise MissingDependencyError(f"to_arrow needs pyarrow: {hint}") from error

    def array(values: np.ndarray | list[str]) -> Any:
        if isinstance(values, list):  # Arrow keeps UTF-8 alone, and a file's name may hold stray bytes
            return pyarrow.array([text.encode("utf-8", "backslashreplace").decode() for text in values], "string")
        if values.ndim == 1:
            return pyarrow.array(values)
        return pyarrow.FixedSizeListArray.from_arrays(array(values.reshape(-1, *values.shape[2:])), values.shape[1])

    return pyarrow.table({name: array(values) for name, values in _table(memory.now, keys).items()})


def _table(memory: Memory, keys: bool) -> dict[str, np.ndarray | list[str]]:
    """Numbers of shape (n, ...), or n words, by column."""
    ids, labels, classes = memory.ids, memory.labels, memory.schema.classes
    table: dict[str, np.ndarray | list[str]] = {"id": ids}
    if memory.names:
        table["name"] = [memory.names.get(id, str(id)) for id in ids.tolist()]
    if labels.ndim > 1:
        words = classes if classes is not None and len(set(classes)) == len(classes) else range(labels.shape[1])
        table |= {f"label_{word}": column for word, column in zip(words, labels.T)}
    else:
        table["label"] = labels
    if classes is not None and memory.task == "classification":
        table["class"] = [classes[label] for label in labels.tolist()]
    for name in memory.schema.columns:
        values = np.asarray(memory.column(name)[memory.active_rows].cpu())
        table[f"column.{name}" if name in table else name] = values
    if memory._members is not None:
        table["stands_for"] = memory.counts
    if keys:
        found = memory.keys
        if found is None:
            raise StorageError("this memory's keys were discarded; its index holds nothing but codes of them")
        table["key"] = found
    return table
