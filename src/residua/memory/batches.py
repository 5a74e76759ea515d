"""Batches of texts, whose rows are known before any model has run, and what a model makes of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from residua.core import Encoded
from residua.errors import InputError
from residua.memory.storage import Storage


class TextBatch(Protocol):
    """Rows of texts that are known before the model has run: int64 arrays, all of the batch's length."""

    labels: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int: ...


B = TypeVar("B", bound=TextBatch)


def checksum(batch: TextBatch, value: int = 0) -> int:
    """CRC-32 of a batch's labels, ids and offsets, continuing `value`; how rows fall into batches does not matter."""
    columns = [np.asarray(column, dtype=np.int64) for column in (batch.labels, batch.ids, batch.offsets)]
    return zlib.crc32(np.stack(columns, axis=1).tobytes(), value)


def columns_of(storage: Storage, batch: TextBatch, encoded: Encoded) -> dict[str, Tensor]:
    """The columns of the table that a batch becomes, encoded; the storage's schema may learn whose rows they are."""
    if not (_equal(encoded.labels, batch.labels) and _equal(encoded.ids, batch.ids)):
        raise InputError("encode returned rows with other labels or ids than its batch has")
    storage.schema = storage.schema.check(encoded)
    return storage.schema.rows(encoded, batch.ids) | storage.columns(encoded)


def how_kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a build's settings, those that say how keys are kept."""
    return {"key_dtype": settings["key_dtype"], "normalise": settings.get("normalise", False)}


def _equal(given: np.ndarray | None, expected: np.ndarray) -> bool:
    return given is not None and np.array_equal(given, expected)
