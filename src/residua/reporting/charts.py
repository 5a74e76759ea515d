"""The drawings of a report, each of numbers that an evaluation or a coverage has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from residua.evaluation import Evaluation, Group, Reliability
from residua.evaluation.by_class import recall_and_precision
from residua.evaluation.cells import known, percent
from residua.printable import count
from residua.reporting.coordinates import Bars, Lines, Table, bars, lines
from residua.reporting.measure import Measure
from residua.uncertainty.result import Coverage

if TYPE_CHECKING:
    from residua.reporting.report import Report

ALONE, WITH = "model alone", "with memory"
BARS = 12  # of those that gain, and as many of those that lose
PAIRS = 12  # confusions in each table
CURVE = 120  # points of a curve, at most
MANY = 300  # classes in a table, at most: of more, those that change most


@dataclass(frozen=True)
class Charts:
    """What is drawn; None or empty where a task, or these data, have none of it."""

    distance: Lines | None
    confidence: Lines | None
    rarity: Lines | None
    classes: Bars | None
    class_table: Table
    tokens: Table
    fixed: Table
    introduced: Table
    reliability: Lines | None
    risk: Lines | None
    coverage: Table
    slices: Table


def charts_of(report: Report) -> Charts:
    """All that there are."""
    result, measure = report.result, report.measure
    moved = _confusions(report) if result.task == "classification" else ([], [])
    return Charts(
        distance=_groups(report, report.distances, "distance of the nearest memory", sure=False),
        confidence=_groups(report, report.confidences, "how sure the model alone is", sure=True),
        rarity=_rarity(result),
        classes=_classes(report),
        class_table=_class_table(result),
        tokens=_tokens(result, measure),
        fixed=moved[0],
        introduced=moved[1],
        reliability=_reliability(report.curves, result),
        risk=_risk(report.coverage),
        coverage=_coverage(report.coverage),
        slices=_slices(result),
    )


def span(group: Group, sure: bool) -> str:
    """The values of a group: distances, or shares as percent."""
    if sure:
        low, high = (f"{100 * value:.3g}" for value in (group.low, group.high))
        return f"{low} %" if low == high else f"{low} to {high} %"
    low, high = f"{group.low:.3g}", f"{group.high:.3g}"
    return low if low == high else f"{low} to {high}"


def _groups(report: Report, groups: list[Group], what: str, *, sure: bool) -> Lines | None:
    if len(groups) < 2:
        return None
    measure = report.measure
    names = [span(group, sure) for group in groups]
    table = [(what, "rows", ALONE, WITH, "change")]
    table += [
        (name, f"{one.n:,}", measure.shown(one.base), measure.shown(one.reader), measure.changed(one.base, one.reader))
        for name, one in zip(names, groups)
    ]
    first, last = (measure.changed(group.base, group.reader) for group in (groups[0], groups[-1]))
    places = list(range(len(groups)))
    return lines(
        [(ALONE, "base", places, [g.base for g in groups]), (WITH, "memory", places, [g.reader for g in groups])],
        alt=f"{measure.name} by {what}, in {len(groups)} groups: {first} at {names[0]}, {last} at {names[-1]}.",
        table=table,
        x_label=f"{what}, up to",
        y_label=measure.name,
        x_names=[f"{100 * g.high:.3g} %" if sure else f"{g.high:.3g}" for g in groups],
        shown=_short(measure),
        log_y=measure.name == "perplexity",
    )


def _short(measure: Measure) -> Callable[[float], str]:
    """How a value is written beside an axis."""
    return (lambda value: f"{100 * value:.3g} %") if measure.share else "{:.3g}".format


def _rarity(result: Evaluation) -> Lines | None:
    """Of a text, by how often a token is remembered."""
    groups = result.tokens.get("rarity", {})
    if len(groups) < 2:
        return None
    names, places = list(groups), list(range(len(groups)))
    table: Table = [("tokens", "rows", ALONE, WITH, "change")]
    table += [
        (name, f"{n:,}", f"{a:.4g}", f"{b:.4g}", f"{100 * (b / a - 1):+.1f} %") for name, (n, a, b) in groups.items()
    ]
    return lines(
        [
            (ALONE, "base", places, [base for _, base, _ in groups.values()]),
            (WITH, "memory", places, [now for _, _, now in groups.values()]),
        ],
        alt=f"Perplexity by how often a token is remembered: {table[1][4]} of those {names[0]}, {table[-1][4]} of "
        f"those {names[-1]}.",
        table=table,
        x_label="how often a token is remembered",
        y_label="perplexity",
        x_names=[name.removesuffix(" remembered").removesuffix(" times") for name in names],
        log_y=True,
    )


def _classes(report: Report) -> Bars | None:
    """Rows made right, less those made wrong, of the classes (labels, tokens) that change most."""
    result = report.result
    if result.task == "regression" or result.support is None:
        return None
    label = result.per_row["label"]
    if result.task == "multi-label":
        now, base = (result.per_row[f"{side}prediction"] == label for side in ("", "base_"))
        gained = now.sum(axis=0) - base.sum(axis=0)
    else:
        gained = np.bincount(label, weights=result.row_gain, minlength=len(result.support)).round().astype(int)
    moved = np.flatnonzero(gained)
    order = moved[np.argsort(-gained[moved], kind="stable")]
    if not len(order):
        return None
    ends = np.concatenate([order[gained[order] > 0][:BARS], order[gained[order] < 0][-BARS:]])
    values = [(report.called(int(at)), float(gained[at])) for at in ends]
    what = {"multi-label": "labels"}.get(result.task, "tokens" if report.measure.name == "perplexity" else "classes")
    unit = "Tokens" if what == "tokens" else "Rows"
    alt = (
        f"{unit} made right less {unit.lower()} made wrong, of the {what} that change most: {values[0][1]:+.0f} of "
        f"{values[0][0]}, {values[-1][1]:+.0f} of {values[-1][0]}."
    )
    return bars(values, alt=alt)


def _class_table(result: Evaluation) -> Table:
    if result.task != "classification" or result.objective == "log_loss" or result.support is None:
        return []
    names = result.classes or [str(at) for at in range(len(result.support))]
    table = recall_and_precision(result.per_row, result.support, names, result.remembered)
    order = np.argsort(-table["gain"], kind="stable")  # nan, of a class without test rows, last
    if len(order) > MANY:
        order = np.concatenate([order[: MANY // 2], order[-(MANY // 2) :]])
    heads = ("class", "test rows", *(["remembered"] if "remembered" in table else []))
    rows: Table = [(*heads, "recall alone", "recall", "change", "precision alone", "precision")]
    counts = ["support", *(["remembered"] if "remembered" in table else [])]
    for at in order.tolist():
        shares = [table[name][at] for name in ("base_recall", "recall", "gain", "base_precision", "precision")]
        written = [f"{100 * s:+.1f}" if i == 2 else f"{100 * s:.1f}" for i, s in enumerate(shares)]
        written = ["" if "nan" in one else one for one in written]
        rows.append((str(table["class"][at]), *(f"{table[name][at]:,}" for name in counts), *written))
    return rows


def _slices(result: Evaluation) -> Table:
    """Rare and frequent classes, and where the neighbours' labels agree with the model."""
    rows: Table = [("rows", ALONE, WITH, "change")]
    pairs = [(name, *of) for name, of in result.by_rarity.items()]
    for name, said in result.agreement.items() if result.objective != "log_loss" else ():
        if said["share"]:
            pairs.append(
                (f"where neighbours {name} ({100 * said['share']:.0f} % of rows)", said["base"], said["reader"])
            )
    rows += [(name, percent(base), percent(now), f"{100 * (now - base):+.2f} points") for name, base, now in pairs]
    return rows if len(rows) > 1 else []


def _tokens(result: Evaluation, measure: Measure) -> Table:
    """Groups of tokens other than by rarity, which is drawn."""
    rows: Table = [("tokens", "how many", ALONE, WITH, "change")]
    for way, groups in result.tokens.items():
        if way == "recital":
            rows += [
                (name, f"{n:,}", measure.shown(base), measure.shown(now), measure.changed(base, now))
                for name, (n, base, now) in groups.items()
            ]
    if result.bits_per_byte is not None:
        base, now = known(result.base_bits_per_byte), result.bits_per_byte
        rows.append(("bits per byte, all", f"{result.n:,}", f"{base:.4f}", f"{now:.4f}", measure.changed(base, now)))
    return rows if len(rows) > 1 else []


def _confusions(report: Report) -> tuple[Table, Table]:
    """The confusions that are mended most often, and those that are new."""
    found = report.result.confusions()
    tables: list[Table] = []
    for name in ("fixed", "introduced"):
        most = sorted(found, key=lambda one: -getattr(one, name))[:PAIRS]
        rows: Table = [("truth", "taken for", "fixed", "introduced", "before", "after")]
        for one in most:
            if getattr(one, name):
                said = report.called(one.label), report.called(one.said)
                counts = (one.fixed, one.introduced, one.errors, one.remaining)
                rows.append((*said, *(f"{n:,}" for n in counts)))
        tables.append(rows if len(rows) > 1 else [])
    return tables[0], tables[1]


def _reliability(curves: dict[str, Reliability], result: Evaluation) -> Lines | None:
    if not curves:
        return None
    table: Table = [("confidence", f"answers, {ALONE}", "right", f"answers, {WITH}", "right")]
    base, now = curves["base"], curves["reader"]
    for at in range(len(base.n)):
        if base.n[at] or now.n[at]:
            cells = [(f"{curve.n[at]:,}", percent(curve.accuracy[at]) if curve.n[at] else "") for curve in (base, now)]
            table.append((f"{100 * base.edges[at]:.0f} to {100 * base.edges[at + 1]:.0f} %", *cells[0], *cells[1]))
    return lines(
        [(ALONE, "base", base.confidence, base.accuracy), (WITH, "memory", now.confidence, now.accuracy)],
        alt=f"How often answers are right by how sure they are: off the diagonal by {percent(known(result.ece))} with "
        f"the memory, and by {percent(known(result.base_ece))} without.",
        table=table,
        x_label="confidence",
        y_label="share that is right",
        shown="{:.2g}".format,
        unit=True,
    )


def _risk(coverage: Coverage | None) -> Lines | None:
    if coverage is None or coverage.aurc is None or coverage.base_aurc is None:
        return None
    n = len(coverage.rows["in"])
    some = np.unique(np.linspace(0, n - 1, min(CURVE, n)).round().astype(int))
    if len(some) < 2:
        return None
    risks = {side: coverage.risk_coverage(side)[some] for side in ("base_", "")}
    shares = (some + 1) / n
    at = [int(np.searchsorted(shares, share)) for share in (0.25, 0.5, 0.75, 1.0)]
    table: Table = [("answered", f"wrong, {ALONE}", f"wrong, {WITH}")]
    table += [
        (f"{100 * shares[i]:.0f} %", percent(risks["base_"][i]), percent(risks[""][i])) for i in at if i < len(some)
    ]
    return lines(
        [(ALONE, "base", shares, risks["base_"]), (WITH, "memory", shares, risks[""])],
        alt=f"The share of wrong answers among the surest: on average over all coverages {percent(coverage.aurc)} with "
        f"the memory, {percent(coverage.base_aurc)} without.",
        table=table,
        x_label="share of rows that are answered, the surest first",
        y_label="wrong",
        shown=lambda value: f"{100 * value:.3g} %",
        dots=False,
    )


def _coverage(coverage: Coverage | None) -> Table:
    if coverage is None:
        return []
    what = "mean width" if coverage.task == "regression" else "classes in a set"
    rows: Table = [("rows", f"inside, {ALONE}", f"inside, {WITH}", f"{what}, {ALONE}", f"{what}, {WITH}")]
    total = (coverage.base_coverage, coverage.coverage, coverage.base_size, coverage.size)
    for name, (base, now, width, size) in {
        f"all, {count(len(coverage.rows['in']), 'row')}": total,
        **coverage.by_distance,
    }.items():
        rows.append((name, percent(base), percent(now), f"{width:.4g}", f"{size:.4g}"))
    return rows
