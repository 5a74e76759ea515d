"""What is damaged in a folder is named, and the generation before is a way back."""

import json

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError
from residua.memory import manifest as saving
from residua.memory.verify import Verified


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 3)), np.zeros((n, 2)), np.arange(n) % 2)


@pytest.fixture
def folder(tmp_path):
    memory, path = rs.Memory(rows(2000)), tmp_path / "mem"
    memory.save(path)
    memory.add(rows(5, 1))
    memory.save(path)
    return path


def shards(folder):
    return json.loads((folder / "manifest.json").read_text())["shards"]


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def test_a_whole_folder(folder):
    found = rs.Memory.verify(folder)
    assert (found.damaged, found.rows, found.whole, found.earlier) == ((), 2005, ((0, 2005),), None)
    assert str(found).endswith("files are whole: 2,005 rows")
    before = sorted(file.name for file in folder.iterdir())
    assert rs.Memory.verify(folder, repair=True) == found
    assert sorted(file.name for file in folder.iterdir()) == before
    with pytest.raises(MemoryFileError, match="not a memory"):
        rs.Memory.verify(folder / "none", repair=True)


@pytest.mark.parametrize("harm", [flip, lambda file: file.unlink(), lambda file: file.write_bytes(b"")])
def test_new_rows_that_are_damaged_and_the_way_back(folder, harm):
    name = shards(folder)[1]["file"]
    harm(folder / name)
    found = rs.Memory.verify(folder)
    assert (found.damaged, found.whole, found.repaired) == ((name,), ((0, 2000),), False)
    assert found.earlier and "2,000 of 2,005 rows are whole; the earlier generation" in str(found)
    with pytest.raises(MemoryFileError):
        rs.Memory.load(folder)
    assert rs.Memory.verify(folder, repair=True).repaired
    memory = rs.Memory.load(folder)
    assert len(memory) == 2000 and rs.Memory.verify(folder).damaged == ()
    memory.add(rows(2, 3))
    memory.save(folder)
    assert len(rs.Memory.load(folder)) == 2002


def test_a_damaged_manifest(folder):
    flip(folder / "manifest.json")
    found = rs.Memory.verify(folder)
    assert (found.damaged, found.rows, found.whole) == (("manifest.json",), 0, ()) and found.earlier
    rs.Memory.verify(folder, repair=True)
    assert len(rs.Memory.load(folder)) == 2000


def test_nothing_to_go_back_to(folder):
    name = shards(folder)[0]["file"]  # of both generations
    flip(folder / name)
    found = rs.Memory.verify(folder)
    assert (found.damaged, found.whole, found.earlier) == ((name,), ((2000, 2005),), None)
    with pytest.raises(MemoryFileError, match="no earlier generation is whole: restore"):
        rs.Memory.verify(folder, repair=True)
    assert str(Verified(1, ("a",), 0, ())) == "damaged: a; none earlier is whole"


def test_compact(folder):
    memory = rs.Memory.load(folder)
    memory.forget([3])
    rs.ResMem(memory, k=2).save(folder)
    rs.Memory.compact(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (len(manifest["shards"]), len(manifest["edits"]), manifest["earlier"]) == (1, 1, [])
    now = rs.load(folder)
    assert now.k == 2 and now.memory.ids.tolist() == memory.ids.tolist()
    assert [str(event) for event in now.memory.log()] == [str(event) for event in memory.log()]
    assert now.memory.undo().restored == 1
    with pytest.raises(MemoryFileError, match="not a memory"):
        rs.Memory.compact(folder / "none")
    assert not (folder / "none").exists()


def test_what_others_remove_as_they_save_is_not_damaged(folder, monkeypatch):
    there, left = saving.present, [3]

    def busy(path, about):
        if left[0]:
            left[0] -= 1
            rs.Memory(rows(12 + left[0])).save(folder)
        return there(path, about)

    monkeypatch.setattr(saving, "present", busy)
    found = rs.Memory.verify(folder)
    assert (found.damaged, found.rows) == ((), 12)
    left[0] = 1000
    with pytest.raises(MemoryFileError, match="was saved 100 times while it was verified"):
        rs.Memory.verify(folder)


@pytest.fixture
def indexed(tmp_path):
    """With a trained index, rows that were added, forgotten and relabelled, a log and a reader, saved several times."""
    pytest.importorskip("faiss")
    memory, path = rs.Memory(rows(2000), index="IVF4,Flat", index_params={"nprobe": 4}), tmp_path / "mem"
    memory.save(path)
    memory.add(rows(600, 1))
    memory.save(path)
    memory.forget([3, 2004])
    memory.relabel([5], 0)
    rs.ResMem(memory, k=2).save(path)
    return path


def of_index(folder):
    (about,) = json.loads((folder / "manifest.json").read_text())["index"]["files"]
    return folder / about["file"]


def answers(folder):
    reader = rs.load(folder)
    memory = reader.memory
    near = memory.search(rows(40, 7).keys, 5)
    log = [str(event) for event in memory.log()]
    return reader.k, memory.ids.tolist(), memory.labels.tolist(), log, near.rows.tolist(), near.distances.tolist()


@pytest.mark.parametrize("harm", [flip, lambda file: file.unlink(), lambda file: file.write_bytes(b"")])
def test_an_index_alone_is_built_anew(indexed, harm):
    before, file = answers(indexed), of_index(indexed)
    harm(file)
    found = rs.Memory.verify(indexed)
    assert (found.damaged, found.index_alone, found.earlier, found.repaired) == ((file.name,), True, None, False)
    assert str(found).endswith("2,600 of 2,600 rows are whole; the index can be built anew from the keys (repair)")
    found = rs.Memory.verify(indexed, repair=True)
    assert found.repaired and str(found).endswith("the index was built anew from the keys, and nothing is lost")
    assert rs.Memory.verify(indexed).damaged == () and answers(indexed) == before
    assert rs.load(indexed).memory.undo().relabelled == 1
    assert rs.Memory.verify(indexed, repair=True).repaired is False


def test_an_index_whose_keys_are_gone_is_lost(indexed):
    memory = rs.Memory.load(indexed)
    memory.discard_keys()
    memory.save(indexed)
    file = of_index(indexed)
    flip(file)
    found = rs.Memory.verify(indexed)
    assert (found.damaged, found.index_alone, found.earlier) == ((file.name,), False, None)
    with pytest.raises(MemoryFileError, match="no earlier generation is whole"):
        rs.Memory.verify(indexed, repair=True)


def test_rows_and_index_damaged_and_an_index_that_two_generations_share(indexed):
    memory = rs.Memory.load(indexed)
    memory.add(rows(5, 2))
    memory.save(indexed)  # the index file is the last one's
    flip(of_index(indexed))
    flip(indexed / shards(indexed)[-1]["file"])
    found = rs.Memory.verify(indexed)
    assert len(found.damaged) == 2 and found.earlier and not found.index_alone
    assert rs.Memory.verify(indexed, repair=True).repaired
    assert len(rs.Memory.load(indexed)) == 2598 and rs.Memory.verify(indexed).damaged == ()
