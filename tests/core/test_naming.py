"""Names of classes and examples travel with the rows, into the memory and back."""

import json

import numpy as np
import pytest

import residua as rs
from residua.errors import InputError, LabelError, ShapeError

CLASSES = ("cat", "dog", "<b>\x1b[31m")


def rows(names=("a.png", "b.png", "c.png", "d.png"), classes=CLASSES, **more):
    keys = np.arange(4.0)[:, None]
    return rs.Encoded(keys, 4 * np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 1], classes=classes, names=names, **more)


def test_names_follow_their_rows_and_survive_a_file(tmp_path):
    enc = rows()
    assert enc[2].names.tolist() == ["c.png"] and enc[::-1].names.tolist() == ["d.png", "c.png", "b.png", "a.png"]
    assert enc[1:].classes == CLASSES
    enc.save(tmp_path / "rows.npz")
    again = rs.Encoded.load(tmp_path / "rows.npz")
    assert again.classes == CLASSES and again.names.tolist() == enc.names.tolist()


def test_a_memory_knows_what_its_ids_and_classes_are_called(tmp_path):
    memory = rs.Memory(rows()[:3], names={1: "mine"})
    assert memory.names == {0: "a.png", 1: "mine", 2: "c.png"}
    memory.add(iter([rows()[3:]]))
    assert memory.names[3] == "d.png"
    memory.save(tmp_path / "mem")
    again = rs.Memory.load(tmp_path / "mem")
    assert again.names == memory.names and again.schema.classes == CLASSES
    again.forget(3)
    assert 3 not in again.names


def test_rows_with_names_may_come_after_rows_without():
    memory = rs.Memory(rows(names=None, classes=None))
    memory.add(rows(ids=[10, 11, 12, 13]))
    assert memory.schema.classes == CLASSES and memory.names[12] == "c.png"


def test_relabel_by_name():
    memory = rs.Memory(rows())
    assert memory.relabel([0, 3], ["dog", "cat"]) == 2 and memory.relabel(1, "cat") == 1
    assert memory.labels.tolist() == [1, 0, 2, 0]
    with pytest.raises(LabelError, match="no class is called 'cow'; there are 'cat', 'dog'"):
        memory.relabel(0, "cow")
    with pytest.raises(LabelError, match="have none; give their indices"):
        rs.Memory(rows(classes=None)).relabel(0, "cat")
    with pytest.raises(LabelError, match=r"2 classes are called 'cat'; say which by its index: \[0, 2\]"):
        rs.Memory(rows(classes=("cat", "dog", "cat"))).relabel(0, "cat")


def test_classes_numbered_in_another_order_are_refused():
    memory = rs.Memory(rows(classes=("a", "b", "c")))
    with pytest.raises(LabelError, match="'c' is class 2 of this memory and class 0 of these rows"):
        rs.ResMem(memory).predict(rows(classes=("c", "a", "b")))
    with pytest.raises(LabelError, match="numbered differently"):
        memory.add(rows(classes=("a", "c", "b"), ids=[5, 6, 7, 8]))
    rs.ResMem(memory).predict(rows(classes=("A", "B", "C")))  # other words for the same are the caller's own business


def test_explanations_speak_in_names():
    memory = rs.Memory(rows())
    why = rs.explain(rs.ResMem(memory, k=2, sigma=1.0), rows()[1], exclude=None)
    assert (why.prediction, why.classes) == (1, CLASSES)
    text = str(why)
    assert text.startswith("prediction dog (base alone dog, truth dog)\n  class dog: base ")
    assert "to dog" in text and "b.png" in text and "class 1" not in text
    frame = why.to_frame()
    assert frame.label.tolist() == ["dog", "cat"] and frame.name.tolist() == ["b.png", "a.png"]
    assert why.to_frame(["x", "y", "z"]).label.tolist() == ["y", "x"]


def test_names_cannot_trick_a_terminal_or_a_page():
    why = rs.explain(rs.ResMem(rs.Memory(rows()), k=1, sigma=1.0), rows()[2], exclude=None)
    assert "\x1b" not in str(why) and r"prediction <b>\x1b[31m" in str(why)
    assert "&lt;b&gt;" in why._repr_html_() and "<b>" not in why._repr_html_()


def test_evaluations_speak_in_names():
    memory = rs.Memory(rows())
    result = rs.evaluate(rs.ResMem(memory, k=1, sigma=1.0), rows(), n_bootstrap=10)
    frame = result.to_frame()
    assert frame.label.tolist() == ["cat", "dog", CLASSES[2], "dog"]
    assert frame.name.tolist() == ["a.png", "b.png", "c.png", "d.png"]
    assert json.loads(json.dumps(result.to_dict()))["classes"] == list(CLASSES)


def test_outputs_of_a_regression_have_names_too():
    targets = np.arange(6.0).reshape(3, 2)
    enc = rs.Encoded(np.arange(3.0)[:, None], targets + 1, targets, classes=("rent", "heat"))
    why = rs.explain(rs.ResMem(rs.Memory(enc), k=1, sigma=1.0), enc[0])
    assert "output rent: base" in str(why) and "label_heat" in why.to_frame()


def test_what_are_no_names():
    with pytest.raises(ShapeError, match="2 names for 3 outputs"):
        rows(classes=("a", "b"))
    with pytest.raises(InputError, match="classes hold 1, a int"):
        rows(classes=("a", 1, "c"))
    with pytest.raises(InputError, match="expected 4 names"):
        rows(names=["a"])
    with pytest.raises(InputError, match="each a str"):
        rows(names=[1, 2, 3, 4])
