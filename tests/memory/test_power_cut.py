"""A power cut at any moment of a save leaves the old memory or the new one; the new one once `save` has returned."""

import shutil

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError
from stress.disk import Recording, lay_out


def made(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), rng.integers(0, 2, n))


def content(folder):
    """What a folder holds; None where there is no memory."""
    try:
        memory = rs.Memory.load(folder)
    except MemoryFileError as error:
        assert "is not a memory" in str(error), error
        return None
    keys = memory.keys if memory.keys_kept else memory.search(made(4, seed=3).keys, 3).distances
    return memory.ids.tolist(), memory.labels.tolist(), keys.tolist(), dict(memory.names)


def attack(root, folder, call, most, samples=100):
    """How many states were tried."""
    old = content(root / folder)
    with Recording(root) as recording:
        call()
    new, states = content(root / folder), list(recording.states(most, samples))
    assert new != old
    for state, returned in states:
        lay_out(state, root.with_name("cut"))
        found = content(root.with_name("cut") / folder)
        assert found == new or (found == old and not returned), sorted(state)
        shutil.rmtree(root.with_name("cut"))
    return len(states)


def edited(memory):
    memory.add(made(2, seed=1))
    memory.forget([1])
    memory.relabel(2, 1 - int(memory.labels[1]))
    memory.names[0] = "zero"


@pytest.mark.slow
def test_a_power_cut_leaves_the_old_memory_or_the_new_one(tmp_path):
    root = tmp_path / "disk"
    root.mkdir()
    memory = rs.Memory(made())
    assert attack(root, "new/mem", lambda: memory.save(root / "new" / "mem"), most=6) > 20
    edited(memory)
    assert attack(root, "new/mem", lambda: memory.save(root / "new" / "mem"), most=6) > 20
    memory.rebuild()
    memory.forget(0)
    assert attack(root, "new/mem", lambda: memory.save(root / "new" / "mem"), most=6) > 20


@pytest.mark.slow
@pytest.mark.parametrize("added", [3, 30])
def test_a_power_cut_during_an_add_without_keys(tmp_path, added):
    """Whose keys go into a file of their own, or whose index is written anew."""
    pytest.importorskip("faiss")
    root = tmp_path / "disk"
    root.mkdir()
    memory = rs.Memory(made(40), index="SQ8")
    memory.discard_keys()
    memory.save(root / "mem")
    memory.add(made(added, seed=1))
    assert attack(root, "mem", lambda: memory.save(root / "mem"), most=5, samples=40) > 20
    live = rs.Memory.open(root / "mem")
    assert attack(root, "mem", lambda: live.add(made(2, seed=2)), most=5, samples=40) > 20


def test_the_attack_finds_what_is_not_flushed(tmp_path, monkeypatch):
    root = tmp_path / "disk"
    root.mkdir()
    memory = rs.Memory(made())
    monkeypatch.setattr("residua.core.atomic.flush", lambda path: None)
    with pytest.raises((AssertionError, MemoryFileError)):
        attack(root, "mem", lambda: memory.save(root / "mem"), most=6)
