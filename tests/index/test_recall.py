import logging

import pytest
import torch

from residua.index import Exact, FaissIndex, Recall, check_recall, load_index, measure_recall


class Half(Exact):
    """Finds only the even rows."""

    def build(self, keys):
        super().build(keys)
        self.forget(torch.arange(1, len(keys), 2))


def test_the_exact_index_recalls_everything(clusters):
    keys, _ = clusters
    index = Exact(16, "cpu")
    index.build(keys)
    assert measure_recall(index, keys) == Recall(1.0, 50, 256, n=4000, rows=4000)


def test_ties_do_not_count_against_it():
    keys = torch.zeros(500, 2)
    index = Half(2, "cpu")
    index.build(keys)
    assert measure_recall(index, keys).value == 1.0


def test_half_the_rows_are_half_the_recall_and_a_warning(clusters):
    keys, _ = clusters
    index = Half(16, "cpu")
    index.build(keys)
    with pytest.warns(UserWarning, match="index 'exact' finds too few of the true neighbours: recall@50 = 0.5"):
        assert 0.46 < measure_recall(index, keys).value < 0.54


def test_it_is_logged_and_deterministic(clusters, caplog):
    keys, _ = clusters
    index = Exact(16, "cpu")
    index.build(keys[:300])
    with caplog.at_level(logging.INFO, "residua"):
        first = measure_recall(index, keys[:300])
    assert first == measure_recall(index, keys[:300])
    assert "index exact over 300 keys: recall@50 = 1.000 on 256 queries" in caplog.text


def test_few_keys():
    index = Exact(2, "cpu")
    assert measure_recall(index, torch.zeros(0, 2)) is None
    index.build(torch.zeros(1, 2))
    assert measure_recall(index, torch.zeros(1, 2)) is None
    keys = torch.tensor([[0.0, 0], [1, 0], [2, 0]])
    index.build(keys)
    assert measure_recall(index, keys) == Recall(1.0, 3, 3, n=3, rows=3)


def test_json():
    recall = Recall(0.5, 3, 4)
    assert Recall(**recall.to_json()) == recall


def test_a_loaded_index_is_asked_again(clusters, tmp_path):
    faiss = pytest.importorskip("faiss")
    assert faiss
    keys, _ = clusters
    index = FaissIndex(16, "cpu", "IVF32,SQ8")
    index.build(keys)
    index.save(tmp_path, "a")
    forgotten = torch.arange(0, 4000, 2)
    load = lambda keys: load_index(index.to_json(), tmp_path, keys, forgotten, device="cpu")  # noqa: E731
    assert check_recall(load(keys), keys, forgotten) > 0.95
    with pytest.warns(UserWarning, match=r"'IVF32,SQ8' finds 0\.0\d of the true neighbours .* found 1\.00 when"):
        load(keys.flip(0))


def test_of_many_keys_each_must_find_itself(clusters, monkeypatch):
    pytest.importorskip("faiss")
    keys, _ = clusters
    monkeypatch.setattr("residua.index.recall.BRUTE", 0)
    index = FaissIndex(16, "cpu", "IVF32,SQ8")
    index.build(keys)
    assert check_recall(index, keys, torch.empty(0, dtype=torch.int64)) == 1.0
    with pytest.warns(UserWarning, match="does not fit its keys any more"):
        check_recall(index, keys.flip(0), torch.empty(0, dtype=torch.int64))
    assert check_recall(index, keys, torch.arange(3999)) is None


def test_recall_counts_true_neighbours_whatever_distances_are_answered(clusters):
    pytest.importorskip("faiss")
    keys, _ = clusters
    with pytest.warns(UserWarning, match="too few"):
        index = FaissIndex(16, "cpu", "PQ8x4fs").tuned(4, rerank=False)
        index.build(keys)
    assert 0.5 < index.recall.value < 0.9
