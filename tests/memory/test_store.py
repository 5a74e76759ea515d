"""What was saved comes back, and only what changed is written."""

import json
import pydoc
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Head, Source
from residua.errors import MemoryFileError, StaleMemoryError
from residua.folder import MANIFEST
from residua.memory import manifest as saving

WEIGHT = torch.tensor([[1.0, 0], [0, 1], [-1, 1]])
SOURCE = Source("Net", "fc", "float32", {"weight": ([3, 2], 2.0)}, {"tokenizer": "ab"}, {"mean": [0.1], "scale": [2.0]})


def made(n=12, seed=0, **more):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2)).astype(np.float32)
    logits = keys @ WEIGHT.numpy().T
    return rs.Encoded(keys, logits, rng.integers(0, 3, n), head=Head(WEIGHT), **more)


def regression(n=12, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, outputs) if outputs else (n,)
    return rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=shape), rng.normal(size=shape))


MEMORIES = {
    "full": lambda: rs.Memory(made()),
    "none": lambda: rs.Memory(made(), storage="none"),
    "head": lambda: rs.Memory(made(), storage="head"),
    "top-m": lambda: rs.Memory(made(), storage="top-m", m=2, temperature=1.4),
    "ids": lambda: rs.Memory(made(ids=[3, -1, 3, 2**40, 5, 6, 7, 8, 9, 10, 11, 12])),
    "columns": lambda: rs.Memory(made(columns={"weight": np.arange(12) / 4, "box": np.ones((12, 2), np.int16)})),
    "source": lambda: rs.Memory(made(source=SOURCE)),
    "regression": lambda: rs.Memory(regression()),
    "flat regression": lambda: rs.Memory(regression(outputs=0)),
}


def same(one, other):
    """Whether two memories are equal in everything that can be seen, row by row."""
    assert one.schema.to_json() == other.schema.to_json()
    assert (len(one), one.n_rows, one.recall) == (len(other), other.n_rows, other.recall)
    assert torch.equal(one.active_rows, other.active_rows)
    for name in ("label", "id", *one.schema.columns):
        assert one.column(name).dtype == other.column(name).dtype
        assert torch.equal(one.column(name)[:], other.column(name)[:]), name
    assert torch.equal(one.keys_at(torch.arange(one.n_rows)), other.keys_at(torch.arange(one.n_rows)))
    if one.logits is not None:
        assert torch.equal(one.logits.dense(), other.logits.dense())
    mine, its = (m.search(np.random.default_rng(5).normal(size=(20, one.dim)), 5) for m in (one, other))
    assert torch.equal(mine.rows, its.rows) and torch.equal(mine.distances, its.distances)
    return True


def files(folder, start=""):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.startswith(start)}


@pytest.mark.parametrize("name", MEMORIES)
def test_what_was_saved_comes_back(name, tmp_path):
    memory = MEMORIES[name]()
    memory.save(tmp_path / "new" / "m")
    loaded = rs.Memory.load(str(tmp_path / "new" / "m"))
    assert same(memory, loaded)
    memory.forget(memory.ids[[4, 7]])
    memory.relabel(memory.ids[5], memory.labels[6])
    memory.save(tmp_path / "new" / "m")
    assert same(memory, rs.Memory.load(tmp_path / "new" / "m"))


def test_edits_of_a_loaded_memory(tmp_path):
    memory = rs.Memory(made())
    memory.relabel(0, 2)
    memory.save(tmp_path)
    memory = rs.Memory.load(tmp_path)
    memory.forget(3)
    memory.relabel([4, 5], [1, 0])
    memory.add(made(5, seed=1))
    memory.relabel(13, 2)
    memory.save(tmp_path)
    again = rs.Memory.load(tmp_path)
    assert same(memory, again)
    again.relabel(13, 0)
    again.save(tmp_path)
    assert same(again, rs.Memory.load(tmp_path))
    assert (again.labels[[0, 3, 4]].tolist(), again.labels[12]) == ([2, 1, 0], 0)


def test_only_new_rows_are_written(tmp_path):
    memory = rs.Memory(made(2000))
    memory.save(tmp_path)
    first = files(tmp_path, "rows-")
    assert len(first) == 1
    memory.add(made(3, seed=1))
    memory.save(tmp_path)
    second = files(tmp_path, "rows-")
    assert first.items() < second.items() and len(second) == 2
    added = (set(second) - set(first)).pop()
    assert len(second[added]) < len(first.popitem()[1]) / 50
    memory.forget([1, 2001])
    memory.relabel(7, 1)
    memory.save(tmp_path)
    assert files(tmp_path, "rows-") == second  # forgetting and relabelling leave the shards alone
    assert len(files(tmp_path, "edits-")) == 3  # those of two saves before, too
    assert same(memory, rs.Memory.load(tmp_path))


def test_an_unchanged_memory_writes_no_rows(tmp_path):
    memory = rs.Memory(made())
    memory.save(tmp_path)
    before = files(tmp_path, "rows-")
    memory.save(tmp_path)
    rs.Memory.load(tmp_path).save(tmp_path)
    assert files(tmp_path, "rows-") == before


def test_two_folders_and_two_writers(tmp_path):
    memory = rs.Memory(made())
    memory.save(tmp_path / "a")
    memory.relabel(0, 2)
    memory.save(tmp_path / "b")
    memory.add(made(2, seed=1))
    memory.relabel(1, 2)
    memory.save(tmp_path / "a")
    assert same(memory, rs.Memory.load(tmp_path / "a"))
    other = rs.Memory.load(tmp_path / "a")
    other.forget(0)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    other.save(tmp_path / "link")
    memory.add(made(1, seed=2))
    for name in ("a", "link"):
        with pytest.raises(StaleMemoryError, match="somebody else saved there since"):
            memory.save(tmp_path / name)
    assert same(other, rs.Memory.load(tmp_path / "a"))
    memory.save(tmp_path / "b")
    assert same(memory, rs.Memory.load(tmp_path / "b"))
    foreign = rs.Memory(made(3))
    foreign.save(tmp_path / "a")  # one that never was of this folder replaces what is there
    assert same(foreign, rs.Memory.load(tmp_path / "a")) and len(files(tmp_path / "a", "rows-")) == 1
    for file in (tmp_path / "b").iterdir():
        file.unlink()
    memory.save(tmp_path / "b")  # nothing is lost
    assert same(memory, rs.Memory.load(tmp_path / "b"))


def test_the_two_states_before_are_kept_whole(tmp_path):
    memory, states = rs.Memory(made(20)), []
    for round in range(5):
        memory.forget(round)
        memory.add(made(1, seed=round))
        memory.save(tmp_path)
        states.append((json.loads((tmp_path / MANIFEST).read_text())["generation"], memory.ids.tolist()))
    kept = sorted(file.name for file in tmp_path.glob("manifest-*"))
    assert kept == sorted(f"manifest-{generation}.json" for generation, _ in states[2:4])
    for generation, ids in states[2:4]:
        shutil.copytree(tmp_path, tmp_path.with_name(generation))
        (tmp_path.with_name(generation) / f"manifest-{generation}.json").replace(
            tmp_path.with_name(generation) / MANIFEST
        )
        assert rs.Memory.load(tmp_path.with_name(generation)).ids.tolist() == ids


def test_loading_goes_on_while_others_save(tmp_path, monkeypatch):
    """Each time that a file is looked for, somebody has saved twice and it is gone."""
    memory = rs.Memory(made())
    memory.save(tmp_path)
    there, left = saving.present, [3]

    def busy(path, about):
        if left[0]:
            left[0] -= 1
            rs.Memory(made(12 + left[0])).save(tmp_path)
        return there(path, about)

    monkeypatch.setattr(saving, "present", busy)
    assert len(rs.Memory.load(tmp_path)) == 12
    left[0] = 1000
    with pytest.raises(MemoryFileError, match="was saved 100 times while it was loaded"):
        rs.Memory.load(tmp_path)


@pytest.mark.parametrize("step", ["residua.memory.manifest.crc32", "residua.index.trust.sign"])
def test_an_index_file_that_goes_while_it_is_loaded(step, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    rs.Memory(made(30), index="HNSW8").save(tmp_path)
    real, calls = pydoc.locate(step), []

    def busy(file, *given):
        if file.name.startswith("index-") and not calls:
            calls.append(file)
            rs.Memory.compact(tmp_path)
        return real(file, *given)

    monkeypatch.setattr(step, busy)
    assert len(rs.Memory.load(tmp_path)) == 30 and not calls[0].exists()


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="open files have no names")
def test_what_was_opened_stays_while_others_save(tmp_path, monkeypatch):
    memory = rs.Memory(made(names=[str(n) for n in range(12)], ids=np.arange(12)), storage="head")
    memory.save(tmp_path)
    checksum, calls = saving.crc32, []

    def busy(file):
        if not calls:
            calls.append(file)
            rs.Memory(made(2)).save(tmp_path)
        return checksum(file)

    monkeypatch.setattr(saving, "crc32", busy)
    assert len(rs.Memory.load(tmp_path)) == 12
    assert len(rs.Memory.load(tmp_path)) == 2


def test_rebuild_removes_every_trace(tmp_path):
    memory = rs.Memory(made())
    key, gone = memory.keys[3].astype(np.float32).tobytes(), memory.ids[3]
    memory.save(tmp_path)
    memory.forget(gone)
    memory.relabel(5, 0)
    memory.save(tmp_path)
    assert any(key in content for content in files(tmp_path).values())
    memory.rebuild()
    memory.save(tmp_path)
    assert not any(key in content for content in files(tmp_path).values())
    loaded = rs.Memory.load(tmp_path)
    assert same(memory, loaded) and loaded.n_rows == 11


@pytest.mark.parametrize("rebuilt", [False, True])
def test_an_emptied_memory(rebuilt, tmp_path):
    memory = rs.Memory(made(columns={"page": np.arange(12)}))
    memory.forget(memory.ids)
    if rebuilt:
        memory.rebuild()
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert same(memory, loaded)
    assert loaded.add(made(2, seed=1, columns={"page": [1, 2]})).tolist() == [12, 13]
    loaded.save(tmp_path)
    assert same(loaded, rs.Memory.load(tmp_path))


@pytest.mark.parametrize("index", ["IVF4,Flat", "HNSW8", "PQ2x4fs", "auto"])
def test_the_index_comes_back_as_it_was(index, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    memory = rs.Memory(made(400), index=index)
    memory.forget(np.arange(40, 80))
    memory.save(tmp_path)
    if index != "auto":
        monkeypatch.setattr(type(memory.index), "_train", lambda *_: pytest.fail("trained again"))
    loaded = rs.Memory.load(tmp_path)
    assert same(memory, loaded)
    for m in (memory, loaded):
        m.add(made(50, seed=1))
    assert same(memory, loaded)
    loaded.save(tmp_path)
    assert same(memory, rs.Memory.load(tmp_path))
    assert len(files(tmp_path, "index-")) == (index != "auto")  # what is new is added when it is loaded
    loaded.add(made(100, seed=2))
    loaded.save(tmp_path)
    assert len(files(tmp_path, "index-")) == 2 * (index != "auto")  # over a quarter: a new one, beside the last


def test_loading_writes_nothing(tmp_path):
    memory = rs.Memory(made())
    memory.save(tmp_path)
    before = files(tmp_path), tmp_path.stat().st_mtime_ns
    for file in tmp_path.iterdir():
        file.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert same(memory, rs.Memory.load(tmp_path))
        assert (files(tmp_path), tmp_path.stat().st_mtime_ns) == before
    finally:
        tmp_path.chmod(0o700)


def test_a_relative_path_is_where_it_was(tmp_path, monkeypatch):
    memory = rs.Memory(made())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    memory.save("m")
    monkeypatch.chdir(tmp_path / "elsewhere")
    memory.save("m")
    assert same(memory, rs.Memory.load("m")) and same(memory, rs.Memory.load(tmp_path / "m"))


# --- what is not a whole memory -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    memory = rs.Memory(made(300), storage="head", index="IVF4,Flat")
    memory.forget(3)
    memory.save(tmp_path / "m")
    return tmp_path / "m"


def one(folder, start):
    return next(file for file in folder.iterdir() if file.name.startswith(start))


def test_what_is_no_memory(tmp_path):
    (tmp_path / "file").write_text("hello")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(MemoryFileError, match=path.name):
            rs.Memory.load(path)


@pytest.mark.parametrize("start", ["rows-", "edits-", "head-", "index-"])
def test_a_file_missing_torn_or_flipped_is_named(folder, start):
    pytest.importorskip("faiss")
    file = one(folder, start)
    content = file.read_bytes()
    for position in np.linspace(0, len(content) - 1, 7).astype(int):
        flipped = bytearray(content)
        flipped[position] ^= 4
        file.write_bytes(flipped)
        with pytest.raises(MemoryFileError, match=f"{file.name} is corrupted"):
            rs.Memory.load(folder)
    for torn in (content[:-1], content[: len(content) // 2], b"", content + b"\0"):
        file.write_bytes(torn)
        with pytest.raises(MemoryFileError, match=f"{file.name} has {len(torn)} bytes .* torn"):
            rs.Memory.load(folder)
    file.unlink()
    with pytest.raises(MemoryFileError, match=f"{file.name} is missing"):
        rs.Memory.load(folder)
    file.write_bytes(content)
    rs.Memory.load(folder)


def test_every_flipped_byte_of_a_manifest_is_seen(tmp_path):
    memory = rs.Memory(made())
    memory.save(tmp_path)
    file = tmp_path / MANIFEST
    content = file.read_bytes()
    unseen = set()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        file.write_bytes(flipped)
        try:
            loaded = rs.Memory.load(tmp_path)
        except MemoryFileError as error:
            assert MANIFEST in str(error)
        else:
            unseen.add(content[position : position + 1])
            assert same(memory, loaded)
    assert unseen <= {b" ", b"\n"}  # nothing but the space between


def test_torn_manifests_and_other_formats(folder):
    file = folder / MANIFEST
    manifest = json.loads(file.read_text())
    for content in (b"", file.read_bytes()[:-20], b"[]", b"{}", b"null", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(MemoryFileError, match=MANIFEST):
            rs.Memory.load(folder)
    file.write_text(json.dumps(manifest | {"format": 5}))
    with pytest.raises(MemoryFileError, match="has format 5; this version reads formats 1 to 4"):
        rs.Memory.load(folder)
    for change, message in [
        ({"schema": {**manifest["schema"], "storage": {}}}, "not a manifest that a save wrote.*name"),
        ({"schema": {**manifest["schema"], "key_centre": [1.0]}}, "not a manifest that a save wrote"),
        ({"shards": [manifest["shards"][0] | {"file": "../rows.safetensors"}]}, "the name of a file in its folder"),
        (
            {"shards": [manifest["shards"][0] | {"file": str(folder.parent / "rows")}]},
            "the name of a file in its folder",
        ),
    ]:
        changed = {name: value for name, value in (manifest | change).items() if name != "crc32"}
        file.write_text(json.dumps(changed | {"crc32": zlib.crc32(json.dumps(changed).encode())}))
        with pytest.raises(MemoryFileError, match=message):
            rs.Memory.load(folder)


def test_ids_that_are_dense_in_one_shard_and_runs_in_another(tmp_path):
    rng = np.random.default_rng(0)
    scattered = rng.permutation(10**6)[:9000]
    rows = rs.Encoded(rng.normal(size=(17_000, 4)), np.zeros((17_000, 3)), rng.integers(0, 3, 17_000))
    memory = rs.Memory(rs.Encoded(rows.keys[:9000], np.zeros((9000, 3)), rows.labels[:9000], scattered))
    memory.save(tmp_path)
    memory.add(rows[9000:])
    memory.save(tmp_path)
    assert np.array_equal(rs.Memory.load(tmp_path).ids, memory.ids)
