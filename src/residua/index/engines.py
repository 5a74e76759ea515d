"""The two engines that propose candidates: FAISS's flat search, and blocked float32 torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from residua.index.blocks import blocks
from residua.index.installed import require_faiss

_faiss_globals = Lock()
_torch_globals = Lock()


@contextmanager
def flat_settings(faiss, nq: int) -> Iterator[None]:
    """FAISS's process-wide settings for one flat search of `nq` queries, restored afterwards.

    Its threshold between the SIMD and the BLAS kernel counts queries in some versions and nq·d in others, and the
    default of 1.15 makes batches up to nine times slower. So the kernel is chosen here, by the crossover measured
    at 16, 64 and 768 dimensions, and forced by an extreme threshold. One query on several threads would still take
    a slower path (three times, measured), hence one thread for it; FAISS's thread count is the calling thread's.
    """
    with _faiss_globals:
        threshold, threads = faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()
        faiss.cvar.distance_compute_blas_threshold = 1 if nq > 4 * threads else 2**31 - 1
        if nq == 1 and threads > 1:
            faiss.omp_set_num_threads(1)
        try:
            yield
        finally:
            faiss.cvar.distance_compute_blas_threshold = threshold
            if nq == 1 and threads > 1:
                faiss.omp_set_num_threads(threads)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Matrix products in true float32, whatever TF32, bfloat16 or autocast setting the caller lives under."""
    with _torch_globals, torch.autocast(device.type, enabled=False):
        backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
        per_backend = all(hasattr(backend, "fp32_precision") for backend in backends)
        if per_backend:
            before = [backend.fp32_precision for backend in backends]
            for backend in backends:
                backend.fp32_precision = "ieee"
        else:  # torch before 2.9
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            if per_backend:
                for backend, precision in zip(backends, before, strict=True):
                    backend.fp32_precision = precision
            else:
                torch.set_float32_matmul_precision(before)


def faiss_candidates(queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest positions of `keys` by FAISS: (approximate squared distances, positions), both (q, count).

    Sorted by distance; -inf and position -1 where FAISS found fewer, so that no bound ever trusts such an answer.
    """
    faiss = require_faiss()
    with flat_settings(faiss, len(queries)):
        squared, positions = faiss.knn(queries.numpy(), keys.numpy(), count)
    squared, positions = torch.from_numpy(squared), torch.from_numpy(positions)
    return squared.masked_fill_(positions < 0, -torch.inf), positions


def torch_candidates(queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same by torch, on the keys' device, in blocks of at most 128 MB of scores."""
    shape = (len(queries), count)
    squared = torch.empty(shape, device=keys.device)
    positions = torch.empty(shape, dtype=torch.int64, device=keys.device)
    norms = torch.empty(len(keys), device=keys.device)
    for part in blocks(len(keys), keys.shape[1], 2**22):
        norms[part] = keys[part].square().sum(dim=1)
    with full_float32(keys.device):
        for part in blocks(len(queries), len(keys), 2**25):
            scores = torch.addmm(norms, queries[part], keys.T, alpha=-2)
            squared[part], positions[part] = scores.topk(count, dim=1, largest=False)
    return squared.add_(queries.square().sum(dim=1, keepdim=True)), positions
