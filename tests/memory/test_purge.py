"""Forgotten rows leave the files, and every byte is searched for what may be left of them."""

import shutil

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError, StorageError
from residua.memory.lock import locked
from residua.progress import progress_bar

pytest.importorskip("faiss")


def rows(n=400, dim=24, seed=0, **options):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, dim)), rng.normal(size=(n, 3)), rng.integers(3, size=n), **options)


def whole(folder):
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


@pytest.mark.parametrize("index", ["exact", "IVF4,Flat", "Flat"])
@pytest.mark.parametrize("key_dtype", ["float32", "float16"])
def test_nothing_of_a_forgotten_row_is_left(tmp_path, index, key_dtype):
    data = rows()
    memory = rs.Memory(data, index=index, key_dtype=key_dtype)
    memory.save(tmp_path / "mem")
    memory.forget(np.arange(50))
    memory.save(tmp_path / "mem")
    key = np.ascontiguousarray(np.asarray(data.keys[7], dtype=key_dtype)).tobytes()
    assert key in whole(tmp_path / "mem")  # hidden, and still there
    done = memory.purge(tmp_path / "mem", progress=False)
    assert key not in whole(tmp_path / "mem")
    assert (done.rows, done.traces, done.files) == (50, 50, len(list((tmp_path / "mem").iterdir())))
    assert done.bytes == len(whole(tmp_path / "mem"))
    assert str(done).startswith("50 rows removed; 50 traces of them looked for in ")
    loaded = rs.Memory.load(tmp_path / "mem")
    assert loaded.n_rows == len(loaded) == 350 and loaded.ids.tolist() == list(range(50, 400))
    assert loaded.purge(tmp_path / "mem", progress=False).rows == 0


@pytest.mark.parametrize("shift", range(9))
def test_a_copy_that_somebody_put_there_is_found_wherever_it_begins(tmp_path, shift):
    memory = rs.Memory(rows(40))
    memory.save(tmp_path / "mem")
    memory.forget([3])
    old = whole(tmp_path / "mem")
    place = old.index(np.asarray(rows(40).keys[3], np.float32).tobytes())
    (tmp_path / "mem" / "notes.bak").write_bytes(b"x" * shift + old[place - 3 : place + 96])
    with pytest.raises(MemoryFileError, match=r"notes\.bak still holds 1 trace of forgotten rows"):
        memory.purge(tmp_path / "mem", progress=False)
    (tmp_path / "mem" / "notes.bak").unlink()
    # What was forgotten is gone from the memory: a copy elsewhere is nothing that it knows of.
    assert memory.purge(tmp_path / "mem", progress=False).rows == 0


def test_what_a_remembered_row_has_too_is_no_trace(tmp_path):
    data = rows(40)
    keys = data.keys.copy()
    keys[1] = keys[0]
    memory = rs.Memory(rs.Encoded(keys, np.zeros((40, 3)), data.labels))
    memory.forget([0])
    done = memory.purge(tmp_path / "mem", progress=False)
    assert (done.rows, done.traces) == (1, 0) and len(rs.Memory.load(tmp_path / "mem")) == 39


def test_all_may_go(tmp_path):
    memory = rs.Memory(rows(40))
    memory.forget(memory.ids)
    done = memory.purge(tmp_path / "mem", progress=False)
    assert (done.rows, done.traces, len(rs.Memory.load(tmp_path / "mem"))) == (40, 40, 0)


def test_a_live_memory_purges_what_others_forgot_and_keeps_what_they_added(tmp_path):
    rs.Memory(rows(40)).save(tmp_path / "mem")
    live, other = rs.Memory.open(tmp_path / "mem"), rs.Memory.open(tmp_path / "mem")
    other.forget([3])
    other.add(rows(1, seed=1, names=["theirs"]))
    done = live.purge(tmp_path / "mem", progress=False)
    assert (done.rows, done.traces) == (1, 1)
    loaded = rs.Memory.load(tmp_path / "mem")
    assert loaded.names == {40: "theirs"} and loaded.n_rows == len(loaded) == 40
    assert np.asarray(rows(40).keys[3], np.float32).tobytes() not in whole(tmp_path / "mem")


def test_nobody_saves_while_files_are_searched(tmp_path, monkeypatch):
    memory, searched = rs.Memory(rows(40)), []
    memory.forget([3])

    def watched(*given, **named):
        with pytest.raises(MemoryFileError, match="another process or thread"), locked(tmp_path, 0, nested=False):
            pass
        searched.append(True)
        return progress_bar(*given, **named)

    monkeypatch.setattr("residua.memory.purge.progress_bar", watched)
    memory.purge(tmp_path, progress=False)
    assert searched


def test_codes_cannot_be_purged(tmp_path):
    memory = rs.Memory(rows(400), index="SQ8")
    memory.discard_keys()
    memory.forget([1])
    with pytest.raises(StorageError, match="keeps no keys to make its index anew from"):
        memory.purge(tmp_path / "mem")
    assert not (tmp_path / "mem").exists()


def test_a_document_is_gone_with_its_text_and_its_name(tmp_path, tiny_model, tiny_tokenizer):
    text = "class Counter:\n    def count(self, name):\n        self.seen[name] = 0\n" * 3
    texts = [("a.py", "def add(first, second):\n    return first + second\n" * 4), ("secret.py", text)]
    model = tiny_model("gpt2")
    memory = rs.lm.remember(model, tiny_tokenizer, texts, tmp_path / "mem", window=24, progress=False)
    rs.lm.forget(memory, "secret.py")
    memory.save(tmp_path / "mem")
    said = np.asarray(tiny_tokenizer(text)["input_ids"][:8], np.int32).tobytes()
    assert said in whole(tmp_path / "mem")
    done = memory.purge(tmp_path / "mem", progress=False)
    assert said not in whole(tmp_path / "mem") and b"secret.py" not in whole(tmp_path / "mem")
    assert done.rows == len(tiny_tokenizer(text)["input_ids"]) + 1 and done.traces > done.rows / 2
    shutil.copytree(tmp_path / "mem", tmp_path / "copy")
    assert list(rs.Memory.load(tmp_path / "copy").names.values()) == ["a.py"]
