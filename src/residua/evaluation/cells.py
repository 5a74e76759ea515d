"""How measures are written in a table."""

from __future__ import annotations


def change(base: float, now: float) -> str:
    """By how much a ratio is off 1, in percent."""
    return f"{100 * (now / base - 1):+.1f} %"


def aligned(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows of four cells as text: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = (
        f"{name:<{widths[0]}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:]))
        for name, *cells in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def known(measure: float | None) -> float:
    """A measure that the task has."""
    assert measure is not None, "a measure of another task"
    return measure


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.2f} %"


def in_points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:+.2f} points"
