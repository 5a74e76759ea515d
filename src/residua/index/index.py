"""What every index promises, and all of it that engines share; an engine is one subclass and one registration."""

from __future__ import annotations

import math
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from residua.core import ChunkedTensor, Neighbours, Registry, Rows
from residua.errors import MemoryFileError, NonFiniteError, ParameterError, ShapeError, StorageError
from residua.index.nearest import Nearest, blocks, missing, nearest_among, ordered, scan, squared_distances
from residua.index.recall import Recall, measure_recall
from residua.index.recipes import RECIPES
from residua.index.trust import sign
from residua.native import Reading

Proposed: TypeAlias = tuple[np.ndarray | torch.Tensor, np.ndarray | torch.Tensor | None]  # rows, squared distances
I = TypeVar("I", bound="Index")  # noqa: E741

_AT_ONCE = 2**22  # candidates of a block of queries


class Index(ABC):
    """Nearest neighbours over the rows of a key table that somebody else owns.

    Rows are numbered in the order they were built and added, and keep their numbers when others are forgotten.
    Whatever the engine, distances are recomputed from the stored keys; some engines can also answer without them.

    **A new engine** is a subclass that has ``n``, ``_build(keys)``, ``_add(keys)`` and ``_propose(queries, count)``,
    decorated with ``@register_index("its name")``. Its candidates may be wrong or forgotten: what is asked for is
    checked, what comes back is ordered by exact distances, here. Several threads search at once, while nothing else
    happens: `_propose` changes nothing that another one reads. With ``_save(path)`` and ``_load(path)`` it is kept in
    a memory's folder; without, it is built anew from the keys. With ``_decode(rows)`` its codes say what the keys were,
    so that a memory may recompute logits from them. Its constructor takes ``(dim, device, **params)`` and
    passes them on: how many dimensions, where keys, queries and answers live, and what else makes such an index, in
    JSON types or None. ``residua.testing.check_index`` tells whether it keeps the promises.

    Attributes
    ----------
    engine, name : str
        What it is registered as; and what users call it: that, or the FAISS factory string.
    exact, needs_keys : bool
        Whether the answer is always the true one; whether there is none without the keys.
    overfetch : float
        Candidates fetched per neighbour wanted, at least 1, before exact distances order them.
    rerank : bool or int
        How many of a query's candidates get exact distances, the nearest by the engine's first: all, none, or a
        number. The others keep the engine's distances, moved by the mean error of those that were computed.
    recall : Recall or None
        What `build` measured, for an index that is not exact.
    """

    engine: str
    name: str
    dim: int
    device: torch.device
    params: dict[str, Any]
    exact: bool = False
    needs_keys: bool = True
    overfetch: float = 4
    rerank: bool | int = True
    recall: Recall | None = None

    def __init__(self, dim: int, device: torch.device | str = "cpu", **params: Any):
        self.dim, self.device = dim, torch.device(device)
        self.params = {name: value for name, value in params.items() if value is not None}
        self.name = getattr(self, "engine", type(self).__name__)
        self._file: str | None = None
        self._mac: str | None = None  # whose file it is
        self._remember_all(0)

    def fresh(self, device: torch.device | str | None = None) -> Index:
        """An empty index of the same kind, on `device` or the same one."""
        fresh = type(self)(self.dim, self.device if device is None else device, **self.params)
        return fresh.tuned(self.overfetch, self.rerank)

    def tuned(self, overfetch: float, rerank: bool | int) -> Index:
        """This index, with its `overfetch` and `rerank` checked and set."""
        if not overfetch >= 1:
            raise ParameterError(f"overfetch={overfetch}; expected at least 1 candidate per neighbour")
        if rerank < 0 or rerank != int(rerank):
            raise ParameterError(f"rerank={rerank}; expected True (all), False (none) or how many candidates")
        self.overfetch, self.rerank = overfetch, rerank if isinstance(rerank, bool) else int(rerank)
        return self

    def build(self, keys: Rows) -> None:
        """Index the rows of `keys`, (n, d) in float32, float16 or bfloat16, in place of what was indexed before."""
        keys = self._checked(keys, "keys")
        if isinstance(keys, ChunkedTensor):
            self._build_chunked(keys)
        else:
            self._build(keys)
        self._remember_all(len(keys))
        self.recall = None if self.exact else measure_recall(self, keys)

    def add(self, keys: Tensor) -> None:
        """Append the rows of `keys`, (m, d) of the same dtypes, as rows n ... n+m-1."""
        keys = self._checked(keys, "keys")
        if len(keys):
            n, known = self.n + len(keys), self._forgotten  # before the engine has them: it may be interrupted
            if self._n_forgotten:
                self._forgotten = torch.cat([known, known.new_zeros(max(n - len(known), 0))])
            else:
                self._remember_all(n)
            self._add(keys)

    def forget(self, rows: Tensor) -> None:
        """Never return `rows` (int64 row numbers) again. Forgetting one twice is no error."""
        rows = self._existing(rows, "forget")
        if len(rows):
            self._forgotten = self._forgotten.contiguous()
            self._forgotten[rows] = True
            self._n_forgotten = int(self._forgotten.sum())
            self._forget(rows)

    def restore(self, rows: Tensor, keys: Rows | None = None) -> None:
        """Return forgotten `rows` again, as if they had never been forgotten. One that was not is no error.

        `keys` are those of all rows, as for `search`: an engine that itself drops what is forgotten is built anew from
        them (``StorageError`` where they were not kept).
        """
        rows = self._existing(rows, "restore")
        remembered = ~self._forgotten
        remembered[rows] = True
        self.settle(remembered, keys)

    def settle(self, remembered: Tensor, keys: Rows | None = None) -> None:
        """Forget all rows but those of `remembered`, bool (m,); those from m on too, which the exact index drops.

        So an index is right again after a call that was interrupted, whatever it had done. `keys` as for `restore`.
        """
        m, n = len(remembered), self.n
        if m > n:
            raise ParameterError(f"{m} rows to settle; the index has {n} rows")
        forgotten = torch.ones(n, dtype=torch.bool, device=self.device)
        forgotten[:m] = ~remembered
        known = torch.zeros_like(forgotten)  # what the engine may have dropped
        known[: len(self._forgotten)] = self._forgotten[:n]
        if bool((known & ~forgotten).any()) and self._restore(keys):
            forgotten, known = forgotten[: self.n], known[: self.n].zero_()
        self._forgotten, self._n_forgotten = forgotten, int(forgotten.sum())
        if not self._n_forgotten:
            self._remember_all(len(forgotten))
        self._forget((forgotten & ~known).nonzero()[:, 0])

    def search(self, queries: Tensor, k: int, keys: Rows | None) -> Neighbours:
        """The `k` nearest rows of each of `queries`, float32 (q, d), ordered by (squared distance, row).

        Row -1 at distance inf fills up where fewer rows are left. `keys` are all rows, (n, d) in float32, float16 or
        bfloat16, forgotten ones included; None where they were not kept: distances are then to the compressed keys.
        """
        if k < 0:
            raise ParameterError(f"k={k} neighbours asked for; expected 0 or more")
        queries = self._checked(queries, "queries")
        n, q = self.n, queries.shape[0]
        if keys is None:
            if self.needs_keys:
                why = f"index {self.name!r} computes distances from the keys, and they are not kept"
                raise StorageError(f'{why}; use a trained index such as "knnlm"')
        elif (rows := keys.shape[0]) < n or keys.shape[1:] != (self.dim,):
            raise ShapeError(f"keys have shape {tuple(keys.shape)}; this index covers ({n}, {self.dim})")
        elif rows > n:
            keys = keys.first(n) if isinstance(keys, ChunkedTensor) else keys[:n]
        remembered = n - self._n_forgotten
        wanted = min(k, remembered)
        if not wanted:
            return missing(q, k, self.device).neighbours()
        each = int(wanted * self.overfetch * n / remembered) + 8
        if wanted == k and 0 < q * each <= _AT_ONCE:
            return self._search(queries, k, keys).neighbours()
        found = missing(q, k, self.device)
        for part in blocks(q, each, _AT_ONCE):
            found.rows[part, :wanted], found.squared[part, :wanted] = self._search(queries[part], wanted, keys)
        return found.neighbours()

    def read_at_once(
        self, reading: Reading, queries: Tensor, centre: Tensor | None, keys: Rows | None, logits: Tensor
    ) -> Tensor | None:
        """What `reading` makes of the logits (q, L) of a few queries, float32 (q, d) less `centre`, float64 (d,): what
        it would of ``search``, where native kernels find all neighbours at little cost; None: that has to be asked.
        """
        return None

    def decode(self, rows: Tensor) -> Tensor:
        """The keys of `rows` (int64 row numbers) as this index holds them, float32 (m, d): what its codes say.

        ``StorageError`` where its codes do not say it, or it has none.
        """
        rows = torch.as_tensor(rows, dtype=torch.int64).reshape(-1).cpu()
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.n:
            raise ParameterError(f"rows {int(rows.min())} ... {int(rows.max())} to decode; the index has {self.n} rows")
        if not len(rows):
            return torch.empty((0, self.dim), device=self.device)
        return torch.from_numpy(self._decode(rows.numpy())).to(self.device)

    def nbytes(self, keys: Rows | None) -> int:
        """Bytes of RAM that searches among `keys` take beside them, once one was made."""
        # Flags that are all alike take one byte.
        flags = self._forgotten.nbytes if self._forgotten.stride(0) else self._forgotten[:1].nbytes
        return flags + self._nbytes(keys)

    def save(self, folder: Path, stem: str) -> list[str]:
        """Write what cannot be built again from the keys, as ``<stem>.<engine>``; the names of the files written."""
        engine, self._file = self._registered(), None
        if type(self)._save is Index._save:
            return []
        path = Path(folder) / f"{stem}.{engine}"
        with errors_as(MemoryFileError, f"cannot write {path}"):
            self._save(path)
        self._file = path.name
        self._mac = sign(path, self.to_json())
        return [self._file]

    def read(self, folder: Path, file: str, n: int, mac: str | None = None) -> None:
        """Take back what `save` wrote into `folder`, over `n` rows; which were forgotten it does not know.

        `mac` is the file's signature, which was found right; without, the caller trusts the file, and it is signed.
        """
        path = Path(folder) / Path(file).name  # nothing outside the folder
        with errors_as(MemoryFileError, f"{path} is missing, torn or not an index of engine {self.engine!r}"):
            self._load(path)
        if self.n != n:
            why = f"{path} indexes {self.n} keys; the memory beside it has {n}"
            raise MemoryFileError(f"{why}. The folder mixes two saves: rebuild it")
        self._file, self._mac = path.name, mac or sign(path, self.to_json())
        self._remember_all(n)

    def to_json(self) -> dict[str, Any]:
        """Everything beside the file that `load_index` needs, in JSON types."""
        said = {name: getattr(self, name) for name in ("name", "dim", "params", "overfetch", "rerank")}
        said |= {"file": self._file, "mac": self._mac, "recall": self.recall and self.recall.to_json()}
        # The module is for people: nothing is imported because a folder says so.
        return {"engine": self._registered(), "module": type(self).__module__, **said}

    def __copy__(self) -> Self:
        return deepcopy(self)  # rows that one forgets, the other keeps

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if type(self)._save is Index._save:
            return super().__reduce_ex__(protocol)
        beside = {name: vars(self)[name] for name in _BESIDE if name in vars(self)}
        return _copied, (type(self), self.dim, self.device, self.params, self._to_bytes(), beside)

    def __getstate__(self) -> dict[str, Any]:
        for name, value in vars(self).items():
            try:
                if not isinstance(value, Tensor):
                    pickle.dumps(value)
            except Exception as error:  # whatever a class of somebody else's raises
                why = f"index {self.name!r} cannot be copied or pickled, for its {name!r} cannot: {error}"
                raise StorageError(f"{why}; give its class _save and _load, or __getstate__") from error
        return vars(self).copy()

    def _to_bytes(self) -> bytes:
        """What `_save` writes."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            self._save(path)
            return path.read_bytes()

    def _from_bytes(self, data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            path.write_bytes(data)
            self._load(path)

    @property
    @abstractmethod
    def n(self) -> int:
        """How many rows were ever indexed, forgotten ones included; 0 before the first `build`."""

    @abstractmethod
    def _build(self, keys: Tensor) -> None:
        """Index `keys` (n, d), finite, in float32, float16 or bfloat16, instead of what there was."""

    def _build_chunked(self, keys: ChunkedTensor) -> None:
        """`_build` for keys that lie in files: of an engine that can do without a copy of them all."""
        self._build(keys[:])

    @abstractmethod
    def _add(self, keys: Tensor) -> None:
        """Index `keys` as the next rows."""

    def _propose(self, queries: Tensor, count: int) -> Proposed:
        """Candidates for the nearest rows of each of `queries` (q, d), float32 on this index's device.

        A pair of tensors or arrays (q, `count`): int64 rows, the nearest first, with -1 at the end where there are
        fewer (forgotten rows may be among them); and their float32 squared distances as the engine knows them, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither _propose nor a _search of its own")

    def _propose_further(self, queries: Tensor, count: int, attempt: int) -> Proposed | None:
        """The same with more effort, the `attempt`-th time (from 1), for queries that got too few; None gives up."""
        return None

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        """Keys float32 (m, d) of `rows` int64 (m,), as far as they are known without the keys themselves."""
        raise StorageError(f"index {self.name!r} cannot say what keys its codes are of")

    def _nbytes(self, keys: Rows | None) -> int:
        """Bytes of RAM beside the keys: by default those of all arrays that are attributes."""
        held = (value for name, value in vars(self).items() if name != "_forgotten")
        return sum(value.nbytes for value in held if isinstance(value, (Tensor, np.ndarray)))

    def _forget(self, rows: Tensor) -> None:  # noqa: B027 (an engine may)
        """Drop `rows`, which will be left out of every answer anyway."""

    def _restore(self, keys: Rows | None) -> bool:
        """Find again what `_forget` dropped; whether all rows are there anew, those that stay forgotten too."""
        if type(self)._forget is Index._forget:
            return False
        if keys is None:
            why = f"index {self.name!r} dropped what was forgotten and is built anew from the keys, which are not kept"
            raise StorageError(f"{why}; add the rows again, or give its class a _restore of its own")
        self._build(keys[: self.n])
        return True

    def _save(self, path: Path) -> None:  # noqa: B027
        """Write the file `path`."""

    def _load(self, path: Path) -> None:  # noqa: B027
        """Read what `_save` wrote."""

    def _search(self, queries: Tensor, k: int, keys: Rows | None) -> Nearest:
        """The `k` nearest remembered rows, of which there are as many, of each query."""
        # A candidate beyond the first k is worth fetching only for its exact distance.
        depth = 0 if keys is None or not self.rerank else math.inf if self.rerank is True else self.rerank
        n = self.n
        wanted = max(k, min(k * self.overfetch, depth)) * n / (n - self._n_forgotten)
        count = min(n, math.ceil(wanted))
        return self._chosen(queries, k, keys, self._propose(queries, count), count, 0)

    def _chosen(
        self, queries: Tensor, k: int, keys: Rows | None, proposed: Proposed, count: int, attempt: int
    ) -> Nearest:
        """The `k` nearest of the `count` candidates that were proposed, at the `attempt`-th time; among more where they
        are too few, then with more effort.
        """
        rows = torch.as_tensor(proposed[0]).to(self.device, torch.int64)
        least, most = map(int, rows.aminmax()) if rows.numel() else (-1, -1)
        if most >= self.n:
            raise ParameterError(f"index {self.name!r} proposes row {most}, and it has {self.n} rows")
        by_keys = keys if proposed[1] is None or self.rerank is True else None
        if least >= 0 and not self._n_forgotten:  # nothing is missing
            if by_keys is not None:
                return nearest_among(queries, by_keys, rows, k)
            return ordered(self._squared(queries, keys, rows, proposed[1]), rows, k)
        ended = ((rows >= 0).sum(dim=1) < count) | (count >= self.n)  # asking for more would bring nothing new
        if self._n_forgotten:
            rows = rows.masked_fill(self._forgotten[rows.clamp_min(0)], -1)
        if by_keys is not None:
            found = nearest_among(queries, by_keys, rows, k)
        else:
            found = ordered(self._squared(queries, keys, rows, proposed[1]), rows, k)
        short = found.rows[:, -1] < 0
        if short.any():
            for some, more, effort in ((short & ended, count, attempt + 1), (short & ~ended, 4 * count, attempt)):
                if not some.any():
                    continue
                asked, more = queries[some], min(self.n, more)
                again = self._propose_further(asked, more, effort) if effort else self._propose(asked, more)
                if again is not None:
                    found.rows[some], found.squared[some] = self._chosen(asked, k, keys, again, more, effort)
                elif keys is not None:
                    found.rows[some], found.squared[some] = scan(asked, keys, self._remembered(), k)
        return found

    def _squared(self, queries: Tensor, keys: Rows | None, rows: Tensor, squared: np.ndarray | Tensor | None) -> Tensor:
        """The candidates' squared distances (q, c): exact, the engine's, or the first `rerank` exact.

        Codes that lose what they lose everywhere err by nearly the same squared distance everywhere nearby: the rest
        are moved by the mean error of the further half of those computed (the nearer half was chosen for its error).
        """
        if squared is None:
            raise StorageError(f"index {self.name!r} proposes rows without their distances, and the keys are not kept")
        squared = torch.as_tensor(squared).to(self.device, torch.float32)
        if keys is not None and self.rerank:
            depth = int(self.rerank)
            exact = squared_distances(queries, keys, rows[:, :depth])
            if exact.shape[1] == rows.shape[1]:
                return exact
            error = exact[:, depth // 2 :] - squared[:, depth // 2 : depth]
            shift = error.masked_fill_(rows[:, depth // 2 : depth] < 0, torch.nan).nanmean(dim=1, keepdim=True)
            squared = torch.cat([exact, squared[:, depth:] + shift.nan_to_num_(0)], dim=1)
        return squared.clamp_min(0).masked_fill_(rows < 0, torch.inf)

    def _remember_all(self, n: int) -> None:
        self._forgotten = torch.zeros(1, dtype=torch.bool, device=self.device).expand(n)  # a byte for all of them
        self._n_forgotten = 0

    def _existing(self, rows: Tensor, verb: str) -> Tensor:
        """Row numbers once each, ascending, of rows that there are."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device=self.device).reshape(-1).unique()
        if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < self.n:
            raise ParameterError(f"rows {int(rows[0])} ... {int(rows[-1])} to {verb}; the index has {self.n} rows")
        return rows

    def _remembered(self) -> Tensor:
        return (~self._forgotten[: self.n]).nonzero()[:, 0]

    def _registered(self) -> str:
        engine = vars(type(self)).get("engine")  # not a registered parent's
        if engine is None:
            why = f"index {self.name!r} cannot be saved, for no load would find its class {type(self).__qualname__}"
            raise MemoryFileError(f'{why}; decorate the class with @register_index("a name of its own")')
        return engine

    @overload
    def _checked(self, array: Tensor, what: str) -> Tensor: ...
    @overload
    def _checked(self, array: Rows, what: str) -> Rows: ...
    def _checked(self, array: Rows, what: str) -> Rows:
        if len(array.shape) != 2 or array.shape[1] != self.dim:
            raise ShapeError(f"{what} have shape {tuple(array.shape)}; this index holds keys of shape (n, {self.dim})")
        # Half precision keys stay as they are, because all of them at once in float32 might not fit.
        halves = (torch.float16, torch.bfloat16) if what == "keys" else ()
        if isinstance(array, Tensor):
            array = array.detach().to(self.device, array.dtype if array.dtype in halves else torch.float32)
        self._check_finite(array, what)
        return array

    def _check_finite(self, array: Rows, what: str) -> None:
        parts = blocks(len(array), self.dim, 2**24) if array.shape[0] * self.dim > 2**24 else (slice(None),)
        if bad := sum(_not_finite(array[part]) for part in parts):
            raise NonFiniteError(f"{bad} of {len(array)} {what} hold NaN or infinity; remove or repair them first")

    def __repr__(self) -> str:
        measured = f", {self.recall}" if self.recall else ""
        return f"{type(self).__name__}({self.name!r}, n={self.n}, dim={self.dim}{measured})"


_BESIDE = ("name", "overfetch", "rerank", "recall", "_forgotten", "_n_forgotten", "_file", "_mac")


def _copied(
    cls: type[Index], dim: int, device: torch.device, params: dict[str, Any], data: bytes, beside: dict[str, Any]
) -> Index:
    """A copy of an index that is kept by its own `_save` and `_load`."""
    index = cls(dim, device, **params)
    index._from_bytes(data)
    vars(index).update(beside)
    return index


def _not_finite(rows: Tensor) -> int:
    """How many rows hold NaN or infinity."""
    least, most = rows.aminmax() if rows.numel() else (rows.new_zeros(()),) * 2
    if math.isfinite(least) and math.isfinite(most):  # NaN is both; many times faster than to ask for each number
        return 0
    return int((~rows.isfinite().all(dim=1)).sum())


@contextmanager
def errors_as(kind: type[Exception], what: str, words: Callable[[Exception], str] = str) -> Iterator[None]:
    """An engine's or a file's errors as `kind`, saying `what` first."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise error if isinstance(error, kind) else kind(f"{what}: {words(error)}") from error


ENGINES: Registry[type[Index]] = Registry("index engine", "@register_index")


def register_index(name: str) -> Callable[[type[I]], type[I]]:
    """Decorate a subclass of `Index` to make it known by `name`: to ``Memory(index=name)``, and to what loads one.

    ``ParameterError`` where something else is called `name`, or it is no name for a file's ending.
    """
    if name in RECIPES or not re.fullmatch(r"[\w-]+", name):
        allowed = f"use letters, digits, - and _, and not {', '.join(RECIPES)}"
        raise ParameterError(f"an index engine cannot be called {name!r}; {allowed}")

    def register(cls: type[I]) -> type[I]:
        ENGINES.register(name, cls)
        cls.engine = name
        return cls

    return register
