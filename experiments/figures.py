"""What every picture shares: colours by role, dots with intervals, the paper's values, legends beside the data.

Bars start at zero; where zero is far from the data a value is a dot with its interval.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# One colour per role, in every picture.
BASE, RESMEM, KNN, MIXED, PAPER, INK = "#C8501E", "#1F6FB4", "#6B6B6B", "#7A4FA3", "#111111", "#222222"
DARK, LIGHT = "#0B3C6F", "#79B4E3"  # ResMem's neighbours, for series in order


def panels(rows: int, columns: int, size: tuple[float, float], **options):
    """A white figure whose panels make room for what stands beside them, and its axes (rows, columns)."""
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for panel in axes.flat:
        quiet(panel)
    return figure, axes


def quiet(axes: Axes) -> None:
    """A faint grid behind the data, and no frame on the right and above."""
    axes.grid(alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def dot(axes: Axes, x: float, y: float, ends=None, *, colour: str, horizontal=False, marker="o", filled=True, **style):
    """A value, and its interval ``(low, high)`` where it has one: along y, or along x where `horizontal`."""
    if ends is not None and None not in ends:
        along = (ends, [y, y]) if horizontal else ([x, x], ends)
        axes.plot(*along, color=colour, lw=1.8, alpha=0.75, solid_capstyle="butt")
    face = colour if filled else "white"
    axes.plot(x, y, marker, ms=6.5, color=colour, markerfacecolor=face, ls="", zorder=3, **style)


def paper_dot(axes: Axes, x: float, y: float, text: str | None = None, *, label: str | None = "paper", at=(7, 0)):
    """A value that the paper prints: a black diamond, with its number beside it, `at` points away."""
    dot(axes, x, y, colour=PAPER, marker="D", filled=False, markeredgewidth=1.6, label=label)
    if text is not None:
        beside(axes, x, y, text, colour=PAPER, at=at)


def beside(axes: Axes, x: float, y: float, text: str, *, colour: str = INK, at=(7, 0)) -> None:
    """Words beside a point, `at` points away from it: to the right, or above or below where `at` is (0, ...)."""
    across, up = at
    aligned = {
        "ha": "left" if across > 0 else "right" if across < 0 else "center",
        "va": "bottom" if up > 0 else "top" if up < 0 else "center",
    }
    style = {"fontsize": 9, "color": colour, "annotation_clip": False}
    axes.annotate(text, (x, y), at, textcoords="offset points", **aligned, **style)


def dot_rows(axes: Axes, rows: Sequence[tuple]) -> None:
    """Changes against a base at 0, one below the other, with words to the right of them.

    A row is ``(label, (middle, low, high), colour, words, paper)``; `paper` is the paper's value and words, or None.
    """
    for y, (_, (middle, *ends), colour, words, paper) in enumerate(rows):
        dot(axes, middle, y, ends, colour=colour, horizontal=True)
        lines = [(y, words)]
        if paper is not None:
            paper_dot(axes, paper[0], y + 0.42)
            lines.append((y + 0.42, f"paper {paper[1]}"))
        for at, text in lines:
            axes.text(1.02, at, text, va="center", fontsize=9, transform=axes.get_yaxis_transform())
    axes.axvline(0, color=BASE, lw=1.2)
    axes.set_yticks(range(len(rows)), labels=[label for label, *_ in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)


def legend_below(figure: Figure, axes: Axes | Sequence[Axes], *, columns: int = 4) -> None:
    """One legend under all panels, off the data: of each name once."""
    named = {}
    for panel in [axes] if isinstance(axes, Axes) else axes:
        for handle, name in zip(*panel.get_legend_handles_labels()):
            named.setdefault(name, handle)
    figure.legend(named.values(), named, loc="outside lower center", ncols=columns, frameon=False, fontsize=9.5)
