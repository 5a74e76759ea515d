"""The demo's picture: corrected digits, each beside the memories that corrected it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from residua.core.atomic import atomic_write
from residua.errors import MemoryFileError, MissingDependencyError
from residua.explanation import Explanation

MEMORIES = 5  # shown beside each digit
BASE, MEMORY, GREY = "#C8501E", "#1F6FB4", "#8A8A8A"


def require_matplotlib() -> None:
    """Raise ``MissingDependencyError`` now rather than after the work."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            'the demo needs matplotlib for its picture: pip install "residua[sklearn,plot]"'
        ) from error


def draw(
    path: Path, images: np.ndarray, explanations: list[Explanation], remembered: np.ndarray, title: str, subtitle: str
) -> None:
    """Write a PNG with one row per digit: the image, both predictions, and its most decisive memories.

    Parameters
    ----------
    path : Path
        Replaced whole, or left as it was.
    images : array of shape (n, 8, 8)
        The digits, in the order of `explanations`.
    explanations : list of Explanation
        Classifications whose label is known.
    remembered : array of shape (rows, 8, 8)
        What each row of the memory shows.
    title, subtitle : str

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    MemoryFileError
        When the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = max(len(explanations), 1)
    height = 1.5 + 1.72 * n
    figure = Figure(figsize=(12.6, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.028, 1 - 0.38 / height, title, fontsize=17, weight="bold", va="center")
    figure.text(0.028, 1 - 0.75 / height, subtitle, fontsize=10.5, color="#444444", va="center")
    grid = figure.add_gridspec(
        n,
        2 + MEMORIES,
        left=0.028,
        right=0.985,
        top=1 - 1.42 / height,
        bottom=0.5 / height,
        hspace=0.62,
        wspace=0.3,
        width_ratios=[1, 2.1, *[1] * MEMORIES],
    )
    for row, (image, why) in enumerate(zip(images, explanations)):
        query = figure.add_subplot(grid[row, 0])
        _digit(query, image, "#222222", 1.6)
        query.set_title("test digit", fontsize=9.5, pad=5)
        query.set_xlabel("" if why.label is None else f"truth: {why.label}", fontsize=9.5, labelpad=4)
        _predictions(figure.add_subplot(grid[row, 1]), why)
        for place, neighbour in enumerate(_decisive(why)):
            axes = figure.add_subplot(grid[row, 2 + place])
            _memory(axes, remembered[why.rows[neighbour]], why, neighbour)
    try:
        with atomic_write(path) as part:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(part, format="png", dpi=130)
    except MemoryFileError as error:
        raise MemoryFileError(f"{error}; choose another folder with --out") from error


def _decisive(why: Explanation) -> np.ndarray:
    """The neighbours that moved the decision most: the new answer's score against the old one's."""
    swing = why.contributions[:, why.prediction] - why.contributions[:, why.base_prediction]
    return np.argsort(-np.abs(swing), kind="stable")[:MEMORIES]


def _digit(axes, image: np.ndarray, frame: str, width: float) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=width)


def _predictions(axes, why: Explanation) -> None:
    """Both classes' scores, before (base) and after (with the memory), as bars."""
    classes = [why.prediction, why.base_prediction]
    before, after = why.base[classes], why.scores[classes]
    places = np.array([1.0, 0.0])
    axes.barh(places + 0.17, before, height=0.3, color=BASE)
    axes.barh(places - 0.17, after, height=0.3, color=MEMORY)
    for place, values in ((places + 0.17, before), (places - 0.17, after)):
        for y, value in zip(place, values):
            axes.text(max(value, 0) + 0.03, y, f"{value:.2f}", va="center", fontsize=8.5, color="#444444")
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set(
        xlim=(min(-0.02, *after), max(1.0, *after) + 0.22),
        ylim=(-0.55, 1.55),
        xticks=[],
        yticks=places,
        yticklabels=classes,
    )
    axes.tick_params(length=0, labelsize=11)
    axes.set_frame_on(False)
    heading = {"fontsize": 10, "weight": "bold", "transform": axes.transAxes}
    axes.text(-0.12, 1.1, f"base said {why.base_prediction}", color=BASE, **heading)
    axes.text(1.0, 1.1, f"ResMem says {why.prediction}", color=MEMORY, ha="right", **heading)


def _memory(axes, image: np.ndarray, why: Explanation, neighbour: int) -> None:
    to_new = why.contributions[neighbour, why.prediction]
    to_old = why.contributions[neighbour, why.base_prediction]
    colour = MEMORY if to_new > to_old else BASE
    strong = abs(to_new - to_old) >= 0.01
    _digit(axes, image, colour if strong else GREY, 2.4 if strong else 1.2)
    axes.set_title(f"a remembered {why.labels[neighbour]}", fontsize=9.5, pad=5)
    axes.set_xlabel(
        f"{to_new:+.2f} to {why.prediction}   {to_old:+.2f} to {why.base_prediction}".replace("-", "\u2212"),
        fontsize=8.5,
        color=colour if strong else GREY,
        labelpad=4,
    )
