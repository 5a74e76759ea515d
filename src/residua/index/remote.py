"""An index whose rows lie on a server, and what keeps them in step with a memory's folder.

The folder stays the truth. What is not saved is in RAM here, and searched here. A save puts rows on the server *before*
the manifest names them, and takes forgotten ones away *after*: whoever dies in between leaves rows too many there,
never too few, and those too many are seen by nobody, since a row counts by the folder alone. A generation of the folder
is a *tag* of its collection: one without that tag is another's, or gone, and is never searched or written.
"""

from __future__ import annotations

import logging
import math
import os
import re
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from residua.caution import warn
from residua.core import Rows
from residua.errors import EngineError, MemoryFileError, ParameterError
from residua.index.index import Index, Proposed
from residua.index.nearest import Nearest, blocks, scan, squared_distances

log: logging.Logger = logging.getLogger(__name__)

_AT_ONCE = 2**22  # numbers of keys in one call
_LISTED = 8192  # row numbers in one call
_FEW = 1024  # rows that stay here after they were put on the server, which may show them a moment later
_SLACK = 8  # candidates beyond k, so that ties are settled by the row number


class Server(ABC):
    """A server that holds named collections of (row number, key), as an engine's client speaks to it.

    Every call ends, by an ``EngineError`` where it takes longer than the caller said, or the server refuses. Threads
    share one. Keys are float32 (m, d), row numbers int64 (m,).
    """

    most: ClassVar[int]  # rows that one search gives
    identity: Hashable  # the same for connections to the same place

    @abstractmethod
    def create(self, name: str, dim: int) -> None:
        """An empty collection."""

    @abstractmethod
    def put(self, name: str, rows: np.ndarray, keys: np.ndarray, new: bool) -> None:
        """Keep these keys, in place of those that the rows had; `new`: they had none."""

    @abstractmethod
    def prepare(self, name: str, params: dict[str, Any]) -> None:
        """Make a collection that was filled ready to be searched; again is no error."""

    @abstractmethod
    def remove(self, name: str, rows: np.ndarray) -> None:
        """Keep these rows no more; one that is not there is no error."""

    @abstractmethod
    def count(self, name: str, below: int) -> int:
        """How many rows there are before `below`: after all that was put and removed, as searches then see it."""

    @abstractmethod
    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Which of the rows `first` … `last` - 1 there are."""

    @abstractmethod
    def keys(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The keys of `rows`."""

    @abstractmethod
    def nearest(
        self, name: str, queries: np.ndarray, count: int, wide: int, below: int | None, params: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (q, c) and squared distances float32 (q, c), the nearest first, then -1: up to `count` of a search that
        looks at `wide` candidates, of all rows or of those before `below`."""

    @abstractmethod
    def tag(self, name: str, tag: str) -> None:
        """Give a collection another name."""

    @abstractmethod
    def untag(self, tag: str) -> None:
        """Take that name away."""

    @abstractmethod
    def tagged(self, tag: str) -> str | None:
        """The collection of that other name."""

    @abstractmethod
    def tags(self, name: str) -> list[str]:
        """A collection's other names."""

    @abstractmethod
    def collections(self) -> list[str]:
        """The names of all collections that there are, whoever made them."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove a collection, and its other names; none is no error."""


class Collection:
    """One collection of a server, as all indexes of this process share it.

    One that no folder names goes when the last index here does.
    """

    def __init__(self, server: Server, name: str, kept: bool):
        self.server, self.name, self.kept = server, name, True
        self._end: weakref.finalize[[Server, str, int], Self] | None = None
        self.keep(kept)

    @classmethod
    def of(cls, server: Server, name: str, kept: bool = True) -> Self:
        """The one of that name, once in this process."""
        key = (server.identity, name)
        found = _COLLECTIONS.get(key)
        if not isinstance(found, cls):
            found = _COLLECTIONS[key] = cls(server, name, kept)
        return found

    def keep(self, kept: bool) -> None:
        """Whether a folder names it."""
        if self._end is not None:
            self._end.detach()
            self._end = None
        self.kept = kept
        if not kept:
            self._end = weakref.finalize(self, _drop, self.server, self.name, os.getpid())

    def __reduce__(self) -> Any:  # whoever unpickles it has no say in how long it lives
        return Collection.of, (self.server, self.name)


_COLLECTIONS: weakref.WeakValueDictionary[Hashable, Collection] = weakref.WeakValueDictionary()


def end_unsaved(identity: Hashable, answers: bool) -> None:
    """This process ends: remove the collections of a server that no folder names; one that ends, too, answers not."""
    for collection in list(_COLLECTIONS.values()):
        if collection.server.identity == identity and not collection.kept:
            collection.keep(True)
            answers = answers and _drop(collection.server, collection.name, os.getpid())


def _drop(server: Server, name: str, owner: int) -> bool:
    """Remove a collection of the process `owner`; False where the server does not answer."""
    if os.getpid() != owner:  # which forked this one
        return True
    try:
        server.drop(name)
    except EngineError as error:
        log.warning("collection %s is not needed any more, and could not be removed: %s", name, error)
        return False
    return True


class User:
    """An index, and those that edits make of it; not its copies."""


class Here(NamedTuple):
    """Rows that are searched here: int64 (m,) ascending, keys float32 (m, d); which of them the server lacks."""

    rows: Tensor
    keys: Tensor
    unsent: Tensor

    def plus(self, rows: Tensor, keys: Tensor) -> Here:
        """With more rows that the server lacks, in place of those with the same numbers."""
        stay = ~torch.isin(self.rows, rows)
        all = torch.cat([self.rows[stay], rows])
        order = all.argsort()
        unsent = torch.cat([self.unsent[stay], torch.ones_like(rows, dtype=torch.bool)])
        return Here(all[order], torch.cat([self.keys[stay], keys.float()])[order], unsent[order])


class RemoteIndex(Index):
    """An index whose rows lie on a `server`, in a collection whose name begins with `collection`.

    An adapter is a subclass with a `Server` of its own; both together are what another engine needs.
    """

    needs_keys = False

    def __init__(self, dim: int, device: torch.device | str, server: Server, collection: str, **params: Any):
        super().__init__(dim, device, **params)
        self.server, self.collection = server, collection
        self._there: Collection | None = None
        self._former: tuple[str, ...] = ()  # collections of the folder's that are to go
        self._n = 0
        self._alone()
        self._to_remove = torch.empty(0, dtype=torch.int64, device=self.device)
        self._here = self._nothing()

    @property
    def n(self) -> int:
        return self._n

    @property
    def place(self) -> str | None:
        """The name of its collection on the server; None before it is built."""
        return None if self._there is None else self._there.name

    def fresh(self, device: torch.device | str | None = None) -> Index:
        fresh, where = self.draft(), self.device if device is None else device
        RemoteIndex.__init__(fresh, self.dim, where, self.server, self.collection, **self.params)
        return fresh

    def drop(self) -> None:
        """Remove its collection from the server, for good: whoever searches it gets an ``EngineError``."""
        if self._there is not None:
            self._there.keep(True)  # not a second time
            self.server.drop(self._there.name)
            self._there = None

    # --- rows -------------------------------------------------------------------------------------------------

    def _build(self, keys: Rows) -> None:
        self._there = self._filled((torch.arange(len(keys))[part], keys[part]) for part in self._parts(len(keys)))
        self._alone()
        self._n, self._here, self._to_remove = len(keys), self._nothing(), self._to_remove[:0]

    def _build_chunked(self, keys: Any) -> None:
        self._build(keys)

    def _filled(self, parts: Any) -> Collection:
        """A new collection of these rows and keys."""
        name, rows_put = f"{self.collection}_{uuid.uuid4().hex[:12]}", 0
        self.server.create(name, self.dim)
        there = Collection.of(self.server, name, kept=False)  # which goes again if anything fails here
        for rows, keys in parts:
            self.server.put(name, rows.cpu().numpy(), _numbers(keys), new=True)
            rows_put += len(rows)
        self.server.prepare(name, self.params)
        found = self.server.count(name, below=2**62)
        if found < rows_put:
            raise EngineError(f"{rows_put} rows were put into collection {name}, and {found} are there")
        return there

    def _parts(self, n: int) -> Any:
        return blocks(n, self.dim, _AT_ONCE)

    def _add(self, keys: Tensor) -> None:
        rows = torch.arange(self._n, self._n + len(keys), device=self.device)
        self._here = self._here.plus(rows, keys)
        self._n += len(keys)

    def _forget(self, rows: Tensor) -> None:
        self._to_remove = torch.cat([self._to_remove, rows]).unique()

    def _restore(self, keys: Rows | None) -> bool:
        return False  # `settle` does

    def settle(self, remembered: Tensor, keys: Rows | None = None) -> None:
        known = torch.zeros(self._n, dtype=torch.bool, device=self.device)
        known[: len(self._forgotten)] = self._forgotten[: self._n]
        super().settle(remembered, keys)
        back = (known & ~self._forgotten).nonzero()[:, 0]
        self._to_remove = self._to_remove[~torch.isin(self._to_remove, back)]
        if keys is not None and len(back):
            self._here = self._here.plus(back, keys[back])  # the server may have removed them

    def _nothing(self) -> Here:
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        return Here(none, torch.empty((0, self.dim), device=self.device), none.bool())

    # --- search -----------------------------------------------------------------------------------------------

    def _search(self, queries: Tensor, k: int, keys: Rows | None) -> Nearest:
        most = self.server.most - _SLACK
        if k > most:
            if keys is None:
                raise ParameterError(f"k={k}; index {self.name!r} without the keys answers up to {most}")
            return Nearest(*scan(queries, keys, self._remembered(), k))
        count = math.ceil((k + _SLACK) * self._n / max(self._n - len(self._to_remove), 1))
        count = min(self._n, count, self.server.most)
        return self._chosen(queries, k, keys, self._propose(queries, count), count, 0)

    def _propose(self, queries: Tensor, count: int) -> Proposed:
        here, there, asked = self._here, self._there, queries.cpu().numpy()
        limit = min(count, self.server.most)
        wide = max(limit, math.ceil(limit * self.overfetch))
        if there is None or len(here.rows) == self._n:
            rows, squared = torch.empty((len(asked), 0), dtype=torch.int64), torch.empty((len(asked), 0))
        else:
            found = self.server.nearest(there.name, asked, limit, wide, None, self.params)
            if (found[0] >= self._n).any():  # of others, who are ahead of this one
                found = self.server.nearest(there.name, asked, limit, wide, self._n, self.params)
            rows, squared = torch.from_numpy(found[0]), torch.from_numpy(found[1])
        rows, squared = rows.to(self.device), squared.to(self.device)
        if not len(here.rows):
            return rows, squared
        twice = torch.isin(rows, here.rows) | (rows < 0)
        own = torch.arange(len(here.rows), device=self.device).expand(len(asked), -1)
        rows = torch.cat([rows.masked_fill(twice, -1), here.rows.expand(len(asked), -1)], dim=1)
        near = squared_distances(queries, here.keys, own)
        squared = torch.cat([squared.masked_fill(twice, torch.inf), near], dim=1)
        squared, order = squared.topk(min(count, rows.shape[1]), largest=False)
        return rows.gather(1, order), squared

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        here, found = self._here, np.empty((len(rows), self.dim), np.float32)
        known = here.rows.cpu().numpy()
        at = np.searchsorted(known, rows).clip(max=max(len(known) - 1, 0))
        own = known[at] == rows if len(known) else np.zeros(len(rows), bool)
        found[own] = here.keys.cpu().numpy()[at[own]]
        if (~own).any() and self._there is not None:
            found[~own] = self.server.keys(self._there.name, rows[~own])
        return found

    def _nbytes(self, keys: Rows | None) -> int:
        return sum(part.nbytes for part in (*self._here, self._to_remove))

    # --- in step with a folder --------------------------------------------------------------------------------

    def draft(self) -> Self:
        """What an edit changes in place of this index; it is the same one to the server."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._forgotten = self._forgotten.clone() if self._n_forgotten else self._forgotten
        return other

    def hold(self, generation: str, before: str | None, keys: Rows | None) -> None:
        """Have all on the server that a folder will remember as this `generation`; it has `before` still.

        A collection that was saved to another folder, or has been saved over by others since, is left as it is: all
        goes into a new one.
        """
        there = self._there
        old = None if before is None else self.server.tagged(self._tag(before))
        if there is None or (there.kept and old != there.name):
            there = self._apart(keys)
        if old is not None and old != there.name:
            self._former = (*self._former, old)
        self._send(there)
        self.server.tag(there.name, self._tag(generation))

    def held(self, generation: str, keys: Rows | None) -> None:
        """The folder has this `generation` now: what it does not remember goes on the server, too, but where it keeps
        no keys to put there again."""
        there = self._there
        if there is None:
            return
        there.keep(True)
        try:
            for old in self._former:
                local = _COLLECTIONS.get((self.server.identity, old))
                if local is None:
                    self.server.drop(old)
                    self._former = tuple(name for name in self._former if name != old)
                else:
                    local.keep(False)  # with its last copy here, or with the next save
            for tag in self.server.tags(there.name):
                if tag != self._tag(generation):
                    self.server.untag(tag)
            if keys is not None and len(self._to_remove) and len(self._users) < 2:  # copies may remember them
                self.server.remove(there.name, self._to_remove.cpu().numpy())
                self._to_remove = self._to_remove[:0]
        except EngineError as error:
            warn(f"the memory is saved, and what it forgot is still on the server until it is saved again: {error}")

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | ({"former": list(self._former)} if self._former else {})

    def attach(self, generation: str, n: int, forgotten: Tensor, keys: Rows | None, former: Sequence[str] = ()) -> bool:
        """Be the index of `n` rows that a folder's `generation` has on the server; False where there is none.

        What the server lost of them is searched here, and put there by the next save. Collections that were the
        folder's in `former` generations are removed then, if they are there still.
        """
        name = self.server.tagged(self._tag(generation))
        if name is None:
            return False
        self.server.prepare(name, self.params)
        self._there, self._n = Collection.of(self.server, name), n
        own = re.compile(re.escape(self.collection) + r"_\w+", re.ASCII)  # whatever the folder says
        self._former = tuple(one for one in former if own.fullmatch(one) and one != name)
        self._alone()
        self._remember_all(n)
        super().forget(forgotten)
        self._to_remove = self._to_remove[:0]
        there = self.server.count(name, below=n)
        if keys is None and there == n:  # none was removed
            self._to_remove = forgotten
        elif there != n - self._n_forgotten:
            self._compare(name, keys)
        return True

    def _compare(self, name: str, keys: Rows | None) -> None:
        there = np.zeros(self._n, bool)
        for part in blocks(self._n, 1, _LISTED):
            there[self.server.rows(name, part.start, min(part.stop, self._n))] = True
        found = torch.from_numpy(there).to(self.device)
        lost = (~found & ~self._forgotten).nonzero()[:, 0]
        self._to_remove = (found & self._forgotten).nonzero()[:, 0]
        if not len(lost):
            return
        if keys is None:
            raise MemoryFileError(
                f"collection {name} lacks {len(lost)} of {self._n} rows, such as {lost[:5].tolist()}, and the folder "
                "keeps no keys to put them there again: restore the server's data"
            )
        warn(f"collection {name} lacks {len(lost)} of {self._n} rows: they are searched here until the next save")
        self._here = self._here.plus(lost, keys[lost])

    def _apart(self, keys: Rows | None) -> Collection:
        """All rows, or those that are remembered, where `keys` says the others', in a collection of its own."""
        rows = torch.arange(self._n, device=self.device) if keys is None else self._remembered()
        parts = (rows[part] for part in self._parts(len(rows)))
        there = self._filled((part, self.decode(part) if keys is None else keys[part]) for part in parts)
        self._alone()
        self._there, self._here, self._to_remove = there, self._nothing(), self._to_remove[:0]
        return there

    def _send(self, there: Collection) -> None:
        here = self._here
        chosen = here.unsent.nonzero()[:, 0]
        for part in self._parts(len(chosen)):
            at = chosen[part]
            self.server.put(there.name, here.rows[at].cpu().numpy(), _numbers(here.keys[at]), new=False)
        if len(here.rows) <= _FEW:
            self._here = here._replace(unsent=torch.zeros_like(here.unsent))
        else:
            self.server.count(there.name, below=self._n)  # from now on every search sees them
            self._here = self._nothing()

    def _tag(self, generation: str) -> str:
        return f"{self.collection}_{generation}"

    # --- copies -----------------------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: object) -> Self:
        other = self.draft()
        other._user = User()
        other._users.add(other._user)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_user", "_users")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._alone()

    def _alone(self) -> None:
        """Share the collection with no copy."""
        self._user = User()
        self._users = weakref.WeakSet([self._user])


def _numbers(keys: Tensor) -> np.ndarray:
    return keys.float().cpu().numpy()
