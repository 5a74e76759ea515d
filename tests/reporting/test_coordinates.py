"""Numbers become places: by hand, and for any numbers within the drawing."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from residua.reporting.coordinates import CELL, LEFT, TOP, WIDTH, bars, grid, lines

WORDS = {"alt": "words", "table": [], "x_label": "x", "y_label": "y"}
NUMBERS = st.floats(-1e12, 1e12, allow_subnormal=False)


def test_a_line_goes_from_corner_to_corner():
    made = lines([("a", "base", [0, 1], [0, 1])], unit=True, **WORDS)
    assert made.lines[0].points == ((made.left, made.bottom), (made.right, made.top))
    assert made.rules == ((made.left, made.bottom, made.right, made.top),)


def test_a_logarithmic_axis_has_equal_steps_and_powers_of_ten():
    made = lines([("a", "base", [1, 10, 100], [0, 1, 2])], log=True, level=1.0, at=10, **WORDS)
    xs = [x for x, _ in made.lines[0].points]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert [name for _, name in made.x_ticks] == ["1", "10", "100"]
    across, upright = made.rules
    assert across[1] == across[3] == made.lines[0].points[1][1] and upright[0] == upright[2] == xs[1]


def test_what_is_not_finite_is_left_out():
    made = lines([("a", "base", [0, 1, 2, 3], [1, math.nan, math.inf, 2])], **WORDS)
    assert len(made.lines[0].points) == 2
    assert lines([("a", "base", [], [])], **WORDS).lines[0].points == ()


@example([(4611.0, 0.0), (2.5644190089814353e-305, 0.0)], True)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20), st.booleans())
def test_whatever_the_numbers_all_is_within_the_drawing(points, log):
    made = lines([("a", "base", [x for x, _ in points], [y for _, y in points])], log=log, **WORDS)
    assert len(made.lines[0].points) == len(points)
    for x, y in made.lines[0].points:
        assert made.left - 1e-6 <= x <= made.right + 1e-6 and made.top - 1e-6 <= y <= made.bottom + 1e-6
    assert all(made.left - 1 <= x <= made.right + 1 for x, _ in made.x_ticks)
    assert all(made.top - 1 <= y <= made.bottom + 1 for y, _ in made.y_ticks)
    assert len(made.y_ticks) <= 9


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9))
def test_bars_do_not_leave_the_drawing_and_have_their_side(values):
    made = bars([(str(i), value) for i, value in enumerate(values)], alt="words")
    for bar, value in zip(made.bars, values, strict=True):
        assert 0 <= bar.width <= WIDTH and bar.x >= 0 and bar.x + bar.width <= WIDTH
        assert (bar.role == "memory") == (value > 0)
        assert bar.x == pytest.approx(made.middle if value >= 0 else made.middle - bar.width)
    widths = [bar.width for bar in made.bars]
    assert np.argmax(widths) in np.flatnonzero(np.abs(values) == np.abs(values).max()) or max(widths) < 1e-6


def test_a_map_is_blue_where_it_is_better_and_empty_where_nothing_is():
    values = np.array([[0.5, 0.9], [math.nan, 0.2]])
    made = grid(values, ("sigma", [1, 2]), ("k", [3, 4]), alt="words", level=0.5, shown="{:.1f}".format, chosen=(0, 1))
    assert [cell.role for cell in made.cells] == ["grey", "memory", "base"]
    best = made.cells[1]
    assert best.opacity == 1 and best.chosen and best.title == "sigma=1, k=4: 0.9"
    assert (best.x, best.y) == (LEFT + CELL, TOP + CELL)  # the smaller sigma is below
    assert made.table == [("sigma \\ k", "3", "4"), ("1", "0.5", "0.9"), ("2", "", "0.2")]
