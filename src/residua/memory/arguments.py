"""What a caller hands over: checked, and named where it is something else than it should be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import ArrayLike, Encoded, Names, batches
from residua.core.encoded import int64_ids
from residua.errors import IdError, InputError, ParameterError, StorageError
from residua.memory.schema import KEY_DTYPES, KeyDtype

GONE = {  # public names of a Memory in version 0.1
    "alive_rows": "active_rows",
    "columns": "schema.columns",
    "drop_keys": "discard_keys",
    "key_dtype": "schema.key_dtype",
    "of_tokens": "schema.is_text",
    "rows_of": "rows_with_ids",
    "table": "column and keys_at",
    "typical_distance": "median_nn_distance",
}


def labelled_batches(data: Encoded | Iterable[Encoded]) -> Iterator[Encoded]:
    """The batches of `data` that hold rows."""
    what = f"got a {type(data).__name__} where encoded rows are expected"
    encode = "encode first: rs.encode(model, data), or rs.Encoded(keys, logits, labels) of your own arrays"
    if hasattr(data, "memory") or hasattr(data, "median_nn_distance"):
        raise InputError(f"{what}; a memory is made of rows, and a reader of a memory: rs.ResMem(memory)")
    if isinstance(data, (str, os.PathLike)):
        raise InputError(f"{what}; open a saved memory with rs.Memory.load({os.fspath(data)!r}), or {encode}")
    if not isinstance(data, Encoded) and (hasattr(data, "to_numpy") or hasattr(data, "to_pandas")):
        raise InputError(f"{what}; {encode}")
    return (batch for batch in batches(data) if len(batch))


def names_of(data: object, ids: np.ndarray) -> dict[int, str]:
    """What `data` calls `ids`, where it has ``names``, in their order."""
    given = getattr(data, "names", None)
    if not isinstance(given, dict) or not given:
        return {}
    added = set(np.unique(ids).tolist())
    names = {int(id): name for id, name in given.items() if id in added}
    if not isinstance(given, Names):
        return names
    found = Names(names)
    for id in given.also.keys() & found.keys():
        found.give(id, *given.also[id])
    return found


def integer_ids(ids: ArrayLike) -> np.ndarray:
    """`ids` as an int64 array (m,), if they are integers."""
    array = np.atleast_1d(np.asarray(ids))
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise IdError(f"ids have dtype {array.dtype} and shape {array.shape}; expected integers")
    return int64_ids(array)


def ids_from(first: int, count: int) -> np.ndarray:
    """The next `count` ids for rows that bring none."""
    if first + count > 2**63:
        raise IdError(f"after the id {first - 1} there are no {count} larger integers left: give ids")
    return np.arange(first, first + count, dtype=np.int64)


def joined(ranges: tuple[tuple[int, int], ...], first: int, last: int) -> tuple[tuple[int, int], ...]:
    """Ranges of ids, and first ... last - 1."""
    if ranges and ranges[-1][1] == first:
        return (*ranges[:-1], (ranges[-1][0], last))
    return (*ranges, (first, last))


def check_absent(present: Tensor) -> None:
    """Refuse to add rows whose ids are `present`."""
    if len(present):
        some = np.unique(present.cpu().numpy())
        raise IdError(
            f"{len(some)} of the ids are in the memory already, such as {some[:5].tolist()}; "
            "forget them first, or add with replace=True"
        )


def excluded_ids(exclude: ArrayLike, queries: int) -> Tensor:
    """The ids that each query must not find, int64 (q, m), from (q,) or (q, m)."""
    ids = np.asarray(exclude)
    if ids.shape[:1] != (queries,) or ids.ndim > 2 or ids.dtype.kind not in "iu":
        given = f"exclude has shape {ids.shape} and dtype {ids.dtype}"
        raise IdError(f"{given} for {queries} queries; expected integers, (q,) or (q, m)")
    ids = torch.from_numpy(int64_ids(ids))
    return ids[:, None] if ids.ndim == 1 else ids


def checked_device(device: str | torch.device, mmap: bool = False) -> torch.device:
    """The device, if this machine has it, and files can be mapped there."""
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ParameterError(f"device={device!r}; expected 'cpu' or 'cuda'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"device={str(device)!r}, and this PyTorch finds no CUDA device; use device='cpu'")
    if mmap and device.type != "cpu":
        raise ParameterError(f"mmap=True with device={str(device)!r}; files are mapped on the CPU: leave one out")
    return device


def check_settings(
    storage: dict[str, Any],
    key_dtype: KeyDtype,
    normalise: bool,
    about: dict[str, Any] | None,
    names: dict[int, str] | None,
) -> None:
    """Refuse what a memory cannot be kept with."""
    if key_dtype not in KEY_DTYPES:
        raise ParameterError(f"key_dtype={key_dtype!r}; expected one of {tuple(KEY_DTYPES)}")
    if key_dtype == "bfloat16" and storage["name"] == "head":
        coarse = "bfloat16 keys are too coarse to recompute logits from (storage='head')"
        raise ParameterError(f"{coarse}; use float16 or float32")
    if normalise not in (True, False):
        raise ParameterError(f"normalise={normalise!r}; expected True or False")
    if normalise and storage["name"] == "head":
        short = "keys of length 1 do not tell what the last layer made of them (storage='head')"
        raise ParameterError(f"{short}; with normalise=True use storage='full'")
    try:
        json.dumps(about)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"about={about!r} is not made of JSON types: {error}") from error
    for number, name in (names or {}).items():
        if not (isinstance(number, (int, np.integer)) and isinstance(name, str)):
            raise ParameterError(f"names hold {number!r}: {name!r}; expected the name, a str, of each id, an int")


def check_growth(storage: str, is_text: bool) -> None:
    """Refuse new classes where what the model said of them cannot be kept."""
    if is_text:
        raise StorageError("a vocabulary does not grow: a memory of text takes no new classes")
    if storage not in ("full", "none"):
        raise StorageError(f"new classes change all that the model says, and storage={storage!r} cannot; use 'full'")


def check_discard(exact: bool) -> None:
    """Refuse to discard keys that searches need."""
    if exact:
        advice = 'keep them, or build with a trained index, such as index="knnlm"'
        raise StorageError(f"an exact index searches the keys themselves: {advice}")
