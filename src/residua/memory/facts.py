"""What a memory holds, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from residua.printable import count, shown

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
    schema, source, columns = memory.schema, memory.source, memory.bytes_per_row
    forgotten = memory.n_rows - len(memory)
    rows = f"{len(memory):,}" + (f" ({forgotten:,} more are forgotten)" if forgotten else "")
    of_its_kind = {"rows": rows}
    if schema.is_text:
        of_its_kind = {"tokens": rows, "documents": f"{len(np.unique(memory.ids)):,}"}
    kept = f"kept as {schema.key_dtype}" if memory.keys_kept else "discarded: the index keeps codes of them"
    storage = {name: value for name, value in schema.storage.items() if name not in ("name", "classes")}
    bytes_each = ", ".join(f"{name} {size}" for name, size in columns.items())
    return {
        "task": f"{memory.task}, {count(memory.n_outputs, 'output')}",
        **of_its_kind,
        "keys": f"{count(memory.dim, 'number')} each, {kept}",
        "columns": ", ".join(schema.columns) or "none of their own",
        "bytes per row": f"{sum(columns.values()):,} ({bytes_each})",
        "index": memory.index.name + (f", {memory.recall}" if memory.recall else ""),
        "storage": memory.storage.name + (f" ({shown(storage)})" if storage else ""),
        "device": str(memory.device),
        "made by": f"{source.name} ({source.dtype}), key {source.key}" if source else "unknown",
    }
