"""What was done to a memory, edit by edit, and how to take it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Self

import torch
from torch import Tensor

from residua.core import Names
from residua.errors import StorageError
from residua.memory.table import Table
from residua.printable import count, one_line

Renamed = Mapping[int, tuple[tuple[str, ...], tuple[str, ...]]]
_NONE: Tensor = torch.empty(0, dtype=torch.int64)


class _Packed:
    """A tensor on the CPU, held as bytes and made again when it is asked for.

    A small tensor that lives as long as the log does, allocated while a column is copied, keeps the system from using
    the copy's place again: of a million rows, each edit would cost a megabyte for good.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, held: object | None, owner: type | None = None) -> Tensor:
        packed = None if held is None else vars(held)[self._name]
        if packed is None:
            return _NONE
        data, dtype, shape = packed
        return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)

    def __set__(self, held: object, tensor: Tensor) -> None:
        packed = (tensor.numpy().tobytes(), tensor.dtype, tuple(tensor.shape)) if tensor.numel() else None
        vars(held)[self._name] = packed


@dataclass(frozen=True, eq=False)
class Changes:
    """What one edit changed, by row number: int64 tensors (m,), labels (m, ...) as the table keeps them, on the CPU.

    Rows are never removed: those of an edit that was taken back, or failed, are forgotten ones.
    """

    first: int = 0  # rows first ... last - 1 are new
    last: int = 0
    forgotten: _Packed = _Packed()
    restored: _Packed = _Packed()
    relabelled: _Packed = _Packed()
    before: _Packed = _Packed()  # the labels of `relabelled`
    after: _Packed = _Packed()
    names: Renamed = field(default_factory=dict)  # of each id whose names changed: those before, and after

    @classmethod
    def between(cls, before: Table, after: Table, was: Names, names: Names) -> Self:
        """What is different in `after`, the same rows and perhaps more."""
        n, old, new = len(before), before.dense("active"), after.dense("active")
        forgotten, restored = _NONE, _NONE
        if new.data_ptr() != old.data_ptr():  # appending alone leaves the column where it is, for the most part
            forgotten, restored = ((a & ~b).nonzero()[:, 0].cpu() for a, b in ((old, new[:n]), (new[:n], old)))
        if not bool(new[n:].all()):
            forgotten = torch.cat([forgotten, n + (~new[n:]).nonzero()[:, 0].cpu()])
        old, new, relabelled = before.dense("label"), after.dense("label")[:n], _NONE
        if new.data_ptr() != old.data_ptr():
            relabelled = (old != new).reshape(n, -1).any(dim=1).nonzero()[:, 0]
        at = relabelled.to(old.device)
        labels = {"relabelled": at.cpu(), "before": old[at].cpu(), "after": new[at].cpu()} if len(at) else {}
        return cls(n, len(after), forgotten, restored, **labels, names=renamed_between(was, names))

    def __bool__(self) -> bool:
        some = self.forgotten, self.restored, self.relabelled, self.names
        return self.last > self.first or any(map(len, some))

    def reversed(self) -> Self:
        """What takes these changes back; rows that they added are then forgotten."""
        added = torch.arange(self.first, self.last)
        added = added[~torch.isin(added, self.forgotten)]
        return replace(
            self,
            first=self.last,
            forgotten=torch.cat([self.restored, added]),
            restored=self.forgotten[self.forgotten < self.first],
            before=self.after,
            after=self.before,
            names={id: (new, old) for id, (old, new) in self.names.items()},
        )

    def made(self, table: Table, names: Names) -> tuple[Table, Names]:
        """`table` and `names` with these changes; the rows that they add are there already."""
        if len(self.forgotten) or len(self.restored):
            active = table.dense("active").clone()
            active[self.restored.to(active.device)] = True
            active[self.forgotten.to(active.device)] = False
            table = table.with_column("active", active)
        if len(self.relabelled):
            label = table.dense("label").clone()
            label[self.relabelled.to(label.device)] = self.after.to(label)
            table = table.with_column("label", label)
        if self.names:
            names = names.copy()
            for id, (_, now) in self.names.items():
                names.set(id, *now)
        return table, names


def renamed_between(was: Names, names: Names) -> Renamed:
    """The ids whose names are others now."""
    ids = set() if names is was else {id for id, _ in was.items() ^ names.items()}
    ids |= {id for id in was.also.keys() | names.also.keys() if was.also.get(id) != names.also.get(id)}
    return {id: (was.all(id), names.all(id)) for id in sorted(ids)}


@dataclass(frozen=True, eq=False)
class Event:
    """One edit of a memory: what was done, when, to how many rows, and by which note.

    Attributes
    ----------
    what : str
        ``"add"``, ``"forget"``, ``"relabel"``, ``"update"``, ``"undo"``, ``"rebuild"``, … as the method is called.
    when : str
        ISO 8601, UTC.
    note : str
        What the caller said about it.
    added, forgotten, restored, relabelled, dropped : int
        Rows; dropped are those that ``rebuild`` or ``purge`` removed for good.
    undoes : int or None
        The number of the event that this one took back.
    changes : Changes or None
        Which rows these were; None where rows were renumbered since (``rebuild``), so that there is no way back.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> memory.forget([1], note="asked for")
    1
    >>> [(event.what, event.added, event.forgotten, event.note) for event in memory.log()]
    [('create', 3, 0, ''), ('forget', 0, 1, 'asked for')]
    >>> memory.undo().restored, len(memory)
    (1, 3)
    """

    what: str
    when: str
    note: str = ""
    added: int = 0
    forgotten: int = 0
    restored: int = 0
    relabelled: int = 0
    dropped: int = 0
    undoes: int | None = None
    changes: Changes | None = None

    @classmethod
    def of(cls, what: str, changes: Changes, note: str | None = None, undoes: int | None = None) -> Self:
        """An event of now."""
        when, old = datetime.now(UTC).isoformat(timespec="seconds"), int((changes.forgotten < changes.first).sum())
        added = changes.last - changes.first - (len(changes.forgotten) - old)
        counts = added, old, len(changes.restored), len(changes.relabelled)
        return cls(what, when, note or "", *counts, undoes=undoes, changes=changes)

    def __str__(self) -> str:
        done = ("added", "forgotten", "restored", "relabelled", "dropped")
        what = ", ".join(f"{count(getattr(self, name), 'row')} {name}" for name in done if getattr(self, name))
        return f"{self.when}  {self.what}: {what or 'no rows'}" + (f" ({one_line(self.note)})" if self.note else "")


def barred(events: Sequence[Event]) -> list[Event]:
    """The same events after rows were renumbered: what they changed cannot be named any more."""
    return [replace(event, changes=None) for event in events]


def last_to_undo(events: Sequence[Event]) -> int:
    """The number of the last event that was not taken back; ``StorageError`` where there is none, or no way back."""
    undone = {event.undoes for event in events}
    at = next((n for n in reversed(range(1, len(events))) if events[n].undoes is None and n not in undone), None)
    if at is None:
        raise StorageError("there is no edit to undo: the memory is as it was made")
    if events[at].changes is None:
        raise StorageError(
            f"the last edit, '{events[at]}', cannot be undone: rows that it forgot were dropped for good "
            "(rebuild, purge), and the rest renumbered"
        )
    return at
