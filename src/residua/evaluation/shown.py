"""An evaluation as the table that is printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from residua.evaluation import tokens
from residua.evaluation.cells import change, in_points, known, percent
from residua.printable import count, short

if TYPE_CHECKING:
    from residua.evaluation.result import Evaluation


def rows_of(result: Evaluation) -> list[tuple[str, str, str, str]]:
    """The table, whose first measure is what the verdict is about."""
    rows, text = [("", "base", "memory", "change")], result.objective == "log_loss"
    measure = "{:.5g}".format if result.task == "regression" else percent
    if text:
        base, now = known(result.base_perplexity), known(result.perplexity)
        rows += [("perplexity", f"{base:.3f}", f"{now:.3f}", change(base, now)), *_of_tokens(result)]
    if result.task != "regression":
        names = {"classification": "next-token accuracy" if text else "accuracy", "multi-label": "labels right"}
        name, base, now = names[result.task], result.base_accuracy, result.accuracy
        rows.append((name, percent(known(base)), percent(known(now)), in_points(result.gain)))
        shares = {
            "balanced accuracy": (result.base_balanced_accuracy, result.balanced_accuracy),
            "micro F1": (result.base_f1_micro, result.f1_micro),
            "macro F1": (result.base_f1_macro, result.f1_macro),
            "mean average precision": (result.base_mean_average_precision, result.mean_average_precision),
        } | {f"accuracy, {called}": pair for called, pair in result.by_rarity.items()}
        uneven = result.task == "multi-label" or (not text and _uneven(result.support))
        for called, (base, now) in shares.items() if uneven else ():
            if base is not None and now is not None:
                rows.append((called, percent(base), percent(now), in_points(now - base)))
        base, now = known(result.base_ece), known(result.ece)
        rows.append(("calibration error", percent(base), percent(now), in_points(now - base)))
        if not text:
            base, now = known(result.base_log_loss), known(result.log_loss)
            rows.append(("log-loss", f"{base:.4f}", f"{now:.4f}", f"{now - base:+.4f}"))
        alone = {"wrong made right (TPR)": result.tpr, "right made wrong (FPR)": result.fpr}
    else:
        base, now = known(result.base_mse), known(result.mse)
        rows.append(("mean squared error", measure(base), measure(now), f"{-result.gain:+.4g}"))
        base, now = known(result.base_r2), known(result.r2)
        rows.append(("R²", f"{base:.4f}", f"{now:.4f}", f"{now - base:+.4f}"))
        alone = {"points improved": result.improved, "points worsened": result.worsened}
    rows += [(name, "", percent(known(share)), "") for name, share in alone.items()]
    if result.label_knn is not None:
        rows.append(("label k-NN, same settings", "", measure(result.label_knn), ""))
    if result.label_knn_tuned is not None and result.label_knn_params is not None:
        settings = f"k={result.label_knn_params['k']}, sigma={short(result.label_knn_params['sigma'])}"
        rows.append((f"label k-NN, {settings}", "", measure(result.label_knn_tuned), ""))
    for name, said in () if text else result.agreement.items():
        if said["share"]:
            base, now = said["base"], said["reader"]
            where = f"where neighbours {name} ({100 * said['share']:.0f} %)"
            rows.append((where, percent(base), percent(now), in_points(now - base)))
    if result.exact_matches:
        rows.append(("same key or id in the memory", "", count(result.exact_matches, "row"), ""))
    if text and result.tokens_per_second:
        base, now = known(result.base_tokens_per_second), result.tokens_per_second
        rows.append(("tokens per second", f"{base:,.0f}", f"{now:,.0f}", f"{base / now:.2f}x the time"))
    return rows


def _of_tokens(result: Evaluation) -> Iterator[tuple[str, str, str, str]]:
    """Perplexity in groups of tokens, and bits per byte."""
    for way, groups in result.tokens.items():
        for name, (n, base, now) in groups.items():
            if way != "distance" or name in (tokens.QUARTERS[0], tokens.QUARTERS[-1]):
                yield f"  {name} ({100 * n / result.n:.0f} %)", f"{base:.3f}", f"{now:.3f}", change(base, now)
    if result.bits_per_byte is not None:
        base, now = known(result.base_bits_per_byte), result.bits_per_byte
        yield "bits per byte", f"{base:.4f}", f"{now:.4f}", change(base, now)


def _uneven(support: np.ndarray | None) -> bool:
    """Whether a class has twice the rows of another: accuracy says little of the rare ones then."""
    there = np.zeros(0) if support is None else support[support > 0]
    return len(there) > 1 and bool(there.max() >= 2 * there.min())
