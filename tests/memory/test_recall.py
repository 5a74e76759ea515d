"""What a memory says of its index's recall stays true as it grows and shrinks."""

import warnings
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

import residua as rs
from residua.index import recall as measuring
from residua.index.recipes import RECIPES, Recipe

pytest.importorskip("faiss")


def some(n, at=0.0, seed=0):
    """`n` rows about 20 places near `at`."""
    generator = np.random.default_rng(seed)
    places = generator.normal(size=(20, 16))
    keys = places[generator.integers(20, size=n)] + generator.normal(size=(n, 16)) + at
    return rs.Encoded(keys.astype(np.float32), np.zeros((n, 2)), generator.integers(2, size=n))


def true_recall(memory, queries, k=50):
    keys = torch.from_numpy(memory.keys)
    limit = torch.cdist(queries.double(), keys).kthvalue(k, dim=1).values
    return float((memory.search(queries, k).distances <= limit[:, None] + 1e-5).double().mean())


@pytest.fixture
def memory():
    return rs.Memory(some(2000), index="IVF32,SQ8")


def test_shifted_rows_are_measured_and_warned_of_once(memory):
    assert memory.recall.value > 0.98 and memory.recall.n == 2000
    assert memory.recall.date == datetime.now(UTC).date().isoformat()
    shifted = some(20000, at=6.0, seed=1)
    with pytest.warns(UserWarning, match=r"since rows were added: recall@50 = 0\.\d+ on 64 .*rebuild\(\)") as caught:
        memory.add(shifted)
    assert len(caught) == 1 and caught[0].filename == __file__
    queries = torch.from_numpy(np.asarray(shifted.keys[::100], np.float32)) + 0.2
    assert memory.recall.n == 22000
    assert abs(memory.recall.value - true_recall(memory, queries)) < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memory.add(some(12000, at=6.0, seed=2))  # measured again, and no news
        assert memory.recall.n == 34000
        memory.rebuild()
    assert memory.recall.value > 0.95 and memory.recall.n == 34000


def test_few_rows_more_or_less_cost_nothing(memory):
    before = memory.recall
    memory.add(some(900, seed=1))
    memory.forget(range(800))
    assert memory.recall is before


def test_forgetting_a_third_measures_again(memory):
    memory.forget(range(0, 1400, 2))
    assert memory.recall.n == 1300 and memory.recall.rows == 2000 and memory.recall.value > 0.9


def test_a_window_that_slides_is_measured_though_it_does_not_grow(memory):
    with pytest.warns(UserWarning, match="since rows were added"):
        for step in range(4):
            ids = memory.add(some(500, at=6.0, seed=step))
            memory.forget(ids - 2000)
    assert len(memory) == 2000 and memory.recall.rows > 2500


def test_of_many_keys_a_sample_is_searched(memory, monkeypatch):
    monkeypatch.setattr(measuring, "MOST", 1000 * 16)
    memory.add(some(2000, seed=1))
    assert memory.recall.n == 4000 and memory.recall.value > 0.9
    with pytest.warns(UserWarning, match="since rows were added"):
        memory.add(some(20000, at=6.0, seed=1))
    assert memory.recall.value < 0.2


def test_it_is_saved_with_the_memory(memory, tmp_path):
    memory.save(tmp_path / "mem")
    memory.add(some(2000, seed=1))
    memory.save(tmp_path / "mem")
    assert rs.Memory.load(tmp_path / "mem").recall == memory.recall
    assert "4,000 rows" in str(memory.recall)


def test_an_exact_index_has_nothing_to_measure():
    memory = rs.Memory(some(100))
    memory.add(some(1000))
    assert memory.recall is None


def test_a_recipe_that_finds_too_few_even_anew_is_replaced(monkeypatch):
    monkeypatch.setitem(RECIPES, "knnlm", lambda n, dim: Recipe("PQ2x4fs", {}))
    with pytest.warns(UserWarning, match="too few"):
        memory = rs.Memory(some(2000), index="knnlm", overfetch=1)
    assert memory.index.name == "PQ2x4fs"
    with pytest.warns(UserWarning, match="too few"):
        memory.rebuild()
    assert memory.index.exact and memory.recall is None


def test_a_factory_string_is_what_was_asked_for():
    with pytest.warns(UserWarning, match="too few"):
        memory = rs.Memory(some(2000), index="PQ2x4fs", overfetch=1)
    with pytest.warns(UserWarning, match="too few"):
        memory.rebuild()
    assert memory.index.name == "PQ2x4fs"
