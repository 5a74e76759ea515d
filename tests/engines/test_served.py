"""Servers of others: killed in the middle of writes, stopped, written by many, and read just after a write."""

import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

import residua as rs
from residua.errors import EngineError

pytestmark = pytest.mark.slow


@contextmanager
def warned():
    """Where a save may warn that what it forgot is still on the server."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the memory is saved, and what it forgot")
        yield


def finds_itself(memory):
    """The newest remembered rows and some of the others are their own neighbours, and nothing forgotten is found."""
    chosen = np.union1d(np.arange(0, len(memory), 9), np.arange(len(memory))[-60:])
    found = memory.search(memory.keys[chosen], 3)
    ids = memory.column("id")[found.rows.clamp_min(0)]
    assert found.found.all() and set(ids.flatten().tolist()) <= set(memory.ids.tolist())
    return ids[:, 0].tolist() == memory.ids[chosen].tolist()


def test_what_was_just_written_is_read(served, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 2000), index=served.address())
    memory.save(tmp_path)
    live = rs.Memory.open(tmp_path, index=served.address())
    for row in range(2000, 2020):
        live.add(encoded(row, row + 1))
        assert live.search(encoded.keys[row : row + 1], 1).rows.item() == row
        live.forget([row - 1000])
        other = rs.Memory.load(tmp_path, index=served.address()) if row % 5 == 0 else live
        near = other.search(encoded.keys[row - 1000 : row - 999], 5).rows
        assert row - 1000 not in near.tolist()[0] and finds_itself(other)
    server, place = live.index.server, live.index.place
    assert server.count(place, 10**9) == len(live) == 2000  # forgotten rows are off the server


def test_a_memory_of_a_killed_server_comes_back(served, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 1500), index=served.address())
    memory.save(tmp_path)
    live = rs.Memory.open(tmp_path, index=served.address(timeout=3))
    acknowledged, attempted, killer = set(range(1500)), None, threading.Timer(2.5, served.kill)
    killer.start()
    try:
        with pytest.raises(EngineError, match=r"at \w+://\S*127\.0\.0\.1:\d+\S* did not do"), warned():
            for start in range(1500, 4000, 10):
                attempted = set(range(start, start + 10)), {start - 1400}
                live.add(encoded(start, start + 10))
                acknowledged |= attempted[0]
                live.forget([start - 1400])
                acknowledged -= attempted[1]
    finally:
        killer.join()
        served.kill()
    assert len(acknowledged) > 1500
    with pytest.raises(EngineError):
        rs.Memory.load(tmp_path, index=served.address(timeout=1))
    exact = rs.Memory.load(tmp_path, index="exact")  # the folder alone has all
    served.start()
    served.wait()
    again = rs.Memory.load(tmp_path, index=served.address())
    assert again.ids.tolist() == exact.ids.tolist()
    added, gone = attempted
    assert set(again.ids.tolist()) in (acknowledged, acknowledged | added, acknowledged - gone)
    assert finds_itself(again) and finds_itself(exact)
    live = rs.Memory.open(tmp_path, index=served.address())
    live.add(encoded(3990, 4000, np.arange(9000, 9010)))
    assert finds_itself(live) and finds_itself(rs.Memory.load(tmp_path, index=served.address()))


WRITER = """
import sys, numpy as np, residua as rs
folder, address = sys.argv[1:]
live = rs.Memory.open(folder, index=address)
rng = np.random.default_rng(live.n_rows)
print("ready", flush=True)
for n in range(200):
    ids = live.add(rs.Encoded(rng.normal(size=(20, 8)), np.zeros((20, 6)), rng.integers(6, size=20)))
    gone = live.ids[: 5].tolist()
    print("added", *ids, flush=True)
    live.forget(gone)
    print("forgot", *gone, flush=True)
"""


def test_a_writer_that_is_killed_leaves_both_in_step(served, encoded, tmp_path):
    rs.Memory(encoded(0, 1200), index=served.address()).save(tmp_path)
    added, forgotten = set(range(1200)), set()
    for patience in (0.4, 0.7, 1.1):
        command = [sys.executable, "-c", WRITER, tmp_path, served.address()]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(patience)
        finally:
            writer.kill()
        said, _ = writer.communicate(timeout=30)
        for line in said.splitlines(keepends=True):
            what, *ids = line.split()
            if line.endswith("\n"):
                (added if what == "added" else forgotten).update(map(int, ids))
        again = rs.Memory.load(tmp_path, index=served.address())
        ids = set(again.ids.tolist())
        assert ids >= added - forgotten - set(again.log()[-1].changes.forgotten.tolist())
        assert not ids & forgotten and finds_itself(again)
        added, forgotten = ids, forgotten | (added - ids)  # the last edit may be whole, though nobody heard of it
    assert len(forgotten) > 10
    again.relabel([int(again.ids[-1])], 0)
    again.save(tmp_path)
    server = again.index.server
    assert server.count(again.index.place, 10**9) >= len(again)
    assert rs.Memory.load(tmp_path, index=served.address()).ids.tolist() == again.ids.tolist()


def test_a_server_that_does_not_answer_is_not_waited_for(served, encoded, tmp_path):
    address = served.address(timeout=1)
    memory = rs.Memory(encoded(0, 300), index=address)
    memory.save(tmp_path)
    served.signal(signal.SIGSTOP)
    try:
        for ask in (
            lambda: memory.search(encoded.keys[:20], 5),
            lambda: (memory.add(encoded(300, 310)), memory.save(tmp_path)),
            lambda: rs.Memory.load(tmp_path, index=address),
        ):
            since = time.monotonic()
            with pytest.raises(EngineError, match="within 1 s"):
                ask()
            assert time.monotonic() - since < 5
    finally:
        served.signal(signal.SIGCONT)
        served.wait()
    assert len(memory) == 310 and finds_itself(memory)  # which it added, and could not save
    memory.save(tmp_path)
    assert finds_itself(rs.Memory.load(tmp_path, index=address))


def test_a_collection_that_somebody_dropped(served, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 300), index=served.address("shared"))
    memory.save(tmp_path)
    other = rs.Memory.load(tmp_path, index=served.address("shared"))
    memory.rebuild()
    memory.save(tmp_path)
    assert finds_itself(other)  # in one process it waits for the last that searches it
    other.refresh()
    assert finds_itself(other) and other.index.place == memory.index.place
    memory.index.drop()
    with pytest.raises(EngineError, match="did not do search"):
        other.search(encoded.keys[:1], 1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert finds_itself(rs.Memory.load(tmp_path, index=served.address("shared")))
    assert "has no collection" in str(said[0].message)


def test_threads_search_while_others_write(served, encoded, tmp_path):
    rs.Memory(encoded(0, 1000), index=served.address()).save(tmp_path)
    live, errors, over = rs.Memory.open(tmp_path, index=served.address()), [], threading.Event()

    def reads():
        while not over.is_set():
            try:
                with live.reading():
                    ids = set(live.ids.tolist())
                    found = live.search(encoded.keys[:8], 20)
                    assert found.found.all()
                    assert set(live.column("id")[found.rows].flatten().tolist()) <= ids
            except (AssertionError, EngineError) as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=reads) for _ in range(3)]
    for reader in readers:
        reader.start()
    for row in range(1000, 1012):
        live.add(encoded(row, row + 1))
        live.forget([row - 1000])
    over.set()
    for reader in readers:
        reader.join()
    assert not errors and finds_itself(live)
