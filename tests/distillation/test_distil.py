"""Teaching: what is learned from whom, by chance that is nobody else's, and interrupted at any moment."""

import sys

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import EmptyMemoryError, ParameterError, StorageError, TaskError

VERB = sys.modules[rs.distil.__module__]
QUICK = {"epochs": 2, "batch_size": 64, "progress": False}


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = (keys[:, 0] > 0).astype(int)
    return rs.Encoded(keys, rng.normal(size=(n, 2)) + np.eye(2)[labels], labels)


@pytest.fixture(scope="module")
def teacher():
    return rs.KNNLM(rs.Memory(rows(300)), k=10, lmbda=0.4)


@pytest.mark.parametrize("how", [{}, {"imitation": 0.0}, {"imitation": 1.0}, {"readout": "residual"}])
def test_a_student_knows_what_its_teacher_does(teacher, how):
    student = rs.distil(teacher, epochs=12, batch_size=32, rate=2e-3, progress=False, **how)
    share = {"gamma": 3.0} if how.get("readout") else {"lmbda": 1.0}
    assert (student.with_params(**share).predict(rows(400, 1)) == rows(400, 1).labels).mean() > 0.93


def test_who_is_imitated():
    # Labels are noise, and the neighbours know it: who imitates them is as unsure as they are.
    data = rows(300)
    data.labels = np.where(np.random.default_rng(1).random(300) < 0.35, 1 - data.labels, data.labels)
    vote, apart = rs.KNNLM(rs.Memory(data), k=200, sigma=100.0, lmbda=1.0), []
    for imitation in (1.0, 0.0):
        student = rs.distil(vote, imitation=imitation, epochs=12, batch_size=32, rate=3e-3, progress=False)
        apart.append(np.abs(student.predict_proba(data) - vote.predict_proba(data)).mean())
    assert 2 * apart[0] < apart[1], apart


def test_labels_alone_ask_nobody(teacher, monkeypatch):
    monkeypatch.setattr(type(teacher.memory), "search", lambda *args: pytest.fail("searched"))
    assert rs.distil(teacher, imitation=0.0, **QUICK).student.readout == "mixture"


def test_the_seed_is_all_the_chance_there_is(teacher):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (rs.distil(teacher, seed=seed, **QUICK).scores(rows(9, 1)) for seed in (1, 1, 2))
    assert torch.rand(3).equal(wanted)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize("scope", [torch.inference_mode, torch.no_grad])
def test_inside_of_any_scope(teacher, scope):
    with scope():
        student = rs.distil(teacher, **QUICK)
    np.testing.assert_array_equal(student.scores(rows(9, 1)), rs.distil(teacher, **QUICK).scores(rows(9, 1)))
    assert not any(p.requires_grad or p.is_inference() for p in student.student.numbers.values())


@pytest.mark.parametrize("during", ["_teach", "lessons"])
def test_an_interrupt_leaves_the_memory_as_it_was(during, monkeypatch):
    memory = rs.Memory(rows(60))
    before, done = memory.version, []

    def interrupted(*args):
        done.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(VERB, during, interrupted)
    with pytest.raises(KeyboardInterrupt):
        rs.distil(rs.KNNLM(memory, k=5), **QUICK)
    assert done and memory.version == before and len(memory) == 60
    assert memory.forget([3]) == 1  # nobody holds it


def test_an_edit_meanwhile_makes_the_student_old(monkeypatch):
    memory = rs.Memory(rows(60))
    taught = VERB._teach

    def edited(*args):
        memory.forget([0])
        taught(*args)

    monkeypatch.setattr(VERB, "_teach", edited)
    student = rs.distil(rs.KNNLM(memory, k=5), **QUICK)
    with pytest.raises(StorageError, match="distil again"):
        student.predict(rows(3, 1))


def test_what_a_student_gets_from_its_teacher(teacher):
    assert rs.distil(teacher, **QUICK).lmbda == 0.4
    assert rs.distil(teacher, lmbda=0.7, **QUICK).lmbda == 0.7
    reader = rs.ResMem(teacher.memory, k=5, temperature=2.0)
    assert rs.distil(reader, **QUICK).params["temperature"] == 2.0
    assert rs.distil(reader, readout="residual", **QUICK).gamma == 1


def test_a_row_of_weight_0_teaches_nothing():
    keys = np.repeat(np.eye(2), 40, axis=0)
    labels, weight = np.tile([0, 1], 40), np.tile([1.0, 0.0], 40)
    memory = rs.Memory(rs.Encoded(keys, np.zeros((80, 2)), labels, columns={"weight": weight}))
    student = rs.distil(rs.KNNLM(memory, k=5, sigma=1.0), imitation=0.0, epochs=10, lmbda=1.0, progress=False)
    assert student.predict_proba(rs.Encoded(np.eye(2), np.zeros((2, 2))))[:, 0].min() > 0.9


def test_what_cannot_be_distilled(teacher):
    with pytest.raises(ParameterError, match="Memory; expected a reader"):
        rs.distil(teacher.memory)
    with pytest.raises(ParameterError, match="Distilled; expected a reader of neighbours"):
        rs.distil(rs.distil(teacher, **QUICK))
    numbers = rs.Memory(rs.Encoded(np.eye(3), np.ones(3), np.array([1.0, 2.0, 3.5])))
    with pytest.raises(TaskError, match="regression"):
        rs.distil(rs.ResMem(numbers, k=1))
    with pytest.raises(ParameterError, match="k=0"):
        rs.distil(teacher.with_params(k=0))
    with pytest.raises(ParameterError, match="looks back"):
        rs.distil(rs.Gated(teacher.memory, cache=5))
    with pytest.raises(ParameterError, match="lmbda is given"):
        rs.distil(teacher, readout="residual", lmbda=0.5)
    empty = rs.Memory(rows(3))
    reader = rs.KNNLM(empty, k=1)
    empty.forget([0, 1, 2])
    with pytest.raises(EmptyMemoryError, match="nothing to learn"):
        rs.distil(reader)


@pytest.mark.parametrize(
    "bad",
    [
        {"readout": "sum"},
        {"imitation": 1.1},
        {"imitation": float("nan")},
        {"imitation": "half"},
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"rate": 0},
        {"rows": 0},
        {"blocks": 0},
        {"blocks": 1000},
        {"expansion": 2.5},
        {"lmbda": 2},
    ],
)
def test_parameters_out_of_range(teacher, bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        rs.distil(teacher, **QUICK | bad)
