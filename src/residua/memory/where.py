"""Which of a memory's rows hold what is asked for in their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from residua.core import ArrayLike
from residua.errors import ParameterError

if TYPE_CHECKING:
    from residua.memory.memory import Memory


def others(memory: Memory, wanted: Mapping[str, ArrayLike | Iterable[float]]) -> Tensor:
    """The numbers of the remembered rows that hold, in some column, none of the values wanted there."""
    rows = memory.active_rows
    unlike = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    for name, values in wanted.items():
        column = memory.column(name)[rows]
        if column.ndim > 1:
            raise ParameterError(f"where({name}=…): a row has {column.shape[1]} of these; expected a column of numbers")
        unlike |= ~torch.isin(column, _numbers(name, values, column))
    return rows[unlike]


def said(wanted: Mapping[str, ArrayLike | Iterable[float]]) -> str:
    """What was asked for, as a log has it."""
    return "where " + ", ".join(f"{name} is {_shown(values)}" for name, values in wanted.items())


def _numbers(name: str, values: ArrayLike | Iterable[float], column: Tensor) -> Tensor:
    if isinstance(values, Tensor):
        values = values.cpu().numpy()
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, np.ndarray)):
        given = np.asarray(list(values))  # an array of a set is one of one object
    else:
        given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        raise ParameterError(f"where({name}={values!r}); expected numbers, for a column holds {column.dtype}")
    given = given.reshape(-1)
    if column.is_floating_point():
        return torch.from_numpy(given.astype(np.float64)).to(column.device, column.dtype)
    if given.dtype.kind == "f":  # 2.5 is in no column of integers, nor is infinity
        given = given[(given == np.floor(given)) & (np.abs(given) < 2.0**63)]
    return torch.from_numpy(given.astype(np.int64)).to(column.device)


def _shown(values: ArrayLike | Iterable[float]) -> str:
    text = " ".join(repr(values).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
