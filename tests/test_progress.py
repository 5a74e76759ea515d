import io
import sys

import numpy as np
import pytest

import residua as rs
from residua.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [(None, io.StringIO, False), (None, Terminal, True), (False, Terminal, False), (True, io.StringIO, True)],
)
def test_a_bar_is_for_a_terminal_unless_asked_for(progress, stream, shown, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar(progress, desc="work", delay=0) as bar:
        bar.update()
    assert ("work" in sys.stderr.getvalue()) == shown


def test_quick_work_shows_none_unless_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress_bar(None, desc="work", iterable=range(3)))
    assert sys.stderr.getvalue() == ""
    list(progress_bar(True, desc="work", iterable=range(3)))
    assert "work" in sys.stderr.getvalue()


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_every_verb_says_the_same_by_it(progress, shown, capsys):
    keys = np.arange(8.0)[:, None]
    rows = rs.Encoded(keys, np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 1, 1])
    reader = rs.ResMem(rs.Memory(rs.Encoded(keys + 0.1, np.zeros((8, 2)), [0, 0, 0, 0, 1, 1, 1, 1])), k=1)
    for verb in (rs.tune, rs.evaluate):
        verb(reader, rows, progress=progress)
        assert (verb.__name__ in capsys.readouterr().err) == shown
