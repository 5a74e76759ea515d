"""One example in a panel of a picture: its picture, its text, or what is known of it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from residua.drawing.figure import DARK, plain
from residua.drawing.look import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES, WIDE, NARROW = 7, 34, 20  # of a text, or of facts


def draw_look(axes: Axes, look: Look, title: str, below: str, frame: str, width: float, colour: str = DARK) -> None:
    """An example under a `title`, in a `frame` of a colour and a width in points, with words of a `colour` below it."""
    axes.set(xticks=[], yticks=[])
    if look.picture is not None:
        axes.imshow(look.picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")  # colours are as they are
    else:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        _written(axes, look)
    axes.set_title(plain(title), fontsize=9.5, pad=5)
    axes.set_xlabel(plain(below), labelpad=4, fontsize=8.5, color=colour)
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=width)


def _written(axes: Axes, look: Look) -> None:
    """The end of a text and its token in bold, or a line for each fact, or the name alone."""
    token = ""
    if look.text is not None:
        before, token = look.text
        lines = textwrap.wrap("…" + " ".join(before.split()), WIDE)[-(LINES - 1) :]
    elif look.facts:
        lines = [_cut(f"{name}  {value}", WIDE) for name, value in look.facts.items()]
        more = len(lines) - LINES
        lines = lines if more <= 0 else [*lines[: LINES - 1], f"and {more + 1} more"]
    else:
        lines = textwrap.wrap(look.name, NARROW)[:LINES]
    style: dict[str, Any] = {"va": "top", "transform": axes.transAxes, "family": "monospace", "fontsize": 7.5}
    axes.text(0.03, 0.95, plain("\n".join(lines)), color="#222222", **style)
    if token:
        axes.text(0.03, 0.95 - 0.125 * len(lines), plain(f"▸ {_cut(token, WIDE)}"), weight="bold", **style)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
