"""What a notebook shows of an object: small tables in the notebook's own colours.

Whatever stands in them is text: names, paths and documents are the user's, and may hold anything.
"""

from collections.abc import Mapping, Sequence
from html import escape

from residua.printable import one_line

CELL, LINE = 64, 400  # characters that are shown of a cell of many, and of what has a line of its own
ROWS = 40
# No colours: light or dark is the notebook's business.
STYLE = "margin:.5em 0;border-spacing:1em 0;font-variant-numeric:tabular-nums"
PAGE = "body{font-family:system-ui,sans-serif;margin:1.5em;overflow-wrap:anywhere}"
CAPTION = "caption-side:top;text-align:left;font-weight:bold"


def paragraph(text: str) -> str:
    """A line of text; none where it is empty.

    Examples
    --------
    >>> paragraph("<b> & b")
    '<p>&lt;b&gt; &amp; b</p>'
    """
    return f"<p>{_shown(text, LINE)}</p>" if text else ""


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells under a first row of headings: names to the left, numbers to the right.

    Beyond 40 rows, how many more there are.
    """
    head, *body = rows
    heads = "".join(
        f'<th scope="col" style="text-align:{_side(i)}">{_shown(cell, CELL)}</th>' for i, cell in enumerate(head)
    )
    lines = [
        "".join(f'<td style="text-align:{_side(i)}">{_shown(cell, CELL)}</td>' for i, cell in enumerate(row))
        for row in body[:ROWS]
    ]
    if len(body) > ROWS:
        lines.append(f'<td colspan="{len(head)}" style="text-align:left">and {len(body) - ROWS:,} more</td>')
    return f'<table style="{STYLE}"><thead><tr>{heads}</tr></thead><tbody>{_rows(lines)}</tbody></table>'


def facts(title: str, values: Mapping[str, str]) -> str:
    """What is known of one thing, under its title: a name and its value a row."""
    lines = [
        f'<th scope="row" style="text-align:left">{_shown(name, CELL)}</th>'
        f'<td style="text-align:left">{_shown(value, LINE)}</td>'
        for name, value in values.items()
    ]
    caption = f'<caption style="{CAPTION}">{_shown(title, CELL)}</caption>'
    return f'<table style="{STYLE}">{caption}<tbody>{_rows(lines)}</tbody></table>'


def page(title: str, body: str) -> str:
    """A page of its own, light or dark as whoever looks at it likes it; it fetches nothing."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" '
    head += f'content="light dark"><title>{_shown(title, CELL)}</title><style>{PAGE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _rows(lines: list[str]) -> str:
    return "".join(f"<tr>{line}</tr>" for line in lines)


def _side(column: int) -> str:
    return "right" if column else "left"


def _shown(value: object, most: int) -> str:
    """At most so many characters of `value`, on one line; they stand between tags, where a quote is only a quote."""
    text = one_line(str(value)[: most + 1])
    return escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)
