"""A memory's rows as a pandas data frame, and as an Arrow table."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import MissingDependencyError, StorageError

pandas = pytest.importorskip("pandas")


def memory(n=4, **options):
    rng = np.random.default_rng(0)
    names = options.pop("names", None)
    return rs.Memory(rs.Encoded(rng.normal(size=(n, 3)), np.zeros((n, 2)), np.arange(n) % 2, **options), names=names)


def test_what_is_remembered_in_row_order():
    own = memory(5, classes=["cat", "dog"], columns={"year": [1, 2, 3, 4, 5]}, names={4: "e.png"})
    own.forget([1])
    own.relabel([0], "dog")
    frame = own.to_frame()
    assert frame.columns.tolist() == ["id", "name", "label", "class", "year"]
    assert frame.values.tolist() == [
        [0, "0", 1, "dog", 1],
        [2, "2", 0, "cat", 3],
        [3, "3", 1, "dog", 4],
        [4, "e.png", 0, "cat", 5],
    ]
    assert frame.label.dtype == frame.id.dtype == np.int64


def test_bare_rows_have_no_names():
    assert memory().to_frame().columns.tolist() == ["id", "label"]


def test_keys_only_where_they_are_wanted():
    own = memory()
    frame = own.to_frame(keys=True)
    assert frame.columns.tolist() == ["id", "label", "key"]
    np.testing.assert_array_equal(np.stack(frame.key), own.keys)


def test_discarded_keys_are_not_there():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    own = rs.Memory(rs.Encoded(rng.normal(size=(300, 8)), np.zeros((300, 2)), np.arange(300) % 2), index="IVF4,SQ8")
    own.discard_keys()
    assert len(own.to_frame()) == 300
    with pytest.raises(StorageError, match="discarded"):
        own.to_frame(keys=True)


def test_targets_and_several_labels():
    keys = np.eye(2)
    one = rs.Memory(rs.Encoded(keys, np.zeros(2), np.array([0.25, -1e9])))
    assert one.to_frame().label.tolist() == one.labels.tolist()
    two = rs.Memory(rs.Encoded(keys, np.zeros((2, 2)), np.array([[0.5, 1.5], [2.5, 3.5]])))
    assert two.to_frame()[["label_0", "label_1"]].values.tolist() == two.labels.tolist()
    many = rs.Memory(
        rs.Encoded(keys, np.zeros((2, 2)), np.array([[1, 1], [0, 1]]), task="multi-label", classes=["sea", "sky"])
    )
    assert many.to_frame().to_dict("list") == {"id": [0, 1], "label_sea": [1, 0], "label_sky": [1, 1]}
    both = rs.Memory(rs.Encoded(keys, np.zeros((2, 2)), np.eye(2), task="multi-label", classes=["sea", "sea"]))
    assert both.to_frame().columns.tolist() == ["id", "label_0", "label_1"]


@pytest.mark.parametrize("taken", ["name", "class"])
def test_a_column_whose_name_is_taken(taken):
    own = memory(2, columns={taken: [7, 8]}, classes=["a", "b"], names={0: "x"})
    frame = own.to_frame(keys=True)
    assert frame[f"column.{taken}"].tolist() == [7, 8]
    assert frame.columns.is_unique


def test_columns_of_several_numbers_a_row():
    boxes = np.arange(16).reshape(4, 2, 2)
    own = memory(columns={"box": boxes})
    np.testing.assert_array_equal(np.stack(own.to_frame().box), boxes)
    arrow = pytest.importorskip("pyarrow")
    assert isinstance(own.to_arrow(), arrow.Table)
    assert own.to_arrow()["box"].to_pylist() == boxes.tolist()


def test_a_file_name_of_stray_bytes():
    own = memory(2, names={1: "caf\udce9.png"})
    assert own.to_frame().name.tolist() == ["0", "caf\udce9.png"]
    pytest.importorskip("pyarrow")
    assert own.to_arrow()["name"].to_pylist() == ["0", "caf\\udce9.png"]


def test_nothing_is_left_to_show():
    own = memory(2, classes=["a", "b"])
    own.forget([0, 1])
    assert own.to_frame(keys=True).shape == (0, 4)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["forget", "add", "relabel", "rebuild"]), max_size=5))
def test_it_is_what_the_memory_says(edits):
    own = memory(6, classes=["a", "b"])
    for edit in edits:
        ids = own.ids
        if edit == "add":
            own.add(rs.Encoded(np.ones((1, 3)), np.zeros((1, 2)), [1]))
        elif edit == "rebuild" and len(ids):
            own.rebuild()
        elif len(ids):
            own.forget(ids[:1]) if edit == "forget" else own.relabel(ids[-1:], 0)
    frame = own.to_frame()
    assert frame.id.tolist() == own.ids.tolist()
    assert frame.label.tolist() == own.labels.tolist()
    assert frame["class"].tolist() == [["a", "b"][label] for label in own.labels]


def test_it_is_of_one_moment():
    own = memory(200)
    stop = threading.Event()

    def edit():
        while not stop.is_set():
            own.add(rs.Encoded(np.ones((5, 3)), np.zeros((5, 2)), [0] * 5))
            own.forget(own.ids[:5])

    editing = threading.Thread(target=edit)
    editing.start()
    try:
        lengths = [len(own.to_frame()) for _ in range(30)]
    finally:
        stop.set()
        editing.join()
    assert set(lengths) <= {200, 205}


def test_an_arrow_table_for_whoever_reads_one():
    arrow = pytest.importorskip("pyarrow")
    own = memory(classes=["cat", "dog"], names={1: "<b>"}, columns={"seen": [True, False, True, True]})
    table = own.to_arrow(keys=True)
    assert table.to_pandas().drop(columns="key").equals(own.to_frame().astype({"name": "str", "class": "str"}))
    assert str(table.schema.field("key").type) == "fixed_size_list<item: double>[3]"
    np.testing.assert_array_equal(np.array(table["key"].to_pylist()), own.keys)
    assert arrow.table(own).equals(own.to_arrow())  # by the memory's own stream


def test_polars_reads_a_memory():
    polars = pytest.importorskip("polars")
    own = memory(classes=["cat", "dog"])
    frame = polars.DataFrame(own)
    assert frame.columns == ["id", "label", "class"]
    assert frame["class"].to_list() == ["cat", "dog", "cat", "dog"]
    assert polars.from_arrow(own.to_arrow(keys=True))["key"].to_numpy().tolist() == own.keys.tolist()


def test_datasets_reads_a_memory():
    datasets = pytest.importorskip("datasets")
    found = datasets.Dataset(memory(classes=["cat", "dog"]).to_arrow(keys=True))
    assert found[1]["class"] == "dog" and len(found[1]["key"]) == 3


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"residua\[datasets\]"):
        memory().to_arrow()
