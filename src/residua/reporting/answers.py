"""Seven questions that everybody asks of a memory, each answered in a sentence or two, with numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from residua.core.naming import class_name
from residua.evaluation import Group
from residua.evaluation.cells import in_points, known, percent
from residua.printable import count, duration, size
from residua.reporting.charts import span

if TYPE_CHECKING:
    from residua.reporting.report import Report

Mood: TypeAlias = Literal["good", "bad", "open"]
LEVEL = 0.01  # of a share: less is level
FEWEST = 5  # test rows of a class that is named


@dataclass(frozen=True)
class Answer:
    """A question, its answer, and where on the page there is more of it.

    Attributes
    ----------
    question : str
    lines : list of str
        One sentence or more.
    mood : {"good", "bad", "open"}
    more : str
        The name of a section; "" for none.
    """

    question: str
    lines: list[str]
    mood: Mood
    more: str = ""


def answers(report: Report, suggestions: list[str]) -> list[Answer]:
    """All seven, in order."""
    return [
        _helped(report),
        _sure(report),
        _where(report),
        _costs(report),
        _trust(report),
        _broke(report),
        Answer("What should I try next?", suggestions, "open"),
    ]


def _helped(report: Report) -> Answer:
    result, measure = report.result, report.measure
    base, now = measure.base, measure.now
    if report.silent:
        lines = [f"The memory is not used (k = 0): {measure.name} is the model's own, {measure.shown(base)}."]
        return Answer("Did it help?", lines, "open")
    what = f"{measure.name} {measure.shown(base)} → {measure.shown(now)} ({measure.changed(base, now)})"
    level = base == now
    word = "It makes no difference" if level else "Yes" if result.helps else "No"
    unit = "token" if measure.name == "perplexity" else "row"
    lines = [f"{word}: {what} on {count(result.n, unit)}."]
    if result.objective == "log_loss" and result.accuracy is not None:
        base_right, right = known(result.base_accuracy), result.accuracy
        lines.append(f"The next token is right in {percent(base_right)} → {percent(right)}.")
    return Answer("Did it help?", lines, "open" if level else "good" if result.helps else "bad")


def _sure(report: Report) -> Answer:
    result = report.result
    lines = [result.verdict]
    interval = result.gain_interval
    if interval is not None and result.objective != "log_loss":
        low, high = interval
        level = f"{100 * result.confidence:.4g} % interval of the"
        if result.task == "regression":
            lines.append(f"The {level} fall in squared error is {low:+.4g} to {high:+.4g}.")
        else:
            lines.append(f"The {level} gain is {100 * low:+.2f} to {in_points(high)}.")
    mood: Mood = "open" if not result.significant else "good" if result.helps else "bad"
    return Answer("Am I sure?", lines, mood)


def _where(report: Report) -> Answer:
    if report.silent:
        return Answer("Where does it help?", ["Nowhere: every answer is the model's own."], "open")
    lines = []
    for groups, where in ((report.confidences, "the model is {} sure"), (report.distances, "the nearest memory is {} away")):
        if len(groups) > 1:
            lines.append(_most_and_least(report, groups, where))
    by_class = _classes(report)
    if by_class:
        lines.append(by_class)
    more = "where" if len(report.distances) > 1 or len(report.confidences) > 1 else "classes" if by_class else ""
    return Answer("Where does it help?", lines or ["There are too few rows to say."], "open", more)


def _most_and_least(report: Report, groups: list[Group], where: str) -> str:
    gains = [report.measure.gained(group.base, group.reader) for group in groups]
    best, worst = int(np.argmax(gains)), int(np.argmin(gains))
    said = [report.measure.changed(groups[i].base, groups[i].reader) for i in (best, worst)]
    named = [where.format(span(groups[i], "sure" in where)) for i in (best, worst)]
    if gains[best] == gains[worst]:
        return f"Alike everywhere: {said[0]}, however {'sure the model' if 'sure' in where else 'near a memory'} is."
    return f"Most where {named[0]} ({said[0]}), least where {named[1]} ({said[1]})."


def _classes(report: Report) -> str:
    """The class that gains most, and the one that loses most, of those with a few rows."""
    result = report.result
    if result.per_class_gain is None or result.support is None or result.objective == "log_loss":
        return ""
    some = np.flatnonzero((result.support >= FEWEST) & np.isfinite(result.per_class_gain))
    if len(some) < 3:
        return ""
    gains = result.per_class_gain[some]
    best, worst = (int(some[at]) for at in (np.argmax(gains), np.argmin(gains)))
    named = (f"{class_name(result.classes, at)} ({in_points(result.per_class_gain[at])})" for at in (best, worst))
    if result.per_class_gain[best] <= 0:
        return ""
    best_name, worst_name = named
    loses = f"; {worst_name} loses most" if result.per_class_gain[worst] < 0 else ""
    return f"Class {best_name} gains most{loses}."


def _costs(report: Report) -> Answer:
    cost, each = report.cost, sum(report.cost.bytes_per_row.values())
    lines = [f"{size(cost.bytes)} of RAM: {each:,} bytes for each of {count(cost.rows, 'row')}."]
    if cost.tokens_per_second and cost.base_tokens_per_second:
        rate = cost.base_tokens_per_second / cost.tokens_per_second
        lines.append(f"Answers take {rate:.2f} times as long as the model's: {cost.tokens_per_second:,.0f} rows a second.")
    elif cost.seconds_per_row is not None:
        lines.append(f"{duration(cost.seconds_per_row)} a row to search and read, here, of many at a time.")
    lines.append("The index is exact." if cost.exact else f"The index {cost.index}: {cost.recall}.")
    return Answer("At what cost?", lines, "open", "cost")


def _trust(report: Report) -> Answer:
    result, question = report.result, "Can I trust its confidence?"
    lines, mood = [], "open"
    if result.ece is not None and result.base_ece is not None:
        off = f"off by {percent(result.ece)} on average (the model alone by {percent(result.base_ece)})"
        lines.append(f"Its confidence is {off}{_leaning(report)}.")
        mood = "good" if result.ece <= max(result.base_ece, 0.02) else "bad"
    cover = report.coverage
    if cover is not None:
        what = "sets of {:.3g} classes" if cover.task == "classification" else "intervals {:.4g} wide"
        lines.append(
            f"Calibrated on {count(cover.calibrated, 'row')}, {what.format(cover.size)} hold the truth of "
            f"{percent(cover.coverage)} of the test rows ({percent(cover.confidence)} was asked for); the model's own "
            f"need {cover.base_size:.3g}."
        )
    if not lines:
        lines.append(
            "It says numbers, and not how sure it is: give rows that were neither remembered nor tuned on "
            "(calibration=) for intervals."
        )
    more = "trust" if report.curves or cover is not None else ""
    return Answer(question, lines, mood, more)


def _leaning(report: Report) -> str:
    curve = report.curves.get("reader")
    if curve is None or not curve.n.sum():
        return ""
    off = float(np.nansum(curve.n * (curve.confidence - curve.accuracy)) / curve.n.sum())
    if abs(off) < LEVEL:
        return ""
    return f": it is too {'sure' if off > 0 else 'unsure'}, by {100 * abs(off):.1f} points"


def _broke(report: Report) -> Answer:
    result, question = report.result, "What did it break?"
    gain = result.row_gain
    fixed, broken = int((gain > 0).sum()), int((gain < 0).sum())
    unit = "token" if report.measure.name == "perplexity" else "row"
    if not broken:
        return Answer(question, [f"Nothing: no {unit} is worse than without it; {count(fixed, unit)} better."], "good")
    share = percent(broken / result.n)
    if result.task == "classification":
        lines = [f"{count(broken, unit)} ({share}) that the model had right; it mended {fixed:,}."]
        worst = max(result.confusions(), key=lambda one: one.introduced)
        if worst.introduced > 1:
            label, said = (report.called(one) for one in (worst.label, worst.said))
            lines.append(f"Most often {label} became {said}: {worst.introduced:,} times.")
    else:
        lines = [f"{count(broken, unit)} ({share}) are worse than without it; {fixed:,} are better."]
        at = int(np.argmin(gain))
        by = f"its squared error rises by {-gain[at]:.4g}" if result.task == "regression" else f"{100 * -gain[at]:.0f} % of its labels"
        lines.append(f"The worst is row {at}: {by}.")
    more = "broken" if report.broken else ""
    return Answer(question, lines, "bad" if broken >= fixed else "open", more)

