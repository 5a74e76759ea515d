"""A disk that loses its power: what a call writes is recorded, and every state it may leave is laid out in a folder.

Strict POSIX: a write that was not flushed (``fsync`` of the file), and a folder's entry that was made, renamed or
removed and not flushed (``fsync`` of the folder), may or may not have happened, each independently of all others. One
rename is one step.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import Any
from unittest import mock

State = dict[str, bytes | None]  # content by path; None is a folder


@dataclass
class Operation:
    """One change, of which ``folder`` or ``file`` says what has to be flushed; or, as ``flush``, a flush itself."""

    what: str  # "data", "entry" (a name's new file, or none), "rename", "mkdir", "flush"
    path: str = ""
    file: int | None = None
    content: bytes = b""
    before: str = ""  # of a rename: the old name

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


@dataclass
class Recording:
    """What happened below `root` inside ``with recording``: ``operations``, from the entries and files at first."""

    root: Path
    operations: list[Operation] = field(default_factory=list)
    first: dict[str, int | None] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))  # of files

    def __enter__(self) -> Recording:
        self.known: dict[str, tuple[int | None, tuple[int, int, int]]] = {}
        self._observe()
        self.first = {path: file for path, (file, _) in self.known.items()}
        self.contents = {one.file: one.content for one in self.operations if one.what == "data"}
        self.operations.clear()
        self.patches = ExitStack()
        for name, seen in (("fsync", self._fsync), ("replace", self._renames), ("rename", self._renames)):
            self.patches.enter_context(mock.patch.object(os, name, self._wrapped(getattr(os, name), seen)))
        for name in ("unlink", "remove", "mkdir", "rmdir", "link"):  # seen by looking: before them and after
            self.patches.enter_context(mock.patch.object(os, name, self._wrapped(getattr(os, name))))
        return self

    def __exit__(self, *_: object) -> None:
        self.patches.close()
        self._observe()

    def _wrapped(self, real: Callable[..., Any], seen: Callable[..., None] | None = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._observe()
            if seen is not None:
                seen(*args)
            done = real(*args, **kwargs)
            self._observe()
            return done

        return call

    def _renames(self, before: Any, after: Any) -> None:
        before, after = (os.path.relpath(os.path.abspath(path), self.root) for path in (before, after))
        if before in self.known and not after.startswith(".."):
            self.known[after] = self.known.pop(before)
            self.operations.append(Operation("rename", after, self.known[after][0], before=before))

    def _fsync(self, descriptor: int) -> None:
        found = os.fstat(descriptor).st_ino
        for path, (file, stamp) in {".": (None, (os.stat(self.root).st_ino, 0, 0)), **self.known}.items():
            if stamp[0] == found:
                folder = "" if path == "." else path
                self.operations.append(Operation("flush", folder, file))

    def _observe(self) -> None:
        """Whatever changed since the last look, by whomever it was written."""
        now: dict[str, os.stat_result] = {}
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                now[os.path.relpath(path, self.root)] = os.lstat(path)
        for path in [path for path in self.known if path not in now]:
            del self.known[path]
            self.operations.append(Operation("entry", path))
        for path, status in sorted(now.items()):
            is_folder = (status.st_mode & 0o170000) == 0o040000
            stamp = (status.st_ino, 0, 0) if is_folder else (status.st_ino, status.st_mtime_ns, status.st_size)
            file, before = self.known.get(path, (None, None))
            if before == stamp:
                continue
            if is_folder:
                self.operations.append(Operation("mkdir", path))
                self.known[path] = (None, stamp)
                continue
            if before is None or before[0] != stamp[0]:
                linked = [one for one, seen in self.known.values() if one is not None and seen == stamp]
                file = linked[0] if linked else next(self.numbers)
                self.operations.append(Operation("entry", path, file))
                if linked:
                    self.known[path] = (file, stamp)
                    continue
            self.known[path] = (file, stamp)
            self.operations.append(Operation("data", path, file, (self.root / path).read_bytes()))

    def states(self, most: int = 12, samples: int = 200, seed: int = 0) -> Iterator[tuple[State, bool]]:
        """Every different state after a power cut at any moment, and whether the whole call had returned by then.

        Where more than `most` operations are not flushed: all their prefixes, and `samples` random subsets of them.
        """
        choose, seen = random.Random(seed), set()
        ends = [at for at, one in enumerate(self.operations) if one.what == "flush"]
        for end in dict.fromkeys([*ends, len(self.operations)]):
            pending = self._pending(end)
            if len(pending) <= most:
                subsets: Iterable[tuple[bool, ...]] = product((False, True), repeat=len(pending))
            else:
                prefixes = [tuple(at < n for at in range(len(pending))) for n in range(len(pending) + 1)]
                subsets = prefixes + [tuple(choose.random() < 0.5 for _ in pending) for _ in range(samples)]
            for number, subset in enumerate(subsets):
                lost = {at for at, happened in zip(pending, subset) if not happened}
                state, returned = self._after(end, lost, torn=number % 2 == 1), end == len(self.operations)
                signature = (frozenset(state.items()), returned)
                if signature not in seen:
                    seen.add(signature)
                    yield state, returned

    def _pending(self, end: int) -> list[int]:
        """Which of the first `end` operations are not flushed."""
        found: list[int] = []
        for at, one in enumerate(self.operations[:end]):
            if one.what != "flush":
                found.append(at)
            elif one.file is None:
                found = [n for n in found if self.operations[n].what == "data" or self.operations[n].folder != one.path]
            else:
                found = [n for n in found if self.operations[n].what != "data" or self.operations[n].file != one.file]
        return found

    def _after(self, end: int, lost: set[int], torn: bool) -> State:
        """The folder after the first `end` operations without those `lost`; `torn`: half of a lost write is there."""
        entries, contents = dict(self.first), dict(self.contents)
        for at, one in enumerate(self.operations[:end]):
            if at in lost:
                if one.what == "data" and torn:
                    contents[one.file or 0] = one.content[: len(one.content) // 2]
                continue
            if one.what == "data":
                contents[one.file or 0] = one.content
            elif one.what == "mkdir":
                entries[one.path] = None
            elif one.what == "rename":
                entries.pop(one.before, None)
                entries[one.path] = one.file
            elif one.what == "entry" and one.file is None:
                entries.pop(one.path, None)
            elif one.what == "entry":
                entries[one.path] = one.file
        state = {path: None if file is None else contents.get(file, b"") for path, file in entries.items()}
        return {path: content for path, content in state.items() if _reachable(path, state)}


def _reachable(path: str, state: State) -> bool:
    folder = os.path.dirname(path)
    return not folder or (folder in state and state[folder] is None and _reachable(folder, state))


def lay_out(state: State, root: Path) -> None:
    """Make folder `root`, which is new, what `state` says."""
    root.mkdir()
    for path in sorted(state):
        content = state[path]
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
