"""One writer at a time, and files that others may read as the umask says."""

import os
import threading

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError
from residua.memory import lock
from residua.memory.lock import locked


def made(n=5):
    return rs.Encoded(np.eye(n), np.zeros((n, 2)), np.arange(n) % 2)


def elsewhere(call):
    """What `call` raises in another thread."""
    raised = []

    def run():
        try:
            call()
        except MemoryFileError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def test_one_writer_at_a_time(tmp_path, monkeypatch):
    memory = rs.Memory(made())
    memory.save(tmp_path)
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    with locked(tmp_path):
        memory.forget(0)
        memory.save(tmp_path)  # who holds it may save
        (said,) = elsewhere(lambda: rs.Memory(made(3)).save(tmp_path))
        assert "another process or thread is writing to" in said and "waited 0.05 seconds" in said
        assert len(rs.Memory.load(tmp_path)) == 4  # loading waits for nobody
        with pytest.raises(MemoryFileError, match="another process or thread"), locked(tmp_path, 0, nested=False):
            pass
    assert elsewhere(lambda: rs.Memory(made(3)).save(tmp_path)) == []
    assert (tmp_path / "lock").read_bytes() == b""


def test_a_link_is_no_lock(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "mem").mkdir()
    (tmp_path / "mem" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(MemoryFileError, match="is a link, and a lock is a file of its own; remove it"):
        rs.Memory(made()).save(tmp_path / "mem")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="there is no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_their_modes_by_the_umask(umask, tmp_path):
    pytest.importorskip("faiss")
    before = os.umask(umask)
    try:
        rs.Memory(made(), index="HNSW4", names={0: "zero"}).save(tmp_path / "m")
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "m").iterdir() if file.name != "lock"}
    assert set(modes.values()) == {0o666 & ~umask}, modes
