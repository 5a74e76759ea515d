"""The nearest rows of a table of keys, without any state: distances, their order, and an exact search with its proof.

Rows are ordered by *squared* distances, and the root is taken last and by an IEEE root: torch's goes through a vendor's
library that on some processors is not correctly rounded, and ties would fall otherwise there.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from residua.core import Neighbours, Rows
from residua.errors import MissingDependencyError

_ROW = 0xFFFFFFFF  # the low half of a packed (squared distance, row); all ones is "no row"
_UNIT = 2.0**-24  # the unit roundoff of float32
_IN_CACHE = 2**18  # candidates sorted at a time on a CPU
_faiss_globals = Lock()
_torch_globals = Lock()


def faiss_installed() -> bool:
    """Whether FAISS can be imported, without importing it."""
    return "faiss" in sys.modules or importlib.util.find_spec("faiss") is not None


def require_faiss() -> ModuleType:
    """The faiss module, or ``MissingDependencyError`` naming the extra."""
    try:
        import faiss
    except ImportError as error:
        said = 'this index needs FAISS, which is not installed: pip install "residua[faiss]", or use index="exact"'
        raise MissingDependencyError(said) from error
    return faiss


def blocks(n: int, each: int, budget: int) -> Iterator[slice]:
    """Slices that cover `n` items of `each` elements, so that one slice stays within `budget` elements."""
    step = max(1, budget // max(1, each))
    return (slice(start, start + step) for start in range(0, n, step))


class Nearest(NamedTuple):
    """Rows int64 (q, k) and squared distances float32 (q, k), ordered by distance, then row; -1 and inf: missing."""

    rows: Tensor
    squared: Tensor

    def neighbours(self) -> Neighbours:
        """The same with plain distances."""
        return Neighbours(self.rows, root(self.squared))


def root(squared: Tensor) -> Tensor:
    """The correctly rounded square root of float32 numbers, on any processor."""
    return torch.from_numpy(np.sqrt(squared.numpy())) if squared.device.type == "cpu" else squared.sqrt()


def squared_distances(queries: Tensor, keys: Rows, rows: Tensor) -> Tensor:
    """Squared distance, float32 (q, c), from each query to each of its `rows` (q, c) of `keys`; inf where it is -1.

    By direct difference: |x|² + |y|² − 2xy would be faster and loses every digit far from the origin.
    """
    cpu = queries.device.type == "cpu"
    by_faiss = cpu and faiss_installed()
    if by_faiss and keys.dtype == torch.float32 and isinstance(keys, Tensor):
        return torch.from_numpy(_by_faiss(queries.numpy(), keys.numpy(), rows.numpy()))
    squared = torch.empty(rows.shape, device=queries.device)
    for part in blocks(len(rows), rows.shape[1] * keys.shape[1], 2**20 if cpu else 2**24):  # on a CPU, to fit the cache
        some = rows[part].clamp_min(0)
        # Not keys[some], which waits for every thread even when there is little to gather.
        gathered = keys.index_select(0, some.reshape(-1)).float()
        if by_faiss:  # a third quicker than torch
            places = np.arange(gathered.shape[0]).reshape(some.shape)
            squared[part] = torch.from_numpy(_by_faiss(queries[part].numpy(), gathered.numpy(), places))
        else:
            apart = gathered.view(*some.shape, keys.shape[1]).sub_(queries[part, None])  # (b, c, d)
            squared[part] = apart.square_().sum(dim=2)
    return squared.masked_fill_(rows < 0, torch.inf)


def _by_faiss(queries: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """By FAISS's kernel, which reads each key in place: four times quicker than gathering them, measured."""
    out = np.empty(rows.shape, np.float32)
    if out.size:
        faiss, given = require_faiss(), [np.ascontiguousarray(array) for array in (queries, keys, rows)]
        faiss.fvec_L2sqr_by_idx(*map(faiss.swig_ptr, (out, *given)), keys.shape[1], *rows.shape)
        out[rows < 0] = np.inf
    return out


def nearest_among(queries: Tensor, keys: Rows, rows: Tensor, k: int) -> Nearest:
    """The `k` nearest of each query's candidates `rows` (q, c), by the distances to their `keys`.

    For a few it costs little more than FAISS's reading of the keys, where all is done in NumPy: a call of torch, and
    of Python, costs more after a search has swept the caches than most of this does.
    """
    few = rows.device.type == "cpu" and k <= rows.shape[1] and rows.numel() <= _IN_CACHE
    if few and keys.dtype == torch.float32 and isinstance(keys, Tensor) and faiss_installed():
        names = rows.numpy()
        return _sorted_on_cpu(_by_faiss(queries.numpy(), keys.numpy(), names), names, k)
    return ordered(squared_distances(queries, keys, rows), rows, k)


def pack(squared: Tensor, rows: Tensor) -> Tensor:
    """One int64 per neighbour whose order is that of (squared distance, row), missing rows last.

    The bits of a non-negative float32 order like the number: they make the high half, and the row the low half.
    """
    return (squared.contiguous().view(torch.int32).long() << 32) | (rows & _ROW)


def unpack(packed: Tensor) -> Nearest:
    """The inverse of ``pack``."""
    rows = packed & _ROW
    return Nearest(rows.masked_fill_(rows == _ROW, -1), (packed >> 32).int().view(torch.float32))


def missing(q: int, k: int, device: torch.device) -> Nearest:
    """`k` missing neighbours for each of `q` queries."""
    return Nearest(torch.full((q, k), -1, device=device), torch.full((q, k), torch.inf, device=device))


def ordered(squared: Tensor, rows: Tensor, k: int) -> Nearest:
    """The `k` first of candidates (q, c) by (squared distance, row), padded with missing ones when c < k."""
    count, cpu = min(k, rows.shape[1]), rows.device.type == "cpu"
    if cpu and count == k and rows.numel() <= _IN_CACHE:
        return _sorted_on_cpu(squared.numpy(), rows.numpy(), k)
    found = missing(len(rows), k, rows.device)
    for part in blocks(len(rows), rows.shape[1], _IN_CACHE if cpu else 2**26):
        if cpu:
            some = _sorted_on_cpu(squared[part].numpy(), rows[part].numpy(), count)
        else:
            some = unpack(pack(squared[part], rows[part]).sort(dim=1).values[:, :count])
        found.rows[part, :count], found.squared[part, :count] = some.rows, some.squared
    return found


def _sorted_on_cpu(squared: np.ndarray, rows: np.ndarray, k: int) -> Nearest:
    """The `k` first by NumPy, which sorts integers several times quicker than torch."""
    packed = np.ascontiguousarray(squared).view(np.int32).astype(np.int64)
    packed <<= 32
    packed |= rows & _ROW
    packed.sort(axis=1)
    packed = packed[:, :k]
    names = packed & _ROW
    names[names == _ROW] = -1
    packed = packed >> 32
    return Nearest(torch.from_numpy(names), torch.from_numpy(packed.astype(np.int32).view(np.float32)))


def scan(queries: Tensor, keys: Rows, rows: Tensor, k: int) -> Nearest:
    """The `k` nearest among all of `rows` (m,): slow, always right, and what the faster searches fall back to."""
    found, tiles = missing(len(queries), k, queries.device), list(blocks(len(rows), queries.shape[1], 2**24))
    for some in blocks(len(queries), min(len(rows), 2**24 // queries.shape[1]), 2**22):
        asked = queries[some]
        best = missing(len(asked), 0, queries.device)
        for part in tiles:
            tile = rows[part].expand(len(asked), -1)
            squared = torch.cat([best.squared, squared_distances(asked, keys, tile)], dim=1)
            best = ordered(squared, torch.cat([best.rows, tile], dim=1), k)
        if tiles:
            found.rows[some], found.squared[some] = best.rows, best.squared
    return found


@contextmanager
def flat_settings(faiss: ModuleType, nq: int) -> Iterator[None]:
    """FAISS's process-wide settings for one flat search of `nq` queries, restored afterwards.

    Its threshold between the SIMD and the BLAS kernel counts queries in some versions and nq·d in others, and the
    default of 1.15 makes batches up to nine times slower. So the kernel is chosen here, by the crossover measured
    at 16, 64 and 768 dimensions, and forced by an extreme threshold. One query on several threads would still take
    a slower path (three times, measured), hence one thread for it; FAISS's thread count is the calling thread's.
    """
    settings = faiss.cvar
    with _faiss_globals:
        threshold, threads = settings.distance_compute_blas_threshold, faiss.omp_get_max_threads()
        try:
            settings.distance_compute_blas_threshold = 1 if nq > 4 * threads else 2**31 - 1
            if nq == 1 and threads > 1:
                faiss.omp_set_num_threads(1)
            yield
        finally:
            settings.distance_compute_blas_threshold = threshold
            if nq == 1 and threads > 1:
                faiss.omp_set_num_threads(threads)


@contextmanager
def full_float32(device: torch.device, precision: str = "ieee") -> Iterator[None]:
    """Matrix products in true float32, whatever TF32, bfloat16 or autocast setting the caller lives under; with
    precision ``"tf32"`` in that."""
    with _torch_globals, torch.autocast(device.type, enabled=False), ExitStack() as undo:
        # The second is not there in every torch, and no stub knows it.
        backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
        if all(hasattr(backend, "fp32_precision") for backend in backends):
            for backend, wanted in zip(backends, (precision, "ieee")):
                undo.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
                backend.fp32_precision = wanted
        else:  # torch before 2.9
            undo.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest" if precision == "ieee" else "high")
        yield


def faiss_candidates(queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest positions of `keys` by FAISS: (approximate squared distances, positions), both (q, count).

    Sorted by distance; -inf and position -1 where FAISS found fewer, so that no bound ever trusts such an answer.
    """
    faiss = require_faiss()
    with flat_settings(faiss, len(queries)):
        squared, positions = faiss.knn(queries.numpy(), keys.numpy(), count)
    squared[positions < 0] = -np.inf
    return torch.from_numpy(squared), torch.from_numpy(positions)


def torch_candidates(queries: Tensor, keys: Tensor, count: int, in_thirds: bool | None = None) -> tuple[Tensor, Tensor]:
    """The same by torch, on the keys' device, in tiles of at most 128 MB of scores (1 GB on a GPU).

    `in_thirds`, by default of many queries where a GPU has TF32: three products of TF32 parts, some two and a half
    times as fast as one of float32.
    """
    cpu, device = keys.device.type == "cpu", keys.device
    if in_thirds is None:
        in_thirds = len(queries) >= 128 and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    squared = torch.empty((len(queries), count), device=device)
    positions = torch.empty_like(squared, dtype=torch.int64)
    with full_float32(device, "tf32" if in_thirds else "ieee"):
        for part in blocks(len(queries), len(keys) if cpu else 2**17, 2**25 if cpu else 2**28):
            asked = thirds(queries[part], (0, 0, 1)) if in_thirds else queries[part]
            found: list[tuple[Tensor, Tensor]] = []
            for tile in blocks(len(keys), max(len(asked) // 4, keys.shape[1]), 2**26):
                some = keys[tile]
                norms = torch.linalg.vecdot(some, some)
                scores = torch.addmm(norms, asked, (thirds(some, (0, 1, 0)) if in_thirds else some).T, alpha=-2)
                least, places = smallest(scores, min(count, len(some)))
                found.append((least, places.add_(tile.start)))
            least, places = (torch.cat(parts, dim=1) for parts in zip(*found))
            squared[part], at = least.topk(count, dim=1, largest=False)
            positions[part] = places.gather(1, at)
    return squared.add_(queries.square().sum(dim=1, keepdim=True)), positions


def thirds(vectors: Tensor, order: tuple[int, ...]) -> Tensor:
    """Vectors (m, d) as their parts side by side: 0 is the first 11 bits of each number, which TF32 holds exactly, 1
    the rest.

    Of the product of (0, 0, 1) and (0, 1, 0) only rest by rest is missing and the last bits of the rest: at most 2^-19
    of the product of the norms, which is little beside what a float32 sum rounds.
    """
    first = (vectors.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
    both = first, vectors - first
    return torch.cat([both[which] for which in order], dim=1)


def smallest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest of each row of scores (q, n), sorted, and their places.

    ``topk`` passes over all n several times. The smallest are in the `count` groups of columns whose least is smallest:
    one pass finds these, and the rest looks into them alone.
    """
    n = scores.shape[1]
    size = 2 ** round(math.log2(max(1.0, n / count)) / 2)  # n / size groups and count * size candidates: about alike
    if size < 4:
        return scores.topk(count, dim=1, largest=False)
    groups = n // size  # of columns far apart: so a reduction reads whole rows of memory
    nearest = scores[:, : groups * size].view(len(scores), size, groups).amin(dim=1)
    nearest = nearest.topk(count, dim=1, largest=False, sorted=False).indices
    places = (nearest[:, :, None] + groups * torch.arange(size, device=scores.device)).flatten(1)
    rest = torch.arange(groups * size, n, device=scores.device).expand(len(scores), -1)
    places = torch.cat([places, rest], dim=1)
    found, at = scores.gather(1, places).topk(count, dim=1, largest=False)
    return found, places.gather(1, at)


def exact_nearest(
    queries: Tensor,
    keys: Tensor,
    k: int,
    propose: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None,
    compact: tuple[Tensor, Tensor] | None = None,
    count: int = 0,
) -> Nearest:
    """The true `k` nearest rows of each query, ties by the lowest row; there are at least `k` to search.

    `propose`, like ``faiss_candidates``, gives a few more than asked, or `count`, by |x|² + |y|² − 2xy; their distances
    are recomputed by direct difference. Where its rounding could have hidden a nearer row, that query alone is asked
    again for more. `compact`: the float32 keys to search and the row of each, where these are not just `keys`.
    """
    if propose is None:
        propose = faiss_candidates if queries.device.type == "cpu" and faiss_installed() else torch_candidates
    table, names = compact or (keys, None)
    n, count = len(table), count or (k + 8 + k // 16 if queries.device.type == "cpu" else k + 32 + k // 4)
    if count >= n or 4 * count > n > 2**14:
        return scan(queries, keys, torch.arange(n, device=keys.device) if names is None else names, k)
    squared, positions = propose(queries, table, count)
    rows = positions if names is None else names[positions]
    found = nearest_among(queries, keys, rows, k)
    # A row as near as the k-th neighbour has a norm of at most |q| + d_k, and for such rows the engine's squared
    # distance and ours are each within a few (d + 8) unit roundoffs of the truth, relative to (|q| + d_k)²: rounding of
    # two norms, of a dot product and of a sum of d squares.
    limits: list[Any] = [queries, squared[:, -1], found.squared[:, -1]]
    asked, last, kth = [limit.numpy() for limit in limits] if queries.device.type == "cpu" else limits
    reach = ((asked * asked).sum(1) ** 0.5 + kth**0.5) ** 2
    doubtful = ~(last - 8 * (queries.shape[1] + 8) * _UNIT * reach > kth)
    if doubtful.any():
        doubtful = torch.as_tensor(doubtful)
        again = exact_nearest(queries[doubtful], keys, k, propose, compact, 4 * count)
        found.rows[doubtful], found.squared[doubtful] = again.rows, again.squared
    return found


def nearest_by_blocks(
    queries: Tensor,
    keys: Rows,
    k: int,
    propose: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None,
    remembered: Tensor | None = None,
) -> Nearest:
    """The true `k` nearest of all `keys`, or of those `remembered` (bool, (n,)), ties by the lowest row; only one block
    of them is in float32 at a time. Missing ones fill up where there are fewer than `k`.
    """
    best = missing(len(queries), k, queries.device)
    for part in blocks(len(keys), keys.shape[1], 2**23):
        block, compact = keys[part].float(), None
        if remembered is not None and not remembered[part].all():
            names = remembered[part].nonzero()[:, 0]
            compact = block[names], names
        count = len(block if compact is None else compact[1])
        if count:
            found = exact_nearest(queries, block, min(k, count), propose, compact)
            squared = torch.cat([best.squared, found.squared], dim=1)
            best = ordered(squared, torch.cat([best.rows, found.rows + part.start], dim=1), k)
    return best
