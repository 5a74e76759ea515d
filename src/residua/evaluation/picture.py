"""An evaluation as a picture: four panels of the numbers that the result has."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from residua.core.naming import class_name
from residua.drawing import BASE, DARK, GREY, MEMORY, figure, quiet
from residua.drawing.figure import plain
from residua.evaluation.breakdown import Group
from residua.evaluation.cells import known
from residua.evaluation.tokens import Groups
from residua.printable import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from residua.evaluation.result import Evaluation

CLASSES = 8  # of those that gain most, and as many of those that lose most
POINTS = 2000  # of a regression, drawn at most
CALLED = {"log_loss": "perplexity", "accuracy": "accuracy, %", "squared_error": "mean squared error"}


def draw(result: Evaluation) -> Figure:
    """Both answers; by distance; by class, group of tokens or target; and confidence, or the change of each row."""
    made = figure(10.5, 7.6)
    lines = textwrap.wrap(result.verdict, 125)
    made.suptitle(plain("\n".join(lines)), fontsize=11, x=0.01, ha="left", color="#222222")
    (answers, near), (groups, last) = made.subplots(2, 2)
    for axes in (answers, near, groups, last):
        quiet(axes)
    _answers(answers, result)
    _by_distance(near, result)
    if result.tokens:
        _of_tokens(groups, {name: of for way in ("rarity", "recital") for name, of in result.tokens[way].items()})
    elif result.task == "regression":
        _targets(groups, result)
    else:
        _classes(groups, result)
    if result.task == "regression":
        _changes(last, result)
    else:
        _confidence(last, result)
    return made


def _measure(result: Evaluation) -> tuple[str, float, float]:
    """What the verdict is about, in the units of ``CALLED``."""
    name = CALLED[result.objective]
    if result.objective == "log_loss":
        return name, known(result.base_perplexity), known(result.perplexity)
    if result.objective == "squared_error":
        return name, known(result.base_mse), known(result.mse)
    name = "labels right, %" if result.task == "multi-label" else name
    return name, 100 * known(result.base_accuracy), 100 * known(result.accuracy)


def _answers(axes: Axes, result: Evaluation) -> None:
    name, base, now = _measure(result)
    for place, (value, colour) in enumerate(((now, MEMORY), (base, BASE))):
        axes.barh(place, value, height=0.55, color=colour)
        axes.text(value, place, f"  {value:.4g}", va="center", color=colour, weight="bold")
    axes.set(yticks=[0, 1], yticklabels=["with memory", "model alone"], xlabel=name, ylim=(-0.6, 1.6))
    axes.set_xlim(0, 1.18 * max(base, now, 1e-12))
    said = count(result.n, "token" if result.objective == "log_loss" else "row")
    if result.task == "classification" and not result.tokens:
        counts = (int((np.sign(result.row_gain) == sign).sum()) for sign in (1, -1))
        said += "; {:,} wrong made right, {:,} right made wrong".format(*counts)
    axes.set_title(said, fontsize=9.5, loc="left", color=DARK)


def _by_distance(axes: Axes, result: Evaluation) -> None:
    axes.set_title("by distance to the nearest memory", fontsize=9.5, loc="left", color=DARK)
    groups = result.by_distance()
    if not groups:
        _nothing(axes, "no neighbour was searched")
        return
    _pairs(axes, [(_span(group), group.n, group.base, group.reader) for group in groups], result)
    axes.set_ylabel(_measure(result)[0])


def _pairs(axes: Axes, rows: list[tuple[str, int, float, float]], result: Evaluation) -> None:
    """What both say of groups of rows: a line for each, and how many rows below."""
    scale = 100 if result.objective == "accuracy" else 1
    places = np.arange(len(rows))
    for column, colour, name in ((2, BASE, "model alone"), (3, MEMORY, "with memory")):
        values = [scale * row[column] for row in rows]
        axes.plot(places, values, "o-", color=colour, linewidth=1.6, markersize=5, label=name)
    axes.set_xticks(places, [f"{row[0]}\n{row[1]:,}" for row in rows], fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


def _span(group: Group) -> str:
    return f"{group.low:.3g} to {group.high:.3g}" if group.low < group.high else f"{group.low:.3g}"


def _classes(axes: Axes, result: Evaluation) -> None:
    """Classes by how many more of their rows are right."""
    label, support = result.per_row["label"], result.support
    assert support is not None, "what has classes counts them"
    if result.task == "multi-label":
        right = [result.per_row[f"{side}prediction"] == label for side in ("", "base_")]
        gained = right[0].sum(axis=0) - right[1].sum(axis=0)
    else:
        gained = np.bincount(label, weights=result.row_gain, minlength=len(support)).astype(int)
    moved = np.flatnonzero(gained)
    order = moved[np.argsort(-gained[moved], kind="stable")]
    if len(order) > 2 * CLASSES:
        order = np.concatenate([order[:CLASSES], order[-CLASSES:]])
    which = "labels" if result.task == "multi-label" else "classes"
    axes.set_title(
        f"{which}: rows made right, less those made wrong ({len(moved):,} of {len(gained):,} change)",
        fontsize=9.5,
        loc="left",
        color=DARK,
    )
    if not len(order):
        _nothing(axes, "no class changes")
        return
    places = np.arange(len(order))[::-1]
    axes.barh(places, gained[order], color=[MEMORY if gained[i] > 0 else BASE for i in order], height=0.7)
    names = [class_name(result.classes, int(i))[:24] for i in order]
    axes.set_yticks(places, list(map(plain, names)), fontsize=8)
    axes.axvline(0, color="#222222", linewidth=0.8)


def _of_tokens(axes: Axes, groups: Groups) -> None:
    axes.set_title("perplexity of groups of tokens", fontsize=9.5, loc="left", color=DARK)
    places = np.arange(len(groups))[::-1]
    for place, (_, base, now) in zip(places, groups.values()):
        axes.plot([base, now], [place, place], color=GREY, linewidth=1.2, zorder=1)
    for column, colour in ((1, BASE), (2, MEMORY)):
        axes.plot([of[column] for of in groups.values()], places, "o", color=colour, markersize=6)
    axes.set_yticks(places, [f"{name} ({of[0]:,})" for name, of in groups.items()], fontsize=8)
    axes.set_xscale("log")


def _targets(axes: Axes, result: Evaluation) -> None:
    """What is predicted over what is true, of all outputs."""
    truth = result.per_row["label"].reshape(-1)
    some = np.linspace(0, len(truth) - 1, min(POINTS, len(truth))).astype(int)
    for side, colour in (("base_", BASE), ("", MEMORY)):
        said = result.per_row[f"{side}prediction"].reshape(-1)
        axes.plot(truth[some], said[some], ".", color=colour, markersize=4, alpha=0.5)
    axes.axline((float(truth.mean()), float(truth.mean())), slope=1, color="#222222", linewidth=0.8)
    axes.set(xlabel="target", ylabel="prediction")
    axes.set_title("predictions: model alone (orange), with memory (blue)", fontsize=9.5, loc="left", color=DARK)


def _changes(axes: Axes, result: Evaluation) -> None:
    """By how much the squared error of each row falls, the most first."""
    gain = np.sort(result.row_gain)[::-1]
    axes.fill_between(np.arange(len(gain)), gain, where=gain >= 0, color=MEMORY, step="mid", linewidth=0)
    axes.fill_between(np.arange(len(gain)), gain, where=gain <= 0, color=BASE, step="mid", linewidth=0)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set(xlabel="rows, in this order", ylabel="fall in squared error")
    said = f"{100 * known(result.improved):.1f} % of rows improved, {100 * known(result.worsened):.1f} % worsened"
    axes.set_title(said, fontsize=9.5, loc="left", color=DARK)


def _confidence(axes: Axes, result: Evaluation) -> None:
    """How often answers are right by how sure they are."""
    axes.plot([0, 1], [0, 1], color="#222222", linewidth=0.8)
    curves = result.reliability()
    for name, colour, error in (("base", BASE, result.base_ece), ("reader", MEMORY, result.ece)):
        curve = curves[name]
        some = curve.n > 0
        called = "model alone" if name == "base" else "with memory"
        style = {"linewidth": 1.4, "markersize": 4, "label": f"{called}: off by {100 * known(error):.1f} %"}
        axes.plot(curve.confidence[some], curve.accuracy[some], "o-", color=colour, **style)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set_title("is it right as often as it is sure?", fontsize=9.5, loc="left", color=DARK)


def _nothing(axes: Axes, why: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=GREY)
