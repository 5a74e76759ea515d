"""A live memory: each edit is in the folder when it returns, and nobody's is lost."""

import copy
import json
import threading

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError, StorageError
from residua.memory import lock, store
from residua.memory.lock import locked


def rows(n=4, at=0.0, **more):
    keys = np.random.default_rng(n).normal(size=(n, 3)) + at
    return rs.Encoded(keys, np.zeros((n, 2)), np.arange(n) % 2, **more)


@pytest.fixture
def folder(tmp_path):
    rs.Memory(rows(6)).save(tmp_path / "mem")
    return tmp_path / "mem"


def test_each_edit_is_saved_and_taken_in(folder):
    one, other = rs.Memory.open(folder), rs.Memory.open(folder)
    assert one.add(rows(2, 5.0)).tolist() == [6, 7]
    assert other.add(rows(2, 9.0)).tolist() == [8, 9]
    one.forget([0], note="asked for")
    with other.editing("merge") as draft:
        draft.relabel([1], 0)
        draft.forget([2])
    one.undo()
    for memory in (one, rs.Memory.load(folder)):
        assert memory.ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert [event.what for event in memory.log()] == ["create", "add", "add", "forget", "merge", "undo"]
        assert memory.search(rows(2, 9.0).keys, 1).distances.max() < 1e-5
    assert len(other) == 8 and other.refresh() == {} and len(other) == 9
    one.rebuild()
    assert other.forget([9]) == 1 and other.n_rows == 9
    one.save(folder)  # takes in what the other did
    assert 9 not in one


def test_an_edit_whose_save_fails_does_not_take_effect(folder, monkeypatch):
    live = rs.Memory.open(folder)

    def full(*_args, **_named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(store, "put_rows", full)
        with pytest.raises(MemoryFileError, match="No space left"):
            live.add(rows(1))
    assert live.n_rows == 6 and len(live.log()) == 1
    assert live.add(rows(1)).tolist() == [6]
    assert rs.Memory.load(folder).ids.tolist() == live.ids.tolist()


def test_it_waits_for_its_turn(folder, monkeypatch):
    live, raised = rs.Memory.open(folder), []
    monkeypatch.setattr(lock, "PATIENCE", 0.05)

    def forget():
        try:
            live.forget([0])
        except MemoryFileError as error:
            raised.append(str(error))

    with locked(folder):
        thread = threading.Thread(target=forget)
        thread.start()
        thread.join()
    assert "another process or thread is writing" in raised[0] and 0 in live
    with live.reading(), pytest.raises(StorageError, match="this thread is reading"):
        live.forget([0])


def test_copies_are_not_live(folder):
    live = rs.Memory.open(folder)
    other = copy.copy(live)
    other.forget([0])
    assert 0 in rs.Memory.load(folder) and 0 in live


@pytest.fixture
def codes(folder):
    """A folder of a memory that keeps no keys."""
    pytest.importorskip("faiss")
    memory = rs.Memory(rows(300), index="IVF4,SQ8", index_params={"nprobe": 4})
    memory.discard_keys()
    memory.save(folder)
    return folder


def test_keys_are_discarded_elsewhere(folder):
    pytest.importorskip("faiss")
    rs.Memory(rows(300), index="IVF4,SQ8").save(folder)
    live = rs.Memory.open(folder)
    with pytest.raises(StorageError, match="load the folder"):
        live.discard_keys()
    assert live.keys_kept and rs.Memory.load(folder).keys_kept


def test_two_without_keys(codes):
    one, other = rs.Memory.open(codes), rs.Memory.open(codes)
    assert one.add(rows(2, 0.5)).tolist() == [300, 301]
    assert other.add(rows(3, 0.7)).tolist() == [302, 303, 304]
    one.forget([0, 302])
    with pytest.warns(UserWarning, match="too few"):  # more than a quarter, far from all there was
        other.add(rows(90, 40.0))
    one.undo()  # takes back that add
    assert other.forget([1]) == 1 and other.n_rows == 395
    one.refresh()
    for memory in (one, other, rs.Memory.load(codes)):
        assert memory.ids.tolist() == [*range(2, 302), 303, 304]
        assert memory.search(rows(3, 0.7).keys[1:], 1).rows[:, 0].tolist() == [303, 304]
        assert memory.index.n == 395
    assert one._keys_left.truth.drawn_at == 395 and rs.Memory.verify(codes).damaged == ()


def test_an_add_without_keys_that_cannot_be_saved_is_none(codes, monkeypatch):
    live = rs.Memory.open(codes)

    def full(*_args, **_named):
        raise OSError(28, "No space left on device")

    for what in ("put_rows", "_put_tail", "_put_small"):
        with monkeypatch.context() as broken:
            broken.setattr(store, what, full)
            with pytest.raises(MemoryFileError, match="No space left"):
                live.add(rows(1))
        assert live.n_rows == live.index.n == 300 and len(rs.Memory.load(codes)) == 300
    assert live.add(rows(2)).tolist() == [300, 301]
    assert rs.Memory.load(codes).ids.tolist() == live.ids.tolist()


def adding(folder, at):
    live = rs.Memory.open(folder)
    for n in range(5):
        live.add(rows(1, at + n), note=f"{at + n}")


def add_at_once(folder, *starts):
    at_once = [threading.Thread(target=adding, args=(folder, at)) for at in starts]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()


def test_many_at_once_without_keys_lose_nothing(codes):
    add_at_once(codes, 1, 2)
    now = rs.Memory.load(codes)
    assert now.ids.tolist() == list(range(310)) and now.index.n == 310
    assert [shard["rows"] for shard in json.loads((codes / "manifest.json").read_text())["index"]["tail"]] == [10]


def test_many_at_once_lose_nothing(folder):
    add_at_once(folder, 10, 20)
    now = rs.Memory.load(folder)
    assert now.ids.tolist() == list(range(16))
    assert sorted(event.note for event in now.log()[1:]) == [f"{at + n}" for at in (10, 20) for n in range(5)]


def test_a_reader_is_loaded_with_a_live_memory(tmp_path):
    rs.ResMem(rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1])), k=2, sigma=0.5).save(tmp_path / "mem")
    reader = rs.load(tmp_path / "mem", live=True)
    reader.memory.forget([0])
    assert rs.load(tmp_path / "mem").memory.ids.tolist() == [1, 2] and reader.params["k"] == 2
    rs.Memory.load(tmp_path / "mem", live=True).forget([1])
    assert rs.Memory.load(tmp_path / "mem").ids.tolist() == [2]
