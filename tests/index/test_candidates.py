import builtins

import numpy as np
import pytest
import torch

from residua.errors import MissingDependencyError
from residua.index.nearest import (
    exact_nearest,
    faiss_candidates,
    flat_settings,
    full_float32,
    require_faiss,
    smallest,
    thirds,
    torch_candidates,
)

faiss = pytest.importorskip("faiss")


@pytest.fixture
def two_threads():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.parametrize("nq", [1, 2, 5000])
@pytest.mark.usefixtures("two_threads")
def test_faiss_settings_are_restored_even_after_an_error(nq):
    before = faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()
    with pytest.raises(ZeroDivisionError), flat_settings(faiss, nq):
        during = faiss.cvar.distance_compute_blas_threshold
        raise ZeroDivisionError
    assert during == (1 if nq == 5000 else 2**31 - 1) != before[0]
    assert (faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()) == before


@pytest.mark.usefixtures("two_threads")
def test_batches_take_blas_and_single_queries_do_not():
    with flat_settings(faiss, 1):
        assert faiss.cvar.distance_compute_blas_threshold > 10**9 and faiss.omp_get_max_threads() == 1
    with flat_settings(faiss, 10_000):
        assert faiss.cvar.distance_compute_blas_threshold == 1


def test_torch_settings_are_overruled_and_restored():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(ZeroDivisionError), full_float32(torch.device("cpu")):
            if hasattr(torch.backends.mkldnn.matmul, "fp32_precision"):
                assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
                assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            else:
                assert torch.get_float32_matmul_precision() == "highest"
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_does_not_reach_the_scores():
    keys, queries = torch.randn(400, 32), torch.randn(20, 32)
    plain = torch_candidates(queries, keys, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = torch_candidates(queries, keys, 5)
    assert torch.equal(plain[0], cast[0]) and torch.equal(plain[1], cast[1])


def test_engines_propose_the_same_candidates():
    generator = torch.Generator().manual_seed(0)
    keys, queries = torch.randn(900, 12, generator=generator), torch.randn(40, 12, generator=generator)
    (a, rows_a), (b, rows_b) = faiss_candidates(queries, keys, 9), torch_candidates(queries, keys, 9)
    assert torch.equal(rows_a, rows_b)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_without_faiss_the_extra_is_named(monkeypatch):
    real = builtins.__import__
    gone = {"faiss"}

    def absent(name, *args, **kwargs):
        if name in gone:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependencyError, match=r'pip install "residua\[faiss\]"'):
        require_faiss()


@pytest.mark.parametrize("n, count", [(1, 1), (40, 7), (5000, 3), (5003, 64), (70_001, 700)])
def test_the_smallest_are_those_of_a_sort(n, count):
    scores = torch.from_numpy(np.random.default_rng(n).integers(0, 10 * n, (5, n))).float()
    found, places = smallest(scores, count)
    assert torch.equal(found, scores.sort(dim=1).values[:, :count])
    assert torch.equal(scores.gather(1, places), found) and all(len(row.unique()) == count for row in places)


def test_parts_of_a_number_make_its_product():
    torch.manual_seed(0)
    one, other = torch.randn(300, 48) * 1e3, torch.randn(200, 48)
    first, rest = thirds(one, (0, 1)).chunk(2, dim=1)
    assert torch.equal(first + rest, one) and not (first.view(torch.int32) & 0x1FFF).any()
    product = thirds(one, (0, 0, 1)).double() @ thirds(other, (0, 1, 0)).double().T
    apart = (product - one.double() @ other.double().T).abs()
    assert (apart <= 2.0**-19 * one.norm(dim=1)[:, None] * other.norm(dim=1)).all() and apart.any()


def test_an_exact_search_may_propose_by_parts():
    keys, queries = torch.randn(20_000, 32), torch.randn(300, 32)
    plain, in_thirds = (
        exact_nearest(queries, keys, 40, lambda *given, parts=parts: torch_candidates(*given, parts))
        for parts in (False, True)
    )
    assert torch.equal(plain.rows, in_thirds.rows) and torch.equal(plain.squared, in_thirds.squared)
