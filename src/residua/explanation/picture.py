"""Explanations as a picture: each example beside the memories that moved its scores most, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from residua.core.naming import class_name
from residua.drawing import BASE, DARK, GREY, MEMORY, Images, Look, draw_look, figure
from residua.drawing.figure import plain
from residua.explanation.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEMORIES = 5
OUTPUTS = 5  # bars of scores
NOTICED = 0.01  # of the scores' largest change: what moved less is grey
MINUS = str.maketrans("-", "\u2212")


def plot(
    whys: Sequence[Explanation],
    images: Images | None = None,
    queries: Sequence[Any] | None = None,
    *,
    memories: int = MEMORIES,
    title: str = "",
    subtitle: str = "",
) -> Figure:
    """A row for each explanation: what was asked, its scores before and after, and the memories that decided.

    Parameters
    ----------
    whys : sequence of Explanation
    images : see ``residua.drawing.picture_of``, optional
        Pictures of what is remembered, by id: the array or dataset that was remembered, a mapping, a function, or the
        folder that names are in. Without, names that are paths of pictures are opened; what has no picture is shown by
        its text, or its columns.
    queries : sequence, optional
        What each was asked about: a picture in any of these forms, or the text before the token.
    memories : int, default 5
        How many are shown: those that moved the answer most.
    title, subtitle : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        ``savefig`` writes it; a notebook shows it.

    Raises
    ------
    MissingDependencyError, InputError, ShapeError
    """
    rows = len(whys)
    looks = [[why.look(near, images) for near in decisive(why)[:memories]] for why in whys]
    asked = [why.query_look(None if queries is None else queries[at]) for at, why in enumerate(whys)]
    pictured = any(look.picture is not None for look in (*asked, *(look for row in looks for look in row)))
    width, above = 1.0 if pictured else 1.9, 0.35 * bool(subtitle) + 0.5 * bool(title)
    height = 0.95 + above + 1.72 * max(rows, 1)
    across = max(memories, 1)
    made = figure(3.3 + width * (across + 1) * 1.5, height, constrained=False)
    if title:
        made.text(0.028, 1 - 0.38 / height, plain(title), fontsize=17, weight="bold", va="center")
        made.text(0.028, 1 - 0.75 / height, plain(subtitle), fontsize=10.5, color=DARK, va="center")
    margins = {"left": 0.028, "right": 0.985, "top": 1 - (above + 0.55) / height, "bottom": 0.5 / height}
    widths = [width, 2.1, *[width] * across]
    grid = made.add_gridspec(max(rows, 1), len(widths), hspace=0.62, wspace=0.3, width_ratios=widths, **margins)
    for row, (why, look) in enumerate(zip(whys, asked)):
        truth = "" if why.label is None else f"truth: {said(why, why.label)}"
        draw_look(made.add_subplot(grid[row, 0]), look, _cut(look.name, 26), truth, "#222222", 1.6)
        _scores(made.add_subplot(grid[row, 1]), why)
        for place, (near, of) in enumerate(zip(decisive(why), looks[row]), 2):
            _memory(made.add_subplot(grid[row, place]), why, near, of)
    return made


def decisive(why: Explanation) -> list[int]:
    """The neighbours, those first that moved the answer most: of a class that changed, the new one's score against the
    old one's."""
    return np.argsort(-np.abs(swing(why)), kind="stable").tolist()


def swing(why: Explanation) -> np.ndarray:
    """How far each neighbour moved the answer, (k,): towards the new class and away from the old one; towards the class
    where it stayed; of numbers and several labels by all that it adds, where signs are lost."""
    if why.task != "classification":
        return np.abs(why.contributions).sum(axis=1)
    now, before = (np.searchsorted(why.outputs, one) for one in (why.prediction, why.base_prediction))
    to = why.contributions
    return to[:, now] - to[:, before] if now != before else to[:, now]


def said(why: Explanation, value: Any) -> str:
    """A class or token by its name; a number, or the labels that are given, in a few characters."""
    if why.is_text:
        return why.text(value)
    if why.task == "classification":
        return class_name(why.classes, int(value))
    values = np.atleast_1d(value)
    if why.task == "multi-label":
        names = [class_name(why.classes, i) for i in np.flatnonzero(values > 0.5).tolist()]
        return ", ".join(names[:3]) + (" …" if len(names) > 3 else "") or "none"
    return " ".join(f"{number:.3g}" for number in values[:3].tolist()) + (" …" if len(values) > 3 else "")


def shown_outputs(why: Explanation) -> list[int]:
    """Places in `outputs` whose scores get a bar: predicted, base's and true class; else those that moved most."""
    if why.task == "classification":
        told = [one for one in (why.prediction, why.base_prediction, why.label) if one is not None]
        return list(dict.fromkeys(int(np.searchsorted(why.outputs, one)) for one in told))
    moved = np.argsort(-np.abs(why.scores - why.base), kind="stable")[:OUTPUTS]
    return sorted(moved.tolist())


def _scores(axes: Axes, why: Explanation) -> None:
    """Scores before and after, as bars."""
    outputs = shown_outputs(why)
    places = np.arange(len(outputs), dtype=float)[::-1]
    values = np.concatenate([why.base[outputs], why.scores[outputs], [0.0]])
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-12) if why.task == "regression" or why.space == "logit" else max(1.0 - min(low, 0), high)
    for at, of, colour in ((places + 0.17, why.base, BASE), (places - 0.17, why.scores, MEMORY)):
        axes.barh(at, of[outputs], height=0.3, color=colour)
        for y, value in zip(at, of[outputs].tolist()):
            axes.text(max(value, 0) + 0.03 * span, y, f"{value:.3g}", va="center", fontsize=8.5, color=DARK)
    axes.axvline(0, color="#222222", linewidth=0.8)
    names = [_cut(said(why, why.outputs[i]), 14) if why.task == "classification" else _named(why, i) for i in outputs]
    axes.set(xlim=(min(low, 0) - 0.02 * span, max(high, 0) + 0.22 * span), ylim=(-0.6, len(outputs) - 0.4))
    axes.set(xticks=[], yticks=places)
    axes.set_yticklabels(list(map(plain, names)))
    axes.tick_params(length=0, labelsize=9)
    axes.set_frame_on(False)
    heading = {"fontsize": 10, "weight": "bold", "transform": axes.transAxes, "va": "bottom"}
    axes.text(-0.12, 1.12, plain(f"alone: {_cut(said(why, why.base_prediction), 16)}"), color=BASE, **heading)
    after = plain(f"with memory: {_cut(said(why, why.prediction), 16)}")
    axes.text(-0.12, 1.0, after, color=MEMORY, **heading)


def _named(why: Explanation, place: int) -> str:
    return "output" if why.n_outputs == 1 else _cut(class_name(why.classes, int(why.outputs[place])), 14)


def _memory(axes: Axes, why: Explanation, near: int, look: Look) -> None:
    moved, most = swing(why), float(np.abs(why.scores - why.base).max(initial=0))
    strong = abs(moved[near]) >= NOTICED * most
    colour = GREY if not strong else MEMORY if moved[near] > 0 else BASE
    added = why.contributions[near]
    if why.task == "classification":
        told = list(dict.fromkeys([int(why.prediction), int(why.base_prediction)]))
        parts = [f"{added[np.searchsorted(why.outputs, one)]:+.2f} to {_cut(said(why, one), 9)}" for one in told]
    else:
        place = int(np.abs(added).argmax())
        parts = [f"{added[place]:+.3g}" + (f" to {_named(why, place)}" if len(added) > 1 else "")]
    below = "   ".join(parts).translate(MINUS)
    title = f"remembered: {_cut(said(why, why.labels[near]), 14)}"
    draw_look(axes, look, title, below, colour, 2.4 if strong else 1.2, colour)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
