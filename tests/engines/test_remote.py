"""An index on a server stays in step with its folder, whatever fails in between, and whoever else is there."""

import copy
import gc
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import EngineError, MemoryFileError, ParameterError, StaleMemoryError
from residua.index.remote import end_unsaved
from residua.testing import check_index


def seen(memory, queries=12):
    """What searches, ids and labels say."""
    found = memory.search(ASKED[:queries], 7)
    ids = memory.column("id")[found.rows.clamp_min(0)].masked_fill(~found.found, -1)
    near = ids.tolist(), np.round(found.distances.numpy(), 3).tolist()
    return memory.ids.tolist(), memory.labels.tolist(), near


ASKED = np.random.default_rng(9).normal(size=(12, 8)).astype(np.float32)


def same(memory):
    """What an exact memory of the same rows says."""
    rows = rs.Encoded(memory.keys, memory.logits, memory.labels, memory.ids)
    return seen(rs.Memory(rows))


def on_server(ram, index):
    return set(ram.held[index.place])


def test_it_keeps_the_promises_of_an_index(ram):
    from residua.index.index import ENGINES

    check_index(ENGINES.get("ram")(8, "cpu", ram.address), recall=1.0, n=400)
    gc.collect()
    assert not ram.held and not ram.names  # nothing is left behind


def test_a_folder_does_not_say_where_the_server_is(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address, index_params={"effort": 3}, overfetch=2)
    memory.save(tmp_path)
    for file in tmp_path.iterdir():
        assert b"ram:" not in file.read_bytes()
    made = json.loads((tmp_path / "manifest.json").read_text())["index"]
    assert made["wanted"] == {"index": "ram", "params": {"effort": 3, "rerank": True}, "overfetch": 2}
    with pytest.raises(MemoryFileError, match=r'lies on a server \(ram\).*index="ram://host:port/name"'):
        rs.Memory.load(tmp_path)
    with pytest.raises(MemoryFileError, match="lies on a server"):
        rs.load(tmp_path)
    again = rs.Memory.load(tmp_path, index=ram.address)
    assert seen(again) == seen(memory) == same(memory)
    assert again.index.params == {"effort": 3} and again.index.overfetch == 2
    assert again.recall == memory.recall and again.recall.value == 1
    with pytest.raises(ParameterError, match="no index engine 'elsewhere'"):
        rs.Memory.load(tmp_path, index="elsewhere://server")
    again.rebuild()  # which is made where the first was
    assert type(again.index) is type(memory.index) and again.index.server is ram and again.index.params == {"effort": 3}


def test_the_index_may_be_another_when_it_is_loaded(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.forget([3, 5])
    memory.save(tmp_path)
    ram.fails = 0
    exact = rs.Memory.load(tmp_path, index="exact")  # without the server
    ram.fails = None
    assert exact.index.name == "exact" and seen(exact) == seen(memory)
    assert exact.add(encoded(60, 61)).tolist() == [60]
    exact.save(tmp_path / "exact")
    moved = rs.Memory.load(tmp_path / "exact", index=ram.address)
    assert moved.index.place != memory.index.place and seen(moved) == seen(exact)
    moved.save(tmp_path / "exact")
    assert seen(rs.Memory.load(tmp_path / "exact", index=moved.index.fresh())) == seen(exact)


def test_what_is_not_saved_is_here_and_what_is_saved_is_there(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.save(tmp_path)
    ram.calls.clear()
    memory.add(encoded(60, 70))
    memory.forget([1, 2, 61])
    memory.relabel([5], 0)
    assert ram.calls == []
    assert seen(memory) == same(memory)
    assert on_server(ram, memory.index) == set(range(60))
    assert seen(rs.Memory.load(tmp_path, index=ram.address))[0] == list(range(60))
    memory.save(tmp_path)
    assert on_server(ram, memory.index) == set(range(70)) - {1, 2, 61}
    assert seen(memory) == same(memory) == seen(rs.Memory.load(tmp_path, index=ram.address))
    memory.undo()
    memory.undo()  # the forgotten rows are back
    assert seen(memory) == same(memory) and len(memory) == 70
    memory.save(tmp_path)
    assert on_server(ram, memory.index) == set(range(70))
    assert seen(memory) == same(memory) == seen(rs.Memory.load(tmp_path, index=ram.address))


def test_many_rows_leave_this_process_once_the_server_shows_them(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.add(encoded(60, 2060))
    assert memory.bytes_per_row["index"] > 30
    assert seen(memory) == same(memory)
    memory.save(tmp_path)
    assert memory.bytes_per_row["index"] < 2
    assert seen(memory) == same(memory)


def test_a_live_memory_is_in_step_after_every_edit(ram, encoded, tmp_path):
    rs.Memory(encoded(0, 60), index=ram.address).save(tmp_path)
    one, other = (rs.Memory.open(tmp_path, index=ram.address) for _ in range(2))
    one.add(encoded(60, 65))
    other.forget([0, 61])
    assert other.ids.tolist() == [*range(1, 61), 62, 63, 64]
    one.undo()
    other.add(encoded(65, 66, [7]), replace=True)
    one.rebuild()
    assert on_server(ram, one.index) == set(range(65))
    one.forget([8])
    now = rs.Memory.load(tmp_path, index=ram.address)
    assert seen(one) == same(one) == seen(now)
    other.refresh()
    assert seen(other) == seen(one)
    del one, other, now
    gc.collect()
    assert len(ram.held) == len(ram.names) == 1


def test_a_copy_is_a_memory_of_its_own(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.save(tmp_path / "one")
    before, other = seen(memory), copy.copy(memory)
    unpickled = pickle.loads(pickle.dumps(memory.index))
    memory.forget(range(0, 60, 2))
    memory.add(encoded(60, 90))
    memory.save(tmp_path / "one")
    ram.count(memory.index.place, 0)  # searches see all that was done
    assert seen(other) == before == same(other)
    other.add(encoded(90, 95))
    other.save(tmp_path / "other")
    assert other.index.place != memory.index.place
    memory.save(tmp_path / "one")
    loaded = [rs.Memory.load(tmp_path / name, index=ram.address) for name in ("one", "other")]
    assert [seen(one) for one in loaded] == [seen(memory), seen(other)] == [same(memory), same(other)]
    with pytest.raises(StaleMemoryError):
        loaded[0].save(tmp_path / "one"), memory.save(tmp_path / "one")
    assert unpickled.place == memory.index.place


def test_a_folder_that_was_copied_does_not_write_over_the_first(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.save(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    twin = rs.Memory.load(tmp_path / "two", index=ram.address)
    memory.forget([0, 1])
    memory.save(tmp_path / "one")
    twin.add(encoded(70, 75))
    twin.save(tmp_path / "two")
    memory.add(encoded(60, 65))
    memory.save(tmp_path / "one")
    for name, held in (("one", memory), ("two", twin)):
        again = rs.Memory.load(tmp_path / name, index=ram.address)
        assert seen(again) == seen(held) == same(held)


def test_a_collection_that_is_gone_is_made_again(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.forget([4])
    memory.save(tmp_path)
    memory.index.drop()
    with pytest.raises(EngineError):
        memory.search(ASKED, 3) if memory.index.place else memory.index.server.there("rows")
    with pytest.warns(UserWarning, match="has no collection of .* another is made from the keys"):
        again = rs.Memory.load(tmp_path, index=ram.address)
    assert seen(again) == same(again)
    again.save(tmp_path)
    assert seen(rs.Memory.load(tmp_path, index=ram.address)) == seen(again)


def test_rows_that_the_server_lost_are_found_and_put_back(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.forget([4])
    memory.save(tmp_path)
    held, before = ram.held[memory.index.place], seen(memory)
    for row in (0, 31, 59):
        del held[row]
    held |= {4: held[5], 99: held[5]}  # one that was forgotten, and one of nobody's
    with pytest.warns(UserWarning, match="lacks 3 of 60 rows"):
        again = rs.Memory.load(tmp_path, index=ram.address)
    assert seen(again) == before
    again.relabel([9], 1)
    again.save(tmp_path)
    assert on_server(ram, again.index) == set(range(60)) - {4} | {99}
    assert seen(rs.Memory.load(tmp_path, index=ram.address)) == seen(again) == same(again)


def test_without_keys_the_server_has_them(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 300), index=ram.address, storage="none")
    asked = seen(memory)
    memory.discard_keys()
    assert memory.keys is None and seen(memory)[2] == asked[2]
    memory.forget([3])
    memory.add(encoded(300, 304))
    memory.save(tmp_path)
    assert on_server(ram, memory.index) == set(range(304))  # what is forgotten could not be put there again
    again = rs.Memory.load(tmp_path, index=ram.address)
    assert seen(again) == seen(memory)
    again.undo()
    again.undo()
    assert again.ids.tolist() == list(range(300)) and seen(again)[2] == asked[2]
    again.save(tmp_path / "other")  # in a collection of its own
    other = rs.Memory.load(tmp_path / "other", index=ram.address)
    assert other.index.place != memory.index.place and seen(other) == seen(again)
    wanted = encoded.keys[:5] - memory.schema.key_centre.float()
    assert torch.allclose(other.index.decode(torch.arange(5)), wanted, atol=1e-6)
    del ram.held[other.index.place][0]
    with pytest.raises(MemoryFileError, match="lacks 1 of 304 rows"):
        rs.Memory.load(tmp_path / "other", index=ram.address)


def test_purge_takes_forgotten_rows_off_the_server(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.save(tmp_path)
    memory.forget([0, 1])
    memory.save(tmp_path)
    memory.purge(tmp_path)
    del memory
    gc.collect()
    assert [len(rows) for rows in ram.held.values()] == [58]
    assert rs.Memory.verify(tmp_path).damaged == ()


def test_a_collection_that_was_left_goes_with_the_next_save(ram, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 60), index=ram.address)
    memory.save(tmp_path)
    old, drop = memory.index.place, ram.drop
    memory.forget([3])
    memory.rebuild()
    gc.collect()

    def gone(name):
        raise EngineError("it has no time")

    ram.drop = gone
    with pytest.warns(UserWarning, match="what it forgot is still on the server until it is saved again"):
        memory.save(tmp_path)
    ram.drop = drop
    assert old in ram.held
    again = rs.Memory.load(tmp_path, index=ram.address)
    again.relabel([5], 2)
    again.save(tmp_path)
    assert list(ram.held) == [again.index.place] and seen(again) == same(again)
    again.relabel([5], 3)
    again.save(tmp_path)
    assert "former" not in json.loads((tmp_path / "manifest.json").read_text())["index"]["about"]


def test_what_was_never_saved_goes_when_the_process_ends(ram, encoded, tmp_path):
    saved, unsaved = (rs.Memory(encoded(0, 60), index=ram.address) for _ in range(2))
    saved.save(tmp_path)
    end_unsaved("another server", True)
    assert set(ram.held) == {saved.index.place, unsaved.index.place}
    end_unsaved(ram.identity, True)
    assert list(ram.held) == [saved.index.place]
    assert seen(rs.Memory.load(tmp_path, index=ram.address)) == seen(saved)


# --- whatever fails -----------------------------------------------------------------------------------------


STRIDE = int(os.environ.get("RESIDUA_STRIDE", "9"))  # 1: each call of the server fails once


class Killed(BaseException):
    """This process is gone."""


def edits(memory, folder, encoded):
    """Edits, each saved: what an acknowledged one left is yielded."""
    memory.add(encoded(60, 66))
    memory.save(folder)
    yield
    memory.forget([0, 1, 62])
    memory.save(folder)
    yield
    memory.undo()
    memory.save(folder)
    yield
    memory.add(encoded(70, 73, [4, 5, 6]), replace=True)
    memory.save(folder)
    yield
    memory.rebuild()
    memory.save(folder)
    yield
    memory.forget([7])
    memory.save(folder)
    yield


@pytest.mark.slow
@pytest.mark.parametrize("error", [Killed, EngineError])
@pytest.mark.parametrize("live", [False, True])
def test_nothing_acknowledged_is_lost_and_nothing_forgotten_returns(live, error, ram, encoded, tmp_path):
    start, folder = tmp_path / "start", tmp_path / "folder"
    rs.Memory(encoded(0, 60), index=ram.address).save(start)
    begin, nth, states = copy.deepcopy((ram.held, ram.seen, ram.names)), STRIDE // 2, list[object]()
    done = 0
    ram.fails, ram.error = None, error
    while len(states) < 7 or done < 6:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        ram.held, ram.seen, ram.names = copy.deepcopy(begin)
        memory, done = (rs.Memory.open if live else rs.Memory.load)(folder, index=ram.address), 0
        if not states:  # what each acknowledged edit leaves, where nothing fails
            states = [seen(memory), *(seen(memory) for _ in edits(memory, folder, encoded))]
            continue
        ram.fails = nth
        try:
            for _ in edits(memory, folder, encoded):
                done += 1
        except error:
            pass
        except UserWarning as said:  # warnings are errors here: it is saved, and said that something is left there
            assert "what it forgot is still on the server" in str(said)
            done += 1
        ram.fails = None
        again = rs.Memory.load(folder, index=ram.address)
        assert seen(again) == same(again) and seen(again) in states[done : done + 2], nth
        if error is EngineError and not live:
            assert seen(memory) == same(memory), nth
            memory.save(folder)  # the server is back
            again = rs.Memory.load(folder, index=ram.address)
            assert seen(again) == seen(memory) == same(again), nth
        again.add(encoded(80, 82))
        again.save(folder)
        last = rs.Memory.load(folder, index=ram.address)
        assert seen(last) == seen(again) == same(last), nth
        nth += STRIDE
    assert nth > 40
