import errno
import json
import os

import pytest

from residua.core.atomic import atomic_write, write_json
from residua.errors import MemoryFileError


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_there_when_the_block_ends(before, tmp_path):
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with atomic_write(path) as part:
        assert part.parent == tmp_path  # the same disk, so that a rename suffices
        part.write_text("new")
        assert path.exists() == bool(before) and (not before or path.read_text() == before)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["an error", "an interruption"])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_block_that_fails_leaves_what_was_there(error, before, tmp_path):
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with pytest.raises(type(error)), atomic_write(path) as part:
        part.write_text("half of")
        raise error
    assert [file.read_text() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_what_the_disk_refuses_is_a_memory_file_error(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(MemoryFileError, match=r"cannot write .*a\.txt: No space left"), atomic_write(path) as part:
            part.write_text("new")
    with pytest.raises(MemoryFileError, match=r"cannot write .*a\.txt"), atomic_write(path):
        refuse()
    with pytest.raises(MemoryFileError, match="nowhere"), atomic_write(tmp_path / "nowhere" / "a.txt") as part:
        part.write_text("new")
    with pytest.raises(MemoryFileError, match="cannot write"), atomic_write(path / "b.txt") as part:
        part.write_text("below a file")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"name": "Zoë", "values": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Zoë", "values": [1, 2.5, None]}
    with pytest.raises(TypeError):
        write_json(path, {"odd": object()})
    assert json.loads(path.read_text(encoding="utf-8"))["name"] == "Zoë" and list(tmp_path.iterdir()) == [path]
