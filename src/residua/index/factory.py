"""Any FAISS index by its factory string: it proposes candidates, exact distances order them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from residua.errors import MemoryFileError, ParameterError
from residua.index.blocks import blocks, mean
from residua.index.index import Index, Recall
from residua.index.installed import require_faiss
from residua.index.parts import needs, parts, reason
from residua.index.recall import measure_recall
from residua.index.rerank import Nearest, missing, ordered, partly_exact, scan, squared_distances

_BLOCK = 2**24  # elements of keys centred at a time
_TRAIN_ON = 2**18  # rows learned from, or 64 for each thing learned when that is more


class Factory(Index):
    """A FAISS index, over-fetched and re-ranked.

    It fetches `k` times `overfetch` candidates and orders them by exact distances. With a `rerank` depth only so many
    of them get exact distances, and no more than `k` are fetched unless they do; the others keep the distances to
    their codes, moved by the mean error of those that were computed. Without keys, or re-ranking, all keep those.

    Forgotten rows are passed over by a mask of our own, because not every FAISS index can remove.

    Parameters
    ----------
    factory : str
        A FAISS index factory string, such as ``"PQ32x4fs"``, ``"IVF512,PQ32x4fs"``, ``"HNSW32"``.
    dim : int
    device : torch.device
        Where keys and answers live. FAISS itself works on the CPU.
    params : dict of str to number, optional
        Search parameters by FAISS's names (``nprobe``, ``efSearch``, …). Defaults: 32 lists of an
        inverted file; a beam as wide as what is fetched for HNSW.
    overfetch : float, default 4
        Candidates fetched per neighbour wanted, at least 1.
    rerank : bool or int, default True
        How many of a query's candidates get exact distances, the nearest by their codes first: all, none, or a number.
    train_on : int, optional
        Rows that the index learns from, chosen at random. Default: 2¹⁸, or 64 for each thing learned if that is more.

    Raises
    ------
    ParameterError
        An unknown factory string, one that does not fit `dim`, or an unknown search parameter.
    MissingDependencyError
        FAISS is not installed.
    """

    exact = False

    def __init__(
        self,
        factory: str,
        dim: int,
        device: torch.device | str,
        params: dict[str, float] | None = None,
        overfetch: float = 4,
        rerank: bool | int = True,
        train_on: int | None = None,
    ):
        super().__init__(dim, device)
        if not overfetch >= 1:
            raise ParameterError(f"overfetch={overfetch}; expected at least 1 candidate per neighbour")
        if rerank < 0 or rerank != int(rerank):
            raise ParameterError(f"rerank={rerank}; expected True (all), False (none) or how many candidates")
        self.name, self.params, self.overfetch = factory, dict(params or {}), overfetch
        self.rerank = rerank if isinstance(rerank, bool) else int(rerank)
        self._train_on = train_on
        self._empty()

    @property
    def n(self) -> int:
        return self._index.ntotal

    def _empty(self) -> None:
        faiss = require_faiss()
        try:
            self._index = faiss.index_factory(self.dim, self.name)
        except RuntimeError as error:
            raise ParameterError(
                f"index={self.name!r} is not a FAISS factory string for keys of {self.dim} dimensions: {reason(error)}"
            ) from error
        self._mean = torch.zeros(self.dim, device=self.device)
        self._forgotten = torch.zeros(0, dtype=torch.bool, device=self.device)
        self._forgotten_count = 0
        self._file: str | None = None
        self.recall = None
        self._set_params(faiss)

    def _set_params(self, faiss) -> None:
        lists = self._lists = faiss.try_extract_index_ivf(self._index)
        wanted = {"nprobe": min(lists.nlist, 32)} if lists is not None else {}
        wanted |= self.params
        if lists is not None and hasattr(faiss.downcast_index(lists.quantizer), "hnsw"):
            wanted = {"quantizer_efSearch": max(16, 2 * int(wanted["nprobe"]))} | wanted
        self._graph = next((part.hnsw for part in parts(faiss, self._index) if hasattr(part, "hnsw")), None)
        space = faiss.ParameterSpace()
        for name, value in wanted.items():
            try:  # the parameter space looks behind OPQ and PCA; setting the attribute of the outer index does not
                space.set_index_parameter(self._index, name, value)
            except RuntimeError as error:
                raise ParameterError(
                    f"index={self.name!r} has no search parameter {name!r} that takes {value!r}: {reason(error)}"
                ) from error
        self._beam = self._graph.efSearch if self._graph is not None else 0
        self._probes = lists.nprobe if lists is not None else 0

    def _build(self, keys: Tensor) -> None:
        faiss = require_faiss()
        self._empty()
        self._mean = mean(keys)
        if not self._index.is_trained:
            self._train(faiss, keys)
        self._add(keys)
        self.recall = measure_recall(self, keys)

    def _train(self, faiss, keys: Tensor) -> None:
        what, need = max(needs(faiss, self._index), key=lambda item: item[1], default=("rows", 1))
        if len(keys) < need:
            raise ParameterError(
                f"index={self.name!r} learns {need} {what} and there are {len(keys)} keys to learn them from; "
                f'use a smaller index, or index="exact"'
            )
        most = max(_TRAIN_ON, 64 * need) if self._train_on is None else max(self._train_on, need)
        if len(keys) > most:
            chosen = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))[:most]
            keys = keys[chosen.sort().values.to(keys.device)]
        sample = (keys - self._mean).cpu()
        # k-means has the same optimum when every point is repeated, and FAISS then has nothing to warn about.
        repeats = math.ceil(39 * need / len(sample)) if len(sample) < 39 * need else 1
        try:
            self._index.train(sample.repeat(repeats, 1).numpy())
        except RuntimeError as error:
            raise ParameterError(
                f"index={self.name!r} cannot be trained on {len(keys)} keys: {reason(error)}"
            ) from error

    def _add(self, keys: Tensor) -> None:
        for part in blocks(len(keys), self.dim, _BLOCK):
            try:
                self._index.add((keys[part] - self._mean).float().cpu().numpy())
            except RuntimeError as error:
                raise ParameterError(f"index={self.name!r} cannot be used here: {reason(error)}") from error
        self._forgotten = torch.cat([self._forgotten, self._forgotten.new_zeros(len(keys))])

    def _forget(self, rows: Tensor) -> None:
        if len(self._forgotten) < self.n:  # an add was interrupted when FAISS had some of its rows
            self._forgotten = torch.cat([self._forgotten, self._forgotten.new_zeros(self.n - len(self._forgotten))])
        self._forgotten[rows] = True
        self._forgotten_count = int(self._forgotten.sum())

    def _search(self, queries: Tensor, k: int, keys: Tensor | None) -> Nearest:
        alive = self.n - self._forgotten_count
        wanted = min(k, alive)
        if not wanted:
            return missing(len(queries), k, self.device)
        # A candidate beyond the first k is worth fetching only for its exact distance.
        exact = 0 if keys is None or not self.rerank else math.inf if self.rerank is True else self.rerank
        fetch = max(wanted, min(wanted * self.overfetch, exact))
        fetch = min(self.n, math.ceil(fetch * self.n / alive))
        found = [
            self._search_block(queries[part], k, keys, wanted, fetch, self._probes)
            for part in blocks(len(queries), fetch, 2**22)
        ]
        return found[0] if len(found) == 1 else Nearest(*map(torch.cat, zip(*found)))

    def _search_block(
        self, queries: Tensor, k: int, keys: Tensor | None, wanted: int, fetch: int, probes: int
    ) -> Nearest:
        if self._graph is not None:  # a beam narrower than what is fetched costs recall: 0.87 against 1.00, measured
            self._graph.efSearch = max(self._beam, fetch)
        if self._lists is not None:
            self._lists.nprobe = probes
        squared, rows = self._index.search((queries - self._mean).cpu().numpy(), fetch)
        squared, rows = torch.from_numpy(squared).to(self.device), torch.from_numpy(rows).to(self.device)
        ended = (rows[:, -1] < 0) | (fetch >= self.n)  # asking for more would bring nothing new
        if self._forgotten_count:
            rows = rows.masked_fill(self._forgotten[rows.clamp_min(0)], -1)
        found = ordered(self._squared(queries, keys, rows, squared), rows, k)
        short = found.rows[:, wanted - 1] < 0
        if short.any():
            for some, enough in ((short & ended, True), (short & ~ended, False)):
                if some.any():
                    better = self._search_further(queries[some], k, keys, wanted, fetch, probes, enough)
                    if better is not None:
                        found.rows[some], found.squared[some] = better.rows, better.squared
        return found

    def _squared(self, queries: Tensor, keys: Tensor | None, rows: Tensor, squared: Tensor) -> Tensor:
        if keys is None or not self.rerank:
            return squared.clamp_min(0).masked_fill_(rows < 0, torch.inf)
        if self.rerank is True:
            return squared_distances(queries, keys, rows)
        return partly_exact(queries, keys, rows, squared, self.rerank)

    def _search_further(self, queries, k, keys, wanted, fetch, probes, ended) -> Nearest | None:
        """Again where too few were found: among more candidates, in more lists, or at last among all rows."""
        if not ended:
            return self._search_block(queries, k, keys, wanted, min(self.n, 4 * fetch), probes)
        if self._lists is not None and probes < self._lists.nlist:
            return self._search_block(queries, k, keys, wanted, fetch, min(4 * probes, self._lists.nlist))
        return None if keys is None else scan(queries, keys, (~self._forgotten).nonzero()[:, 0], k)

    def save(self, folder: Path, stem: str) -> list[str]:
        """Write FAISS's own file, ``<stem>.faiss``; forgotten rows are the key table's to remember."""
        faiss = require_faiss()
        if self._lists is not None:  # a search that went further may have left it wider
            self._lists.nprobe = self._probes
        if self._graph is not None:
            self._graph.efSearch = self._beam
        self._file = f"{stem}.faiss"
        try:
            faiss.write_index(self._index, str(Path(folder) / self._file))
        except RuntimeError as error:
            raise MemoryFileError(f"cannot write {Path(folder) / self._file}: {reason(error)}") from error
        return [self._file]

    def to_json(self) -> dict:
        """Everything beside the file, in JSON types."""
        return {
            "name": self.name,
            "dim": self.dim,
            "params": self.params,
            "overfetch": self.overfetch,
            "rerank": self.rerank,
            "mean": self._mean.tolist(),
            "file": self._file,
            "recall": self.recall and self.recall.to_json(),
        }

    @classmethod
    def load(cls, data: dict, folder: Path, n: int, device: torch.device | str) -> Factory:
        """The index that ``save`` and ``to_json`` described, over `n` rows, none of them forgotten."""
        faiss = require_faiss()
        index = cls(data["name"], data["dim"], device, data["params"], data["overfetch"], data.get("rerank", True))
        path = Path(folder) / str(data["file"])
        try:
            index._index = faiss.read_index(str(path))  # not mapped: adding to a mapped index aborts the process
        except RuntimeError as error:
            raise MemoryFileError(f"{path} is missing, torn or not a FAISS index: {reason(error)}") from error
        if (index.n, index._index.d) != (n, index.dim):
            raise MemoryFileError(
                f"{path} indexes {index.n} keys of {index._index.d} dimensions; the memory beside it has {n} of "
                f"{index.dim}. The folder mixes two saves: rebuild the memory"
            )
        index._mean = torch.tensor(data["mean"], dtype=torch.float32, device=index.device)
        index._forgotten = torch.zeros(n, dtype=torch.bool, device=index.device)
        index._file = data["file"]
        index.recall = Recall(**data["recall"]) if data["recall"] else None
        index._set_params(faiss)
        return index
