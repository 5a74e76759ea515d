"""Rows come, change and go; ids name them; whatever fails leaves the memory as it was."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Source
from residua.errors import EmptyMemoryError, IdError, InputError, LabelError, ParameterError, ShapeError


def made(keys, labels=None, ids=None, **more):
    keys = np.asarray(keys, np.float32).reshape(len(keys), -1)
    labels = np.arange(len(keys)) % 3 if labels is None else labels
    logits = np.stack([keys[:, 0], -keys[:, 0], np.ones(len(keys))], axis=1)
    return rs.Encoded(keys, logits, labels, ids, **more)


def seen(memory):
    """Everything a caller can see of a memory."""
    rows = memory.active_rows
    found = memory.search(np.linspace(-3, 30, 7)[:, None], 4)
    return (
        len(memory),
        memory.ids.tolist(),
        memory.labels.tolist(),
        memory.logits.dense().tolist(),
        {name: memory.column(name)[rows].tolist() for name in memory.schema.columns},
        memory.source,
        memory.n_rows,
        memory.index.n,
        found.rows.tolist(),
        found.distances.tolist(),
    )


# --- ids ------------------------------------------------------------------------------------------------------


def test_a_fresh_memory_numbers_its_rows():
    memory = rs.Memory([made([[0], [1]]), made([[2]])])
    assert memory.ids.tolist() == [0, 1, 2]
    assert memory.ids.dtype == np.int64


def test_ids_are_never_used_twice(tmp_path):
    memory = rs.Memory(made([[0], [1], [2]]))
    memory.forget([1, 2])
    assert memory.add(made([[5]])).tolist() == [3]
    memory.forget(3)
    memory.rebuild()
    memory.save(tmp_path / "m")
    memory = rs.Memory.load(tmp_path / "m")
    assert memory.add(made([[5], [6]])).tolist() == [4, 5]
    assert memory.add(made([[7]], ids=[100])).tolist() == [100]
    assert memory.add([made([[8]]), made([[9]], ids=[40]), made([[10]])]).tolist() == [101, 40, 102]
    assert memory.add(made([[3]], ids=[1])).tolist() == [1]  # a forgotten id may come back when asked for by name


def test_rows_of_one_call_may_share_an_id():
    memory = rs.Memory([made([[0], [1], [2]], ids=[7, 8, 7]), made([[3]], ids=[7])])
    assert memory.rows_with_ids(7).tolist() == [0, 2, 3]
    assert memory.rows_with_ids([8, 7]).tolist() == [0, 1, 2, 3]
    assert 7 in memory and 9 not in memory
    assert memory.relabel([7], [2]) == 3
    assert memory.labels.tolist() == [2, 1, 2, 2]
    assert memory.forget(7) == 3
    assert (memory.ids.tolist(), 7 in memory, len(memory)) == ([8], False, 1)


def test_a_present_id_is_refused_and_nothing_changed():
    memory = rs.Memory(made([[0], [1]], ids=[5, 6]))
    before = seen(memory)
    with pytest.raises(IdError, match=r"1 of the ids .* \[6\].*replace=True"):
        memory.add([made([[2]], ids=[9]), made([[3]], ids=[6])])
    assert seen(memory) == before
    assert memory.add(made([[2]])).tolist() == [7]


def test_replace_forgets_the_old_rows_alone():
    memory = rs.Memory(made([[0], [1], [2]], ids=[5, 6, 5]))
    assert memory.add(made([[20], [21]], ids=[5, 5]), replace=True).tolist() == [5, 5]
    assert memory.ids.tolist() == [6, 5, 5]
    assert memory.search([[0.0]], 3).distances.tolist() == [[1, 20, 21]]
    assert memory.add(made([[30]]), replace=True).tolist() == [7]
    assert len(memory) == 4


# --- edits ----------------------------------------------------------------------------------------------------


def test_forget_answers_as_if_never_seen():
    keys = np.random.default_rng(0).normal(size=(60, 1))
    memory = rs.Memory(made(keys))
    gone = np.arange(0, 60, 3)
    assert memory.forget(gone) == 20
    left = np.setdiff1d(np.arange(60), gone)
    fresh = rs.Memory(made(keys[left], labels=left % 3))
    found, expected = memory.search(keys, 9), fresh.search(keys, 9)
    assert memory.ids[np.searchsorted(left, found.rows.numpy())].tolist() == left[expected.rows.numpy()].tolist()
    assert torch.equal(found.distances, expected.distances)


def test_forget_refuses_unknown_ids_and_forgets_nothing():
    memory = rs.Memory(made([[0], [1]]))
    before = seen(memory)
    for ids in ([0, 9], [-1], 2):
        with pytest.raises(IdError, match="not in the memory"):
            memory.forget(ids)
    for ids in ([0.0], ["a"], [[0]], [True], None):
        with pytest.raises(IdError, match="expected integers"):
            memory.forget(ids)
    assert seen(memory) == before
    assert memory.forget([]) == 0
    assert memory.forget([1, 1]) == 1
    with pytest.raises(IdError):
        memory.forget(1)


def test_relabel():
    memory = rs.Memory(made([[0], [1], [2], [3]], [0, 0, 0, 0], ids=[9, 4, 9, 6]))
    assert memory.relabel([6, 9], [1, 2]) == 3
    assert memory.labels.tolist() == [2, 0, 2, 1]
    assert memory.relabel([4, 6], 2) == 2
    assert memory.labels.tolist() == [2, 2, 2, 2]
    before = seen(memory)
    refused = [
        (IdError, "twice", ([4, 4], [0, 1])),
        (IdError, "not in the memory", ([4, 5], [0, 1])),
        (LabelError, "out of range", ([4, 6], [0, 3])),
        (LabelError, "out of range", (4, -1)),
        (LabelError, "float64", (4, 1.0)),
        (LabelError, "names, such as 'b', and these classes have none", (4, "b")),
        (ShapeError, "expected one each", ([4, 6, 9], [0, 1])),
    ]
    for error, message, arguments in refused:
        with pytest.raises(error, match=message):
            memory.relabel(*arguments)
    assert seen(memory) == before


def test_relabel_regression():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], [0.5, 0.5], [1.0, 2.0]))
    memory.relabel(1, 7)
    assert memory.labels.tolist() == [1, 7]
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), np.ones((2, 2))))
    memory.relabel([1, 0], [[3, 4], [5, 6]])
    assert memory.labels.tolist() == [[5, 6], [3, 4]]
    with pytest.raises(LabelError, match="NaN"):
        memory.relabel(0, [np.nan, 0])
    with pytest.raises(ShapeError):
        memory.relabel(0, [1.0, 2.0, 3.0])
    assert memory.labels.tolist() == [[5, 6], [3, 4]]


def test_rebuild_renumbers_and_answers_the_same():
    memory = rs.Memory(made([[0], [1], [2], [3], [4]], ids=[50, 40, 30, 20, 10]))
    memory.forget([40, 20])
    memory.relabel(30, 1)
    before = memory.search([[0.9]], 4)
    memory.rebuild()
    after = memory.search([[0.9]], 4)
    assert (before.rows.tolist(), after.rows.tolist()) == ([[0, 2, 4, -1]], [[0, 1, 2, -1]])
    assert torch.equal(before.distances, after.distances)
    assert (memory.ids.tolist(), memory.labels.tolist()) == ([50, 30, 10], [0, 1, 1])
    assert (memory.index.n, memory.n_rows) == (3, 3)


def test_a_rebuild_that_cannot_be_trained_leaves_the_memory_alone():
    pytest.importorskip("faiss")
    keys = np.random.default_rng(0).normal(size=(40, 2))
    memory = rs.Memory(rs.Encoded(keys, np.zeros((40, 2)), np.zeros(40, int)), index="IVF16,Flat")
    memory.forget(np.arange(30))
    before = memory.search(keys, 3)
    with pytest.raises(ParameterError, match="learns 16 lists and there are 10 keys"):
        memory.rebuild()
    after = memory.search(keys, 3)
    assert torch.equal(before.rows, after.rows)
    assert memory.ids.tolist() == list(range(30, 40))


def test_everything_may_be_forgotten_and_more_added():
    memory = rs.Memory(made([[0], [1]], columns={"page": [3, 4]}))
    memory.forget(memory.ids)
    for rebuilt in (False, True):
        if rebuilt:
            memory.rebuild()
        assert (len(memory), memory.ids.tolist()) == (0, [])
        for exclude in (None, [0, 0]):
            found = memory.search([[0.0], [1.0]], 2, exclude=exclude)
            assert found.rows.tolist() == [[-1, -1]] * 2
        assert memory.median_nn_distance() == 1
    with pytest.raises(InputError, match="columns"):
        memory.add(made([[4]]))
    assert memory.add(made([[4]], columns={"page": [9]})).tolist() == [2]
    assert memory.search([[0.0]], 1).distances.tolist() == [[4]]


@pytest.mark.parametrize("storage", ["full", "none", "top-m"])
def test_many_small_adds_equal_one(storage):
    keys, labels = np.random.default_rng(1).normal(size=(300, 1)), np.arange(300) % 3
    whole = rs.Memory(made(keys, labels), storage=storage)
    grown = rs.Memory(made(keys[:1], labels[:1]), storage=storage)
    cuts = [1, 2, 3, 10, 11, 150, 299, 300]
    for a, b in pairwise(cuts):
        grown.add(made(keys[a:b], labels[a:b]))
    assert (whole.labels.tolist(), whole.ids.tolist()) == (grown.labels.tolist(), grown.ids.tolist())
    np.testing.assert_allclose(grown.keys, whole.keys, rtol=0, atol=2e-7)  # they began with other centres
    if storage != "none":
        assert torch.equal(whole.logits.dense(), grown.logits.dense())
    assert torch.equal(whole.search(keys, 5).rows, grown.search(keys, 5).rows)


# --- what fails leaves no trace -------------------------------------------------------------------------------

HERE = Source("net", "fc", parameters={"w": ([2], 1.0)})


def interrupted():
    yield made([[7]])
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (ShapeError, lambda: [made([[7]], source=HERE), made([[1, 2]])]),
        (InputError, lambda: [made([[7]]), "rows"]),
        (InputError, lambda: [made([[7]]), made([[8]], columns={"x": [1]})]),
        (LabelError, lambda: [made([[7]]), rs.Encoded([[1.0]], [[0.0, 0, 0]])]),
        (IdError, lambda: [made([[7]], ids=[30]), made([[8]], ids=[1])]),
        (KeyboardInterrupt, interrupted),
    ],
)
def test_a_failed_add_changes_nothing(error, more):
    memory = rs.Memory(made([[0], [1], [2]]))
    memory.forget(0)
    before = seen(memory)
    with pytest.raises(error):
        memory.add(more())
    assert seen(memory) == before
    assert memory.add(made([[4]])).tolist() == [3]
    assert memory.search([[3.9]], 2).rows.tolist() == [[3, 2]]


@pytest.mark.parametrize("after", [False, True])
def test_an_add_interrupted_in_the_index_changes_nothing(monkeypatch, after):
    memory = rs.Memory(made([[0], [1], [2]]))
    memory.forget(1)
    before, add = seen(memory), memory.index.add

    def interrupt(keys):
        if after:
            add(keys)
        raise KeyboardInterrupt

    monkeypatch.setattr(memory.index, "add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        memory.add(made([[0.5], [1.5]]))
    monkeypatch.undo()
    assert seen(memory) == before
    memory.add(made([[1.5]]))
    assert memory.search([[1.4]], 3).rows.tolist() == [[3, 2, 0]]


def test_no_rows_is_no_memory():
    nothing = made([[3]])[:0]
    for data in (nothing, [], [nothing, nothing], iter(())):
        with pytest.raises(EmptyMemoryError, match="at least one labelled example"):
            rs.Memory(data)
    memory = rs.Memory([nothing, made([[3]], columns={"page": [1]}), nothing])
    version = memory.version
    assert memory.add(nothing).tolist() == memory.add([]).tolist() == []
    assert (len(memory), memory.version) == (1, version)


def test_every_edit_is_a_new_version():
    memory = rs.Memory(made([[0], [1], [2]]))
    versions = [memory.version]
    for edit in (
        lambda: memory.add(made([[3]])),
        lambda: memory.relabel(0, 2),
        lambda: memory.forget(1),
        memory.rebuild,
    ):
        edit()
        versions.append(memory.version)
    assert len(set(versions)) == 5
