"""A memory whose large columns stay in their files: every answer and every edit is that of the same memory in RAM."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import ChunkedTensor
from residua.errors import MemoryFileError, ParameterError


def rows(n, seed=0, dim=8, classes=5):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, dim)), rng.normal(size=(n, classes)), rng.integers(classes, size=n))


QUERIES = rows(40, seed=9)
KINDS = [
    {},
    {"key_dtype": "float16"},
    {"index": "IVF8,PQ4x4fs", "index_params": {"nprobe": 8}, "key_dtype": "bfloat16"},
    {"storage": "none", "normalise": True},
    {"storage": "top-m", "m": 2},
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.get("index", "exact") + kind.get("storage", ""))
def folder(request, tmp_path):
    """Of two shards, with forgotten and relabelled rows."""
    if "index" in request.param:
        pytest.importorskip("faiss")
    memory = rs.Memory(rows(600), **request.param)
    memory.save(tmp_path / "memory")
    memory.add(rows(30, seed=1))
    memory.forget([3, 610])
    memory.relabel([5, 620], [1, 2])
    memory.save(tmp_path / "memory")
    return tmp_path / "memory"


def same(mapped, memory):
    found, expected = (one.search(QUERIES.keys, 7) for one in (mapped, memory))
    assert torch.equal(found.rows, expected.rows) and torch.equal(found.distances, expected.distances)
    for name in ("keys", "labels", "ids"):
        assert np.array_equal(getattr(mapped, name), getattr(memory, name))
    if memory.logits is not None:
        assert torch.equal(mapped.logits.dense(), memory.logits.dense())
        reader = rs.ResMem if memory.storage.name != "none" else rs.KNNLM
        scores = [reader(one, k=7, sigma=1.0).scores(QUERIES) for one in (mapped, memory)]
        assert np.array_equal(*scores)
    assert mapped.median_nn_distance() == memory.median_nn_distance()


def test_it_answers_and_is_edited_as_in_ram(folder, tmp_path):
    both = rs.Memory.load(folder, mmap=True), rs.Memory.load(folder)
    same(*both)
    for memory in both:
        memory.add(rows(3, seed=2))
        memory.add(rows(50, seed=3))
        memory.forget([0, 631, 640])
        memory.relabel([1, 650], [4, 4])
    same(*both)
    for memory in both:
        memory.undo()
        memory.undo()
    same(*both)
    both[0].save(folder)
    same(rs.Memory.load(folder, mmap=True), both[1])
    both[0].save(tmp_path / "elsewhere")
    shutil.rmtree(folder)
    same(*both)  # what is mapped stays until nobody reads it
    same(rs.Memory.load(tmp_path / "elsewhere", mmap=True), both[1])
    for memory in both:
        memory.rebuild()
    same(*both)


def test_a_rebuild_reads_its_files_and_copies_nothing(folder, tmp_path):
    both = rs.Memory.load(folder, mmap=True), rs.Memory.load(folder)
    for number in range(3):
        for memory in both:
            memory.forget(memory.ids[number :: 5 + number])
            memory.rebuild()
            memory.add(rows(20, seed=number))
        same(*both)
        if both[0].storage.name == "full":
            assert isinstance(both[0].stored_logits.table, ChunkedTensor)
        if number:  # the first one's rows are saved together with the second's
            both[0].save(folder)
            same(*both)
            same(rs.Memory.load(folder), both[1])


def test_a_rebuild_of_all_rows_and_one_of_rows_that_are_in_no_file_yet(tmp_path):
    rs.Memory(rows(30)).save(tmp_path)
    both = rs.Memory.load(tmp_path, mmap=True), rs.Memory.load(tmp_path)
    for memory in both:
        memory.rebuild()
    same(*both)
    for memory in both:
        memory.add(rows(9, seed=1))
        memory.forget(np.arange(30))
        memory.rebuild()
    same(*both)
    both[0].purge(tmp_path)
    same(*both)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_what_a_purge_took_out_of_the_folder_is_on_the_disk_no_more(folder):
    memory = rs.Memory.load(folder, mmap=True)
    memory.forget(np.arange(10, 20))
    memory.purge(folder)
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    assert not any(line.endswith("(deleted)") for line in maps)
    assert len(maps) >= 1


def test_rows_that_the_index_file_lacks_are_added_part_by_part(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    memory = rs.Memory(rows(600), index="IVF8,Flat")
    memory.save(tmp_path)
    memory.add(rows(100, seed=1))
    memory.forget([3, 650])
    memory.save(tmp_path)
    monkeypatch.setattr("residua.memory.store._SHARD", 33)
    for mmap in (True, False):
        same(rs.Memory.load(tmp_path, mmap=mmap), memory)


def test_a_small_save_writes_only_what_is_new(folder):
    memory = rs.Memory.load(folder, mmap=True)
    before = {file.name for file in folder.glob("rows-*")}
    memory.add(rows(2, seed=4))
    memory.save(folder)
    assert len(before) == 2 and before < {file.name for file in folder.glob("rows-*")}


def damage(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_what_is_read_is_verified_and_what_is_mapped_is_not(tmp_path):
    rs.Memory(rows(100), storage="none").save(tmp_path)
    (file,) = tmp_path.glob("rows-*")
    header = json.loads(file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")])
    start = len(file.read_bytes()) - max(one["data_offsets"][1] for one in header.values())
    damage(file, start + header["key"]["data_offsets"][0])
    assert len(rs.Memory.load(tmp_path, mmap=True)) == 100
    with pytest.raises(MemoryFileError, match="corrupted"):
        rs.Memory.load(tmp_path)
    for place in (start + header["label"]["data_offsets"][0], 8 + 5):  # a label, and the header
        damage(file, place)
        with pytest.raises(MemoryFileError, match=r"corrupted|not a safetensors file"):
            rs.Memory.load(tmp_path, mmap=True)
        damage(file, place)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(MemoryFileError, match="torn"):
        rs.Memory.load(tmp_path, mmap=True)


def test_a_shard_of_an_older_version_is_verified_whole(tmp_path):
    from residua.folder import MANIFEST, checksum

    rs.Memory(rows(100)).save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["shards"][0]["small_crc32"]
    manifest["crc32"] = checksum(manifest)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    same(rs.Memory.load(tmp_path, mmap=True), rs.Memory.load(tmp_path))
    damage(next(tmp_path.glob("rows-*")), -1)
    with pytest.raises(MemoryFileError, match="corrupted"):
        rs.Memory.load(tmp_path, mmap=True)


def test_a_reader_is_loaded_so_too(tmp_path):
    rs.ResMem(rs.Memory(rows(100)), k=3, sigma=1.0).save(tmp_path)
    scores = [rs.load(tmp_path, mmap=mmap).scores(QUERIES) for mmap in (True, False)]
    assert np.array_equal(*scores)


def test_files_are_mapped_on_the_cpu(tmp_path):
    with pytest.raises(ParameterError, match="mmap=True with device='meta'"):
        rs.Memory.load(tmp_path, "meta", mmap=True)


def test_new_classes(tmp_path):
    rs.Memory(rows(100)).save(tmp_path)
    both = rs.Memory.load(tmp_path, mmap=True), rs.Memory.load(tmp_path)
    more = rs.Encoded(QUERIES.keys[:2], QUERIES.logits.dense()[:2], [5, 5], new_classes=True)
    for memory in both:
        memory.add(more, new_classes=True)
    assert both[0].n_outputs == 6 and torch.equal(both[0].logits.dense(), both[1].logits.dense())
