"""What a memory holds, in few figures: its manifest says them, so that they can be shown without opening it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a memory is summed up when it is saved
    from residua.memory.memory import Memory


def summary(memory: Memory) -> dict[str, Any]:
    """`memory` in JSON types: what kind of rows, how many, how large, how they are searched, and who made them."""
    schema, index, source = memory.schema, memory.index, memory.source
    said = {
        "task": memory.task,
        "rows": len(memory),
        "forgotten": memory.n_rows - len(memory),
        "dim": memory.dim,
        "key_dtype": schema.key_dtype,
        "normalised": schema.normalise,
        "keys_kept": memory.keys_kept,
        "outputs": memory.n_outputs,
        "columns": list(schema.columns),
        "bytes_per_row": memory.bytes_per_row,
        "storage": schema.storage,
        "index": index.name,
        "exact": index.exact,
        "recall": index.recall and index.recall.to_json(),
        "source": source and {"model": source.name, "key": source.key, "dtype": source.dtype, "output": source.output},
    }
    if memory._members is not None:
        said["stands_for"] = int(memory.counts.sum())
    if schema.is_text:
        said |= {name: memory.about.get(name) for name in ("windowing", "model")}
        said["documents"] = memory.distinct_ids
    return said
