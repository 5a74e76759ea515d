"""What a memory takes in: labels, one task, one shape, one source, one set of columns."""

import numpy as np
import pytest

import residua as rs
from residua.core import Source
from residua.errors import InputError, LabelError, ShapeError, SourceMismatchError, TaskError


def made(n=2, dim=1, classes=3, **more):
    return rs.Encoded(np.ones((n, dim)), np.zeros((n, classes)), np.zeros(n, int), **more)


def source(norm, key="fc"):
    return Source("Net", key, parameters={"weight": ([3, 1], norm)})


def test_tasks():
    memory = rs.Memory(made())
    assert (memory.task, memory.n_outputs, memory.dim, memory.flat_labels) == ("classification", 3, 1, True)
    regression = rs.Encoded([[1.0]], [2.0], [3.0])
    with pytest.raises(TaskError, match="regression rows for a classification memory"):
        memory.add(regression)
    memory = rs.Memory(regression)
    assert (memory.task, memory.n_outputs, memory.flat_labels, memory.labels.tolist()) == ("regression", 1, True, [3])
    with pytest.raises(TaskError):
        memory.add(made())
    memory = rs.Memory(rs.Encoded([[1.0]], [[2.0]], [[3.0]]))
    assert (memory.flat_labels, memory.labels.tolist()) == (False, [[3]])


def test_labels_are_needed():
    unlabelled = rs.Encoded([[1.0]], [[0.0, 0, 0]])
    for remember in (rs.Memory, rs.Memory(made()).add):
        with pytest.raises(LabelError, match="no labels"):
            remember(unlabelled)


def test_shapes_and_unseen_classes():
    memory = rs.Memory(made())
    with pytest.raises(ShapeError, match="keys of 2 and 3 outputs"):
        memory.add(made(dim=2))
    with pytest.raises(ShapeError, match="a new class needs a model that has it"):
        memory.add(made(classes=4))
    with pytest.raises(LabelError, match="label 3 is out of range"):
        memory.add(rs.Encoded([[1.0]], [[0.0, 0, 0]], [3]))


def test_sources():
    memory = rs.Memory(made(source=source(1.0)))
    memory.add(made())  # bare arrays pass
    memory.add(made(source=source(1.0)))
    for other in (source(2.0), source(1.0, key="layer4")):
        with pytest.raises(SourceMismatchError, match="Net"):
            memory.add(made(source=other))
    assert len(memory) == 6


def test_a_memory_of_bare_arrays_learns_its_source_later():
    memory = rs.Memory(made())
    memory.add(made(source=source(1.0)))
    assert memory.source == source(1.0)
    with pytest.raises(SourceMismatchError):
        memory.add(made(source=source(2.0)))


def test_columns_travel():
    memory = rs.Memory(made(columns={"path": np.array([[1, 2], [3, 4]], np.int16), "weight": [0.5, 2]}))
    memory.add(made(1, columns={"weight": [1], "path": np.array([[5, 6]], np.int8)}))
    assert memory.columns == ["path", "weight"]
    assert memory.table["column.path"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert memory.table["column.weight"].tolist() == [0.5, 2, 1]


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"page": [1, 2], "line": [1, 2]},
        {"line": [1, 2]},
        {"page": [[1], [2]]},
        {"page": [0.5, 1.5]},
        {"page": np.array([1, 2**40])},
    ],
    ids=["none", "one more", "another", "another shape", "fractions", "too large"],
)
def test_other_columns_are_refused(columns):
    memory = rs.Memory(made(columns={"page": np.array([7, 8], np.int32)}))
    with pytest.raises(InputError, match="column"):
        memory.add(made(columns=columns))
    assert memory.table["column.page"][:].tolist() == [7, 8]
