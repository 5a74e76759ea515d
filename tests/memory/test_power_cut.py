"""A power cut at any moment of what writes a memory leaves the old one or the new one; the new one once it returned."""

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError
from stress.disk import Recording
from stress.power_cuts import KINDS, attack, attack_round, rows


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_a_power_cut_leaves_the_old_memory_or_the_new_one(root, rng):
    memory = rs.Memory(rows(6, rng))
    assert attack(root, "mem", lambda: memory.save(root / "mem"), limit=15) == 15
    memory.add(rows(2, rng))
    memory.forget([1])
    assert attack(root, "mem", lambda: memory.save(root / "mem"), limit=15) == 15


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:index .* finds too few")
@pytest.mark.parametrize("number", range(len(KINDS)))
def test_some_states_of_every_call_that_writes(number):
    """``python -m stress.power_cuts`` tries more; its record is in ``stress/results``."""
    pytest.importorskip("faiss")
    assert attack_round(number, limit=2, builds=1).total() > 35


@pytest.mark.parametrize("broken", ["residua.core.atomic.flush", "residua.memory.manifest.flush"])
def test_the_attack_finds_what_is_not_flushed(broken, root, rng, monkeypatch):
    memory = rs.Memory(rows(6, rng))
    monkeypatch.setattr(broken, lambda path: None)
    with pytest.raises((AssertionError, MemoryFileError)):
        attack(root, "mem", lambda: memory.save(root / "mem"))


def test_files_that_a_call_makes_are_not_taken_for_those_before_it(root):
    for name in ("a", "b"):
        (root / name).write_bytes(name.encode())
    with Recording(root) as recording:
        (root / "a").rename(root / "c")
        (root / "new").write_bytes(b"new")
    *_, (state, returned) = recording.states()
    assert returned and state == {"b": b"b", "c": b"a", "new": b"new"}
