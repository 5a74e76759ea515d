"""What a memory takes in: labels, one task, one shape, one source, one set of columns."""

import json

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Source
from residua.errors import InputError, LabelError, ShapeError, SourceMismatchError, TaskError
from residua.memory.schema import Schema


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
    with pytest.raises(ShapeError, match=r"4 outputs; .* 3 outputs; .*new_classes=True"):
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
    assert list(memory.schema.columns) == ["path", "weight"]
    assert memory.column("path").tolist() == [[1, 2], [3, 4], [5, 6]] and memory.column("path").dtype == torch.int16
    assert memory.column("weight").tolist() == [0.5, 2, 1]
    assert memory.has_column("weight") and not memory.has_column("offset")
    with pytest.raises(InputError, match=r"no column 'offset'.*'path', 'weight'"):
        memory.column("offset")
    for name in ("label", "id", "key"):
        with pytest.raises(InputError, match=f"{name}.*another name"):
            rs.Memory(made(columns={name: [1, 2]}))


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
    assert memory.column("page")[:].tolist() == [7, 8]


def test_queries_are_checked_without_labels():
    schema = rs.Memory(made(source=source(1.0))).schema
    schema.check_query(rs.Encoded([[1.0]], [[0.0, 0, 0]]))
    schema.check_query(made(source=source(1.0)))
    with pytest.raises(TaskError, match="regression data for a classification memory"):
        schema.check_query(rs.Encoded([[1.0]], [2.0], [3.0]))
    with pytest.raises(ShapeError, match="queries with keys of 2 and 3 outputs; this memory has keys of 1 and 3"):
        schema.check_query(made(dim=2))
    with pytest.raises(SourceMismatchError, match="Net"):
        schema.check_query(made(source=source(2.0)))


def test_what_a_schema_says_of_itself():
    text = rs.Memory(made(columns={"offset": [0, 1]}, source=source(1.0))).schema
    numbers = rs.Memory(rs.Encoded([[1.0], [2.0]], np.ones((2, 3)), np.full((2, 3), 1e9))).schema
    assert (text.is_text, text.objective) == (True, "log_loss")
    assert (rs.Memory(made()).schema.is_text, rs.Memory(made()).schema.objective) == (False, "accuracy")
    assert (numbers.is_text, numbers.objective) == (False, "squared_error")
    for one in (text, numbers, rs.Memory(rs.Encoded([[1e9]], [[0.0, 2]], [1]), storage="top-m", m=1).schema):
        back = Schema.from_json(json.loads(json.dumps(one.to_json())))
        assert back.to_json() == one.to_json() and torch.equal(back.key_centre, one.key_centre)
        assert back.columns == one.columns and back.source == one.source
    assert torch.equal(Schema.from_json(numbers.to_json()).target_centre, numbers.target_centre)
    assert (text.grown(5).n_outputs, text.n_outputs, text.grown(3).columns) == (5, 3, text.columns)
    for bad in (lambda: text.grown(2), lambda: numbers.grown(4)):
        with pytest.raises(ShapeError, match="only classes can grow"):
            bad()
    with pytest.raises(AttributeError):
        text.dim = 3
