import json
import sys
import warnings

import numpy as np
import pytest
import torch

from residua.errors import MemoryFileError, MissingDependencyError, ParameterError, StorageError
from residua.index import Exact, FaissIndex, load_index, make_index

faiss = pytest.importorskip("faiss")

RUNGS = {
    "Flat": 1.0,
    "SQ8": 0.99,
    "PQ8x4fs": 0.93,
    "IVF32,Flat": 0.99,
    "IVF32,PQ8x4fs": 0.93,
    "HNSW16": 0.99,
    "PCA12,IVF16,Flat": 0.99,
    "PQ8x4fs,RFlat": 0.93,
}


def built(name, keys, **options):
    index = make_index(name, n=len(keys), dim=keys.shape[1], device="cpu", **options)
    index.build(keys)
    return index


@pytest.fixture(scope="module")
def truth(clusters):
    keys, queries = clusters
    index = Exact(16, "cpu")
    index.build(keys)
    return index.search(queries, 20, keys)


def recall(found, truth):
    return float((found.distances <= truth.distances[:, -1:]).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_recalls_and_answers_in_our_distances(name, clusters, truth, capfd):
    keys, queries = clusters
    index = built(name, keys)
    found = index.search(queries, 20, keys)
    assert recall(found, truth) >= RUNGS[name]
    assert index.recall.value >= RUNGS[name] - 0.03 and not index.exact and index.name == name
    true = (queries[:, None].double() - keys[found.rows].double()).norm(dim=2)
    torch.testing.assert_close(found.distances.double(), true, rtol=1e-5, atol=0)
    assert (found.distances.diff(dim=1) >= 0).all()
    assert capfd.readouterr() == ("", "")


def test_two_builds_are_the_same(clusters):
    keys, queries = clusters
    first, second = (built("IVF16,PQ8x4fs", keys).search(queries, 20, keys) for _ in range(2))
    assert torch.equal(first.rows, second.rows)


def test_overfetch_buys_recall(clusters, truth):
    keys, queries = clusters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        narrow, wide = (built("PQ4x4fs", keys, overfetch=o) for o in (1, 8))
    assert recall(narrow.search(queries, 20, keys), truth) + 0.1 < recall(wide.search(queries, 20, keys), truth)


@pytest.mark.slow
def test_behind_a_rotation(clusters, tmp_path, capfd):
    """Learning OPQ is slow, so one index is built: it is quiet, it recalls, and nprobe reaches its lists."""
    keys, queries = (points[:, :4].contiguous() for points in clusters)
    exact = Exact(4, "cpu")
    exact.build(keys)
    truth = exact.search(queries, 20, keys)
    index = built("OPQ2,IVF64,PQ2x4fs", keys, overfetch=10)
    assert faiss.extract_index_ivf(index._index).nprobe == 32
    assert recall(index.search(queries, 20, keys), truth) > 0.9
    index.save(tmp_path, "opq")
    said = index.to_json() | {"params": index.params | {"nprobe": 1}}
    with pytest.warns(UserWarning, match="does not fit its keys any more"):
        few = load_index(said, tmp_path, keys, torch.empty(0), device="cpu", trust=True)
    assert faiss.extract_index_ivf(few._index).nprobe == 1
    assert recall(few.search(queries, 20, keys), truth) + 0.05 < recall(index.search(queries, 20, keys), truth)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HNSW16", "RR16,HNSW16"])
def test_a_graph_searches_as_wide_as_it_fetches_or_is_told(name, clusters):
    keys, queries = clusters
    usual, same, wide = (built(name, keys, params=p, overfetch=2) for p in ({}, {"efSearch": 140}, {"efSearch": 420}))
    of_70 = [index.search(queries, 70, keys).rows for index in (usual, same, wide)]
    assert torch.equal(of_70[0], of_70[1]) and not torch.equal(of_70[1], of_70[2])
    of_9 = [index.search(queries, 9, keys).rows for index in (usual, wide)]
    assert not torch.equal(*of_9)


@pytest.mark.slow
def test_a_graph_over_lists_is_searched_twice_as_wide_as_the_lists_are_read(clusters):
    lists = built("IVF64_HNSW8,Flat", clusters[0])._index
    assert faiss.downcast_index(lists.quantizer).hnsw.efSearch == 64


@pytest.mark.slow
def test_forgotten_rows_never_come_back(clusters):
    keys, queries = clusters
    for name in ("PQ8x4fs", "IVF32,PQ8x4fs", "HNSW16"):
        index = built(name, keys)
        nearest = index.search(queries, 1, keys).rows[:, 0].unique()
        index.forget(nearest)
        index.forget(nearest)
        found = index.search(queries, 30, keys)
        assert not torch.isin(found.rows, nearest).any() and found.found.all()
        more = keys[nearest] + 0.001
        index.add(more)
        both = torch.cat([keys, more])
        again = index.search(keys[nearest], 1, both)
        assert (again.rows[:, 0] >= len(keys)).float().mean() > 0.9
    again = built("PQ8x4fs", keys)
    again.forget(nearest)
    again.build(keys)
    assert torch.isin(again.search(queries, 1, keys).rows, nearest).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PQ8x4fs", "IVF32,Flat", "HNSW16"])
def test_few_survivors_are_all_found(name, clusters):
    """Almost everything is forgotten: fetching more and, at last, looking at every row still answers in full."""
    keys, queries = clusters
    index = built(name, keys)
    survivors = torch.tensor([0, 1700, 3999])
    dead = torch.ones(len(keys), dtype=torch.bool)
    dead[survivors] = False
    index.forget(dead.nonzero()[:, 0])
    found = index.search(queries, 5, keys)
    assert (found.rows[:, :3].sort(dim=1).values == survivors).all() and (found.rows[:, 3:] == -1).all()
    index.forget(survivors)
    assert not index.search(queries, 5, keys).found.any()


def test_more_neighbours_than_rows_and_than_the_probed_lists_hold(clusters):
    keys, queries = clusters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = built("IVF64,Flat", keys[:900], params={"nprobe": 1})
    found = index.search(queries[:3], 1000, keys[:900])
    assert found.found.sum(dim=1).tolist() == [900] * 3
    assert found.rows[0, :900].sort().values.tolist() == list(range(900))


def test_empty(clusters):
    keys, queries = clusters
    index = built("HNSW8", keys[:0])
    assert index.recall is None and not index.search(queries, 3, keys[:0]).found.any()
    index.add(keys)
    assert index.search(keys[:4], 1, keys).rows[:, 0].tolist() == [0, 1, 2, 3]
    assert index.search(queries[:0], 3, keys).rows.shape == (0, 3)


def test_save_and_load(clusters, tmp_path):
    keys, queries = clusters
    index = built("PCA12,IVF64,PQ6x4fs", keys, params={"nprobe": 16}, overfetch=6)
    index.forget(torch.arange(0, 4000, 3))
    assert index.save(tmp_path, "index-3") == ["index-3.faiss"]
    data = json.loads(json.dumps(index.to_json()))
    again = load_index(data, tmp_path, keys, torch.arange(0, 4000, 3), device="cpu")
    for one, other in ((index.search(queries, 20, keys), again.search(queries, 20, keys)),):
        assert torch.equal(one.rows, other.rows) and torch.equal(one.distances, other.distances)
    assert (
        again.recall == index.recall
        and again.params == index.params
        and again.params["nprobe"] == 16
        and again.overfetch == 6
    )
    again.add(keys[:10] + 1)
    assert again.n == 4010


def test_a_torn_or_foreign_file_is_refused(clusters, tmp_path):
    keys, _ = clusters
    index = built("PQ8x4fs", keys)
    index.save(tmp_path, "a")
    with pytest.raises(MemoryFileError, match=r"indexes 4000 keys; the memory beside it has 3999"):
        load_index(index.to_json(), tmp_path, keys[:3999], torch.empty(0), device="cpu")
    whole = (tmp_path / "a.faiss").read_bytes()
    for torn in (whole[: len(whole) // 2], b"", np.random.default_rng(0).bytes(300)):
        (tmp_path / "a.faiss").write_bytes(torn)
        with pytest.raises(MemoryFileError, match="torn or not a FAISS index"):
            load_index(index.to_json(), tmp_path, keys, torch.empty(0), device="cpu", trust=True)
    (tmp_path / "a.faiss").unlink()
    with pytest.raises(MemoryFileError, match=r"a\.faiss is missing"):
        load_index(index.to_json(), tmp_path, keys, torch.empty(0), device="cpu", trust=True)
    with pytest.raises(MemoryFileError, match="cannot write"):
        index.save(tmp_path / "nowhere", "a")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "not a FAISS factory string for keys of 16 dimensions: could not parse index string nonsense"),
        ("PQ7x4fs", "not a FAISS factory string for keys of 16 dimensions: .*multiple"),
        ("IVF500,Flat", "learns 500 lists and there are 400 keys"),
        ("IVF4,PQ8x10", "learns 1024 codewords and there are 400 keys"),
        ("IDMap2,Flat", "add_with_ids"),
    ],
)
def test_indexes_that_cannot_be(name, message, clusters):
    keys, _ = clusters
    with pytest.raises(ParameterError, match=message):
        built(name, keys[:400])


def test_parameters_that_cannot_be(clusters):
    with pytest.raises(ParameterError, match="no search parameter 'nprob' that takes 3"):
        FaissIndex(16, "cpu", "IVF4,Flat", nprob=3)
    with pytest.raises(ParameterError, match="overfetch=0"):
        make_index("PQ8x4fs", n=1, dim=16, device="cpu", overfetch=0)


@pytest.mark.slow
def test_training_on_few_keys_is_quiet(clusters, capfd):
    keys, _ = clusters
    built("PCA8,IVF16,PQ4x4", keys[:300])
    assert capfd.readouterr() == ("", "")


def test_training_samples_when_there_are_many(clusters, monkeypatch):
    keys, _ = clusters
    seen = []
    index = FaissIndex(16, "cpu", "IVF4,Flat", train_on=500)
    real = faiss.IndexIVFFlat.train
    monkeypatch.setattr(faiss.IndexIVFFlat, "train", lambda self, x: seen.append(len(x)) or real(self, x))
    index.build(keys)
    assert seen == [500]


def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "residua\[faiss\]"'):
        make_index("PQ8x4fs", n=1, dim=16, device="cpu")


# --- how many get exact distances ---------------------------------------------------------------------------


def coarse(name, keys, **options):
    """As built, where a low recall is what is wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return built(name, keys, **options)


def true_distances(queries, keys, rows):
    return (queries[:, None].double() - keys[rows].double()).norm(dim=2).float()


def test_a_rerank_depth_makes_that_many_exact_and_moves_the_rest():
    """Coarse codes put everything too near by about the same; the error of the computed ones tells by how much."""
    generator = torch.Generator().manual_seed(0)
    keys, queries = torch.randn(3000, 16, generator=generator), torch.randn(100, 16, generator=generator)
    index = coarse("PQ4x4fs", keys, params={"rerank": 40})
    found = index.search(queries, 200, keys)
    true = true_distances(queries, keys, found.rows)
    exact = (found.distances - true).abs() < 1e-5 * true
    assert (exact.sum(dim=1) >= 40).all() and exact.float().mean() < 0.3
    assert (found.distances.diff(dim=1) >= 0).all() and found.found.all()
    index.rerank = False
    coded = index.search(queries, 200, keys)
    bias, moved = ((f.distances - true_distances(queries, keys, f.rows)).mean() for f in (coded, found))
    assert bias < -0.1 and moved.abs() < 0.2 * bias.abs()


def test_more_than_k_are_fetched_only_for_exact_distances(clusters, monkeypatch):
    keys, queries = clusters
    fetched = []
    real = FaissIndex._propose
    monkeypatch.setattr(FaissIndex, "_propose", lambda self, *a: fetched.append(a[1]) or real(self, *a))
    index = built("IVF32,PQ8x4fs", keys, overfetch=2.5)
    fetched.clear()
    for rerank in (True, False, 60, 6, 500):
        index.rerank = rerank
        index.search(queries, 30, keys)
    index.search(queries, 30, None)
    assert fetched == [75, 30, 60, 30, 75, 30]


def test_a_depth_that_covers_all_candidates_is_full_reranking(clusters):
    keys, queries = clusters
    index = built("IVF32,PQ8x4fs", keys)
    whole = index.search(queries, 10, keys)
    index.rerank = 40
    again = index.search(queries, 10, keys)
    assert torch.equal(whole.rows, again.rows) and torch.equal(whole.distances, again.distances)


def test_rerank_is_saved_and_checked(clusters, tmp_path):
    keys, _ = clusters
    index = coarse("PQ8x4fs", keys, params={"rerank": 7})
    index.save(tmp_path, "a")
    assert load_index(index.to_json(), tmp_path, keys, torch.empty(0), device="cpu").rerank == 7
    for rerank in (-1, 2.5):
        with pytest.raises(ParameterError, match="rerank="):
            make_index("PQ8x4fs", n=1, dim=16, device="cpu", params={"rerank": rerank})


# --- without keys, and with half of them --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Flat", "IVF32,Flat", "IVF32,PQ8x4fs", "PCA16,IVF16,Flat", "HNSW16"])
def test_without_keys_the_indexs_own_distances(name, clusters, tmp_path):
    keys, queries = clusters
    index = built(name, keys)
    index.forget(torch.arange(0, 4000, 5))
    found = index.search(queries, 30, None)
    assert found.found.all() and not (found.rows % 5 == 0).any() and (found.distances.diff(dim=1) >= 0).all()
    true = true_distances(queries, keys, found.rows)
    assert (found.distances - true).abs().mean() < (0.3 if "PQ" in name else 1e-4) * true.mean()
    index.save(tmp_path, "a")
    again = load_index(index.to_json(), tmp_path, None, torch.arange(0, 4000, 5), device="cpu", n=4000)
    assert torch.equal(again.search(queries, 30, None).distances, found.distances)


def test_without_keys_all_lists_are_probed_where_too_few_were_found(clusters):
    keys, queries = clusters
    index = coarse("IVF64,SQ8", keys, params={"nprobe": 1})
    found = index.search(queries[:5], 4000, None)
    assert (found.rows.sort(dim=1).values == torch.arange(4000)).all()
    index.forget(torch.arange(3990))
    assert index.search(queries[:5], 10, None).found.all()
    assert index.search(queries[:5], 12, None).found.sum(dim=1).tolist() == [10] * 5


def test_saving_forgets_how_wide_the_last_search_was(clusters, tmp_path):
    keys, queries = clusters
    index = built("IVF64,SQ8", keys)
    index.save(tmp_path, "a")
    index.search(queries, 3999, keys)
    index.save(tmp_path, "b")
    assert (tmp_path / "a.faiss").read_bytes() == (tmp_path / "b.faiss").read_bytes()


def test_an_exact_index_needs_the_keys(tmp_path):
    index = Exact(16, "cpu")
    index.build(torch.zeros(3, 16))
    with pytest.raises(StorageError, match="computes distances from the keys"):
        index.search(torch.zeros(1, 16), 1, None)
    with pytest.raises(MemoryFileError, match="holds no keys"):
        load_index(index.to_json(), tmp_path, None, torch.empty(0), device="cpu", n=3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keys_answer_as_their_float32_values(dtype, clusters):
    keys, queries = (points - 50 for points in clusters)
    half = keys.to(dtype)
    for make in (lambda: FaissIndex(16, "cpu", "IVF32,PQ8x4fs"), lambda: Exact(16, "cpu")):
        one, other = make(), make()
        one.build(half)
        other.build(half.float())
        one.add(half[:5])
        other.add(half[:5].float())
        keys_of = torch.cat([half, half[:5]])
        a, b = one.search(queries, 20, keys_of), other.search(queries, 20, keys_of.float())
        torch.testing.assert_close(a.distances, b.distances, rtol=1e-6, atol=1e-6)
        assert one.recall == other.recall


# --- what version 0.1 saved ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keys_kept", [True, False])
def test_an_index_of_version_1_answers_as_it_did(keys_kept, clusters, tmp_path):
    """It indexed differences from a mean of its own, which its description holds."""
    keys, queries = clusters
    mean = keys.mean(dim=0)
    old = faiss.index_factory(16, "IVF32,SQ8")
    old.train((keys - mean).numpy())
    old.add((keys - mean).numpy())
    faiss.write_index(old, str(tmp_path / "index-1.faiss"))
    recall = {"value": 0.99, "k": 50, "queries": 256}
    data = {"name": "IVF32,SQ8", "dim": 16, "params": {"nprobe": 9}, "overfetch": 2, "mean": mean.tolist()}
    data = json.loads(json.dumps(data | {"file": "index-1.faiss", "recall": recall}))
    kept = keys if keys_kept else None
    index = load_index(data, tmp_path, kept, torch.arange(0, 4000, 7), device="cpu", n=4000, trust=True)
    assert (index.name, index.engine, index.overfetch, index.rerank) == ("IVF32,SQ8", "faiss", 2, True)
    assert faiss.extract_index_ivf(index._index).nprobe == 9 and index.recall.value == 0.99
    found = index.search(queries, 10, kept)
    assert found.found.all() and not (found.rows % 7 == 0).any()
    true = true_distances(queries, keys, found.rows)
    torch.testing.assert_close(found.distances, true, rtol=1e-5 if keys_kept else 0.2, atol=0 if keys_kept else 0.2)
    index.add(keys[:5] + 1)
    index.save(tmp_path, "index-2")
    both = torch.cat([keys, keys[:5] + 1])
    again = load_index(index.to_json(), tmp_path, both if keys_kept else None, torch.empty(0), device="cpu", n=4005)
    assert again.search(keys[:5] + 1, 1, both if keys_kept else None).rows[:, 0].tolist() == [*range(4000, 4005)]


def test_an_exact_index_of_version_1(tmp_path):
    keys = torch.tensor([[0.0], [1.0], [2.0]])
    index = load_index({"name": "exact"}, tmp_path, keys, torch.tensor([0]), device="cpu")
    assert isinstance(index, Exact) and index.search(keys[:1], 2, keys).rows.tolist() == [[1, 2]]
