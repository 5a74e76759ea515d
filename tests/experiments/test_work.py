"""Cells are computed once, whatever stops the run."""

import json

import pytest

from experiments.work import Work
from residua.errors import MemoryFileError

ABOUT = {"reproduction": "x", "commit": "c"}


class Squares:
    """Counts its calls, and may be interrupted before one of them."""

    __name__ = "square"

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, n):
        if n == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(n)
        return {"square": n * n}


def run(path, square, cells=(1, 2, 3), about=ABOUT):
    work = Work(path, about)
    return [found["square"] for found in work.map(square, [(n,) for n in cells])], work


def test_stopped_work_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "deep" / "x.part"
    with pytest.raises(KeyboardInterrupt):
        run(path, Squares(stop_at=3))
    again = Squares()
    assert run(path, again)[0] == [1, 4, 9]
    assert again.calls == [3]


def test_torn_last_line_is_computed_again(tmp_path):
    path = tmp_path / "x.part"
    run(path, Squares())
    whole = path.read_text()
    for cut in range(1, len(whole.splitlines()[-1])):
        path.write_text(whole[:-cut])
        again = Squares()
        assert run(path, again)[0] == [1, 4, 9]
        assert again.calls == [3]
    assert json.loads(path.read_text().splitlines()[0]) == {"about": ABOUT}


def test_cells_of_another_commit_are_dropped_with_a_warning(tmp_path):
    path = tmp_path / "x.part"
    run(path, Squares())
    again = Squares()
    with pytest.warns(UserWarning, match="another version or commit"):
        run(path, again, about={**ABOUT, "commit": "d"})
    assert again.calls == [1, 2, 3]
    last = Squares()
    run(path, last, about={**ABOUT, "commit": "d"})
    assert last.calls == []


def test_seconds_count_earlier_runs(tmp_path):
    path = tmp_path / "x.part"
    path.write_text(
        json.dumps({"about": ABOUT})
        + "\n"
        + json.dumps({"cell": '["square", 2]', "seconds": 7.5, "value": {"square": 4}})
    )
    found, work = run(path, Squares(), cells=(2,))
    assert (found, work.seconds) == ([4], 7.5)
    work.finish()
    assert not path.exists()


def test_a_place_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MemoryFileError, match=r"x\.part"):
        Work(tmp_path / "file" / "x.part", ABOUT)
