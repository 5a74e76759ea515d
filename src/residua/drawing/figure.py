"""What every picture shares: an empty white figure, and one colour for each role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residua.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE, MEMORY, GREY, DARK = "#C8501E", "#1F6FB4", "#8A8A8A", "#444444"


def figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """An empty figure, in inches, which no window and no global state knows: ``savefig`` writes it, notebooks show it.

    ``MissingDependencyError`` without matplotlib.
    """
    try:
        from residua.drawing.shown import Shown
    except ImportError as error:
        hint = 'pip install "residua[plot]"; the same numbers are attributes and methods'
        raise MissingDependencyError(f"plot needs matplotlib: {hint}") from error
    return Shown(figsize=(width, height), facecolor="white", layout="constrained" if constrained else None)


def quiet(axes: Axes) -> None:
    """A faint grid behind the data, and no frame on the right and above."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")
