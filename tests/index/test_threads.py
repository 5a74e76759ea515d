"""Several threads search one index at once, and each gets the answer that it gets alone."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from residua.index import Exact, make_index

THREADS = 8
FACTORIES = ["IVF32,Flat", "IVF32,PQ8x4fs", "PQ8x4fs", "HNSW16", "PCA12,IVF32,Flat", "RR16,HNSW16,RFlat"]
REFUSING = ["IVF32,RQ4x4fs_32_Nrq2x4"]  # FAISS takes no search parameters with a call here


@pytest.fixture(autouse=True)
def switching():
    """Threads take turns a thousand times as often as they do by themselves."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


def built(name, keys):
    if name not in ("exact", "torch"):
        pytest.importorskip("faiss")
    params = {"backend": "torch"} if name == "torch" else {"nprobe": 2} if "IVF" in name else {}
    index = make_index(
        "exact" if name == "torch" else name, n=len(keys), dim=keys.shape[1], device="cpu", params=params
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a low recall is no matter here
        index.build(keys)
    return index


def asked(keys, queries):
    """Searches that need different things of the index: so many lists, so wide a beam."""
    every = [(part, k) for part, k in zip(queries.split(20), (1, 3, 20, 70, 300, len(keys) // 2, 5, 40), strict=False)]
    return every * 2


@pytest.mark.parametrize("name", ["exact", "torch", *FACTORIES, *REFUSING])
def test_each_thread_gets_the_answer_that_it_gets_alone(name, clusters):
    keys, queries = clusters[0][:1500], clusters[1][:160]
    index = built(name, keys)
    index.forget(torch.arange(0, 1500, 2))
    searches = asked(keys, queries)
    alone = [index.search(*search, keys) for search in searches]
    with ThreadPoolExecutor(THREADS) as pool:
        at_once = [*pool.map(lambda search: index.search(*search, keys), searches)]
    for one, other in zip(alone, at_once, strict=True):
        assert torch.equal(one.rows, other.rows) and torch.equal(one.distances, other.distances)


def test_one_of_many_first_searches_makes_the_copy(clusters):
    keys, queries = (points.half() for points in clusters)
    for _ in range(3):
        index = Exact(16)
        index.build(keys)
        index.forget(torch.arange(0, 4000, 3))
        with ThreadPoolExecutor(THREADS) as pool:
            first, *others = pool.map(index.search, [queries[:9].float()] * 16, [5] * 16, [keys] * 16)
        assert all(torch.equal(first.rows, other.rows) for other in others) and not (first.rows % 3 == 0).any()
