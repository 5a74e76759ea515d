"""A base that is no better than chance at its own labels: arrays in another order, or outputs that are no classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import log_softmax

from residua.caution import warn
from residua.core.logits import AbsentLogits, Table

if TYPE_CHECKING:
    from residua.core.encoded import Encoded

LEAST_ROWS = 100  # fewer say too little
_MOST_ROWS = 4096  # spread over all
_CHANCE = "the base is no better than chance at its own labels"
_CURE = (
    "Are keys, outputs and labels in the same order, and the outputs what they are taken for (output=)? If so, the "
    "base knows nothing of these labels"
)
_DOUBT = 2.0  # standard errors: a base that knows anything is further from chance on all but small data


def warn_if_chance(enc: Encoded) -> None:
    """``UserWarning`` when what the base says has nothing to do with the labels.

    A base that says the same of every row knows nothing and claims nothing: it is left in peace, as is one whose logits
    were not kept.
    """
    if isinstance(enc.logits, AbsentLogits):
        return
    found = None if enc.labels is None or len(enc) < LEAST_ROWS else _found(enc, enc.labels)
    if found is not None:
        warn(f"{found}, and a gain over this base would mean little")


def _found(enc: Encoded, all_labels: np.ndarray) -> str | None:
    """What is wrong, and what may be the cause; None where nothing is."""
    n = len(enc)
    rows = np.linspace(0, n - 1, min(n, _MOST_ROWS)).astype(int)
    said, labels = Table(enc.logits.rows(torch.from_numpy(rows))).table().cpu().numpy(), all_labels[rows]
    if (said == said[0]).all() or not np.isfinite(said).all():
        return None
    if enc.task != "classification":
        targets = labels.reshape(said.shape).astype(np.float64)
        if (targets == targets[0]).all() or _in_errors((_ranks(said) * _ranks(targets)).sum(axis=1)) >= _DOUBT:
            return None
        what = f"predictions and targets of {n} rows do not rise and fall together"
        return f"{_CHANCE}: {what}. {_CURE}"
    share, best = np.bincount(labels, minlength=said.shape[1]) / len(labels), said.argmax(axis=1)
    used, among = int((share > 0).sum()), share[best] > 0
    common = share.max() + _DOUBT * math.sqrt(share.max() * (1 - share.max()) / len(rows))
    if 1 < used <= len(share) / 2 and among.mean() < 0.9 and (best == labels).mean() < common:
        # Numbers of an embedding go with the classes somehow, so that no test against chance finds them.
        return (
            f"the labels use {used} of {len(share)} outputs, and the largest output is among these in only "
            f"{100 * among.mean():.1f} % of {n} rows. Are the outputs an embedding (pass output=None), or of other "
            "classes? If so, they are no base for these labels"
        )
    ranks = _ranks(log_softmax(said, axis=1))
    expected = ranks @ share  # of a label dealt out at random
    if share.max() == 1 or _in_errors(_of(labels, ranks) - expected) >= _DOUBT:
        return None
    chance = float(share @ np.bincount(best, minlength=len(share))) / len(best)
    what = f"{100 * (best == labels).mean():.1f} % of {n} rows are right, where chance gives {100 * chance:.1f} %"
    for shift, where in ((-1, "before"), (1, "after")):
        shifted = np.roll(all_labels, shift)[rows]
        if _in_errors(_of(shifted, ranks) - expected) >= 3 * _DOUBT:
            right = f"{100 * (best == shifted).mean():.1f} % would be"
            what = f"{what}. With each label given to the row {where} it, {right}: labels are shifted by a row"
    return f"{_CHANCE}: {what}. {_CURE}"


def _ranks(values: np.ndarray) -> np.ndarray:
    """Each column's ranks, from -0.5 to 0.5: scales, rare classes and outliers do not count."""
    from scipy.stats import rankdata  # half a second, which only labelled rows should cost

    return (rankdata(values, axis=0) - (len(values) + 1) / 2) / len(values)


def _of(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values[np.arange(len(values)), labels]


def _in_errors(values: np.ndarray) -> float:
    """The mean, in standard errors."""
    error = values.std() / math.sqrt(len(values))
    return float(values.mean() / error) if error > 0 else math.inf
