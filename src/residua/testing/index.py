"""The promises of an index, asked of an engine one by one."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import Neighbours
from residua.errors import MemoryFileError, NonFiniteError, ParameterError, ResiduaError, ShapeError, StorageError
from residua.index import Index, RemoteIndex, given_index, load_index

K = 10


def check_index(index: Index, *, recall: float = 0.9, n: int = 2000) -> None:
    """Hold an engine to what every index promises, on clustered keys around the origin; ``AssertionError`` says which
    promise is broken.

    Parameters
    ----------
    index : Index
        Without rows, and of a registered class; fresh ones of its kind are built.
    recall : float, default 0.9
        The least share of the 10 true nearest rows that it must find.
    n : int, default 2000
        How many keys; an engine that learns may need more.

    Examples
    --------
    >>> from residua.index import Exact
    >>> check_index(Exact(dim=4))
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a low recall is for `recall` to judge
        check = _Check(index, recall, n)
        check.starts_empty()
        check.finds_the_nearest()
        check.answers_any_k()
        check.forgets()
        check.restores()
        check.grows()
        check.comes_back_from_a_folder()
        check.is_copied()
        check.answers_threads()
        check.answers_without_keys()
        check.refuses_bad_input()


class _Check:
    def __init__(self, index: Index, recall: float, n: int):
        self.index, self.recall = index, recall
        rng = np.random.default_rng(0)
        rank = (index.dim + 1) // 2  # keys of a network fill few of their dimensions
        centres, spread = 3 * rng.normal(size=(20, index.dim)), rng.normal(size=(rank, index.dim)) / rank**0.5
        draw = lambda count: centres[rng.integers(20, size=count)] + rng.normal(size=(count, rank)) @ spread  # noqa: E731
        keys = draw(n)
        keys[n // 2 : n // 2 + 60] = keys[:60]  # twins, whose order only the row number settles
        self.keys, self.more, self.queries = (
            torch.from_numpy(points.astype(np.float32)).to(index.device) for points in (keys, draw(50), draw(64))
        )
        self.queries[:20] = self.keys[:20]
        self.both = torch.cat([self.keys, self.more])

    def starts_empty(self) -> None:
        fresh = self.index.fresh()
        self.require(self.index.n == 0, f"n is 0 before anything is built, not {self.index.n}")
        promise = "the constructor takes (dim, device, **params) and hands all its params on to Index.__init__"
        self.require(type(fresh) is type(self.index) and fresh.params == self.index.params, promise)
        same = json.loads(json.dumps(fresh.params, default=repr)) == fresh.params
        self.require(same, f"params are of JSON types, unlike {fresh.params}")

    def finds_the_nearest(self) -> None:
        index, half = self.built(), self.keys[::2].contiguous()
        self.require(index.n == len(self.keys), f"n is {len(self.keys)} after build, not {index.n}")
        self.check(index, self.keys)
        first, second, other = (some.search(self.queries, K, self.keys) for some in (index, index, self.built()))
        self.same(first, second, "two searches answer the same")
        self.same(first, other, "two builds of the same keys answer the same")
        self.require(index.exact or index.recall is not None, "build measures the recall of an index that is not exact")
        index.build(half)
        self.require(index.n == len(half), "a second build replaces the first")
        self.check(index, half)
        index = self.index.fresh()
        index.build(self.keys.half())
        self.check(index, self.keys.half())

    def answers_any_k(self) -> None:
        index, n = self.built(), len(self.keys)
        found = index.search(self.queries[:3], n + 5, self.keys)
        rows = found.rows.sort(dim=1).values
        self.require(bool((rows[:, 5:] == torch.arange(n, device=rows.device)).all()), "k > n finds every row")
        self.require(bool((found.rows[:, n:] == -1).all()), "k > n leaves row -1 where there are no more")
        self.require(bool(found.distances[:, n:].isinf().all()), "a missing row is at distance inf")
        for queries, k in ((self.queries, 0), (self.queries[:0], 4)):
            shape = index.search(queries, k, self.keys).rows.shape
            self.require(shape == (len(queries), k), f"{len(queries)} queries for k={k} answer {tuple(shape)}")

    def forgets(self) -> None:
        index, n = self.built(), len(self.keys)
        gone = index.search(self.queries, 2, self.keys).rows.unique()
        index.forget(gone)
        index.forget(gone[:1])  # no error
        self.require(index.n == n, "forgotten rows keep their numbers: n counts them")
        self.check(index, self.keys, gone)
        few = torch.tensor([1, n // 3, n - 1], device=self.keys.device)
        rows, index = torch.arange(n, device=self.keys.device), self.built()
        index.forget(rows[~torch.isin(rows, few)])
        found = index.search(self.queries, 5, self.keys).rows.sort(dim=1).values
        self.require(bool((found[:, 2:] == few).all()), "the last three remembered rows are found by every query")

    def restores(self) -> None:
        index, gone = self.built(), torch.arange(0, len(self.keys), 3, device=self.keys.device)
        before = index.search(self.queries, K, self.keys)
        index.forget(gone)
        index.search(self.queries, K, self.keys)
        index.restore(gone, self.keys)
        after = index.search(self.queries, K, self.keys)
        self.same(before, after, "an index answers with restored rows as if they had never been forgotten")
        index.forget(gone[::2])
        index.restore(gone[:1], self.keys)
        self.check(index, self.keys, gone[2::2])
        remembered = torch.ones(len(self.keys), dtype=torch.bool, device=self.keys.device)
        remembered[gone] = False
        index.add(self.more)  # as if it had been interrupted
        index.settle(remembered, self.both)
        self.check(index, self.both, torch.cat([gone.cpu(), torch.arange(len(self.keys), len(self.both))]))

    def grows(self) -> None:
        index, both = self.built(), self.both
        index.forget(torch.arange(5))
        index.add(self.more)
        index.add(self.more[:0])
        self.require(index.n == len(both), f"n is {len(both)} after add, not {index.n}")
        own = torch.arange(len(self.keys), len(both), device=both.device)
        hit = float((index.search(self.more, K, both).rows == own[:, None]).any(dim=1).float().mean())
        self.require(hit >= self.recall, f"added keys find themselves as the next rows ({hit:.2f} do)")
        self.check(index, both, torch.arange(5))
        index.forget(own)
        self.check(index, both, torch.cat([torch.arange(5), own.cpu()]))

    def comes_back_from_a_folder(self) -> None:
        index, gone, both = self.built(), torch.arange(0, len(self.keys), 3), self.both
        index.add(self.more)
        index.forget(gone)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            files = index.save(folder, "index-7")
            there = sorted(path.name for path in folder.iterdir())
            self.require(sorted(files) == there, f"save names the files it wrote: {files}, and there are {there}")
            said = json.loads(json.dumps(index.to_json()))
            if isinstance(index, RemoteIndex):
                return self.comes_back_from_a_server(index, said, gone)
            load = lambda keys: load_index(said, folder, keys, gone, device=keys.device, trust=True)  # noqa: E731
            again = load(both)
            self.require(type(again) is type(index), "load_index makes an index of the class that was saved")
            self.require(again.n == len(both), f"n is {len(both)} after loading, not {again.n}")
            if files:
                one, other = (some.search(self.queries, K, both) for some in (index, again))
                self.same(one, other, "a loaded index answers as the saved one")
                self.refuses(MemoryFileError, "keys of another length than were saved", load, both[:-1])
                for file in files:
                    (folder / file).write_bytes(b"torn")
                self.refuses(MemoryFileError, "a torn file", load, both)
            again.add(self.more)
            self.check(again, torch.cat([both, self.more]), gone)

    def comes_back_from_a_server(self, index: RemoteIndex, said: dict[str, Any], gone: Tensor) -> None:
        """As a folder's first generation, after one that is not in step, and as the next."""
        both, first, second = self.both, uuid.uuid4().hex, uuid.uuid4().hex
        before = index.search(self.queries, K, both)
        self.require(not self.attached(said, first, gone).n, "what was not saved is not found as a generation")
        index.hold(first, None, both)
        try:
            again = self.attached(said, first, gone)
            self.require(
                again.n == len(both), f"n is {len(both)} when it is attached before the manifest, not {again.n}"
            )
            self.same(before, again.search(self.queries, K, both), "an index that is attached answers as the saved one")
            index.held(first, both)
            again = self.attached(said, first, gone)
            assert isinstance(again, RemoteIndex)
            self.same(before, again.search(self.queries, K, both), "so it does when forgotten rows are off the server")
            back = gone[:20]
            again.restore(back, both)
            again.add(self.more)
            more, away = torch.cat([both, self.more]), gone[20:]
            self.check(again, more, away)
            again.hold(second, first, more)
            again.held(second, more)
            self.require(not self.attached(said, first, gone).n, "an earlier generation is not found")
            third = self.attached(said, second, away, more)
            self.check(third, more, away)
            self.same(
                again.search(self.queries, K, more),
                third.search(self.queries, K, more),
                "rows that were restored and added are on the server after a save",
            )
        finally:
            index.drop()

    def attached(self, said: dict[str, Any], generation: str, gone: Tensor, keys: Tensor | None = None) -> Index:
        keys = self.both if keys is None else keys
        shape: dict[str, Any] = {"n": len(keys), "dim": keys.shape[1], "device": keys.device}
        return given_index(self.index, said, generation, keys, gone.to(keys.device), **shape)[0]

    def is_copied(self) -> None:
        index, gone = self.built(), torch.arange(0, len(self.keys), 3, device=self.keys.device)
        index.forget(gone)
        before, cls = index.search(self.queries, K, self.keys), type(index)
        copies = [copy.copy(index), copy.deepcopy(index)]
        if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls:  # pickle finds no other
            copies.append(pickle.loads(pickle.dumps(index)))
        for one in copies:
            same = one.n == index.n and one.to_json() == index.to_json()
            self.require(same, "a copy has the same rows and settings")
            self.same(before, one.search(self.queries, K, self.keys), "a copy answers the same")
            one.forget(torch.arange(len(self.keys), device=self.keys.device))
            one.add(self.more)
        again = index.search(self.queries, K, self.keys)
        self.require(index.n == len(self.keys), "what is added to a copy is not added to the index")
        self.same(before, again, "an index answers as before when its copy forgets")

    def answers_threads(self) -> None:
        index = self.built()
        index.forget(torch.arange(0, len(self.keys), 2, device=self.keys.device))
        searches = [(self.queries[at::8], k, self.keys) for at, k in enumerate((1, 300, 3, 10, 40, 2, 5, 100))] * 2
        alone = [index.search(*search) for search in searches]
        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            with ThreadPoolExecutor(8) as pool:
                at_once = list(pool.map(lambda search: index.search(*search), searches))
        except Exception as error:
            raise AssertionError(f"threads that search at once disturb each other: {error!r}") from error
        finally:
            sys.setswitchinterval(usual)
        for one, other in zip(alone, at_once):
            self.same(one, other, "several threads that search at once get the answers that each gets alone")

    def answers_without_keys(self) -> None:
        index = self.built()
        if index.needs_keys:
            what = "a search without keys, which it needs"
            return self.refuses(StorageError, what, index.search, self.queries, K, None)
        index.forget(torch.arange(5))
        found = index.search(self.queries, K, None)
        self.require(bool(found.found.all() and (found.rows >= 5).all()), "a search without keys finds remembered rows")
        self.require(bool((found.distances.diff(dim=1) >= 0).all()), "distances without keys ascend")
        true = (self.queries[:, None] - self.keys[found.rows]).norm(dim=2)
        error = float((found.distances - true).abs().mean() / true.mean())
        self.require(error < 0.5, f"distances without keys are near the true ones (off by {error:.0%} on average)")

    def refuses_bad_input(self) -> None:
        index, keys, nan = self.built(), self.keys, torch.full_like(self.queries[:2], torch.nan)
        wide = torch.zeros(2, index.dim + 1)
        self.refuses(NonFiniteError, "queries with NaN", index.search, nan, 1, keys)
        self.refuses(NonFiniteError, "keys with NaN", index.add, nan)
        self.refuses(ShapeError, "queries of another width", index.search, wide, 1, keys)
        self.refuses(ShapeError, "fewer keys than rows", index.search, self.queries, 1, keys[:-1])
        self.refuses(ParameterError, "k = -1", index.search, self.queries, -1, keys)
        self.refuses(ParameterError, "a row to forget that there is not", index.forget, torch.tensor([len(keys)]))
        self.check(index, keys)  # nothing was lost

    def built(self) -> Index:
        index = self.index.fresh()
        index.build(self.keys)
        return index

    def check(self, index: Index, keys: Tensor, gone: Tensor | None = None) -> None:
        """The answer for all queries is what it says it is, and good enough, by distances in float64."""
        found = index.search(self.queries, K, keys)
        rows, distances = found.rows, found.distances
        shaped = rows.shape == distances.shape == (len(self.queries), K)
        typed = (rows.dtype, distances.dtype) == (torch.int64, torch.float32)
        self.require(shaped and typed, "an answer is int64 rows and float32 distances, both (q, k)")
        true = torch.cdist(self.queries.double(), keys.double(), compute_mode="donot_use_mm_for_euclid_dist")
        if gone is not None:
            true[:, gone.to(true.device)] = torch.inf
        self.require(bool(found.found.all()), "k neighbours are found where there are as many")
        own = true.gather(1, rows)
        self.require(bool(own.isfinite().all()), "forgotten rows are never returned")
        self.require(bool((rows.sort(dim=1).values.diff(dim=1) > 0).all()), "no row is returned twice")
        if index.rerank is True:
            close = torch.allclose(distances.double(), own, rtol=1e-5, atol=1e-6)
            self.require(close, "distances are those of the keys, not squared")
        further, equal = distances.diff(dim=1) > 0, distances.diff(dim=1) == 0
        ordered = further | ((own.diff(dim=1) != 0) & equal) | (rows.diff(dim=1) > 0)
        self.require(bool(ordered.all()), "neighbours come by distance, and equal ones by row")
        limit = true.kthvalue(K, dim=1).values[:, None] * (1 + 1e-6) + 1e-6
        share, least = float((own <= limit).double().mean()), 1.0 if index.exact else self.recall
        self.require(share >= least, f"it finds {share:.3f} of the true neighbours, and {least} are expected")

    def same(self, one: Neighbours, other: Neighbours, promise: str) -> None:
        self.require(torch.equal(one.rows, other.rows) and torch.equal(one.distances, other.distances), promise)

    def refuses(self, kind: type[ResiduaError], what: str, ask: Callable[..., object], *given: object) -> None:
        try:
            ask(*given)
        except kind:
            return
        except Exception as error:
            raise AssertionError(f"{self.index!r} answers {what} by {error!r}; {kind.__name__} is promised") from error
        raise AssertionError(f"{self.index!r} accepts {what}; {kind.__name__} is promised")

    def require(self, kept: bool, promise: str) -> None:
        if not kept:
            raise AssertionError(f"{self.index!r} breaks a promise: {promise}")
