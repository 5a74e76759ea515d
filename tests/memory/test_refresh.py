"""What others saved is taken in, and what was edited here stays on top of it."""

import numpy as np
import pytest

import residua as rs
from residua.errors import IdError, StaleMemoryError, StorageError


def rows(n=4, at=0.0, **more):
    keys = np.random.default_rng(n).normal(size=(n, 3)) + at
    return rs.Encoded(keys, np.zeros((n, 2)), np.arange(n) % 2, **more)


@pytest.fixture
def folder(tmp_path):
    rs.Memory(rows(6), names={0: "zero", 1: "one"}).save(tmp_path / "mem")
    return tmp_path / "mem"


def both(folder, **more):
    return rs.Memory.load(folder, **more), rs.Memory.load(folder, **more)


@pytest.mark.parametrize("mmap", [False, True])
def test_two_writers_lose_nothing(folder, mmap):
    mine, theirs = both(folder, mmap=mmap)
    theirs.add(rows(2, 5.0), note="theirs")
    theirs.forget([0])
    theirs.relabel([1], 0)
    theirs.save(folder)
    mine.add(rows(3, 9.0, names=["x", "y", "z"]), note="mine")
    mine.forget([2])
    mine.relabel([3], 0)
    with pytest.raises(StaleMemoryError, match=r"add: 2 rows added \(theirs\).*forget: 1 row.*memory.refresh\(\)"):
        mine.save(folder)
    assert mine.refresh() == {6: 9, 7: 10}  # 8 was free
    mine.save(folder)
    now = rs.Memory.load(folder)
    assert now.ids.tolist() == [1, 3, 4, 5, 6, 7, 9, 10, 8]
    assert now.labels.tolist() == [0, 0, 0, 1, 0, 1, 0, 1, 0]
    np.testing.assert_allclose(now.keys[-3:], rows(3, 9.0).keys, atol=1e-5)
    assert now.names == mine.names == {1: "one", 9: "x", 10: "y", 8: "z"}
    assert [(event.what, event.note) for event in now.log()][-2:] == [("relabel", ""), ("refresh", "mine")]
    assert mine.search(now.keys, 1).distances.max() < 1e-5
    mine.undo()
    assert mine.ids.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_new_changes_nothing(folder):
    mine = rs.Memory.load(folder)
    mine.forget([0])
    assert mine.refresh() == {}
    assert len(mine) == 5 and len(mine.log()) == 2


def test_given_ids_that_collide_change_nothing(folder):
    mine, theirs = both(folder)
    theirs.add(rows(1, ids=[77]))
    theirs.save(folder)
    mine.add(rows(1, 3.0, ids=[77]))
    before = mine.ids.tolist()
    with pytest.raises(IdError, match=r"in the memory already, such as \[77\]"):
        mine.refresh()
    assert mine.ids.tolist() == before and [event.what for event in mine.log()] == ["create", "add"]
    mine.forget([77])
    assert mine.refresh() == {}
    assert 77 in mine


def test_the_last_replacement_of_a_row_counts(folder):
    mine, theirs = both(folder)
    for memory, at in ((theirs, 5.0), (mine, 9.0)):
        memory.add(rows(1, at, ids=[3]), replace=True)
    theirs.save(folder)
    assert mine.refresh() == {}
    np.testing.assert_allclose(mine.keys[mine.ids == 3], rows(1, 9.0).keys, atol=1e-5)


def test_rows_that_others_renumbered_and_an_undo(folder):
    memory = rs.Memory.load(folder)
    memory.forget([4])
    memory.save(folder)
    mine, theirs = both(folder)
    mine.undo()
    mine.relabel([5], 0)
    theirs.forget([0])
    theirs.rebuild()
    theirs.save(folder)
    assert mine.refresh() == {}
    assert mine.ids.tolist() == [1, 2, 3, 5, 4]
    assert mine.labels.tolist() == [1, 0, 1, 0, 0]


def test_new_classes_of_others(folder):
    mine, theirs = both(folder)
    theirs.add(rs.Encoded(np.ones((1, 3)), np.zeros((1, 2)), [2], new_classes=True), new_classes=True)
    theirs.save(folder)
    mine.add(rows(2, 4.0))
    assert mine.refresh() == {6: 8}
    assert mine.n_outputs == 3 and mine.logits.dense().shape == (9, 3)


def test_what_cannot_be_refreshed(folder):
    mine, theirs = both(folder)
    with pytest.raises(StorageError, match="save into another folder"):
        rs.Memory(rows()).refresh()
    theirs.forget([0])
    theirs.save(folder)
    with mine.editing() as draft, pytest.raises(StorageError, match="an edit is under way"):
        draft.refresh()
    mine.forget([1])
    mine.rebuild()
    with pytest.raises(StorageError, match="load the folder again"):
        mine.refresh()
    assert len(mine) == 5
    other = rs.Memory(rs.Encoded(np.eye(2), np.zeros((2, 2)), [0, 1]))
    other.save(folder)
    with pytest.raises(StorageError, match="another memory by now"):
        theirs.refresh()
