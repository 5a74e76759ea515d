"""A report as one page of HTML. Whatever is not the templates' own is escaped; names and texts may hold anything."""

from __future__ import annotations

from datetime import date
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from residua.drawing import data_uri
from residua.errors import MissingDependencyError
from residua.printable import one_line

if TYPE_CHECKING:
    from residua.reporting.report import Report

LONGEST = 500  # characters shown of one thing: a name, a text
SIDE = 96  # pixels a side that a picture has at most


def page(report: Report) -> str:
    """The whole page."""
    return (
        _environment(needs_jinja())
        .get_template("report.html")
        .render(report=report, charts=report.charts, version=version("residua"), today=date.today().isoformat())
    )


@cache
def _environment(jinja: Any) -> Any:
    """Where the templates are, and how what stands in them is written; templates are compiled once."""
    made = jinja.Environment(
        loader=jinja.PackageLoader("residua.reporting"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"picture": picture, "ending": ending}
    return made


def needs_jinja() -> Any:
    """Jinja2; ``MissingDependencyError`` without."""
    try:
        return import_module("jinja2")
    except ImportError as error:
        raise MissingDependencyError('report needs Jinja2: pip install "residua[report]"') from error


def picture(pixels: np.ndarray) -> str:
    """A picture, uint8 (h, w) or (h, w, 3), as the address of an image in the page; a large one is made smaller."""
    if max(pixels.shape[:2]) > SIDE:
        from PIL import Image

        small = Image.fromarray(pixels)
        small.thumbnail((SIDE, SIDE))
        pixels = np.asarray(small)
    return data_uri(pixels)


def ending(text: str, most: int) -> str:
    """The end of a text, as of what stands before a token.

    >>> ending("abcdef", 4)
    '…def'
    """
    return text if len(text) <= most else "…" + text[-(most - 1) :]


def _shown(value: Any) -> Any:
    """What an expression of a template gives: text on one line, everything unprintable as an escape, and not too much
    of it; markup of a macro, and the address of a picture, as they are."""
    if type(value) is not str or value.startswith("data:image/png;base64,"):
        return value
    return one_line(value if len(value) <= LONGEST else value[: LONGEST - 1] + "…")
