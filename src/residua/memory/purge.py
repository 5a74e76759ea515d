"""Forgotten rows leave the files, too, and a search of every byte shows that they did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from residua.errors import MemoryFileError
from residua.index.nearest import blocks
from residua.memory.lock import locked
from residua.memory.merging import ids_held
from residua.memory.schema import written
from residua.printable import count
from residua.progress import progress_bar

if TYPE_CHECKING:
    from residua.memory.memory import Memory
    from residua.memory.table import Column, Table

_PIECE = 32  # bytes that are looked for
_ENOUGH = 16  # of them at least so many are no zeros, which are everywhere
_TOKENS = 8  # labels one after another: as many bytes
_AT_ONCE = 1 << 24  # bytes searched at a time
_BITS = 24  # of a hash, by which most places are passed over: a table of 16 MB
_SHIFT = np.uint64(64 - _BITS)
# One for each 8 bytes of a piece: odd numbers, multiplied by which words differ in their high bits.
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64)


@dataclass(frozen=True)
class Purge:
    """What a purge removed, and what it searched to prove it.

    Attributes
    ----------
    rows : int
        Forgotten rows that the memory and its files held until now.
    traces : int
        Pieces of 32 bytes of these rows - of their keys, of what the model said, of eight tokens in a row - that no
        remembered row has, and so no file may have.
    files, bytes : int
        What was searched for each of them, at every byte.

    Examples
    --------
    >>> print(Purge(3, 3, 4, 20_000))
    3 rows removed; 3 traces of them looked for in 4 files, 20,000 bytes: none is left
    """

    rows: int
    traces: int
    files: int
    bytes: int

    def __str__(self) -> str:
        searched = f"{count(self.files, 'file')}, {self.bytes:,} bytes"
        proof = f"{count(self.traces, 'trace')} of them looked for in {searched}: none is left"
        return f"{count(self.rows, 'row')} removed; {proof}"


def purge(memory: Memory, path: Path, note: str | None = None, progress: bool | None = None) -> Purge:
    """See ``Memory.purge``."""
    with memory.editing("purge", note) as draft:  # what others did in the folder of a live memory is in it
        rows = draft.n_rows - len(draft)
        traces = traces_of(draft._table, draft.schema.is_text)
        if draft._members is not None:
            traces = np.concatenate([traces, _traces_of_members(draft)])
        gone = np.setdiff1d(np.array(list(draft.names), np.int64), ids_held(draft))
        draft.rename({id: () for id in gone.tolist()})
        if rows:
            draft.rebuild()
        elif not draft.keys_kept:  # the folder is written anew, without the keys of the last rows
            draft._saved, draft.version = draft._saved and draft._saved.anew(draft.n_rows), draft.version + 1
    memory.save(path)
    with locked(path):  # files that are searched stay where they are
        files = sorted(file for file in path.rglob("*") if file.is_file())
        sizes = [file.stat().st_size for file in files]
        with progress_bar(progress, desc="search", unit="B", unit_scale=True, total=sum(sizes)) as bar:
            for file, size in zip(files, sizes):
                left = int(_within(traces, _parts(file)).sum())
                if left:
                    raise MemoryFileError(
                        f"{file} still holds {count(left, 'trace')} of forgotten rows, and this memory does not own "
                        "that file; remove it, and purge again"
                    )
                bar.update(size)
    return Purge(rows, len(traces), len(files), sum(sizes))


def traces_of(table: Table, is_text: bool) -> np.ndarray:
    """Pieces of the rows of a table that are forgotten, uint8 (m, 32), that no remembered row has."""
    active, found = table.dense("active"), [np.empty((0, _PIECE), np.uint8)]
    gone, kept = (~active).nonzero()[:, 0], active.nonzero()[:, 0]
    for name in table.names if len(gone) else ():
        if name not in ("id", "active"):
            column = written(table.dense(name)) if name == "label" else table[name]
            if is_text and name == "label":
                pieces = _runs(_bytes(column[gone]), table["id"][gone].cpu().numpy())
            else:
                pieces = np.concatenate([_telling(part) for part in _rows(column, gone)])
            pieces = np.unique(pieces, axis=0)
            found.append(pieces[~_within(pieces, (part.reshape(-1) for part in _rows(column, kept)))])
    return np.unique(np.concatenate(found), axis=0)


def _traces_of_members(memory: Memory) -> np.ndarray:
    """Pieces of rows that no merged row stands for any more, that none that is left and no remembered row has."""
    held, active = memory._members, memory._table.dense("active")
    assert held is not None
    used = torch.zeros(len(held.table), dtype=torch.bool)
    used[held.rows[held.owned(active)]] = True
    pieces = traces_of(held.table.with_column("active", used), memory.schema.is_text)
    kept = active.nonzero()[:, 0]
    for name in memory._table.names:
        column = written(memory._table.dense(name)) if name == "label" else memory._table[name]
        pieces = pieces[~_within(pieces, (part.reshape(-1) for part in _rows(column, kept)))]
    return pieces


def _parts(file: Path) -> Iterator[np.ndarray]:
    """A file's bytes, uint8, a part at a time."""
    with open(file, "rb") as stream:
        while len(part := np.fromfile(stream, np.uint8, _AT_ONCE)):
            yield part


def _rows(column: Column, rows: Tensor) -> Iterator[np.ndarray]:
    """Some rows of a column as ``_bytes``, a part at a time: it may lie in files, and be larger than RAM."""
    each = math.prod(column.shape[1:]) * column.dtype.itemsize
    return (_bytes(column[rows[part]]) for part in blocks(len(rows), each, _AT_ONCE))


def _bytes(values: Tensor) -> np.ndarray:
    """Values (n, ...) as bytes, uint8 (n, bytes of a row)."""
    return values.cpu().reshape(len(values), math.prod(values.shape[1:])).contiguous().view(torch.uint8).numpy()


def _telling(values: np.ndarray) -> np.ndarray:
    """The most telling 32 bytes of each row, of those that tell enough."""
    blocks = values.shape[1] // _PIECE
    if not blocks:
        return np.empty((0, _PIECE), np.uint8)
    cut = values[:, : blocks * _PIECE].reshape(len(values), blocks, _PIECE)
    telling, rows = (cut != 0).sum(axis=2), np.arange(len(values))
    best = telling.argmax(axis=1)
    return cut[rows, best][telling[rows, best] >= _ENOUGH]


def _runs(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Eight labels (int32) one after another, of one document, all over it."""
    starts = np.arange(0, len(ids) - _TOKENS + 1, _TOKENS)
    starts = starts[ids[starts] == ids[starts + _TOKENS - 1]]
    return labels.reshape(-1)[4 * starts[:, None] + np.arange(_PIECE)]


def _within(pieces: np.ndarray, data: Iterable[np.ndarray]) -> np.ndarray:
    """Which pieces, uint8 (m, 32), each given once, are in `data`, which comes in parts, uint8 (n,), wherever they
    begin; bool (m,)."""
    found = np.zeros(len(pieces), bool)
    if not len(pieces):
        return found
    hashes = _hashed(np.ascontiguousarray(pieces).reshape(-1))[:: _PIECE // 8]
    order = np.argsort(hashes)
    hashes = hashes[order]
    likely = np.zeros(1 << _BITS, bool)
    likely[hashes >> _SHIFT] = True
    block = np.empty(0, np.uint8)
    for part in data:
        block = np.concatenate([block[-(_PIECE - 1) :], part])
        for shift in range(8):
            here = _hashed(block[shift : shift + (len(block) - shift) // 8 * 8])
            places = np.flatnonzero(likely[here >> _SHIFT])
            which = np.minimum(np.searchsorted(hashes, here[places]), len(hashes) - 1)
            same = hashes[which] == here[places]
            which, places = order[which[same]], shift + 8 * places[same]
            equal = (block[places[:, None] + np.arange(_PIECE)] == pieces[which]).all(axis=1)
            found[which[equal]] = True
    return found


def _hashed(data: np.ndarray) -> np.ndarray:
    """A number of every 32 bytes that begin at a multiple of 8, uint64; none where fewer are left."""
    words = data.view(np.uint64)
    hashes = np.zeros(max(len(words) - len(_FACTORS) + 1, 0), np.uint64)
    for n, factor in enumerate(_FACTORS):
        hashes += words[n : n + len(hashes)] * factor
    return hashes
