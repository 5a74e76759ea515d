"""Labels are kept in the smallest integers that hold the classes, whatever becomes of the memory."""

import json
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import residua as rs
from residua.errors import MemoryFileError
from residua.folder import MANIFEST


def rows(classes, labels, seed=0, **more):
    """Rows whose keys tell the labels."""
    rng, n = np.random.default_rng(seed), len(labels)
    keys = np.asarray(labels, float)[:, None] + rng.normal(size=(n, 3)) / 100
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    return rs.Encoded(keys, logits, labels, **more)


SIZES = [
    (2, torch.int8),
    (128, torch.int8),
    (129, torch.int16),
    (256, torch.int16),
    (257, torch.int16),
    (32_768, torch.int16),
    (32_769, torch.int32),
    (65_537, torch.int32),
]


@pytest.mark.parametrize(("classes", "dtype"), SIZES)
def test_the_largest_class_is_kept_found_and_saved(tmp_path, classes, dtype):
    labels = [0, classes - 1, classes // 2, classes - 1]
    memory = rs.Memory(rows(classes, labels), storage="none")
    assert memory.column("label").dtype == dtype and memory.bytes_per_row["label"] == dtype.itemsize
    memory.relabel([0], classes - 1)
    memory.save(tmp_path)
    for one in (memory, rs.Memory.load(tmp_path), rs.Memory.load(tmp_path, mmap=True)):
        assert one.labels.tolist() == [classes - 1, *labels[1:]] and one.column("label").dtype == dtype
        query = rows(classes, [classes - 1], seed=1)
        assert rs.KNNLM(one, k=1, lmbda=1.0, sigma=1.0).predict(query).tolist() == [classes - 1]
        lost = rows(classes, [classes - 1], seed=1, ids=[3])
        explained = rs.explain(rs.KNNLM(one, k=4, lmbda=0.5, sigma=1.0), lost)
        assert sorted(explained.labels.tolist()) == sorted([classes - 1, *labels[1:3]])
        one.undo()
        assert one.labels.tolist() == labels


@pytest.mark.parametrize("storage", ["full", "none"])
def test_classes_that_outgrow_their_dtype(tmp_path, storage):
    memory = rs.Memory(rows(128, [0, 5, 127]), storage=storage)
    memory.relabel([1], 6)
    memory.save(tmp_path)
    memory.add(rows(300, [299, 128]), new_classes=True)
    assert memory.column("label").dtype == torch.int16
    memory.relabel([0], 290)
    assert memory.labels.tolist() == [290, 6, 127, 299, 128]
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    for one in (memory, loaded):
        one.undo()
        assert one.labels.tolist() == [0, 6, 127, 299, 128] and one.column("label").dtype == torch.int16


def test_an_interrupted_growth_is_of_the_old_dtype_again():
    memory = rs.Memory(rows(128, [0, 5, 127]), storage="none")
    with pytest.raises(RuntimeError), memory.editing() as draft:
        draft.add(rows(300, [299]), new_classes=True)
        raise RuntimeError
    assert memory.column("label").dtype == torch.int8 and memory.labels.tolist() == [0, 5, 127]


@pytest.mark.parametrize("label", [200, -1, 256])
def test_a_class_that_would_wrap_around_is_refused(tmp_path, label):
    memory = rs.Memory(rows(100, [0, 5, 99]), storage="none")
    memory.save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    about = manifest["shards"][0]
    file = tmp_path / about["file"]
    tensors = load_file(file)
    tensors["label"][1] = label
    save_file(tensors, file)
    about |= {"bytes": file.stat().st_size, "crc32": zlib.crc32(file.read_bytes())}
    del manifest["crc32"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"crc32": zlib.crc32(json.dumps(manifest).encode())}))
    with pytest.raises(MemoryFileError, match="'label' holds"):
        rs.Memory.load(tmp_path)


def test_residuals_name_the_right_class_however_they_are_made():
    data, asked = rows(100, np.arange(100).repeat(3), seed=2), rows(100, np.arange(100), seed=3)
    full, top = (rs.ResMem(rs.Memory(data, storage=kept, m=100), k=4, sigma=0.5) for kept in ("full", "top-m"))
    expected = full.scores(asked)  # by a table of all residuals
    for made in (top.scores(asked), full.scores(asked[:1]), top.scores(asked[:1])):
        np.testing.assert_allclose(made, expected[: len(made)], atol=1e-6)


def test_flags_cost_nothing_until_a_row_is_forgotten(tmp_path):
    memory = rs.Memory(rows(3, [0, 1, 2, 1] * 50))
    assert memory.bytes_per_row["active"] == 0
    memory.add(rows(3, [2] * 100, seed=1))
    assert memory.bytes_per_row["active"] == 0 and len(memory) == 300
    memory.forget([0, 299])
    assert memory.bytes_per_row["active"] == 1 and len(memory) == 298
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert loaded.bytes_per_row["active"] == 1 and loaded.ids.tolist() == list(range(1, 299))
    loaded.rebuild()
    assert loaded.bytes_per_row["active"] == 0 and len(loaded) == 298
    memory.forget(memory.ids)
    assert len(memory) == 0
    memory.add(rows(3, [1]))
    assert memory.labels.tolist() == [1]
