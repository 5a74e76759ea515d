"""A small table that reads the same in a terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from residua.errors import ShapeError


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; the first column is left-aligned, the others right-aligned.

    Raises
    ------
    ShapeError
        When a row has another number of cells than there are columns.

    Examples
    --------
    >>> print(Table(("", "paper", "ours"), [("base", "56.46", "56.9"), ("ResMem", "59.66", "60.1")]))
    |        | paper | ours |
    |:-------|------:|-----:|
    | base   | 56.46 | 56.9 |
    | ResMem | 59.66 | 60.1 |
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ShapeError(f"a row of {len(row)} cells, {tuple(row)}, under {len(self.columns)} columns")

    def __str__(self) -> str:
        cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.columns))]
        lines = [
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))] for row in cells
        ]
        lines = [f"| {' | '.join(line)} |" for line in lines]
        rule = ":" + "-" * (widths[0] + 1) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
        return "\n".join([lines[0], "|" + rule, *lines[1:]])
