"""One shard of a memory's rows: a safetensors file that is written once and never changed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from residua.memory import files
from residua.memory.runs import Runs

NOT_SAVED = ("alive", "edited")  # the edits file says it
RUNS = ("start", "first", "step")


def put_rows(path: Path, name: str, rows: dict[str, Tensor | Runs]) -> dict:
    """Write one shard: a safetensors file `name` in the existing folder `path`, on the disk when this returns.

    Parameters
    ----------
    path : Path
    name : str
        Begins with ``rows-`` and ends with ``.safetensors``. Not written by rename: what a killed call leaves counts
        for nothing until a manifest names it, and may be written over.
    rows : dict of str to Tensor or Runs
        Table columns of some rows, in row order (``accept.row_columns`` makes them); ``alive`` and ``edited`` are left
        out. Integers (int64, one number per row) go to disk as runs where that is smaller.

    Returns
    -------
    dict
        What a manifest, or any JSON file, says of the shard: ``file``, ``bytes``, ``crc32``, ``rows``.

    Raises
    ------
    OSError, SafetensorError
        When it cannot be written.
    """
    tensors, count = {}, len(rows["label"])
    for column, values in rows.items():
        if column in NOT_SAVED:
            continue
        if values.dtype == torch.int64 and len(values.shape) == 1:
            runs = values if isinstance(values, Runs) else Runs(values.cpu())
            if 24 * runs.count < 8 * count:
                tensors |= {f"{column}#{part}": tensor for part, tensor in runs.to_tensors().items()}
                continue
            values = runs[:]
        tensors[column] = values.cpu()
    return files.put(path, name, tensors) | {"rows": count}


def get_rows(path: Path, shard: dict) -> dict[str, Tensor | Runs]:
    """The columns that ``put_rows`` wrote, verified; `shard` is what it returned."""
    tensors = files.get(path, shard)
    count = len(tensors["label"])
    for name in [name.removesuffix("#start") for name in tensors if name.endswith("#start")]:
        parts = {part: tensors.pop(f"{name}#{part}") for part in RUNS}
        tensors[name] = Runs.from_tensors(parts, count)
    return tensors
