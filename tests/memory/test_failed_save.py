"""A save that fails or is killed at any point leaves what was saved before, whole."""

import errno
import itertools
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError
from residua.folder import LOCK, MANIFEST, earlier_manifest, read_manifest
from residua.memory import manifest as saving


def made(n, seed=0):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=(n, 3)), rng.integers(0, 3, n))


def content(memory):
    """What a folder keeps of a memory, to compare."""
    found = memory.search([[0.0, 0.0]], 5)
    return memory.ids.tolist(), memory.labels.tolist(), found.rows.tolist(), found.distances.tolist()


def names(path):
    return sorted(file.name for file in path.iterdir())


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def failing(monkeypatch, target, name, nth, error, done=False):
    """The nth call of `target.name` raises, before doing anything, or (`done`) after having done it."""
    original, calls = getattr(target, name), itertools.count(1)

    def call(*args, **kwargs):
        if next(calls) != nth:
            return original(*args, **kwargs)
        if done:
            original(*args, **kwargs)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(target, name, call)
        yield


POINTS = [
    (target, name, nth, done)
    for target, name, count in [
        (saving, "save_file", 2),  # new rows, edits
        (os, "fsync", 6),  # both, the index, the manifest, and the folder before and after its rename
        (saving, "crc32", 3),
        (saving, "write_json", 1),
        (os, "replace", 1),
    ]
    for nth in range(1, count + 1)
    for done in (False, True)
]


@pytest.fixture
def memory(tmp_path):
    """A memory that was saved and then changed, and what it was when saved."""
    pytest.importorskip("faiss")
    memory = rs.Memory(made(30), index="HNSW8")
    memory.save(tmp_path)
    old = content(memory)
    memory.add(made(10, seed=1))
    memory.forget([1, 31])
    memory.relabel(2, 0)
    return memory, old


@pytest.mark.slow
@pytest.mark.parametrize("error", [full(), KeyboardInterrupt()], ids=["disk full", "interrupt"])
@pytest.mark.parametrize(("target", "name", "nth", "done"), POINTS)
def test_a_failed_save_keeps_the_old_state(target, name, nth, done, error, memory, tmp_path, monkeypatch):
    memory, old = memory
    new, before = content(memory), names(tmp_path)
    expected = MemoryFileError if isinstance(error, OSError) else KeyboardInterrupt
    with failing(monkeypatch, target, name, nth, error, done), pytest.raises(expected) as raised:
        memory.save(tmp_path)
    renamed = (done and name in ("replace", "write_json")) or (name, nth) == ("fsync", 6)
    assert content(rs.Memory.load(tmp_path)) == (new if renamed else old)
    assert renamed or names(tmp_path) == before  # nothing half-written stays behind
    if expected is MemoryFileError:
        assert str(tmp_path) in str(raised.value) and os.strerror(errno.ENOSPC) in str(raised.value)
    assert content(memory) == new  # what is in RAM is untouched, and can be saved
    memory.save(tmp_path)
    assert content(rs.Memory.load(tmp_path)) == new


@pytest.mark.slow
@pytest.mark.parametrize(("target", "name", "nth", "done"), POINTS)
def test_a_save_cut_short_keeps_the_old_state(target, name, nth, done, memory, tmp_path, monkeypatch):
    """As when the process is killed at that point: nobody tidies up."""
    memory, old = memory
    new = content(memory)
    with monkeypatch.context() as patch:
        patch.setattr(saving.Path, "unlink", lambda *_, **__: None)
        with failing(monkeypatch, target, name, nth, KeyboardInterrupt(), done), pytest.raises(KeyboardInterrupt):
            memory.save(tmp_path)
    renamed = (done and name in ("replace", "write_json")) or (name, nth) == ("fsync", 6)
    loaded = rs.Memory.load(tmp_path)
    assert content(loaded) == (new if renamed else old)
    loaded.save(tmp_path)
    assert content(rs.Memory.load(tmp_path)) == content(loaded)
    tidy(tmp_path)


def tidy(path):
    manifest = read_manifest(path)
    kept = [earlier_manifest(generation) for generation in manifest["earlier"]]
    named = "".join((path / name).read_text() for name in (MANIFEST, *kept)) + " ".join(kept)
    assert len(kept) <= 2
    assert [name for name in names(path) if name not in (MANIFEST, LOCK) and name not in named] == []


def test_every_point_of_a_save_was_tried(tmp_path, monkeypatch):
    """The counts in POINTS are those of one save: one more call never comes."""
    pytest.importorskip("faiss")
    memory = rs.Memory(made(30), index="HNSW8")
    memory.save(tmp_path)
    last = {(target, name): nth for target, name, nth, _ in POINTS}
    for (target, name), nth in last.items():
        memory.add(made(1))
        with failing(monkeypatch, target, name, nth + 1, full()):
            memory.save(tmp_path)


def test_a_failed_sweep_is_only_untidy(tmp_path, monkeypatch):
    memory = rs.Memory(made(5))
    memory.save(tmp_path)
    memory.forget(0)

    def refuse(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(saving.Path, "unlink", refuse)
        memory.save(tmp_path)  # old files stay; the memory is saved all the same
    assert content(rs.Memory.load(tmp_path)) == content(memory)
    memory.save(tmp_path)
    assert content(rs.Memory.load(tmp_path)) == content(memory)


def test_a_first_save_that_was_killed_can_be_repeated(tmp_path):
    left = ["rows-0a1b.safetensors", "edits-0a1b.safetensors", f"{MANIFEST}.12ab.part", ".tmpAb12Cd"]
    for name in left:
        (tmp_path / name).write_bytes(b"half")
    memory = rs.Memory(made(5))
    memory.save(tmp_path)
    assert content(rs.Memory.load(tmp_path)) == content(memory)
    assert not set(names(tmp_path)) & set(left)


def test_what_belongs_to_others_is_not_overwritten(tmp_path):
    memory = rs.Memory(made(5))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(MemoryFileError, match="not a memory's; save into an empty or new folder"):
        memory.save(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / MANIFEST).write_text('{"name": "a web page"}')
    with pytest.raises(MemoryFileError, match="has format None"):
        memory.save(tmp_path / "b")
    assert (tmp_path / "b" / MANIFEST).read_text() == '{"name": "a web page"}'
    with pytest.raises(MemoryFileError, match=r"notes\.txt"):
        memory.save(tmp_path / "a" / "notes.txt")
    assert names(tmp_path / "a") == ["lock", "notes.txt"]
    memory.save(tmp_path / "c")
    (tmp_path / "c" / "notes.txt").write_text("mine")
    memory.forget(0)
    memory.save(tmp_path / "c")
    assert "notes.txt" in names(tmp_path / "c")


ENDLESS = """
import sys
import numpy as np, residua as rs
memory = rs.Memory.load(sys.argv[1])
print("ready", flush=True)
while True:
    n = len(memory)
    memory.add(rs.Encoded(np.full((500, 2), n), np.zeros((500, 3)), np.zeros(500, int)))
    memory.forget(memory.ids[:300])
    memory.save(sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_process_leaves_a_whole_memory(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        rs.Memory(made(1000)).save(folder)
    processes = [
        subprocess.Popen([sys.executable, "-c", ENDLESS, str(folder)], stdout=subprocess.PIPE) for folder in folders
    ]
    for process in processes:
        try:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.15)
        finally:
            process.kill()  # SIGKILL, wherever the save is
            process.communicate()
    for folder in folders:
        memory = rs.Memory.load(folder)
        rounds = (len(memory) - 1000) // 200
        assert len(memory) == 1000 + 200 * rounds
        assert memory.n_rows == 1000 + 500 * rounds == memory.add(made(1))[0]
        memory.save(folder)
        tidy(folder)
