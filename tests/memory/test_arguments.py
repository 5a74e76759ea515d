"""What is handed over where it does not fit is named, with what to do; names come with the data."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import IdError, InputError, ParameterError
from residua.index import make_index
from residua.memory.arguments import labelled_batches


def made(n=3, ids=None):
    return rs.Encoded(np.eye(n), np.zeros((n, 2)), np.zeros(n, int), ids)


def memory_and_reader():
    memory = rs.Memory(made())
    return memory, rs.ResMem(memory, k=1)


def test_what_is_no_rows(tmp_path):
    pandas = pytest.importorskip("pandas")
    memory, reader = memory_and_reader()
    cases = [
        ("mem/", r"got a str .*rs\.Memory\.load\('mem/'\)"),
        (tmp_path, r"got a PosixPath .*rs\.Memory\.load"),
        (memory, "got a Memory .*a reader of a memory"),
        (reader, r"got a ResMem .*rs\.ResMem\(memory\)"),
        (pandas.DataFrame({"a": [1.0]}), r"got a DataFrame .*rs\.encode\(model, data\)"),
        (pandas.Series([1.0]), "got a Series .*encode first"),
        (["a", "b"], "an iterable gave str; expected Encoded"),
        (np.eye(2), "got ndarray; expected an Encoded"),
        (None, "got NoneType; expected an Encoded"),
    ]
    for data, message in cases:
        for remember in (rs.Memory, memory.add):
            with pytest.raises(InputError, match=message):
                remember(data)
    assert len(memory) == 3


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    memory = rs.Memory(made())
    memory.save(tmp_path)
    for make in (lambda device: rs.Memory(made(), device=device), lambda device: rs.Memory.load(tmp_path, device)):
        with pytest.raises(ParameterError, match=r"device='cuda'.*no CUDA device; use device='cpu'"):
            make("cuda")
        with pytest.raises(ParameterError, match="device='gpu'; expected 'cpu' or 'cuda'"):
            make("gpu")


@pytest.mark.parametrize("name", ["exact", "HNSW8"])
def test_an_index_of_ones_own(name, tmp_path):
    if name != "exact":
        pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    rows = rs.Encoded(rng.normal(size=(300, 4)), np.zeros((300, 2)), np.zeros(300, int))
    memory = rs.Memory(rows, index=make_index(name, n=300, dim=4, device="cpu"))
    memory.forget([3])
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert memory.index.name == loaded.index.name == name
    for one in (memory, loaded):
        assert one.search(rows.keys[:9], 1).rows[4:, 0].tolist() == [4, 5, 6, 7, 8]
        one.rebuild()
        assert one.n_rows == 299 and one.search(rows.keys[4:9], 1).rows[:, 0].tolist() == [3, 4, 5, 6, 7]
        assert one.index.name == name
    loaded.save(tmp_path)
    assert rs.Memory.load(tmp_path).index.name == name


def test_names_of_0_1_tell_the_new_ones():
    memory = rs.Memory(made())
    for old, new in [("table", "column"), ("alive_rows", "active_rows"), ("of_tokens", "is_text")]:
        with pytest.raises(AttributeError, match=new):
            getattr(memory, old)
    with pytest.raises(AttributeError, match="'colour'"):
        memory.colour  # noqa: B018
    assert not hasattr(memory, "drop_keys")


class Texts:
    """Batches that know what their ids are called once they have been read, as an encoder of files does."""

    def __init__(self, *documents):
        self.documents, self.names = documents, {}

    def __iter__(self):
        for id, name in self.documents:
            self.names[id] = name
            yield made(2, [id, id])


def test_names_come_with_the_data(tmp_path):
    memory = rs.Memory(Texts((0, "a.py"), (1, "b.py")), names={1: "mine"})
    assert memory.names == {0: "a.py", 1: "mine"}
    memory.add(Texts((5, "c.py")))
    assert memory.names == {0: "a.py", 1: "mine", 5: "c.py"}
    memory.forget([0])
    memory.add(Texts((1, "b2.py")), replace=True)
    memory.save(tmp_path)
    assert memory.names == rs.Memory.load(tmp_path).names == {1: "b2.py", 5: "c.py"}
    with pytest.raises(IdError):
        memory.add(Texts((7, "d.py"), (5, "e.py")))
    assert memory.names == {1: "b2.py", 5: "c.py"}


def test_the_largest_id_of_all():
    memory = rs.Memory(made(3, [7, 8, 2**63 - 1]))
    with pytest.raises(IdError, match="no 2 larger integers left: give ids"):
        memory.add(made(3)[:2])
    assert memory.ids.tolist() == [7, 8, 2**63 - 1]
    assert memory.ids.dtype == np.int64


def test_ids_follow_the_largest_one(tmp_path):
    memory = rs.Memory(made(2, [0, 2**63 - 1]))
    added = memory.add(made(2, [-(2**63), 7]))
    assert added.dtype == np.int64 and added.tolist() == [-(2**63), 7]
    memory.save(tmp_path)
    memory = rs.Memory.load(tmp_path)
    assert memory.ids.dtype == np.int64 and memory.ids.tolist() == [0, 2**63 - 1, -(2**63), 7]
    with pytest.raises(IdError, match="7"):
        memory.add(made(2, [7, 8]))
    assert memory.add(made(2, [7, 2**63 - 1]), replace=True).tolist() == [7, 2**63 - 1]
    assert memory.forget([-(2**63), 2**63 - 1]) == 2 and memory.ids.tolist() == [0, 7]


@pytest.mark.parametrize("large", [2**63, 2**64 - 1])
def test_unsigned_ids_do_not_wrap(large):
    ids = np.array([1, large], np.uint64)
    memory = rs.Memory(made(3, [-1, 1, -(2**63)]))  # what they would wrap around to
    refused = rf"ids hold {large}; expected at most 2\*\*63 - 1"
    for call in (
        lambda: made(2, ids),
        lambda: memory.forget(ids),
        lambda: memory.relabel(ids, [1, 1]),
        lambda: memory.rows_with_ids(ids),
        lambda: memory.search(np.eye(3, dtype=np.float32)[:2], 1, exclude=ids),
    ):
        with pytest.raises(IdError, match=refused):
            call()
    assert memory.ids.tolist() == [-1, 1, -(2**63)] and memory.labels.tolist() == [0, 0, 0]
    assert made(2, np.array([1, 2**63 - 1], np.uint64)).ids.tolist() == [1, 2**63 - 1]


def test_rows_are_read_once():
    read = []

    def batches():
        for number in range(3):
            read.append(number)
            yield made()[:number]  # the first has no rows

    assert len(list(labelled_batches(batches()))) == 2 and read == [0, 1, 2]
    assert len(rs.Memory(batches())) == 3
