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
FINE = 0.03  # a calibration error that nobody minds
FEWEST = 5  # test rows of a class that is named


@dataclass(frozen=True)
class Answer:
    """A question, its answer, and where on the page there is more of it.

    Attributes
    ----------
    question, short : str
        And the answer in a few words; "" where the sentences are all.
    lines : list of str
        Sentences.
    mood : {"good", "bad", "open"}
    more : str
        The name of a section; "" for none.
    """

    question: str
    short: str
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
        Answer("What should I try next?", "", suggestions, "open"),
    ]


def _helped(report: Report) -> Answer:
    result, measure, question = report.result, report.measure, "Did it help?"
    base, now = measure.base, measure.now
    if report.silent:
        said = f"The memory is not used (k = 0): {measure.name} is the model's own, {measure.shown(base)}."
        return Answer(question, "No memory is used", [said], "open")
    what = f"{measure.name} {measure.shown(base)} → {measure.shown(now)}"
    level = base == now
    word = "No difference" if level else "Yes" if result.helps else "No"
    unit = "token" if measure.name == "perplexity" else "row"
    lines = [f"{measure.changed(base, now)} on {count(result.n, unit)}."]
    if result.objective == "log_loss" and result.accuracy is not None:
        base_right, right = known(result.base_accuracy), result.accuracy
        lines.append(f"The next token is right in {percent(base_right)} → {percent(right)}.")
    return Answer(question, f"{word}: {what}", lines, "open" if level else "good" if result.helps else "bad")


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
    if not result.significant:
        return Answer("Am I sure?", "No", lines, "open")
    return Answer("Am I sure?", "Yes" if result.helps else "Yes: it is worse", lines, "good" if result.helps else "bad")


def _where(report: Report) -> Answer:
    question = "Where does it help?"
    if report.silent:
        return Answer(question, "Nowhere", ["Every answer is the model's own."], "open")
    lines, best = [], [0.0, ""]
    for groups, sure in ((report.confidences, True), (report.distances, False)):
        if len(groups) > 1:
            lines.append(_most_and_least(report, groups, sure))
            gains = [report.measure.gained(group.base, group.reader) for group in (groups[0], groups[-1])]
            ends = ("where the model is unsure", "where it is sure") if sure else ("near memories", "far from memories")
            if abs(gains[0] - gains[1]) > LEVEL and max(gains) > best[0]:
                best = [max(gains), ends[int(np.argmax(gains))]]
    by_class = _classes(report)
    if by_class:
        lines.append(by_class)
    more = "where" if len(report.distances) > 1 or len(report.confidences) > 1 else "classes" if by_class else ""
    short = f"Most {best[1]}" if best[1] else ""
    return Answer(question, short, lines or ["There are too few rows to say."], "open", more)


def _most_and_least(report: Report, groups: list[Group], sure: bool) -> str:
    """By confidence or distance, the groups that gain most and least."""
    gains = [report.measure.gained(group.base, group.reader) for group in groups]
    ends = groups[int(np.argmax(gains))], groups[int(np.argmin(gains))]
    said = [report.measure.changed(group.base, group.reader) for group in ends]
    where = "the model is {} sure" if sure else "the nearest memory is {} away"
    if max(gains) == min(gains):
        return f"{said[0]} however {'sure the model' if sure else 'near the nearest memory'} is."
    first, last = (where.format(span(group, sure)) for group in ends)
    return f"{said[0]} where {first}, {said[1]} where {last}."


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
    if result.per_class_gain[best] <= 0:
        return ""
    most, least = (f"{class_name(result.classes, at)} ({in_points(result.per_class_gain[at])})" for at in (best, worst))
    loses = f", {least} loses most" if result.per_class_gain[worst] < 0 else ""
    return f"Of the classes {most} gains most{loses}."


def _costs(report: Report) -> Answer:
    cost, each = report.cost, sum(report.cost.bytes_per_row.values())
    lines = [f"{each:,} bytes of RAM for each of {count(cost.rows, 'row')}."]
    took = size(cost.bytes)
    if cost.tokens_per_second and cost.base_tokens_per_second:
        rate = cost.base_tokens_per_second / cost.tokens_per_second
        took += f" and {rate:.2f} times the model's time"
        lines.append(f"{cost.tokens_per_second:,.0f} rows a second, with the model's part.")
    elif cost.seconds_per_row is not None:
        took += f" and {duration(cost.seconds_per_row)} a row"
        lines.append("The time is that of searching and reading many rows at once, on this machine.")
    lines.append("The index is exact." if cost.exact else f"The index {cost.index}: {cost.recall}.")
    return Answer("At what cost?", took, lines, "open", "cost")


def _trust(report: Report) -> Answer:
    result, cover = report.result, report.coverage
    lines: list[str] = []
    short, mood = "It does not say", "open"
    if result.ece is not None and result.base_ece is not None:
        better = result.ece <= result.base_ece
        mood = "good" if result.ece <= max(result.base_ece, FINE) else "bad"
        short = "Yes" if result.ece <= FINE else f"{'More' if better else 'Less'} than the model's"
        off = f"off by {percent(result.ece)} on average, the model's by {percent(result.base_ece)}"
        lines.append(f"Its confidence is {off}{_leaning(report)}.")
    if cover is not None:
        if cover.task == "regression":
            short, mood = f"Within intervals {cover.size:.4g} wide", "open"
        what = "sets of {:.3g} classes" if cover.task == "classification" else "intervals {:.4g} wide"
        lines.append(
            f"Calibrated on {count(cover.calibrated, 'row')}, {what.format(cover.size)} hold the truth of "
            f"{percent(cover.coverage)} of the test rows ({percent(cover.confidence)} was asked for); the model's own "
            f"need {cover.base_size:.4g}."
        )
    if not lines:
        lines.append("Give rows that were neither remembered nor tuned on (calibration=) for intervals.")
    more = "trust" if report.curves or cover is not None else ""
    return Answer("Can I trust its confidence?", short, lines, mood, more)


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
        return Answer(question, "Nothing", [f"No {unit} is worse than without it, {fixed:,} better."], "good")
    short = f"{count(broken, unit)} of {result.n:,}; it mended {fixed:,}"
    if result.task == "classification":
        lines = [f"{percent(broken / result.n)} were right without it, {percent(fixed / result.n)} are right by it."]
        worst = max(result.confusions(), key=lambda one: one.introduced)
        if worst.introduced > 1:
            label, said = (report.called(one) for one in (worst.label, worst.said))
            lines.append(f"Most often {label} became {said}: {worst.introduced:,} times.")
    else:
        short = f"{count(broken, unit)} of {result.n:,} worse, {fixed:,} better"
        at = int(np.argmin(gain))
        lines = [f"The worst is row {at:,}: "]
        if result.task == "regression":
            lines[0] += f"its squared error rises by {-gain[at]:.4g}."
        else:
            lines[0] += f"{100 * -gain[at]:.0f} % more of its labels are wrong."
    return Answer(question, short, lines, "bad" if broken >= fixed else "open", "broken" if report.broken else "")
