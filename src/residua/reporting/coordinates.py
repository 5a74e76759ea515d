"""Numbers as the coordinates of small drawings; the templates draw them, and CSS colours them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

Role: TypeAlias = Literal["base", "memory", "grey"]
Table: TypeAlias = list[tuple[str, ...]]  # the first row has the headings

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 42
BAR, NAMES = 20, 150  # the height of a bar, and the room for names beside bars
CELL = 22
LETTER = 6.5  # the width of one, about


@dataclass(frozen=True)
class Line:
    """A series of values: what it is called, whose it is, and where its points are."""

    name: str
    role: Role
    points: tuple[tuple[float, float], ...]
    dots: bool = True


@dataclass(frozen=True)
class Drawing:
    """A drawing and its alternatives in words: `alt`, a sentence, and `table`, the numbers."""

    alt: str
    table: Table
    width: int
    height: int


@dataclass(frozen=True)
class Lines(Drawing):
    """Lines over an axis."""

    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    rules: tuple[tuple[float, float, float, float], ...] = ()  # dashed
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Bar:
    """A bar from the middle line to the right (better) or the left."""

    name: str
    role: Role
    x: float
    y: int
    width: float
    value: str
    end: float
    anchor: str


@dataclass(frozen=True)
class Bars(Drawing):
    """Bars on both sides of a line at `middle`."""

    bars: tuple[Bar, ...]
    middle: float


@dataclass(frozen=True)
class Cell:
    """A cell of a map: better than the model alone (blue) or worse (orange), and how far."""

    x: float
    y: float
    role: Role
    opacity: float
    title: str
    chosen: bool


@dataclass(frozen=True)
class Map(Drawing):
    """Cells over two axes."""

    cells: tuple[Cell, ...]
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    size: int = field(default=CELL)


def lines(
    series: Sequence[tuple[str, Role, Iterable[float], Iterable[float]]],
    *,
    alt: str,
    table: Table,
    x_label: str,
    y_label: str,
    x_names: Sequence[str] | None = None,
    shown: Callable[[float], str] = "{:.3g}".format,
    log: bool = False,
    log_y: bool = False,
    unit: bool = False,
    level: float | None = None,
    at: float | None = None,
    dots: bool = True,
) -> Lines:
    """Lines through (x, y); what is not finite is left out. With `log` and `log_y` axes are logarithmic, where all
    numbers are positive.

    With `unit` both axes go from 0 to 1 and the diagonal is drawn; `level` and `at` draw a dashed line across and one
    upright. With `x_names` the places 0, 1, … are called by these, of which as many are written as there is room for.
    """
    kept: list[tuple[str, Role, list[tuple[float, float]]]] = [
        (name, role, [(float(x), float(y)) for x, y in zip(xs, ys) if math.isfinite(x) and math.isfinite(y)])
        for name, role, xs, ys in series
    ]
    every = [point for _, _, points in kept for point in points]
    xs, ys = [x for x, _ in every], [y for _, y in every]
    levels = [] if level is None or not math.isfinite(level) else [level]
    log_y = log_y and min([*ys, *levels], default=0.0) > 0
    low, high = (0.0, 1.0) if unit else _range([*ys, *levels], 0.0 if log_y else 0.06)
    begin, end = (0.0, 1.0) if unit else _range(xs, 0.0)
    log = log and begin > 0
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + _part(x, begin, end, log) * (right - LEFT)

    def up(y: float) -> float:
        return bottom - _part(y, low, high, log_y) * (bottom - TOP)

    rules: list[tuple[float, float, float, float]] = [(LEFT, up(0), right, up(1))] if unit else []
    rules += [(LEFT, up(one), right, up(one)) for one in levels]
    if at is not None and begin <= at <= end:  # never of NaN
        rules.append((across(at), TOP, across(at), bottom))
    if x_names is not None:
        fit = max(2, int((right - LEFT) / (LETTER * (2 + max(map(len, x_names))))))
        some = range(0, len(x_names), math.ceil(len(x_names) / fit))
        x_ticks = [(across(place), str(x_names[place])) for place in some]
    else:
        x_ticks = [(across(x), f"{x:.3g}") for x in (_powers(begin, end) if log else _nice(begin, end))]
    return Lines(
        alt=alt,
        table=table,
        width=WIDTH,
        height=HEIGHT,
        lines=tuple(
            Line(name, role, tuple((across(x), up(y)) for x, y in points), dots) for name, role, points in kept
        ),
        x_label=x_label,
        y_label=y_label,
        x_ticks=tuple(x_ticks),
        y_ticks=tuple((up(y), shown(y)) for y in (_powers(low, high) if log_y else _nice(low, high))),
        rules=tuple(rules),
    )


def bars(values: Sequence[tuple[str, float]], *, alt: str, shown: Callable[[float], str] = "{:+,.4g}".format) -> Bars:
    """A bar for each name, in the order given."""
    most = max((abs(value) for _, value in values), default=0.0) or 1.0
    room, ends = WIDTH - NAMES, 40  # for the values beside the bars
    down, up = any(value < 0 for _, value in values), any(value > 0 for _, value in values)
    middle = NAMES + (ends + (room - 2 * ends) / 2 if down and up else room - ends if down else 0)
    longest = (room - 2 * ends) / 2 if down and up else room - ends - 6
    made = []
    for place, (name, value) in enumerate(values):
        width = abs(value) / most * longest
        begin = middle if value >= 0 else middle - width
        end, anchor = (middle + width + 4, "start") if value >= 0 else (middle - width - 4, "end")
        made.append(Bar(name, "memory" if value > 0 else "base", begin, place * BAR, width, shown(value), end, anchor))
    table = [("", "change"), *((name, shown(value)) for name, value in values)]
    return Bars(alt, table, WIDTH, BAR * len(made), tuple(made), middle)


def grid(
    values: np.ndarray,
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
    *,
    alt: str,
    level: float,
    shown: Callable[[float], str],
    chosen: tuple[int, int] | None,
) -> Map:
    """A map of `values` (rows, columns), of which more is better, NaN where there is none; beside `level`."""
    (row_name, row_values), (column_name, column_values) = rows, columns
    known = values[np.isfinite(values)]
    # Blue is darkest at the best, orange at the worst tenth: the very worst would leave all others pale.
    best, worst = (float(known.max()) - level, level - float(np.quantile(known, 0.1))) if len(known) else (0.0, 0.0)
    cells = []
    for i, j in np.ndindex(*values.shape):
        if math.isfinite(value := float(values[i, j])):
            off = (value - level) / max(best if value > level else worst, 1e-12)
            title = f"{row_name}={row_values[i]:.3g}, {column_name}={column_values[j]:.3g}: {shown(value)}"
            role: Role = "memory" if off > 0 else "base" if off < 0 else "grey"
            # The smallest y is at the bottom, as on any axis.
            y = TOP + (values.shape[0] - 1 - i) * CELL
            cells.append(Cell(LEFT + j * CELL, y, role, min(0.12 + 0.88 * abs(off), 1.0), title, (i, j) == chosen))
    down = TOP + values.shape[0] * CELL
    table: Table = [(f"{row_name} \\ {column_name}", *(f"{value:.3g}" for value in column_values))]
    for i, value in enumerate(row_values):
        table.append((f"{value:.3g}", *(shown(v) if math.isfinite(v) else "" for v in values[i].tolist())))
    x_ticks = [(LEFT + (j + 0.5) * CELL, f"{v:.3g}") for j, v in enumerate(column_values) if j % 2 == 0]
    y_ticks = [(TOP + (values.shape[0] - i - 0.5) * CELL, f"{v:.3g}") for i, v in enumerate(row_values) if i % 2 == 0]
    width = LEFT + values.shape[1] * CELL + RIGHT
    return Map(alt, table, width, down + BOTTOM, tuple(cells), column_name, row_name, tuple(x_ticks), tuple(y_ticks))


def _part(value: float, low: float, high: float, log: bool) -> float:
    """Where a value is on the way from `low` to `high`."""
    return _logarithm(value, low) / _logarithm(high, low) if log else (value - low) / (high - low)


def _logarithm(value: float, low: float) -> float:
    """Of ``value / low``, also where that is more than there are numbers for."""
    ratio = value / low
    return math.log(ratio) if math.isfinite(ratio) else math.log(value) - math.log(low)


def _range(values: Sequence[float], pad: float) -> tuple[float, float]:
    """From the least to the largest, with some room; of none, or of one alone, around it."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        room = abs(low) / 2 or 0.5
        return low - room, high + room
    return low - pad * (high - low), high + pad * (high - low)


def _nice(low: float, high: float) -> list[float]:
    """Some three to six round numbers between."""
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = min((unit * by for by in (1, 2, 2.5, 5, 10)), key=lambda one: abs(one - rough))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: powers of ten, 2 and 5 times them where these are few; else its ends."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5)):
        found = [by * 10.0**exponent for exponent in exponents for by in steps]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) > 1 + (steps == (1,)):
            return found[:: math.ceil(len(found) / 8)]
    return [low, high]
