"""Who may do what at the same time: searches side by side, one edit at a time, and no search while it takes effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

from residua.errors import StorageError

T = TypeVar("T")


class Locks:
    """The locks of one memory.

    Each thread that reads has a lock of its own, so that reading costs an uncontended lock; what must be alone takes
    all of them. Only ``with`` statements over the interpreter's own locks hold any: an interrupt, wherever it falls,
    leaves none behind.
    """

    def __init__(self) -> None:
        self.edits = threading.RLock()  # one edit at a time; readers go on while it is prepared
        self._gate = threading.RLock()  # whoever waits to be alone holds it, so that new readers wait behind
        self._waiting = False
        self._mine = threading.local()
        self._all: WeakSet[threading.RLock] = WeakSet()  # a thread's lock goes when the thread ends

    def reading(self) -> threading.RLock:
        """This thread's lock, to be held in a ``with`` statement while it reads; again inside of it, too."""
        try:
            mine = self._mine.lock
        except AttributeError:
            mine = threading.RLock()
            with self._gate:
                self._all.add(mine)
            self._mine.lock = mine
        if self._waiting and not _owned(mine):
            with self._gate:
                pass
        return mine

    @property
    def is_editing(self) -> bool:
        """Whether this thread is in the middle of an edit."""
        return _owned(self.edits)

    def require_no_reading(self) -> None:
        """Refuse to edit what the same thread is reading."""
        mine = getattr(self._mine, "lock", None)
        if mine is not None and _owned(mine):
            raise StorageError(
                "this thread is reading the memory (with memory.reading(), or inside a call that answers from it): an "
                "edit would change what it reads; edit after that"
            )

    def alone(self, change: Callable[[], T]) -> T:
        """What `change` gives, called while no thread reads."""
        with self._gate:
            self._waiting = True  # left behind by an interrupt it only costs a reader a look at the gate
            done = _holding(list(self._all), change)
            self._waiting = False
        return done


def _owned(lock: Any) -> bool:
    return lock._is_owned()  # as threading.Condition asks


def _holding(locks: Sequence[threading.RLock], change: Callable[[], T]) -> T:
    if not locks:
        return change()
    with locks[0]:
        return _holding(locks[1:], change)
