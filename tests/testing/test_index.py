import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from residua.errors import MemoryFileError, ParameterError, StorageError
from residua.index import Exact, FaissIndex, Index, load_index, make_index, register_index
from residua.testing import check_index

pytestmark = pytest.mark.slow


@register_index("brute")
class Brute(Index):
    """Every distance in NumPy: an engine as short as it can be."""

    def __init__(self, dim, device="cpu", slack=0.0):
        super().__init__(dim, device, slack=slack)
        self._build(torch.empty(0, dim))

    def _build(self, keys):
        self._keys = keys.float().numpy()

    def _add(self, keys):
        self._keys = np.concatenate([self._keys, keys.float().numpy()])

    def _propose(self, queries, count):
        squared = ((queries.numpy()[:, None] - self._keys) ** 2).sum(axis=2)
        return squared.argpartition(min(count, self.n) - 1)[:, :count], None

    @property
    def n(self):
        return len(self._keys)


@register_index("brute-in-a-file")
class Filed(Brute):
    needs_keys = False

    def _propose(self, queries, count):
        rows, _ = super()._propose(queries, count)
        squared = ((queries.numpy()[:, None] - self._keys[rows]) ** 2).sum(axis=2)
        order = squared.argsort(axis=1)
        return np.take_along_axis(rows, order, 1), np.take_along_axis(squared, order, 1)

    def _save(self, path):
        path.write_bytes(self._keys.tobytes())

    def _load(self, path):
        self._keys = np.frombuffer(path.read_bytes(), np.float32).reshape(-1, self.dim)


def test_an_engine_without_distances_cannot_answer_without_keys():
    class Vague(Brute):
        needs_keys = False

    index, keys = Vague(2), torch.arange(8.0).view(4, 2)
    index.build(keys)
    assert index.search(keys[:1], 1, keys).rows.tolist() == [[0]]
    with pytest.raises(StorageError, match="rows without their distances, and the keys are not kept"):
        index.search(keys[:1], 1, None)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_exact(backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    check_index(Exact(8, "cpu", backend))
    check_index(Exact(1, "cpu", backend), n=500)


@pytest.mark.parametrize(
    "factory", ["Flat", "SQ8", "PQ8x4fs", "IVF16,Flat", "IVF16,PQ8x4fs", "HNSW16", "PCA12,IVF16,SQ8"]
)
def test_faiss(factory):
    pytest.importorskip("faiss")
    check_index(FaissIndex(16, "cpu", factory))


@pytest.mark.parametrize("rerank", [False, 15])
def test_faiss_re_ranked_in_part(rerank):
    pytest.importorskip("faiss")
    check_index(FaissIndex(16, "cpu", "IVF16,PQ8x4fs").tuned(4, rerank), recall=0.5)


@pytest.mark.parametrize("engine", [Brute, Filed])
def test_engines_as_short_as_they_can_be(engine):
    check_index(engine(8))
    check_index(engine(8, slack=0.5))


# --- it must find what is wrong -----------------------------------------------------------------------------


def broken(**methods) -> Index:
    """An engine that keeps its promises but for `methods`."""
    return register_index("broken-" + "-".join(methods) + f"-{next(_numbers)}")(type("Broken", (Filed,), methods))(8)


_numbers = iter(range(1000))


@pytest.mark.parametrize(
    ("methods", "promise"),
    [
        ({"n": property(lambda self: 7)}, "n is 0 before"),
        ({"__init__": lambda self, dim, device="cpu", slack=1: Brute.__init__(self, dim, device, {1})}, "JSON types"),
        ({"_propose": lambda self, q, c: (np.tile(np.arange(c), (len(q), 1)), None)}, "of the true neighbours"),
        ({"_propose": lambda self, q, c: (np.zeros((len(q), c), int), None)}, "no row is returned twice"),
        ({"_add": lambda self, keys: None}, "after add"),
        ({"_load": lambda self, path: None}, "the memory beside it has"),
        ({"_forget": lambda self, rows: setattr(self, "_keys", self._keys[:-1])}, "."),
        ({"search": lambda self, q, k, keys: Index.search(self, q, k, keys).first(max(k - 1, 0))}, "both \\(q, k\\)"),
        ({"forget": lambda self, rows: None}, "forgotten rows are never returned"),
        ({"restore": lambda self, rows, keys: None}, "with restored rows as if"),
        ({"settle": lambda self, remembered, keys: None, "restore": Index.restore}, "with restored rows as if"),
        (
            {"__copy__": lambda self: vars(made := Index.fresh(self)).update(vars(self)) or made},
            "when its copy forgets",
        ),
    ],
)
def test_a_broken_promise_is_named(methods, promise):
    with pytest.raises((AssertionError, MemoryFileError), match=promise):
        check_index(broken(**methods))


def test_a_build_that_differs_from_one_time_to_the_next():
    generator = np.random.default_rng(0)

    def propose(self, queries, count):
        rows, _ = Filed._propose(self, queries, count)
        rows[generator.random(rows.shape) < 0.05] = -1
        return rows, None

    with pytest.raises(AssertionError, match="answer the same"):
        check_index(broken(_propose=propose), recall=0.5)


def test_an_engine_whose_searches_disturb_each_other():
    def propose(self, queries, count):
        self.asked = queries
        time.sleep(0.001)
        return Filed._propose(self, self.asked, count)

    with pytest.raises(AssertionError, match="threads that search at once"):
        check_index(broken(_propose=propose))


def test_a_row_that_there_is_not_is_an_error_and_no_crash():
    index = broken(_propose=lambda self, q, c: (np.full((len(q), c), 10**9), None))
    with pytest.raises(ParameterError, match="proposes row 1000000000, and it has 3 rows"):
        index.build(torch.zeros(3, 8))


# --- one file is enough -------------------------------------------------------------------------------------


def test_a_registered_engine_is_made_by_name_or_instance(tmp_path):
    keys = torch.randn(50, 8)
    named = make_index("brute", n=50, dim=8, device="cpu", params={"slack": 0.25, "rerank": 7}, overfetch=2)
    given = make_index(Brute(8, slack=0.25).tuned(2, 7), n=50, dim=8, device="cpu")
    for index in (named, given):
        assert type(index) is Brute and index.params == {"slack": 0.25}
        assert (index.overfetch, index.rerank, index.name, index.engine) == (2, 7, "brute", "brute")
        index.build(keys)
        assert index.recall.value == 1.0
        again = load_index(index.to_json(), tmp_path, keys, torch.tensor([3]), device="cpu")
        assert type(again) is Brute and again.params == index.params and again.rerank == 7
        assert 3 not in again.search(keys[3:4], 10, keys).rows


def test_instances_that_cannot_be():
    built = Brute(8)
    built.build(torch.zeros(3, 8))
    for index, params in ((built, None), (Brute(9), None), (Brute(8), {"slack": 1})):
        with pytest.raises(ParameterError, match="expected an index without rows for keys of 8 dimensions"):
            make_index(index, n=3, dim=8, device="cpu", params=params)
    with pytest.raises(ParameterError, match="unexpected keyword argument 'nprobe'; it takes slack"):
        make_index("brute", n=3, dim=8, device="cpu", params={"nprobe": 3})


def test_an_engine_that_nobody_registered(tmp_path):
    class Unknown(Brute):
        pass

    index = Unknown(8)
    index.build(torch.randn(30, 8))
    for write in (index.to_json, lambda: index.save(tmp_path, "index-1")):
        with pytest.raises(MemoryFileError, match=r"its class .*Unknown; decorate .*@register_index"):
            write()
    saved = Brute(8)
    saved.build(torch.randn(30, 8))
    data = saved.to_json() | {"engine": "elsewhere", "module": "somebody.engines"}
    with pytest.raises(MemoryFileError, match=r"engine 'elsewhere', .* import the module .*'somebody\.engines'"):
        load_index(data, tmp_path, torch.zeros(30, 8), torch.empty(0), device="cpu")
    assert "somebody" not in sys.modules


def test_a_file_outside_the_folder_is_not_read(tmp_path):
    index = Filed(8)
    index.build(torch.randn(30, 8))
    index.save(tmp_path, "index-1")
    (tmp_path / "mem").mkdir()
    data = index.to_json() | {"file": "../index-1.brute-in-a-file"}
    with pytest.raises(MemoryFileError, match="missing, torn"):
        load_index(data, tmp_path / "mem", None, torch.empty(0), device="cpu", n=30)


@pytest.mark.parametrize("name", ["auto", "knnlm", "a/b", "IVF4,Flat", ""])
def test_names_that_an_engine_cannot_have(name):
    with pytest.raises(ParameterError, match="cannot be called"):
        register_index(name)
    with pytest.raises(ParameterError, match="registered already"):
        register_index("exact")(Brute)


def test_importing_the_checks_loads_nothing():
    loaded = "import sys, residua.testing; assert not {'torch', 'faiss', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True)


# --- an engine of somebody else's ---------------------------------------------------------------------------


def test_usearch():
    usearch = pytest.importorskip("usearch.index", reason="usearch is not installed")

    @register_index("usearch-in-tests")
    class Usearch(Index):
        def __init__(self, dim, device="cpu", connectivity=16):
            super().__init__(dim, device, connectivity=connectivity)
            self._graph = self._empty()

        def _empty(self):
            return usearch.Index(ndim=self.dim, metric="l2sq", dtype="f32", connectivity=self.params["connectivity"])

        @property
        def n(self):
            return len(self._graph)

        def _build(self, keys):
            self._graph = self._empty()
            self._add(keys)

        def _add(self, keys):
            self._graph.add(np.arange(self.n, self.n + len(keys)), keys.float().numpy(), threads=1)

        def _propose(self, queries, count):
            found = self._graph.search(queries.numpy(), count, threads=1)
            rows, squared = (array.reshape(len(queries), -1) for array in (found.keys, found.distances))
            return np.where(np.isfinite(squared), rows.astype(np.int64), -1), squared

        def _save(self, path):
            self._graph.save(str(path))

        def _load(self, path):
            self._graph.load(str(path))

    check_index(Usearch(16))
