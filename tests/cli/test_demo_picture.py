import numpy as np
import pytest

import residua as rs
from residua.cli import digits
from residua.errors import MemoryFileError

pytest.importorskip("matplotlib")


def explanations(k: int) -> list:
    keys = np.arange(8.0)[:, None]
    memory = rs.Memory(rs.Encoded(keys, np.tile([2.0, 0.0, 0.0], (8, 1)), [0, 0, 1, 1, 1, 2, 2, 2]))
    query = rs.Encoded([[3.1]], [[2.0, 0.0, 0.0]], [1])
    return [rs.explain(rs.ResMem(memory, k=k, sigma=1.0), query)]


def test_the_most_decisive_memories_come_first():
    why = explanations(8)[0]
    swing = np.abs(why.contributions[:, why.prediction] - why.contributions[:, why.base_prediction])
    shown = digits._decisive(why)
    assert len(shown) == digits.MEMORIES
    assert (np.diff(swing[shown]) <= 0).all() and swing[shown[-1]] >= np.delete(swing, shown).max()


def test_nothing_decisive_is_shown_of_a_base_alone():
    assert len(digits._decisive(explanations(0)[0])) == 0


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 1, 8])
def test_a_png_is_written_whatever_k(tmp_path, k):
    path = tmp_path / "new" / "a.png"
    digits.draw(path, np.zeros((1, 8, 8)), explanations(k), np.zeros((8, 8, 8)), "title", "subtitle")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_is_said_with_the_option(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MemoryFileError, match="choose another folder with --out"):
        digits.draw(tmp_path / "file" / "a.png", np.zeros((1, 8, 8)), explanations(1), np.zeros((8, 8, 8)), "t", "s")


def test_an_interrupted_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        digits.draw(path, np.zeros((1, 8, 8)), explanations(1), np.zeros((8, 8, 8)), "t", "s")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == b"old"
