"""A small table that reads the same in a terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from residua.errors import ShapeError


@dataclass(frozen=True)
class Table:
    """Rows of text, as many cells as there are columns; the first column is left-aligned, the others right-aligned.

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
        widths = [max(3, *map(len, column)) for column in zip(*cells)]
        sides = "<" + ">" * (len(widths) - 1)
        head, *body = (" | ".join(f"{c:{side}{w}}" for c, side, w in zip(row, sides, widths)) for row in cells)
        rule = f"|:{'-' * (widths[0] + 1)}|{''.join('-' * (width + 1) + ':|' for width in widths[1:])}"
        return "\n".join([f"| {head} |", rule, *(f"| {line} |" for line in body)])
