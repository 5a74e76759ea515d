import pytest

from residua.errors import ShapeError
from residua.papers.table import Table


def test_bars_in_cells_do_not_break_the_table():
    assert str(Table(("a|b",), [("c",)])).splitlines() == ["| a\\|b |", "|:-----|", "| c    |"]


def test_row_of_another_width_is_refused():
    with pytest.raises(ShapeError, match="2 cells"):
        Table(("a",), [("b", "c")])
