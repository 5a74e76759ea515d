import pytest
import torch

from residua.errors import MemoryFileError, ParameterError
from residua.index import Exact, load_index, make_index, recipes
from residua.index.recipes import auto


def test_auto_by_size(monkeypatch):
    monkeypatch.setattr(recipes, "faiss_installed", lambda: True)
    assert auto(60_000_000 // 64, 64) == ("exact", {})
    assert auto(999_999, 64) == ("PQ32x4fs", {})
    assert auto(999_999, 63) == ("Pad64,PQ32x4fs", {})
    assert auto(4_000_000, 64) == ("IVF8000,PQ32x4fs", {"nprobe": 500})
    assert auto(10**9, 1) == ("exact", {})
    monkeypatch.setattr(recipes, "faiss_installed", lambda: False)
    assert auto(4_000_000, 64) == ("exact", {})


@pytest.mark.parametrize(("dim", "rows"), [(64, 500), (31, 500), (32, 4_000_000), (8, 9_000_000)])
def test_what_auto_chooses_can_be_made(dim, rows):
    pytest.importorskip("faiss")
    name, params = auto(rows, dim)
    index = make_index("auto", n=rows, dim=dim, device="cpu")
    assert index.name == name and params.items() <= index.params.items()


def test_auto_rungs_recall(clusters, monkeypatch):
    pytest.importorskip("faiss")
    keys, _ = clusters
    monkeypatch.setattr(recipes, "EXACT_UP_TO", 1000)
    for most, width in ((10**6, 16), (10**6, 15), (100, 16)):  # a scan, an odd width, inverted lists
        monkeypatch.setattr(recipes, "SCAN_UP_TO", most)
        index = make_index("auto", n=len(keys), dim=width, device="cpu")
        index.build(keys[:, :width].contiguous())
        assert index.recall.value >= 0.9


def test_given_parameters_win_over_suggested_ones():
    pytest.importorskip("faiss")
    index = make_index("auto", n=4_000_000, dim=64, device="cpu", params={"nprobe": 7}, overfetch=3)
    assert index.params["nprobe"] == 7 and index.overfetch == 3


def test_bad_names():
    with pytest.raises(ParameterError, match="index=7"):
        make_index(7, n=1, dim=2, device="cpu")
    with pytest.raises(ParameterError, match="unexpected keyword argument 'nprobe'; it takes backend"):
        make_index("exact", n=1, dim=2, device="cpu", params={"nprobe": 3})


def test_exact_is_rebuilt_from_the_keys(tmp_path):
    keys = torch.tensor([[0.0], [1.0], [2.0]])
    index = make_index("exact", n=3, dim=1, device="cpu")
    index.build(keys)
    assert index.save(tmp_path, "index") == [] and not list(tmp_path.iterdir())
    again = load_index(index.to_json(), tmp_path, keys, torch.tensor([0]), device="cpu")
    assert isinstance(again, Exact) and again.search(torch.tensor([[0.0]]), 3, keys).rows.tolist() == [[1, 2, -1]]


def test_a_strange_description_is_refused(tmp_path):
    with pytest.raises(MemoryFileError, match="does not know"):
        load_index({}, tmp_path, torch.zeros(1, 1), torch.empty(0), device="cpu")
