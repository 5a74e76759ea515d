"""What a memory holds, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residua.memory.summary import summary
from residua.printable import shown_memory

if TYPE_CHECKING:
    from residua.memory.memory import Memory


def facts(memory: Memory) -> dict[str, str]:
    """What a memory holds, and whose it is, as a notebook shows it.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> found = facts(memory)
    >>> found["rows"], found["keys"], found["storage"]
    ('3', '3 numbers each, kept as float32', 'full')
    """
    return shown_memory(summary(memory)) | {"device": str(memory.device)}
