"""What others saved is taken in, and what was edited here stays on top of it."""

from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    with pytest.raises(StorageError, match="is of no folder"):
        rs.Memory(rows()).refresh()
    theirs.forget([0])
    theirs.save(folder)
    with mine.editing() as draft, pytest.raises(StorageError, match="an edit is under way"):
        draft.refresh()
    other = rs.Memory(rs.Encoded(np.eye(2), np.zeros((2, 2)), [0, 1]))
    other.save(folder)
    with pytest.raises(StorageError, match="another memory by now"):
        theirs.refresh()


def new_class(label, **more):
    return rs.Encoded(np.full((1, 3), 7.0 + label), np.zeros((1, 2)), [label], new_classes=True, **more)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_rebuild_is_done_again_on_what_others_saved(folder, mmap):
    mine, theirs = both(folder, mmap=mmap)
    theirs.forget([5])
    theirs.add(rows(1, 5.0))
    theirs.save(folder)
    mine.forget([0], note="asked for")
    mine.relabel([1], 0)
    mine.rebuild()
    mine.add(rows(2, 9.0))
    mine.relabel([2], 1)
    with pytest.raises(StaleMemoryError):
        mine.save(folder)
    assert mine.refresh() == {6: 8}
    assert mine.ids.tolist() == [1, 2, 3, 4, 6, 8, 7] and mine.labels.tolist() == [0, 1, 1, 0, 0, 0, 1]
    assert mine.n_rows == len(mine) and mine.names == {1: "one"}
    assert [(event.what, event.note) for event in mine.log()][-2:] == [("refresh", "asked for"), ("rebuild", "")]
    assert mine.search(mine.keys, 1).rows[:, 0].tolist() == list(range(7))
    mine.save(folder)
    assert rs.Memory.load(folder).ids.tolist() == mine.ids.tolist()
    assert mine.refresh() == {}


def test_a_purge_that_others_came_before(folder):
    mine, theirs = both(folder)
    theirs.relabel([3], 0)
    theirs.save(folder)
    mine.forget([0, 1])
    with pytest.raises(StaleMemoryError):
        mine.purge(folder)
    mine.refresh()
    assert mine.n_rows == 4 and mine.labels[mine.ids == 3] == [0]
    assert mine.purge(folder).rows == 0 and rs.Memory.load(folder).ids.tolist() == [2, 3, 4, 5]


def test_a_rebuild_twice_and_nothing_new(folder):
    mine, theirs = both(folder)
    for id in (0, 3):
        mine.forget([id])
        mine.rebuild()
    assert mine.refresh() == {} and mine.n_rows == 4
    theirs.rebuild()
    theirs.save(folder)
    assert mine.refresh() == {} and mine.ids.tolist() == [1, 2, 4, 5]


def test_new_classes_of_one_side_alone(folder):
    mine, theirs = both(folder)
    theirs.add(rows(2, 4.0))
    theirs.save(folder)
    mine.add(new_class(3, names=["odd"]), new_classes=True)
    mine.relabel([1], 2)
    assert mine.refresh() == {6: 8}
    assert mine.n_outputs == 4 and mine.labels.tolist() == [0, 2, 0, 1, 0, 1, 0, 1, 3]
    assert mine.logits.dense().shape == (9, 4) and mine.names[8] == "odd"
    mine.save(folder)
    assert theirs.refresh() == {} and theirs.labels.tolist() == mine.labels.tolist() and theirs.n_outputs == 4


def test_new_classes_of_both_sides_may_be_other_ones(folder):
    mine, theirs = both(folder)
    for memory in (mine, theirs):
        memory.add(new_class(2), new_classes=True)
    theirs.save(folder)
    with pytest.raises(StorageError, match=r"added here \(3 now\) and by others \(3\).*add yours there"):
        mine.refresh()
    assert len(mine) == 7 and [event.what for event in mine.log()] == ["create", "add"]


@pytest.fixture
def trained(tmp_path):
    pytest.importorskip("faiss")
    rs.Memory(rows(60), index="IVF4,Flat", index_params={"nprobe": 4}).save(tmp_path / "mem")
    return tmp_path / "mem"


def test_keys_are_discarded_again(trained):
    mine, theirs = both(trained)
    theirs.add(rows(2, 5.0))
    theirs.save(trained)
    mine.forget([0])
    mine.discard_keys()
    mine.add(rows(1, 9.0))
    assert mine.refresh() == {60: 62}
    assert not mine.keys_kept and mine.ids.tolist() == [*range(1, 62), 62]
    assert [event.what for event in mine.log()][-2:] == ["refresh", "discard_keys"]
    mine.save(trained)
    assert not rs.Memory.load(trained).keys_kept


def test_what_needs_keys_that_were_discarded_is_refused(trained):
    mine, theirs = both(trained)
    theirs.discard_keys()
    theirs.save(trained)
    mine.forget([0])
    mine.rebuild()
    with pytest.raises(StorageError, match="this memory was rebuilt, and others discarded the keys"):
        mine.refresh()
    mine, theirs = both(trained)
    theirs.forget([1])
    theirs.save(trained)
    mine.relabel([3], 0)
    assert mine.refresh() == {} and 1 not in mine


EDITS = st.lists(
    st.tuples(st.sampled_from(["add", "forget", "relabel", "replace", "rebuild", "undo"]), st.integers(0, 99)),
    max_size=6,
)


def edited(memory, edits, first):
    """Do random edits; each row that is added has a key, and an id, of its own."""
    for number, (what, at) in enumerate(edits):
        ids, place = memory.ids, first + number
        row = rs.Encoded(np.full((1, 3), float(place)), np.zeros((1, 2)), [at % 2], ids=[place])
        if what == "add":
            memory.add(row)
        elif what == "replace" and len(ids):
            memory.add(rs.Encoded(row.keys, np.zeros((1, 2)), row.labels, ids=ids[[at % len(ids)]]), replace=True)
        elif what == "forget" and len(ids) > 1:
            memory.forget(ids[[at % len(ids)]])
        elif what == "relabel" and len(ids):
            memory.relabel(ids[[at % len(ids)]], at // 7 % 2)
        elif what == "rebuild" and len(ids):
            memory.rebuild()
        elif what == "undo" and len(memory.log()) > 1 and memory.log()[-1].changes is not None:
            try:
                memory.undo()
            except StorageError:  # nothing is left to undo
                continue


def held(memory):
    return dict(zip(memory.ids.tolist(), zip(memory.keys[:, 0].round(3).tolist(), memory.labels.tolist()), strict=True))


@pytest.mark.slow
@given(EDITS, EDITS, EDITS)
@settings(max_examples=25)
def test_what_two_did_is_what_one_after_the_other_did(before, ours, others):
    with TemporaryDirectory() as folder:
        memory = rs.Memory(rs.Encoded(np.arange(18.0).reshape(6, 3), np.zeros((6, 2)), np.arange(6) % 2))
        edited(memory, before, 100)
        memory.save(folder)
        mine, theirs = both(folder)
        was, rows = held(mine), np.arange(mine.n_rows)
        labels = dict(zip(mine.keys_at(rows)[:, 0].round(decimals=3).tolist(), mine.column("label")[:].tolist()))
        edited(mine, ours, 200)
        edited(theirs, others, 300)
        now, expected = held(mine), held(theirs)
        theirs.save(folder)
        for id, (key, _) in was.items():
            if now.get(id, (None,))[0] != key:
                expected.pop(id, None)
        for id, (key, label) in now.items():
            there = id in expected
            if there and id not in was and key >= 200:  # what is here a new row, others took back
                with pytest.raises(IdError):
                    mine.refresh()
                assert held(mine) == now
                return
            if not there and was.get(id, (None,))[0] != key:
                expected[id] = key, label
            elif there and labels[key] != label:
                expected[id] = expected[id][0], label
        assert mine.refresh() == {}
        assert held(mine) == expected
        found = mine.search(mine.keys, 1)
        assert not len(mine) or (
            found.distances.max() < 1e-3 and found.rows[:, 0].tolist() == mine.active_rows.tolist()
        )
        mine.save(folder)
        assert held(rs.Memory.load(folder)) == expected
