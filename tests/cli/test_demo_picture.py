import pytest

from residua.cli.demo import _write
from residua.drawing import figure
from residua.errors import MemoryFileError

pytest.importorskip("matplotlib")


def test_a_folder_that_cannot_be_is_said_with_the_option(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MemoryFileError, match="choose another folder with --out"):
        _write(figure(1, 1), tmp_path / "file" / "a.png")


def test_an_interrupted_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _write(figure(1, 1), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == b"old"
