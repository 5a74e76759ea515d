"""The data frame and the text hold the same numbers as the arrays."""

import sys

import numpy as np
import pytest

import residua as rs
from residua import explanation
from residua.errors import MissingDependencyError, ShapeError


def explained(k=3, label=2, n=20):
    rng = np.random.default_rng(0)
    columns = {"place": np.arange(n), "distance": np.arange(n) * 2.0, "box": np.zeros((n, 4))}
    memory = rs.Memory(
        rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=(n, 3)), rng.integers(0, 2, n), columns=columns)
    )
    labels = None if label is None else [label]
    return rs.explain(rs.ResMem(memory, k=k), rs.Encoded([[0.1, 0.2]], [[0.0, 3.0, 0.0]], labels))


def regression(outputs):
    rng = np.random.default_rng(0)
    shape = (9,) if outputs == "flat" else (9, outputs)
    memory = rs.Memory(rs.Encoded(rng.normal(size=(9, 2)), rng.normal(size=shape), rng.normal(size=shape)))
    return rs.explain(
        rs.ResMem(memory, k=2), rs.Encoded([[0.0, 0.0]], np.zeros((1, *shape[1:])), np.ones((1, *shape[1:])))
    )


def test_frame_of_a_classification():
    why = explained()
    frame = why.to_frame()
    assert list(frame.columns) == [
        *("id", "label", "distance", "weight", "to_predicted", "to_base", "to_true", "place", "column.distance"),
    ]
    np.testing.assert_array_equal(frame["id"], why.ids)
    np.testing.assert_array_equal(frame["label"], why.labels)
    np.testing.assert_array_equal(frame["distance"], why.distances)
    np.testing.assert_array_equal(frame["weight"], why.weights)
    np.testing.assert_array_equal(frame["to_predicted"], why.contributions[:, why.prediction])
    np.testing.assert_array_equal(frame["to_base"], why.contributions[:, why.base_prediction])
    np.testing.assert_array_equal(frame["to_true"], why.contributions[:, 2])
    np.testing.assert_array_equal(frame["place"], why.ids)
    np.testing.assert_array_equal(frame["column.distance"], why.ids * 2.0)


def test_frame_names_classes_and_leaves_out_an_unknown_truth():
    why = explained(label=None)
    frame = why.to_frame(["ant", "bee", "cat"])
    assert "to_true" not in frame
    assert frame["label"].tolist() == [["ant", "bee"][label] for label in why.labels]
    with pytest.raises(ShapeError, match="2 names for 3"):
        why.to_frame(["ant", "bee"])


@pytest.mark.parametrize("outputs", ["flat", 1])
def test_frame_of_one_target(outputs):
    why = regression(outputs)
    frame = why.to_frame()
    assert list(frame.columns) == ["id", "label", "distance", "weight", "to_output"]
    np.testing.assert_array_equal(frame["label"], why.labels.reshape(-1))
    np.testing.assert_array_equal(frame["to_output"], why.contributions[:, 0])


def test_frame_of_several_targets():
    why = regression(2)
    assert list(why.to_frame().columns) == ["id", "label_0", "label_1", "distance", "weight", "to_0", "to_1"]
    frame = why.to_frame(["x", "y"])
    np.testing.assert_array_equal(frame["label_y"], why.labels[:, 1])
    np.testing.assert_array_equal(frame["to_y"], why.contributions[:, 1])


def test_without_pandas_the_extra_is_named(monkeypatch):
    why = explained()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "residua\[sklearn\]"'):
        why.to_frame()


def test_text_shows_ten_neighbours_and_sums_up_the_rest():
    why = explained(k=14)
    lines = str(why).splitlines()
    assert lines[0] == f"prediction {why.prediction} (base alone 1, truth 2)"
    assert lines[-1] == f"and 4 more, of weight {why.weights[10:].sum():.4f} together"
    table = lines[-12:-1]
    assert table[0].split()[:4] == ["id", "label", "distance", "weight"]
    assert [int(row.split()[0]) for row in table[1:]] == why.ids[:10].tolist()
    assert len({len(row) for row in table}) == 1
    first = table[1].split()
    classes = list(dict.fromkeys([why.prediction, why.base_prediction, 2]))
    assert [float(cell) for cell in first[4:]] == pytest.approx(why.contributions[0, classes].tolist(), abs=1e-4)


def test_text_adds_up():
    why = explained()
    for line in str(why).splitlines():
        if line.startswith("  class"):
            words = line.split()
            assert float(words[3]) + float(words[4]) == pytest.approx(float(words[-1]), abs=2e-3)


def test_text_without_neighbours_and_of_a_regression():
    assert str(explained(k=0)).endswith("no neighbours: this is the model alone")
    assert "more, of weight" not in str(explained(k=10))
    text = str(regression("flat"))
    assert text.startswith("prediction ")
    assert "output 0: base 0 " in text
    assert "truth [1 1]" in str(regression(2))


def test_contributions_by_what_they_are_added_to():
    why = explained()
    assert list(why.contributions_to) == ["predicted", "base", "true"]
    np.testing.assert_array_equal(why.contributions_to["true"], why.contributions[:, 2])
    assert list(regression("flat").contributions_to) == ["output"]
    np.testing.assert_array_equal(regression(2).contributions_to["1"], regression(2).contributions[:, 1])


def test_repr_is_short():
    assert repr(explained()) == f"Explanation(prediction {explained().prediction}, base alone 1, truth 2, 3 neighbours)"


def test_old_names_say_the_new():
    with pytest.raises(AttributeError, match=r"'tokens'.*'outputs'"):
        _ = explained().tokens
    with pytest.raises(AttributeError, match=r"TokenExplanation.*it is Explanation now"):
        _ = explanation.TokenExplanation
