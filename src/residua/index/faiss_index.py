"""Any FAISS index by its factory string: it proposes candidates, exact distances order them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import ChunkedTensor, Rows
from residua.errors import MemoryFileError, ParameterError, StorageError
from residua.index.index import Index, Proposed, errors_as, register_index
from residua.index.nearest import blocks, require_faiss
from residua.native import Reading, kernels


@register_index("faiss")
class FaissIndex(Index):
    """A FAISS index by its `factory` string (``"IVF512,PQ32x4fs"``, …), re-ranked, that can answer without the keys.

    FAISS works on the CPU. It learns from `train_on` rows, by default 2¹⁸ or 64 for each thing learned. `origin`,
    of length `dim`, is taken from keys and queries first: an index saved by version 0.1 has one. `params` are search
    parameters by FAISS's names (``nprobe``, ``efSearch``, …); by default 32 inverted lists are read, and the beam of a
    graph is as wide as what is fetched.
    """

    needs_keys = False

    def __init__(
        self,
        dim: int,
        device: torch.device | str,
        factory: str,
        train_on: int | None = None,
        origin: Sequence[float] | None = None,
        **params: float,
    ):
        super().__init__(dim, device, factory=factory, train_on=train_on, origin=origin, **params)
        self.name = factory
        self._origin = None if origin is None else torch.tensor(origin, dtype=torch.float32, device=self.device)
        self._one_by_one: Lock | None = None
        self._mapping = Lock()
        self._empty()

    @property
    def n(self) -> int:
        return self._index.ntotal

    def _empty(self) -> None:
        faiss = require_faiss()
        said = f"index={self.name!r} is no registered engine, and not a FAISS factory string for keys of"
        with _faiss_errors(ParameterError, f"{said} {self.dim} dimensions"):
            self._index = faiss.index_factory(self.dim, self.name)
        self._set_params(faiss)

    def _set_params(self, faiss: ModuleType) -> None:
        lists = self._lists = faiss.try_extract_index_ivf(self._index)
        wanted = {"nprobe": min(lists.nlist, 32)} if lists is not None else {}
        own = ("factory", "train_on", "origin")
        wanted |= {name: value for name, value in self.params.items() if name not in own}
        if lists is not None and hasattr(faiss.downcast_index(lists.quantizer), "hnsw"):
            wanted = {"quantizer_efSearch": max(16, 2 * int(wanted["nprobe"]))} | wanted
        self._graph = next((part.hnsw for part in _parts(faiss, self._index) if hasattr(part, "hnsw")), None)
        for name, value in wanted.items():
            # The parameter space looks behind OPQ and PCA; setting the attribute of the outer index does not.
            said = f"index={self.name!r} has no search parameter {name!r} that takes {value!r}"
            with _faiss_errors(ParameterError, said):
                faiss.ParameterSpace().set_index_parameter(self._index, name, value)
        self._beam = self._graph.efSearch if self._graph is not None else 0
        self._probes = lists.nprobe if lists is not None else 0
        self._asked: tuple[tuple[int, int], Any] = (self._beam, self._probes), None

    def _build(self, keys: Rows) -> None:
        self._empty()
        if not self._index.is_trained:
            self._train(keys)
        self._ask_for_parameters()
        self._add(keys)

    def _build_chunked(self, keys: ChunkedTensor) -> None:
        self._build(keys)

    def _train(self, keys: Rows) -> None:
        need, what = max(_learned(self._index), key=lambda item: item[0], default=(1, "rows"))
        if len(keys) < need:
            why = f"index={self.name!r} learns {need} {what} and there are {len(keys)} keys to learn them from"
            raise ParameterError(f'{why}; use a smaller index, or index="exact"')
        most = max(self.params.get("train_on") or max(2**18, 64 * need), need)
        if len(keys) > most:
            chosen = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))[:most]
            keys = keys[chosen.sort().values.to(keys.device)]
        keys = keys[:]
        # k-means has the same optimum when every point is repeated, and FAISS then has nothing to warn about.
        repeats = math.ceil(39 * need / len(keys)) if len(keys) < 39 * need else 1
        with _faiss_errors(ParameterError, f"index={self.name!r} cannot be trained on {len(keys)} keys"):
            self._index.train(self._given(keys.repeat(repeats, 1) if repeats > 1 else keys))

    def _add(self, keys: Rows) -> None:
        for part in blocks(len(keys), self.dim, 2**24):
            with _faiss_errors(ParameterError, f"index={self.name!r} cannot be used here"):
                self._index.add(self._given(keys[part]))

    def _given(self, keys: Tensor) -> np.ndarray:
        """Keys or queries as FAISS gets them."""
        return (keys.float() if self._origin is None else keys - self._origin).cpu().numpy()

    def _propose(self, queries: Tensor, count: int, probes: int | None = None) -> Proposed:
        # A beam narrower than what is fetched costs recall: 0.87 against 1.00, measured.
        beam = self._beam if self._graph is None else max(self._beam, count)
        with self._searching(beam, probes or self._probes) as params:
            squared, rows = self._index.search(self._given(queries), count, params=params)
        return rows, squared

    def _propose_further(self, queries: Tensor, count: int, attempt: int) -> Proposed | None:
        probes = self._probes * 4 ** (attempt - 1)
        if self._lists is None or probes >= self._lists.nlist:
            return None
        return self._propose(queries, count, min(4 * probes, self._lists.nlist))

    def read_at_once(
        self, reading: Reading, queries: Tensor, centre: Tensor | None, keys: Rows | None, logits: Tensor
    ) -> Tensor | None:
        native, k, depth = kernels(), reading.k, int(self.rerank)
        if native is None or self._n_forgotten or self.rerank is True or self._origin is not None:
            return None
        count = math.ceil(max(k, min(k * self.overfetch, depth)))
        if count > min(k, self.n) or (depth and not (isinstance(keys, Tensor) and keys.is_contiguous())):
            return None
        asked = queries.numpy() if centre is None else (queries.numpy() - centre.numpy()).astype(np.float32)
        if not np.isfinite(asked).all():
            return None
        with self._searching(self._beam if self._graph is None else max(self._beam, k), self._probes) as params:
            squared, rows = self._index.search(asked, k, params=params)
        if rows[:, -1].min() < 0:
            return None
        if isinstance(keys, Tensor) and depth and not native.rerank(keys, asked, rows, squared, depth):
            return None
        return reading(rows, squared, logits)

    @contextmanager
    def _searching(self, beam: int, probes: int) -> Iterator[Any]:
        """FAISS's parameters for one search. They go with the call, because other threads search at the same time.

        Some of FAISS's classes take none: theirs are set for the time of the call, and no other thread searches.
        """
        if self._one_by_one is None:
            asked, params = self._asked  # the last one's, for making them takes as long as reading a list
            if asked != (beam, probes):
                params = _search_parameters(require_faiss(), self._index, beam, probes)
                self._asked = (beam, probes), params
            yield params
            return
        with self._one_by_one:
            self._set_width(beam, probes)
            try:
                yield None
            finally:
                self._set_width(self._beam, self._probes)

    def _set_width(self, beam: int, probes: int) -> None:
        if self._graph is not None:
            self._graph.efSearch = beam
        if self._lists is not None:
            self._lists.nprobe = probes

    def _ask_for_parameters(self) -> None:
        """Whether this index takes search parameters; to be known once it is trained, before any thread searches."""
        self._one_by_one = None
        if self._index.is_trained and (self._graph is not None or self._lists is not None):
            try:
                params = _search_parameters(require_faiss(), self._index, self._beam, self._probes)
                self._index.search(np.zeros((1, self.dim), np.float32), 1, params=params)
            except RuntimeError:
                self._one_by_one = Lock()

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        with _faiss_errors(StorageError, f"index {self.name!r} cannot say what keys its codes are of"):
            if self._lists is not None:
                lists = require_faiss().downcast_index(self._lists)
                if getattr(lists, "fine_quantizer", lists) is None:
                    raise RuntimeError("FAISS would crash")
            with self._mapping:  # rows are found in their lists by a map, which takes 8 bytes each
                if self._lists is not None and self._lists.direct_map.no():
                    self._lists.make_direct_map()
            keys = self._index.reconstruct_batch(rows)
        return keys if self._origin is None else keys + self._origin.cpu().numpy()

    def _nbytes(self, keys: Rows | None) -> int:
        faiss, sizes = require_faiss(), list[int]()
        writer = faiss.PyCallbackIOWriter(lambda part: sizes.append(len(part)), 2**20)
        faiss.write_index(self._index, writer)
        del writer  # which writes what is left
        return sum(sizes)

    def _save(self, path: Path) -> None:
        with _faiss_errors(MemoryFileError, f"cannot write {path}"):
            require_faiss().write_index(self._index, str(path))

    def _load(self, path: Path) -> None:
        faiss = require_faiss()
        with _faiss_errors(MemoryFileError, f"{path} is missing, torn or not a FAISS index"):
            index = faiss.read_index(str(path))  # not mapped: adding to a mapped index aborts the process
        if index.d != self.dim:
            raise MemoryFileError(f"{path} indexes keys of {index.d} dimensions; the memory's have {self.dim}")
        self._take(index)

    def _take(self, index: Any) -> None:
        self._index, faiss = index, require_faiss()
        self._set_params(faiss)
        lists: Any = None if self._lists is None else faiss.downcast_index(self._lists)
        if getattr(lists, "fine_quantizer", lists) is None and hasattr(lists, "pq"):
            lists.fine_quantizer = lists.pq  # FAISS 1.15 forgets it in a file, and crashes where codes are decoded
        self._ask_for_parameters()

    def _to_bytes(self) -> bytes:
        return require_faiss().serialize_index(self._index).tobytes()

    def _from_bytes(self, data: bytes) -> None:
        faiss = require_faiss()
        self._take(faiss.deserialize_index(np.frombuffer(data, np.uint8)))


def _words(error: Exception) -> str:
    """FAISS's own, without the C++ signature and source line around them."""
    return str(error).strip().splitlines()[0].rsplit(" at /", 1)[-1].split(": ", 1)[-1]


_faiss_errors = partial(errors_as, words=_words)


def _parts(faiss: ModuleType, index: Any) -> Iterator[Any]:
    """A FAISS index and those it wraps, outermost first, each as its own class."""
    index = faiss.downcast_index(index)
    yield index
    for inner in ("index", "base_index", "storage"):
        if isinstance(getattr(index, inner, None), faiss.Index):
            yield from _parts(faiss, getattr(index, inner))


def _search_parameters(faiss: ModuleType, index: Any, beam: int, probes: int) -> Any:
    """How FAISS is told, for one search, the beam of a graph or the number of inverted lists, wherever these are."""
    index = faiss.downcast_index(index)
    inner = partial(_search_parameters, faiss, beam=beam, probes=probes)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=inner(index.index))
    if isinstance(index, faiss.IndexRefine):
        params = inner(index.base_index)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=params)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=probes, max_codes=index.max_codes)
    if not hasattr(index, "hnsw"):
        raise RuntimeError(f"{type(index).__name__} takes no search parameters")
    graph = index.hnsw
    same = dict(bounded_queue=graph.search_bounded_queue, check_relative_distance=graph.check_relative_distance)
    return faiss.SearchParametersHNSW(efSearch=beam, **same)


def _learned(index: Any) -> Iterator[tuple[int, str]]:
    """(How many, of what) a FAISS index learns, and needs at least as many training rows for."""
    faiss = require_faiss()
    for part in _parts(faiss, index):
        if isinstance(part, faiss.IndexPreTransform):
            for i in range(part.chain.size()):
                transform = faiss.downcast_VectorTransform(part.chain.at(i))
                if isinstance(transform, faiss.OPQMatrix):
                    yield 256, "codewords"
                elif not transform.is_trained:
                    yield transform.d_out, "dimensions"
        if isinstance(part, faiss.IndexIVF):
            yield part.nlist, "lists"
            yield from _learned(part.quantizer)
        if hasattr(part, "pq"):
            yield part.pq.ksub, "codewords"
