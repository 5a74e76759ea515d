"""A memory of text follows its documents: what changed is read anew, what is gone is forgotten, by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch

from residua.core import Encoded
from residua.errors import IdError, InputError, ParameterError, StorageError
from residua.memory.memory import Memory
from residua.printable import count

Missing = Literal["forget", "keep"]
SAMPLE, EACH = 20_000, 1000  # tokens of remembered documents that are read again, in all and of each
_MISSING = ("forget", "keep")


class Named(Protocol):
    """A text that has been read: its id is a hash of what it says."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...


D = TypeVar("D", bound=Named)


@dataclass(frozen=True)
class Update:
    """What an update did, or would do.

    Attributes
    ----------
    added, changed, removed : tuple of str
        Names of documents: new ones, those that now say something else, those that are given no longer.
    unchanged : int
        How many documents are as they were.
    tokens_added, tokens_forgotten : int
        Rows of the memory. A text that is remembered under another name already is not read again, and one whose name
        goes stays while it bears another.

    Examples
    --------
    >>> print(Update(("new.py",), (), ("old.py",), 40, 120, 80))
    1 document added, 0 changed, 1 removed, 40 unchanged: 120 tokens added, 80 forgotten
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int
    tokens_added: int = 0
    tokens_forgotten: int = 0

    def __str__(self) -> str:
        what = f"{count(len(self.added), 'document')} added, {len(self.changed)} changed, {len(self.removed)} removed"
        tokens = f"{count(self.tokens_added, 'token')} added, {self.tokens_forgotten:,} forgotten"
        return f"{what}, {self.unchanged} unchanged: {tokens}"


def update(
    memory: Memory,
    documents: Iterable[D],
    encode: Callable[[list[D]], Iterable[Encoded]],
    *,
    missing: Missing = "forget",
    replace: bool = True,
    dry_run: bool = False,
    note: str | None = None,
) -> Update:
    """Make `memory` hold these documents under their names, and, unless others are to be kept, nothing else.

    `encode` makes rows of those that are not remembered yet. Without `replace`, a document that says something else
    than the memory's one of its name is an ``InputError``. On any error the memory is as it was.
    """
    if missing not in _MISSING:
        raise ParameterError(f"missing={missing!r}; expected one of {_MISSING}")
    require_text(memory)
    given = _by_name(documents)
    here = memory.names.by_name()
    added = tuple(name for name in given if name not in here)
    changed = tuple(name for name, one in given.items() if name in here and here[name] != [one.id])
    removed = () if missing == "keep" else tuple(name for name in here if name not in given)
    if changed and not replace:
        raise InputError(
            f"{_some(changed)}: remembered with another text; replace what is there (--replace, replace=True), or give "
            "another name"
        )
    held = {*memory.names, *np.unique(memory.ids).tolist()}
    if here and given and len(removed) == len(here) and not any(one.id in held for one in given.values()):
        one, known = next(iter(given)), next(iter(here))
        raise InputError(
            f"none of {count(len(given), 'document')}, such as {one!r}, is called like a remembered one, such as "
            f"{known!r}: an update would forget all {len(here)}. Names are paths below the folder that was given; give "
            "the folder that was remembered, or missing='keep' to add to what is there"
        )
    plan = Update(added, changed, removed, len(given) - len(added) - len(changed))
    if dry_run:
        return plan
    fresh = {one.id: one for one in given.values() if one.id not in held}
    with memory.editing("update", note) as draft:
        before = draft.n_rows
        if fresh:
            draft.add(encode(list(fresh.values())))
        tokens, named = draft.n_rows - before, dict[int, tuple[str, ...]]()
        for one in given.values():
            if one.name not in (known := named.get(one.id, draft.names.all(one.id))):
                named[one.id] = (*known, one.name)
        draft.rename(named)
        gone = [(id, name) for name in removed for id in here[name]]
        gone += [(id, name) for name in changed for id in here[name] if id != given[name].id]
        forgotten = _take(draft, gone)
    return Update(*(added, changed, removed), plan.unchanged, tokens, forgotten)


def forget(
    memory: Memory, documents: Collection[str], *, note: str | None = None
) -> tuple[int, dict[str, tuple[str, ...]]]:
    """Forget documents by name (or by id, in digits): how many tokens went, and, of names whose text stays because
    other documents have the same, these others' names.

    ``IdError`` where none, or several, bear a name; nothing is forgotten then.
    """
    gone: list[tuple[int, str]] = []
    for name in dict.fromkeys(documents):
        found = [id for id in memory.names.bearers(name) if id in memory]
        if len(found) > 1:
            which = " or ".join(map(str, found))
            raise IdError(f"{len(found)} documents are called {name!r}; say which by its id: {which}")
        if found:
            gone.append((found[0], name))
        elif name.lstrip("-").isdigit() and int(name) in memory:
            gone += [(int(name), one) for one in memory.names.all(int(name)) or ("",)]
        else:
            near = get_close_matches(name, memory.names.by_name(), cutoff=0.4)
            hint = f"; there are {', '.join(map(repr, near))}" if near else ""
            raise IdError(f"no remembered document is called {name!r}{hint}")
    with memory.editing("forget", note) as draft:
        tokens = _take(draft, gone)
    return tokens, {name: memory.names.all(id) for id, name in gone if id in memory}


def some(memory: Memory, make: Callable[[int, str, np.ndarray, int], D]) -> list[D]:
    """Some remembered documents, by what is remembered of them: of each the beginning, without gaps, made of its id,
    name, tokens and size (0: not known)."""
    require_text(memory)
    found, total = [], 0
    for id in np.random.default_rng(0).permutation(np.unique(memory.ids)).tolist():
        rows = memory.rows_with_ids(id)
        offsets = memory.column("offset")[rows].cpu().numpy()
        whole = rows[torch.from_numpy(offsets == np.arange(len(rows)))][:EACH]
        tokens = memory.column("label")[whole].cpu().numpy().astype(np.int64)
        if len(tokens):
            found.append(make(id, memory.names.get(id, str(id)), tokens, 0))
        total += len(tokens)
        if total >= SAMPLE:
            break
    return found


def require_text(memory: Memory) -> None:
    """Refuse a memory whose rows are no tokens of documents."""
    if not memory.schema.is_text:
        raise StorageError("this memory holds no documents: its rows are changed by id, with add, relabel and forget")


def _take(memory: Memory, gone: Iterable[tuple[int, str]]) -> int:
    """Ids bear these names no longer, and are forgotten where they bear no other; how many rows went."""
    left = dict[int, tuple[str, ...]]()
    for id, name in gone:
        left[id] = tuple(one for one in left.get(id, memory.names.all(id)) if one != name)
    memory.rename(left)
    ids = [id for id, names in left.items() if not names and id in memory]
    return memory.forget(ids) if ids else 0


def _by_name(documents: Iterable[D]) -> dict[str, D]:
    found: dict[str, D] = {}
    for one in documents:
        if found.setdefault(one.name, one).id != one.id:
            raise InputError(f"two different texts are called {one.name!r}; an update goes by names: give each its own")
    return found


def _some(names: Collection[str]) -> str:
    first = ", ".join(repr(name) for name in list(names)[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"
