"""A memory whose keys only its index remembers, and keys of half precision."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Head
from residua.errors import NonFiniteError, ParameterError, StorageError

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(30, 8)) * 4


def made(n=600, seed=0, ids=None):
    rng = np.random.default_rng(seed)
    keys = CENTRES[rng.integers(0, 30, n)] + rng.normal(size=(n, 8)) / 10
    return rs.Encoded(keys, rng.normal(size=(n, 5)), rng.integers(0, 5, n), ids)


@pytest.fixture
def memory():
    pytest.importorskip("faiss")
    return rs.Memory(made(ids=np.arange(600) // 20), index="IVF4,SQ8", index_params={"nprobe": 4}, names={3: "three"})


def test_what_the_index_keeps_answers(memory, tmp_path):
    near, typical, recall = memory.search(made().keys[:50], 5), memory.median_nn_distance(), memory.recall
    version = memory.version
    memory.discard_keys()
    assert (memory.keys_kept, memory.keys, memory.version) == (False, None, version + 1)
    assert "key" not in memory.bytes_per_row
    with pytest.raises(StorageError, match="were discarded"):
        memory.keys_at([0])
    found = memory.search(made().keys[:50], 5)
    assert found.rows[:, 0].tolist() == near.rows[:, 0].tolist() == list(range(50))
    torch.testing.assert_close(found.distances, near.distances, atol=0.08, rtol=0.05)  # SQ8's steps are about 0.06
    assert abs(memory.median_nn_distance() - typical) < 0.1
    assert memory.recall.value <= recall.value and memory.index.rerank is False
    memory.discard_keys()  # again is no error
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert (loaded.keys_kept, loaded.names, loaded.recall) == (False, {3: "three"}, memory.recall)
    again = loaded.search(made().keys[:50], 5)
    assert torch.equal(again.rows, found.rows) and torch.equal(again.distances, found.distances)
    assert loaded.median_nn_distance() == memory.median_nn_distance()
    for row in (made().keys[5].tobytes(), made().keys[5].astype(np.float16).tobytes()):
        assert not any(row in file.read_bytes() for file in tmp_path.iterdir())


def test_saving_again_removes_the_keys_from_the_folder(memory, tmp_path):
    memory.save(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.glob("rows-*"))
    memory.discard_keys()
    memory.save(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.glob("rows-*")) < size - 600 * 8 * 4
    assert len(list(tmp_path.glob("rows-*"))) == 1


def test_edits_without_keys(memory, tmp_path):
    memory.discard_keys()
    memory.forget([0])
    assert memory.add(made(30, seed=1, ids=[100] * 30)).tolist() == [100] * 30
    memory.relabel(100, 4)
    memory.save(tmp_path)
    for one in (memory, rs.Memory.load(tmp_path)):
        found = one.search(made(30, seed=1).keys, 1)
        assert found.rows[:, 0].tolist() == list(range(600, 630))
        assert one.search(made().keys[:20], 3).rows.min() >= 20
        assert len(one) == 610 and set(one.labels[-30:]) == {4}
        with pytest.raises(StorageError, match="build it again"):
            one.rebuild()
    one.add(made(5, seed=2))
    one.save(tmp_path)
    assert len(rs.Memory.load(tmp_path)) == 615


@pytest.mark.parametrize("taken", [0, 3, 7])
def test_an_interrupted_add_without_keys(memory, taken, monkeypatch, tmp_path):
    memory.discard_keys()
    before = memory.ids.tolist(), memory.search(made(20, seed=3).keys, 4).rows.tolist()

    add = memory.index._add

    def interrupt(keys):
        if taken:
            add(keys[:taken])
        raise KeyboardInterrupt

    monkeypatch.setattr(memory.index, "_add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        memory.add(made(7, seed=3))
    monkeypatch.undo()
    after = memory.ids.tolist(), memory.search(made(20, seed=3).keys, 4).rows.tolist()
    assert before == after
    memory.add(made(7, seed=3))
    rows = list(range(600 + taken, 607 + taken))
    assert memory.search(made(7, seed=3).keys, 1).rows[:, 0].tolist() == rows
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert loaded.ids.tolist() == memory.ids.tolist() and len(loaded) == 607


def test_whose_keys_cannot_go():
    with pytest.raises(StorageError, match="trained index"):
        rs.Memory(made()).discard_keys()
    pytest.importorskip("faiss")
    weight = torch.eye(5, 8)
    keys = made().keys
    data = rs.Encoded(keys, keys @ weight.numpy().T, made().labels, head=Head(weight))
    memory = rs.Memory(data, index="ITQ8,LSH", storage="head")
    with pytest.raises(StorageError, match="recomputes the logits from the keys, and index 'ITQ8,LSH' cannot say"):
        memory.discard_keys()
    assert memory.keys_kept and memory.search(keys[:1], 1).rows.tolist() == [[0]]


def test_a_sum_of_forgotten_and_dropped(memory):
    memory.forget([2])
    before = memory.recall
    memory.discard_keys()
    assert memory.recall.n == 580 and memory.recall.value <= before.value  # which was with exact distances


# --- half precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_distances_are_to_the_keys_as_stored(dtype, tmp_path):
    data = made(200)
    memory = rs.Memory(data, key_dtype=dtype)
    assert memory.bytes_per_row["key"] == 16
    stored = torch.from_numpy(data.keys).to(getattr(torch, dtype)).double()
    assert memory.keys.dtype == np.float64 and (memory.keys == stored.numpy()).all()
    queries = made(40, seed=1).keys
    expected = torch.cdist(torch.from_numpy(queries).double(), stored)
    found = memory.search(queries, 6)
    assert found.distances.dtype == torch.float32
    torch.testing.assert_close(found.distances.double(), expected.sort(dim=1).values[:, :6], atol=1e-5, rtol=1e-5)
    memory.add(made(20, seed=2))
    memory.forget([3])
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert (loaded.schema.key_dtype, loaded.bytes_per_row["key"]) == (dtype, 16)
    again = loaded.search(queries, 6)
    assert torch.equal(again.distances, memory.search(queries, 6).distances)
    loaded.rebuild()
    assert loaded.bytes_per_row["key"] == 16 and loaded.n_rows == 219
    assert memory.median_nn_distance() == pytest.approx(rs.Memory(data).median_nn_distance(), rel=0.1)


def test_half_precision_behind_a_trained_index():
    pytest.importorskip("faiss")
    memory = rs.Memory(made(), index="IVF4,SQ8", key_dtype="float16", storage="none")
    assert memory.search(made().keys, 1).rows[:, 0].tolist() == list(range(600))


def test_half_precision_that_cannot_be():
    with pytest.raises(ParameterError, match=r"'float8'.*'bfloat16'"):
        rs.Memory(made(), key_dtype="float8")
    big = rs.Encoded([[-1e5], [1e5]], 2 * np.eye(2), [1, 0])
    with pytest.raises(NonFiniteError, match=r"do not fit float16.*use key_dtype='bfloat16'"):
        rs.Memory(big, key_dtype="float16")
    assert rs.Memory(big, key_dtype="bfloat16").search([[1e5]], 1).distances.item() < 300
    assert rs.Memory(big[:1], key_dtype="float16").keys.tolist() == [[-1e5]]  # less its centre it is 0
    vast = rs.Encoded([[1e19, 0], [-1e19, 0]], 2 * np.eye(2), [1, 0])
    with pytest.raises(NonFiniteError, match=r"do not fit float32.*scale them"):
        rs.Memory(vast)  # the squares of their distances would be infinite
    head = Head(torch.eye(2, 1))
    data = rs.Encoded([[1.0]], [[1.0, 0.0]], [1], head=head)
    with pytest.raises(ParameterError, match="too coarse"):
        rs.Memory(data, key_dtype="bfloat16", storage="head")
    assert rs.Memory(data, key_dtype="float16", storage="head").logits.dense().tolist() == [[1, 0]]
