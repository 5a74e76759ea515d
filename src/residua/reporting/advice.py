"""What to try next, from what was found; the most urgent first."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from residua.evaluation import Evaluation, mcnemar
from residua.evaluation.cells import known
from residua.index import ENOUGH
from residua.readers import NeighbourReader, Reader

if TYPE_CHECKING:
    from residua.reporting.report import Report

SUGGESTIONS = 3
FEW = 10  # documents, or other groups of rows
MATTERS = 0.02  # of calibration error: what is worth a suggestion


def advice(report: Report, reader: Reader) -> list[str]:
    """At most three suggestions."""
    result, measure, found = report.result, report.measure, []
    silent, text = report.silent, measure.name == "perplexity"
    if result.rests_on_matches:
        found.append(
            "Give the remembered and the tested examples their ids, so that no row is answered from itself, or test on "
            "other rows."
        )
    if silent:
        found.append(
            "The memory is not used. Remember other examples (of where the model fails), other keys (key=), or try "
            "another reader, such as rs.KNNLM; else keep the model as it is."
        )
    elif result.gain == 0 and measure.base == measure.now:
        found.append("Keep the model alone: on these rows the memory makes nothing better.")
    elif not result.helps:
        found.append("Do not use the memory like this: tune the reader on validation rows, or keep the model alone.")
    if not result.significant and result.helps and not result.rests_on_matches:
        found.append(_more_rows(report))
    if result.n_groups < min(FEW, result.n) and result.significant:
        found.append(f"Test on more documents: {result.n_groups} are too few for an interval to be trusted.")
    if not silent and _is_default(reader):
        found.append(
            "Tune the reader on rows that are not remembered, rs.tune(reader, validation): it has its defaults."
        )
    edges = [name for surface in report.surfaces for name in surface.edges]
    if edges and not silent:
        found.append(f"The best of {_and(edges)} is the last value that was tried: try values beyond it.")
    if report.cost.found is not None and report.cost.found < ENOUGH:
        found.append(
            f"The index finds {100 * report.cost.found:.0f} % of the true neighbours: try memory.rebuild(), or a more "
            "exact index."
        )
    if isinstance(reader, NeighbourReader) and not text and (voted := _surely_better(result)):
        found.append(
            f"The neighbours' labels alone do better ({measure.name} {measure.shown(voted)}): tune rs.KNNLM(memory)."
        )
    if result.ece is not None and result.base_ece is not None and result.ece > result.base_ece + MATTERS:
        likely = "log_loss" in getattr(reader, "results_", {})
        cures = [
            *([] if likely else ["tune it by log-loss"]),
            *([] if text else ["use rs.conformal where you act on it"]),
        ]
        if cures:
            found.append(f"It says less well than the model how sure it is: {', or '.join(cures)}.")
    if report.review is not None and report.review.harmed and (result.row_gain < 0).any():
        found.append(
            "Look at the memories that harmed: relabel or forget what is wrong, and see on other rows if it helped."
        )
    if report.review is not None and report.review.test_duplicates:
        found.append(
            f"{report.review.test_duplicates:,} remembered rows have a near-duplicate among the tested ones: see that "
            "the two are apart."
        )
    if len(report.distances) > 1 and result.helps:
        far = report.distances[-1]
        if measure.gained(far.base, far.reader) <= 0:
            found.append(
                f"Far from all memories (beyond {far.low:.3g}) nothing is gained: remember examples like those rows."
            )
    if report.review is None and report.auditable and not silent:
        found.append("Ask rs.audit(reader, validation) which memories harm, and whose labels are doubtful.")
    if not found:
        found.append("Use it: rs.attach(model, reader). Add examples where it still fails, and test again.")
    return list(dict.fromkeys(found))[:SUGGESTIONS]


def _is_default(reader: Reader) -> bool:
    """Whether all its parameters are those that it has when none is given."""
    if not isinstance(reader, NeighbourReader) or hasattr(reader, "fit"):
        return False
    usual: Any = type(reader)
    _, *parameters = inspect.signature(usual).parameters.values()  # the memory comes first
    if any(one.default is one.empty for one in parameters):
        return False
    return reader.to_json()["params"] == usual(reader.memory).to_json()["params"]


def _surely_better(result: Evaluation) -> float | None:
    """What label k-NN scores, where it beats the reader beyond chance; else None."""
    name = "label_knn_tuned" if result.label_knn_tuned is not None else "label_knn"
    scored = getattr(result, name)
    if scored is None:
        return None
    if result.task == "classification":
        voted, right = result.per_row[name], result.per_row["prediction"] == result.per_row["label"]
        better, worse = int((voted & ~right).sum()), int((right & ~voted).sum())
        return scored if better > worse and mcnemar(better, worse) < 1 - result.confidence else None
    off = (
        result.per_row[name] - known(result.mse)
        if result.task == "regression"
        else known(result.accuracy) - result.per_row[name]
    )
    error = off.std() / len(off) ** 0.5
    return scored if off.mean() < -2 * error else None


def _more_rows(report: Report) -> str:
    """How many rows would tell, were the gain what it is here."""
    result = report.result
    interval = result.gain_interval
    if interval is None or result.objective == "log_loss":
        return "Test on more rows, or documents: these cannot say whether the gain is chance."
    half = (interval[1] - interval[0]) / 2
    times = (half / result.gain) ** 2 if result.gain else float("inf")
    if not 1 < times < 1000:
        return "Test on more rows: these cannot say whether the gain is chance."
    many = _round(times * result.n)
    return f"Test on more rows: about {many:,} would tell, if the gain is what it is on these {result.n:,}."


def _round(number: float) -> int:
    digits = len(str(int(number))) - 2
    return int(round(number, -max(digits, 0)))


def _and(names: list[str]) -> str:
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last
