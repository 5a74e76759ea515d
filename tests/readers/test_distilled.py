"""A reader without neighbours: its equations, in every verb, and that it knows what it does not know any more."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import softmax

import residua as rs
from residua.core import DenseLogits
from residua.errors import IdError, MemoryFileError, ParameterError, ShapeError, StorageError, TaskError
from residua.readers.student import Student
from residua.testing import check_reader

QUICK = {"epochs": 2, "batch_size": 64, "progress": False}


def rows(n, seed=0, **more):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 3))
    labels = (keys[:, 0] > 0).astype(int) + (keys[:, 1] > 0)
    return rs.Encoded(keys, rng.normal(size=(n, 3)) + np.eye(3)[labels], labels, **more)


def taught(memory, readout="mixture", **params):
    return rs.distil(rs.KNNLM(memory, k=9), readout=readout, **QUICK).with_params(**params)


@pytest.fixture(scope="module")
def students():
    memory = rs.Memory(rows(200))
    return {readout: taught(memory, readout) for readout in ("mixture", "residual")}


@pytest.fixture
def student(students):  # of a memory of its own
    return rs.Distilled(copy.copy(students["mixture"].memory), students["mixture"].student)


def test_a_mixture_and_a_residual_read_out(students):
    test = rows(20, 1)
    z = test.logits.dense().double().numpy() / 1.5
    for readout, params in (("mixture", {"lmbda": 0.3}), ("residual", {"gamma": 0.7})):
        reader = students[readout].with_params(temperature=1.5, **params)
        s = reader.says(torch.from_numpy(test.keys)).double().numpy()
        right = 0.7 * softmax(z, 1) + 0.3 * softmax(s, 1) if readout == "mixture" else softmax(z + 0.7 * s, 1)
        np.testing.assert_allclose(reader.predict_proba(test), right, atol=1e-6)
        np.testing.assert_allclose(reader.scores(test), right if readout == "mixture" else z + 0.7 * s, atol=1e-5)
    alone = students["mixture"].with_params(lmbda=1.0)
    np.testing.assert_allclose(
        alone.predict_proba(test), softmax(alone.says(torch.from_numpy(test.keys)), 1), atol=1e-6
    )


@pytest.mark.parametrize(("readout", "params"), [("mixture", {"lmbda": 0.5}), ("residual", {"gamma": 2.0})])
def test_every_verb_has_the_same_story(students, readout, params):
    check_reader(students[readout].with_params(**params), rows(9, 1, ids=np.arange(9) + 1000))


def test_a_share_of_nothing_is_the_model_alone(students):
    test = rows(20, 1)
    for readout, share in (("mixture", "lmbda"), ("residual", "gamma")):
        reader = students[readout].with_params(**{share: 0})
        assert reader.is_noop and reader.is_base
        np.testing.assert_allclose(reader.predict_proba(test), softmax(test.logits.dense(), 1), atol=1e-6)


def test_few_queries_at_once_are_those_read(students):
    test = rows(8, 1)
    keys, logits = torch.from_numpy(test.keys).float(), test.logits.dense()
    for reader in (
        students["mixture"],
        students["mixture"].with_params(lmbda=1.0, temperature=2.0),
        students["residual"],
    ):
        ((_, now),) = reader.read(keys, DenseLogits(logits))
        torch.testing.assert_close(reader.at_once(keys, logits), now.in_gauge())
    assert reader.at_once(keys, logits.double()) is None and reader.at_once(keys[:0], logits[:0]) is None


def test_attached_to_a_model(students):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4)).eval()
    x = torch.randn(150, 5)
    reader = taught(rs.Memory(rs.encode(model, x, torch.arange(150) % 4, progress=False)), lmbda=0.6)
    with rs.attach(model, reader), torch.no_grad():
        few, many = model(x[:3]), model(x)
    said = reader.predict_proba(rs.encode(model, x, progress=False))
    np.testing.assert_allclose(torch.softmax(many, 1), said, atol=1e-5)
    torch.testing.assert_close(few, many[:3])


def test_keys_of_length_1_and_keys_far_from_0():
    data = rows(100)
    memory = rs.Memory(data, normalise=True)
    reader = taught(memory, lmbda=1.0)
    longer = rs.Encoded(7 * data.keys, data.logits, data.labels)
    np.testing.assert_allclose(reader.scores(longer), reader.scores(data), atol=1e-5)
    moved = rs.Encoded(data.keys / 100 + 1e9, data.logits, data.labels)
    far = taught(rs.Memory(moved), lmbda=1.0)
    assert np.ptp(far.scores(moved), axis=0).min() > 0.01  # float32 would see one key


def test_keys_that_are_alike_and_keys_beyond_all_measure():
    data = rows(100)
    keys = np.concatenate([data.keys, np.full((100, 1), 7.0), 1e-38 * data.keys[:, :1]], axis=1)
    reader = taught(rs.Memory(rs.Encoded(keys, data.logits, data.labels)), lmbda=1.0)
    far = np.array([[1e38, -1e38, 0, 7, 0], [0, 0, 0, 1e30, 0], [0, 0, 0, 7, 1e38]])
    np.testing.assert_allclose(reader.predict_proba(rs.Encoded(far, np.zeros((3, 3)))).sum(axis=1), 1, atol=1e-5)


EDITS = {
    "forget": lambda memory: memory.forget([3]),
    "relabel": lambda memory: memory.relabel([3], (memory.labels[3] + 1) % 3),
    "add": lambda memory: memory.add(rows(1, 5)),
    "replace the last by itself": lambda memory: memory.add(rows(1, 5, ids=[199]), replace=True),
    "new classes": lambda memory: memory.add(
        rs.Encoded(np.eye(3)[:1], np.zeros((1, 3)), [3], new_classes=True), new_classes=True
    ),
    "forget all": lambda memory: memory.forget(memory.ids),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_memory_that_changed_is_unknown_to_it(student, edit):
    test, memory = rows(5, 1), student.memory
    before = student.scores(test)
    EDITS[edit](memory)
    for ask in (student.scores, student.predict, student.predict_proba):
        with pytest.raises(StorageError, match="distil again"):
            ask(test)
    few = memory.schema.widened(test)  # with the new class
    with pytest.raises(StorageError, match="distil again"):
        student.at_once(torch.from_numpy(few.keys).float(), few.logits.dense())
    if edit in ("forget", "relabel", "forget all"):
        memory.undo()
        np.testing.assert_array_equal(student.scores(test), before)


def test_what_is_no_change_of_rows_is_none(student):
    test, memory = rows(5, 1), student.memory
    before = student.scores(test)
    memory.rename({3: ["a cat"]})
    memory.rebuild()
    memory.about["of"] = "nothing"
    np.testing.assert_array_equal(student.scores(test), before)


def test_another_memory_is_another(students):
    other = rs.Distilled(rs.Memory(rows(200, 7)), students["mixture"].student)
    with pytest.raises(StorageError, match="learned 200 rows"):
        other.predict(rows(2, 1))
    with pytest.raises(StorageError, match="distil again"):
        rs.Distilled(students["mixture"].memory.where(label=1), students["mixture"].student).predict(rows(2, 1))


def test_saved_beside_the_memory_and_read_again(student, tmp_path):
    test = rows(5, 1)
    student = student.with_params(lmbda=0.8)
    student.save(tmp_path)
    (file,) = tmp_path.glob("learned-*")
    assert file.stat().st_size < student.student.nbytes + 2000
    again = rs.load(tmp_path)
    np.testing.assert_array_equal(again.scores(test), student.scores(test))
    assert again.to_json() == student.to_json() and "learned" not in str(again.to_json())
    again.memory.forget([5])
    again.memory.save(tmp_path)  # the saved reader stays, and refuses
    stale = rs.load(tmp_path)
    with pytest.raises(StorageError, match=r"learned 200 rows.*has 199 now.*distil again"):
        stale.predict(test)
    with pytest.raises(StorageError, match="distil again"):
        stale.save(tmp_path)
    rs.Memory.compact(tmp_path)
    stale = rs.load(tmp_path)
    stale.memory.undo()
    np.testing.assert_array_equal(stale.scores(test), student.scores(test))
    assert rs.Memory.verify(tmp_path).damaged == ()


def test_live_memories_and_readers_under_a_cache(student, tmp_path):
    text = rows(6, 1, ids=np.full(6, 999))
    cached = rs.ContinuousCache(student, window=5, lmbda=0.2)
    cached.save(tmp_path)
    np.testing.assert_allclose(rs.load(tmp_path).scores(text), cached.scores(text), atol=1e-6)
    live = rs.load(tmp_path, live=True)
    live.memory.forget([0])
    with pytest.raises(StorageError, match="distil again"):
        rs.load(tmp_path).scores(text)


def test_a_purge_takes_what_was_learned_along(student, tmp_path):
    student.save(tmp_path)
    memory = rs.Memory.load(tmp_path)
    memory.purge(tmp_path)  # nothing was forgotten
    assert rs.load(tmp_path).student.rows == student.student.rows
    memory = rs.Memory.load(tmp_path)
    memory.forget([5])
    memory.purge(tmp_path)
    assert not list(tmp_path.glob("learned-*"))
    with pytest.raises(MemoryFileError, match="holds no reader"):
        rs.load(tmp_path)
    assert len(rs.Memory.load(tmp_path)) == 199


def test_saving_the_teacher_there_takes_it_along_too(student, tmp_path):
    student.save(tmp_path)
    rs.KNNLM(student.memory, k=3).save(tmp_path)
    assert isinstance(rs.load(tmp_path), rs.KNNLM)
    rs.Memory.compact(tmp_path)
    assert not list(tmp_path.glob("learned-*"))


def test_numbers_that_are_not_its_own_are_refused(student, tmp_path):
    numbers, shape = student.student.numbers, student.student.to_json()
    torch.testing.assert_close(Student.from_json(shape, numbers)(torch.ones(1, 3)), student.student(torch.ones(1, 3)))
    wrong = [
        {name: one for name, one in numbers.items() if name != "head.bias"},
        numbers | {"head.bias": torch.zeros(4)},
        numbers | {"head.bias": torch.full((3,), torch.nan)},
        numbers | {"head.bias": torch.zeros(3, dtype=torch.int32)},
        numbers | {"more": torch.zeros(3)},
    ]
    for one in wrong:
        with pytest.raises(MemoryFileError, match="saved numbers"):
            Student.from_json(shape, one)
    for change in ({"blocks": 10**9}, {"expansion": 0}, {"readout": "other"}):
        with pytest.raises(ParameterError):
            Student.from_json(shape | change, numbers)
    student.save(tmp_path)
    (file,) = tmp_path.glob("learned-*")
    held = load_file(file)
    save_file(held | {"student.head.bias": held["student.head.bias"] + 1}, file)
    with pytest.raises(MemoryFileError, match="corrupted"):
        rs.load(tmp_path)
    os.remove(file)
    with pytest.raises(MemoryFileError, match="missing"):
        rs.load(tmp_path)


def test_rows_that_it_learned_cannot_be_left_out(student):
    own = rows(5, ids=np.arange(5))
    with pytest.raises(IdError, match="id 0 is to be excluded"):
        student.predict(own)
    with pytest.raises(IdError, match="id 199"):
        student.predict(rows(2, 1), exclude=[[500, 199], [500, 501]])
    assert len(student.predict(own, exclude=None)) == 5
    assert len(student.predict(rows(2, 1), exclude=[500, 501])) == 2
    with pytest.raises(IdError, match="for 2 queries"):
        student.predict(rows(2, 1), exclude=[500, 501, 502])


def test_of_merged_rows_no_member_can_be_left_out_or_forgotten():
    few = rs.Memory(rows(200)).compress(rows=20)
    own = rs.distil(rs.KNNLM(few, k=5), **QUICK)
    member = np.setdiff1d(np.arange(200), few.ids)[0]
    with pytest.raises(IdError, match=f"id {member} is to be excluded"):
        own.predict(rows(1, 1), exclude=[member])
    few.forget(member)
    with pytest.raises(StorageError, match="has changed since"):
        own.predict(rows(1, 1))


def test_what_needs_neighbours_says_so(student):
    with pytest.raises(ParameterError, match="has no neighbours"):
        rs.explain(student, rows(1, 1)[0])
    with pytest.raises(ParameterError, match="has no neighbours"):
        student.familiarity(rows(2, 1))
    with pytest.raises(ParameterError, match="has no neighbours"):
        student.predict(rows(2, 1), unknown=0.1)
    ((_, now),) = student.predictions(rows(4, 1), depth=2)  # who asks for neighbours gets them
    assert now.near.k == 2 and len(rs.evaluate(student, rows(30, 1)).per_row["distance"]) == 30


def test_copies_and_threads_have_the_same_numbers(student):
    test = rows(5, 1)
    for one in (pickle.loads(pickle.dumps(student)), copy.deepcopy(student)):
        np.testing.assert_array_equal(one.scores(test), student.scores(test))
    assert student.bytes_per_row["reader"] == student.student.nbytes // 200
    assert "blocks" in repr(student) and "\n" not in repr(student) and student._repr_html_()


def test_what_does_not_fit(students):
    memory, student = students["mixture"].memory, students["mixture"].student
    cases = [
        ({"lmbda": 1.5}, "lmbda=1.5"),
        ({"lmbda": True}, "lmbda=True"),
        ({"gamma": 1.0}, "gamma is given"),
        ({"temperature": 0}, "temperature"),
    ]
    for params, said in cases:
        with pytest.raises(ParameterError, match=said):
            rs.Distilled(memory, student, **params)
    for gamma in (-1, np.nan, np.inf):
        with pytest.raises(ParameterError, match="gamma="):
            students["residual"].with_params(gamma=gamma)
    with pytest.raises(ParameterError, match="NoneType where a Student"):
        rs.Distilled(memory)
    with pytest.raises(ParameterError, match="where a Memory"):
        rs.Distilled(None, student)
    with pytest.raises(ParameterError, match="keys of 3 and knows 3"):
        rs.Distilled(rs.Memory(rs.Encoded(np.eye(4), np.zeros((4, 2)), [0, 1, 1, 0])), student)
    with pytest.raises(TaskError, match="regression"):
        rs.Distilled(rs.Memory(rs.Encoded(np.eye(3), np.ones(3), np.array([1.0, 2.0, 3.5]))), student)
    with pytest.raises(ShapeError, match=r"\(2, 4\)"):
        next(students["mixture"].read(torch.zeros(2, 4), DenseLogits(torch.zeros(2, 3))))
