"""Which rows bear which ids. An id may be borne by several rows."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from residua.errors import IdError


def int_ids(ids) -> np.ndarray:
    """`ids` as an int64 array (m,), if they are integers."""
    ids = np.atleast_1d(np.asarray(ids))
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise IdError(f"ids have dtype {ids.dtype} and shape {ids.shape}; expected integers")
    return ids.astype(np.int64)


def bearing(memory, ids: np.ndarray, before: int | None = None) -> Tensor:
    """Numbers of the remembered rows that bear one of `ids`, ascending; `before` looks at earlier rows alone."""
    rows = memory.table.rows_with("id", ids)
    if before is not None:
        rows = rows[rows < before]
    return rows[memory.table["alive"][rows]]


def rows_of(memory, ids) -> Tensor:
    """See ``Memory.rows_of``."""
    ids = int_ids(ids)
    rows = bearing(memory, ids)
    missing = np.setdiff1d(ids, memory.table["id"][rows].cpu().numpy())
    if len(missing):
        raise IdError(f"{len(missing)} of the ids are not in the memory, such as {missing[:5].tolist()}")
    return rows
