"""Rows that settings were chosen by, known again by their ids or their keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from residua.core import Encoded, batches


@dataclass(frozen=True, eq=False)
class Seen:
    """Eight bytes of each row's key, and its id."""

    prints: np.ndarray  # uint64 (n,)
    ids: np.ndarray  # int64 (m,): of the rows that have one

    @classmethod
    def none(cls) -> Self:
        """No rows."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.int64))

    @classmethod
    def of(cls, rows: Encoded) -> Self:
        """These rows."""
        return cls(prints_of(rows.keys), np.empty(0, np.int64) if rows.ids is None else np.unique(rows.ids))

    @classmethod
    def join(cls, parts: Sequence[Seen]) -> Self:
        """All rows of `parts`."""
        prints, ids = zip(*((part.prints, part.ids) for part in (cls.none(), *parts)))
        return cls(np.concatenate(prints), np.unique(np.concatenate(ids)))

    def with_key_of(self, rows: Encoded) -> np.ndarray:
        """Bool (q,): the rows whose very key is here."""
        return np.isin(prints_of(rows.keys), self.prints)


def watched(data: Encoded | Iterable[Encoded] | None, seen: list[Seen]) -> Iterator[Encoded] | None:
    """`data` as they are, each batch of which is put down in `seen` when it is read; None where there are none."""

    def read(data: Encoded | Iterable[Encoded]) -> Iterator[Encoded]:
        for batch in batches(data):
            seen.append(Seen.of(batch))
            yield batch

    return None if data is None else read(data)


def prints_of(keys: np.ndarray) -> np.ndarray:
    """A number for each key (n, d), uint64 (n,): the same for the same key, another for others but by a rare chance."""
    halves = np.ascontiguousarray(keys + 0.0, np.float64).view(np.uint32)  # + 0.0: -0 is 0
    factors = np.random.default_rng(0).integers(0, 2**63, halves.shape[1], dtype=np.uint64) * 2 + 1
    out, step = np.empty(len(keys), np.uint64), 2**20 // halves.shape[1] + 1
    for start in range(0, len(keys), step):
        out[start : start + step] = (halves[start : start + step] * factors).sum(axis=1, dtype=np.uint64)
    return out
