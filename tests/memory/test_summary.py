import numpy as np
import pytest

import residua as rs
from residua.folder import read_manifest
from residua.memory.build import build
from residua.memory.summary import summary


def text(ids):
    offsets = np.array([ids[:i].count(id) for i, id in enumerate(ids)])
    keys = np.random.default_rng(0).normal(size=(len(ids), 2))
    return rs.Encoded(keys, np.zeros((len(ids), 3)), np.arange(len(ids)) % 3, ids, columns={"offset": offsets})


def test_of_rows():
    memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    memory.forget(1)
    found = summary(memory)
    assert (found["rows"], found["forgotten"], found["dim"], found["outputs"]) == (2, 1, 3, 2)
    assert (found["task"], found["index"], found["exact"], found["recall"]) == ("classification", "exact", True, None)
    assert found["bytes_per_row"] == memory.bytes_per_row and found["storage"] == {"name": "full"}
    assert "documents" not in found and found["source"] is None


def test_of_text_counts_documents_that_are_left():
    memory = rs.Memory(text([5, 5, 7, 7, 9]), storage="none", about={"model": "tiny"})
    assert (summary(memory)["documents"], summary(memory)["model"]) == (3, "tiny")
    memory.forget(7)
    assert (summary(memory)["documents"], summary(memory)["rows"]) == (2, 3)


@pytest.mark.parametrize(
    "edit", [lambda memory: None, lambda memory: memory.forget(5), lambda memory: memory.rebuild()]
)
def test_the_manifest_says_it_after_every_save(tmp_path, edit):
    memory = rs.Memory(text([5, 5, 7, 7, 9]), storage="none")
    memory.save(tmp_path)
    edit(memory)
    memory.save(tmp_path)
    assert read_manifest(tmp_path)["summary"] == summary(rs.Memory.load(tmp_path))


def test_a_streamed_build_says_it_too(tmp_path):
    class Batch:
        labels, ids, offsets = np.arange(5) % 3, np.array([5, 5, 7, 7, 9]), np.array([0, 1, 0, 1, 0])

        def __len__(self):
            return 5

    memory = build([Batch()], lambda batch: text(batch.ids.tolist()), tmp_path, index="exact")
    assert read_manifest(tmp_path)["summary"] == summary(memory)
    assert summary(memory)["documents"] == 3
