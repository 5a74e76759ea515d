"""How a memory changes: each edit is prepared aside and takes effect at once, or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from residua.core import Names, Rows
from residua.errors import StorageError
from residua.index import Index, RemoteIndex, keep_recall_true
from residua.memory.history import Changes, Event, barred, last_to_undo
from residua.memory.keys_left import KeysLeft
from residua.memory.locks import Locks
from residua.memory.members import Members
from residua.memory.table import Table

# What a memory is to itself; all other attributes are what it holds, and change together.
_OWN = ("_locks", "_home", "_open", "_pinned", "_pending", "_live", "_undoes", "_renumbered", "_dropped")

T = TypeVar("T")


class Editable(ABC):
    """The contents of a memory are attributes that change together.

    An edit works on a *draft*, a memory of the same contents, while searches go on. Tables and names are never changed
    in place, so a draft shares them. What took effect is an event of the log. Whoever reads holds `now`, which stays
    as it is.
    """

    index: Index
    names: Names
    version: int
    n_rows: int
    _table: Table
    _keys: Rows | None
    _events: list[Event]
    _known: dict[Any, set[str]]
    _keys_left: KeysLeft | None  # where they are not kept
    _members: Members | None  # where rows were merged

    def _stand_alone(self) -> None:
        self._locks = Locks()
        self._home: Self | None = None  # whose contents, of some moment, these are
        self._open: Self | None = None  # while an edit is under way: what it has come to
        self._pinned: Self | None = None  # these contents, once somebody asked for them to stay
        self._live: Path | None = None  # the folder where each edit is saved before it takes effect
        self._pending: Self | None = None  # an edit that takes effect, or was interrupted then
        self._undoes: int | None = None  # of a draft: the event that it takes back
        self._renumbered: Table | None = None  # of a draft: the table as it was when rows were renumbered
        self._dropped = 0  # and how many were dropped for good

    def __getstate__(self) -> dict[str, Any]:
        held = {name: value for name, value in vars(self.now).items() if name not in _OWN}
        return held | {"_known": dict(self._known)}  # what a copy saves is not this one's

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._stand_alone()
        vars(self).update(state)

    def __copy__(self) -> Self:
        """A memory of its own with the same rows, which both read until one changes them."""
        with self.reading():
            copy = object.__new__(type(self))
            left = self._keys_left and self._keys_left.apart()
            own = {"index": deepcopy(self.index), "_table": self._table.apart(), "_keys_left": left}
            copy.__setstate__(self.__getstate__() | own)
            copy._refresh()
        return copy

    def log(self) -> tuple[Event, ...]:
        """Every edit since the memory was made, the oldest first: what, when, how many rows, and by which note."""
        return tuple(self._events)

    def undo(self, *, note: str | None = None) -> Event:
        """Take back the last edit that was not taken back yet; the event of the log that says so.

        Forgotten rows are remembered again, relabelled ones have their labels back, added ones are forgotten; ids that
        they had are not given to others. ``StorageError`` where there is nothing to undo, or rows were dropped for good
        since (``rebuild``, ``purge``).
        """

        def undone(draft: Self) -> None:
            draft._undoes = last_to_undo(draft._events)
            changes = draft._events[draft._undoes].changes
            assert changes is not None  # as `last_to_undo` made sure
            draft._table, draft.names = changes.reversed().made(draft._table, draft.names)
            draft._refresh()

        self._edited("undo", note, undone)
        return self._events[-1]

    def reading(self) -> AbstractContextManager[Any]:
        """A ``with`` block in which the memory stays as it is: edits of other threads wait until it ends.

        One prediction is of one moment without it; several, or a long evaluation, inside of it are too. An edit by the
        thread that reads is a ``StorageError``.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
        >>> with memory.reading():
        ...     labels = memory.labels[memory.search(np.eye(3), 1).rows[:, 0].numpy()]
        >>> labels.tolist()
        [0, 1, 1]
        """
        home = self._home or self
        if home._pending is not None:
            home._settle()
        return self._locks.reading()

    def _require_now(self) -> None:
        if self._home is not None and self._home.version != self.version:
            raise StorageError(
                "these are a memory's contents of another moment than now, and its index answers as of now: search the "
                "memory itself, after the edit"
            )

    @contextmanager
    def editing(self, what: str = "edit", note: str | None = None) -> Iterator[Self]:
        """A ``with`` block whose edits are one: all take effect when it ends, or, on any error, none.

        What it gives is the memory as it will be, to be edited (and looked at; it is searched after the block). The log
        calls the edit `what`.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
        >>> with memory.editing("merge", note="the same cat twice") as draft:
        ...     _ = draft.forget([2]), draft.relabel([1], 0)
        >>> str(memory.log()[-1]).partition("  ")[2], len(memory)
        ('merge: 1 row forgotten, 1 row relabelled (the same cat twice)', 2)
        """
        if self._home is not None:
            yield self  # a draft itself
        elif self._locks.is_editing and self._open is not None:
            yield self._open  # within an edit of several
        else:
            with self._locks.edits, self._turn():
                draft = self._open = self._draft()
                yield draft
                self._publish(draft, what, note)

    def _edited(self, what: str, note: str | None, change: Callable[[Self], T]) -> T:
        """`change` the memory: it gets a draft of it, whose contents are then this memory's."""
        with self.editing(what, note) as draft:
            return change(draft)

    def _draft(self) -> Self:
        self._locks.require_no_reading()
        if self._pending is not None:
            self._settle()
        return self._copy()

    def _copy(self) -> Self:
        """Another memory with these contents, that belongs to this one."""
        copy = object.__new__(type(self))
        vars(copy).update(vars(self))
        copy._home, copy._pinned, copy._pending = self, None, None
        copy._renumbered, copy._dropped = None, 0
        return copy

    @property
    def now(self) -> Self:
        """The memory as it is now, whatever is edited later: to read columns of, by the row numbers of now."""
        if self._home is not None:
            return self
        pinned = self._pinned
        if pinned is None:
            pinned = self._pinned = self._copy()
        return pinned

    def _publish(self, draft: Self, what: str, note: str | None) -> None:
        """Make a draft's contents this memory's, at once."""
        if draft.version == self.version:
            return
        draft.version = self.version + 1
        if self._keys_left is None and draft._keys_left is not None and len(draft._table) > self.index.n:
            raise StorageError(
                "rows are added before their keys are discarded, by an edit of their own; nothing was done"
            )
        if isinstance(self.index, RemoteIndex) and draft._renumbered is None:
            self._apart(draft)
        if draft._renumbered is not None:
            draft._grow_index()  # by what was added since; nobody else has it yet
            draft.index.forget((~draft._table.dense("active")).nonzero()[:, 0])
            changes, gone = None, replace(Event.of(what, Changes(), note), dropped=draft._dropped, changes=None)
            events = [*barred(self._events), gone]
            since = Changes.between(draft._renumbered, draft._table, self.names, draft.names)
            if since:  # what an edit of several did after that
                events.append(Event.of(what, since, note))
        else:
            changes = Changes.between(self._table, draft._table, self.names, draft.names)
            events = [*self._events, Event.of(what, changes, note, draft._undoes)]
            draft._keys_left = draft._keys_left and draft._keys_left.drawn(draft._table.dense("active"))
        held = self._contents(draft, events)
        if self._live is not None:
            held |= self._durable(self._live, draft, events)
        self._locks.alone(partial(self._take, draft, held, None if draft.index is not self.index else changes))
        self._open = None
        active = self._table.dense("active")  # searches go on meanwhile
        if self._keys_left is not None:
            if self.index.rerank:  # what was measured was by the keys
                self.index.rerank, self.index.recall = False, None
            self._keys_left.truth.keep_recall_true(self.index, active)
        elif self._keys is not None and changes is not None:
            keep_recall_true(self.index, self._keys, active)

    def _take(self, draft: Self, held: dict[str, Any], changes: Changes | None) -> None:
        if changes is not None:
            self._pending = draft  # from here to the end an interrupt leaves the index ahead of the table
            draft._grow_index()
            self.index.forget(changes.forgotten)
            self.index.restore(changes.restored, draft._keys)
        vars(self).update(held)  # one step, that nothing interrupts: the memory is now what the draft was

    def _apart(self, draft: Self) -> None:
        """Give the draft an index of its own, which has its rows: what is saved, on a server too, is then the draft."""
        assert isinstance(self.index, RemoteIndex)
        changes = Changes.between(self._table, draft._table, self.names, draft.names)
        index = draft.index = self.index.draft()
        draft._grow_index()
        index.forget(changes.forgotten)
        index.restore(changes.restored, draft._keys)
        version = draft.version
        draft._refresh()
        draft.version = version

    def _grow_index(self) -> None:
        """Add the rows of the table that the index lacks."""
        left = self._keys_left
        if more := len(self._table) - self.index.n:
            self.index.add((self._table.rows("key") if left is None else left.tail.rows("key"))[-more:])

    def _settle(self) -> None:
        """An edit was interrupted when the index had its rows, perhaps, and the table had not: they become forgotten
        ones."""
        with self._locks.edits:
            pending = self._pending
            if pending is not None:
                self._locks.alone(partial(self._set_back, pending))

    def _set_back(self, pending: Self) -> None:
        n, active = len(self._table), self._table.dense("active")
        self.index.settle(active, self._keys)
        held: dict[str, Any] = {"_pending": None}
        if extra := self.index.n - n:  # it cannot drop them
            table = pending._table.first(n + extra)
            active, label = table.dense("active").clone(), table.dense("label").clone()
            active[:n], active[n:], label[:n] = self._table.dense("active"), False, self._table.dense("label")
            draft = self._copy()
            draft._table = table.with_column("active", active).with_column("label", label)
            if self._keys_left is not None and pending._keys_left is not None:  # in no list of the truth
                draft._keys_left = pending._keys_left.first(n + extra, self._keys_left.truth)
            draft._refresh()
            event = Event.of("interrupted", Changes(n, n + extra, torch.arange(n, n + extra)))
            held |= self._contents(draft, [*self._events, event])
        vars(self).update(held)

    @staticmethod
    def _contents(draft: Editable, events: list[Event]) -> dict[str, Any]:
        """All that a memory with a draft's contents holds."""
        held = {name: value for name, value in vars(draft).items() if name not in _OWN}
        left = draft._keys_left and draft._keys_left.cut()
        return held | {"_events": events, "_keys_left": left, "_pinned": None, "_pending": None}

    def _turn(self) -> AbstractContextManager[Any]:
        """A ``with`` block in which nobody else edits what is edited here."""
        return nullcontext()

    @abstractmethod
    def _durable(self, path: Path, draft: Any, events: list[Event]) -> dict[str, Any]:
        """Save a draft into folder `path`, before it takes effect; what it then knows of that."""

    @abstractmethod
    def _refresh(self, active: int = 0) -> None:
        """Look at the table anew; `active`: how many rows of it are remembered, where that is known."""
